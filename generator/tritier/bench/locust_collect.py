"""What each process of a load test does besides asking: count, tell the master, write the result.

Nothing of Locust is imported here: it changes the standard library of a process when it is. What
is called `runner` is Locust's, of the master, of a worker, or of the only process.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from pathlib import Path
from typing import Any, Literal

from tritier.bench.locust_job import (
    PROGRESS_NAME,
    RESULT_NAME,
    SAMPLES_NAME,
    STOP_NAME,
    named_folder,
    read_job,
)
from tritier.bench.locust_result import Run, load_result
from tritier.bench.locust_samples import FAILED, WRONG, Samples, Tag
from tritier.bench.locust_shapes import Level
from tritier.documents.load import LoadResult
from tritier.files import write_file

Role = Literal["local", "master", "worker"]
MESSAGE_SAMPLES = "tritier_samples"
MESSAGE_FLUSH = "tritier_flush"
_POLL_S = 0.05
# The master waits so long for the last samples of its workers.
_FLUSH_S = 10.0
_BUSY = (
    "a process that sends requests used over 90 % of a core: times may be those of the process; "
    "use more --workers, on other machines if there are no free cores here"
)
_OTHER_JOB = (
    "worker {}: asks other inputs, classes or plans than the master, or in another way; it is not "
    "counted"
)
_LOST = "worker {}: did not hand over its last requests; it may have ended, or lost the master"
# By so much a worker's test may begin later than the master's without being noticed; messages take
# their time, too.
_LATE_S = 0.5
_log = logging.getLogger(__name__)


class Collector:
    """The samples of this process; in the master, and in the only process, those of all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job, self.questions = read_job(folder)
        self.samples = Samples()
        self.role: Role = "local"
        self.locust = "unknown"
        self.led = False
        self._started = time.perf_counter()
        self._ended_s: float | None = None
        self._most_users = 0
        self._workers: set[str] = set()
        self._flushed: set[str] = set()
        self._later_s: dict[str, float] = {}
        self._warnings: dict[str, None] = {}
        self._busy = False

    def start(self) -> None:
        """A test begins, perhaps not the first of this process."""
        self.samples = Samples()
        self._started = time.perf_counter()
        self._ended_s = None
        self._most_users = 0
        self._workers = set()
        self._later_s = {}
        self._warnings = {}
        self._busy = False

    @property
    def now_s(self) -> float:
        """Since the start of the test."""
        return time.perf_counter() - self._started

    def add(self, sent_s: float, ms: float, outcome: int, tag: Tag, message: str = "") -> None:
        """A request of this process has ended."""
        self.samples.add(sent_s, ms, outcome, tag, message)

    def busy(self) -> None:
        """Take note that the process needs more of the processor than there is."""
        self._busy = True
        if self.role != "worker":
            self._warnings[_BUSY] = None

    def saw_users(self, count: int) -> None:
        """So many users there are now."""
        self._most_users = max(self._most_users, count)

    # What workers and master tell each other

    def send(self, runner: Any, flushed: bool = False) -> None:
        """Worker: hand what there is to the master; if that fails it is kept for the next time."""
        if not flushed and not len(self.samples):
            return
        taken = self.samples.take()
        data = {
            "samples": taken.to_data(),
            "fingerprint": self.job.fingerprint,
            "now_s": self.now_s,
            "busy": self._busy,
            "flushed": flushed,
        }
        try:
            runner.send_message(MESSAGE_SAMPLES, data)
        except Exception as error:  # Locust's own, of a package that is not imported here
            _log.warning("the master can't be told of %d requests yet: %s", len(taken), error)
            taken.merge(self.samples)
            self.samples = taken

    def receive(self, worker: str, data: Any) -> None:
        """Master: what a worker hands over."""
        try:
            if data["fingerprint"] != self.job.fingerprint:
                self._warnings[_OTHER_JOB.format(worker)] = None
            else:
                taken = Samples.from_data(data["samples"])
                taken.shift(self._behind_s(worker, float(data["now_s"])))
                self.samples.merge(taken)
                self._workers.add(worker)
            if data["busy"]:
                self._warnings[_BUSY] = None
            if data["flushed"]:
                self._flushed.add(worker)
        except (KeyError, TypeError, ValueError) as error:
            self._warnings[f"worker {worker}: its samples can't be read: {error}"] = None

    def _behind_s(self, worker: str, now_s: float) -> float:
        """How much later than the master's a worker's test has begun, as of one that came later:
        by the message that was the fastest."""
        found = min(self.now_s - now_s, self._later_s.get(worker, math.inf))
        self._later_s[worker] = found
        return found if found > _LATE_S else 0.0

    def flush(self, runner: Any) -> None:
        """Master: wait until all workers have handed over what they have."""
        if self.role != "master":
            return
        self._flushed = set()
        runner.send_message(MESSAGE_FLUSH, {})
        deadline = time.monotonic() + _FLUSH_S
        while len(self._flushed) < runner.worker_count and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        # Also those that are gone: the runner does not count them any more.
        for worker in sorted(self._workers - self._flushed):
            self._warnings[_LOST.format(worker)] = None
        silent = runner.worker_count - len(self._flushed | self._workers)
        if silent > 0:
            self._warnings[f"{silent} workers never handed over any requests"] = None

    # The end

    @property
    def stop_wanted(self) -> bool:
        """Whether whoever started the processes wants the test to end now."""
        return (self.folder / STOP_NAME).exists()

    def end(self) -> None:
        """From now on no requests are sent; the first call counts."""
        if self._ended_s is None:
            self._ended_s = self.now_s

    def progress(self, text: str) -> None:
        """One line for whoever started the processes."""
        counts = self.samples.outcome
        line = (
            f"{text} ({len(counts)} requests, {counts.count(FAILED)} failed, "
            f"{counts.count(WRONG)} wrong so far)"
        )
        with (self.folder / PROGRESS_NAME).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def result(self) -> LoadResult:
        """The document of the test, as far as it came."""
        whole_s = self.job.duration_s
        end_s = self.now_s if self._ended_s is None else self._ended_s
        levels = self.job.levels
        if self.led:
            levels = (Level(start_s=0, end_s=max(end_s, 1e-6), users=max(self._most_users, 1)),)
        run = Run(
            levels=levels,
            end_s=end_s if self.led else min(end_s, whole_s),
            workers=max(len(self._workers), 1),
            locust=self.locust,
            # A level ends some milliseconds around its time.
            interrupted=not self.led and end_s < whole_s - 0.1,
            led=self.led,
            warnings=tuple(self._warnings),
        )
        return load_result(self.job, self.samples, run)

    def write(self) -> LoadResult:
        """Write document and samples to the folder."""
        found = self.result()
        write_file(self.folder / SAMPLES_NAME, self.samples.to_csv())
        write_file(self.folder / RESULT_NAME, found.to_json())
        return found


@functools.cache
def collector() -> Collector:
    """The only one of this process, for the folder that the environment names."""
    return Collector(named_folder())
