"""Start the processes of a load test, wait for them, and end them whatever happens."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tritier.bench.locust_job import (
    FOLDER_VARIABLE,
    PROGRESS_NAME,
    RESULT_NAME,
    STOP_NAME,
    LoadJob,
)
from tritier.documents.load import LoadResult
from tritier.errors import InputError, ServerError
from tritier.files import write_file
from tritier.resources import loadtests_dir

Report = Callable[[str], None]
LOOPBACK = "127.0.0.1"
MASTER_PORT = 5557  # Locust's own
_GRACE_S = 6.0  # of loadtests/infer.py, after a request's deadline
_WORKERS_WAIT_S = 60
_START_S = 60.0
_END_S = 30.0
_POLL_S = 0.1
_LOG_SHOWN = 1500


@dataclass(frozen=True)
class Processes:
    """Which processes there are.

    Attributes:
        workers: processes on this machine that ask; one asks without a master if nobody else does.
        expect: workers on other machines, for which the master waits.
        bind: address at which the master listens for them.
        port: of the master; 0 for a free one.
        master: address of the master of another machine, whose workers run here.
        web_port: of the web page on 127.0.0.1; None for none.
    """

    workers: int = 1
    expect: int = 0
    bind: str = LOOPBACK
    port: int = 0
    master: str | None = None
    web_port: int | None = None

    @property
    def distributed(self) -> bool:
        """Whether there is a master apart from those who ask."""
        return self.workers + self.expect > 1 or self.expect > 0


def check_locust() -> None:
    """Raise InputError unless Locust is installed."""
    if importlib.util.find_spec("locust") is None:
        raise InputError("load tests need Locust: pip install 'tritier[loadtest]'")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as made:
        made.bind((LOOPBACK, 0))
        return int(made.getsockname()[1])


def commands(job: LoadJob, how: Processes, port: int) -> dict[str, list[str]]:
    """Name -> command of each process, the one that ends with the test first."""
    folder = loadtests_dir()
    files = f"{folder / 'infer.py'},{folder / 'shape.py'}"
    base = [sys.executable, "-m", "locust", "-f", files, "--only-summary"]
    base += ["--stop-timeout", f"{job.settings.timeout_ms / 1000 + _GRACE_S:g}"]
    if how.master is not None:
        return _workers(base, how.workers, how.master, port)
    head = ["--headless"]
    if how.web_port is not None:
        head = ["--autostart", "--web-host", LOOPBACK, "--web-port", str(how.web_port)]
    if not how.distributed:
        return {"locust": [*base, *head]}
    expected = str(how.workers + how.expect)
    master = [*base, *head, "--master", "--master-bind-host", how.bind, "--master-bind-port"]
    master += [str(port), "--expect-workers", expected]
    if not how.expect:  # those of other machines are started by hand, whenever that is
        master += ["--expect-workers-max-wait", str(_WORKERS_WAIT_S)]
    near = LOOPBACK if how.bind in ("0.0.0.0", "*") else how.bind  # noqa: S104 - as it was asked
    return {"master": master, **_workers(base, how.workers, near, port)}


def _workers(base: list[str], count: int, host: str, port: int) -> dict[str, list[str]]:
    own = ["--worker", "--master-host", host, "--master-port", str(port)]
    return {f"worker {k}": [*base, *own] for k in range(count)}


def shown(command: list[str], folder: Path) -> str:
    """A command as a shell takes it, with the variable that it needs."""
    return f"{FOLDER_VARIABLE}={shlex.quote(str(folder))} {shlex.join(command)}"


@dataclass
class LoadProcesses:
    """Running processes of a test. Each leads a session of its own, so that Ctrl-C reaches the one
    that waits for them alone, which then ends them in order."""

    folder: Path
    job: LoadJob
    how: Processes
    report: Report
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _told: int = 0
    _lost: dict[str, str] = field(default_factory=dict)

    def run(self) -> LoadResult | None:
        """Run the test to its end; None where a master on another machine has the result.

        On the first Ctrl-C (or SIGTERM) requests in flight are waited for, and what there is comes
        back as interrupted; on the second all processes are killed. Raises ServerError if Locust
        fails.
        """
        port = self.how.port or (free_port() if self.how.bind == LOOPBACK else MASTER_PORT)
        try:
            with _interrupts() as interrupted:
                for name, command in commands(self.job, self.how, port).items():
                    self._start(name, command)
                self._wait(interrupted)
        finally:
            self._end_all()
        if self.how.master is not None:
            return None
        return self._result()

    def _start(self, name: str, command: list[str]) -> None:
        with self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                env=_environment(os.environ, self.folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, interrupted: Callable[[], int]) -> None:
        main = next(iter(self._running.values()))
        all_wait = self.how.master is not None
        stopped_at: float | None = None
        limit_s = self._limit_s()
        started = time.monotonic()
        while main.poll() is None or (all_wait and self._any_runs()):
            now = time.monotonic()
            self._tell()
            self._look_at_workers()
            if interrupted() and not self._told:  # the test has not begun: there is no result
                raise KeyboardInterrupt
            if interrupted() and stopped_at is None:
                stopped_at = now
                self._ask_to_stop()
            patience_s = self.job.settings.timeout_ms / 1000 + _GRACE_S + _END_S
            late = stopped_at is not None and now > stopped_at + patience_s
            if now > started + limit_s:
                self._lost["limit"] = f"the test did not end within {limit_s:.0f} s: it was ended"
            if interrupted() > 1 or late or "limit" in self._lost:
                return
            time.sleep(_POLL_S)
        self._tell()

    def _limit_s(self) -> float:
        """After that something hangs. A person ends what has a web page or other machines."""
        if self.how.web_port is not None or self.how.expect or self.how.master is not None:
            return float("inf")
        last_s = self.job.settings.timeout_ms / 1000 + _GRACE_S
        return _START_S + _WORKERS_WAIT_S + self.job.duration_s + last_s + _END_S

    def _ask_to_stop(self) -> None:
        """The shape sees the file and lets no more requests be sent. Behind a web page there may be
        no test now: it is ended itself."""
        self.report("ending: waiting for requests in flight (Ctrl-C again gives them up)")
        write_file(self.folder / STOP_NAME, "")
        main = next(iter(self._running.values()))
        if self.how.web_port is not None and main.poll() is None:
            main.send_signal(signal.SIGTERM)

    def _tell(self) -> None:
        path = self.folder / PROGRESS_NAME
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines[self._told :]:
            self.report(line)
        self._told = len(lines)

    def _look_at_workers(self) -> None:
        """A worker that ends before the master does is missed; before the test began, the test
        can't begin."""
        if self.how.master is not None or "master" not in self._running:
            return
        for name, process in self._running.items():
            code = process.poll()
            if name in self._lost or name == "master" or code is None:
                continue
            if not self._told:
                raise ServerError(
                    f"{name} of the load test ended at its start:\n{self._tail(name)}"
                )
            time.sleep(5 * _POLL_S)  # at the end of a test they end just before the master
            if self._running["master"].poll() is None and code != 0:
                self._lost[name] = f"{name} ended with code {code} during the test"

    def _any_runs(self) -> bool:
        return any(process.poll() is None for process in self._running.values())

    def _end_all(self) -> None:
        """End what still runs: workers get a moment after their master has ended."""
        deadline = time.monotonic() + 5
        if all(p.poll() is not None for p in list(self._running.values())[:1]):
            while self._any_runs() and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        for sent in (signal.SIGTERM, signal.SIGKILL):
            alive = [p for p in self._running.values() if p.poll() is None]
            for process in alive:
                process.send_signal(sent)
            for process in alive:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)

    def _result(self) -> LoadResult:
        path = self.folder / RESULT_NAME
        name = next(iter(self._running))
        if not path.is_file():
            why = "".join(f" ({text})" for text in self._lost.values())
            raise ServerError(f"Locust wrote no result{why}:\n{self._tail(name)}")
        found = LoadResult.load(path)
        if not self._told and not found.requests:
            raise ServerError(f"Locust sent nothing:\n{self._tail(name)}")
        return found.model_copy(update={"warnings": (*found.warnings, *self._lost.values())})

    def _log(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '_')}.log"

    def _tail(self, name: str) -> str:
        return self._log(name).read_text(encoding="utf-8", errors="replace")[-_LOG_SHOWN:]


def _environment(own: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Without settings of Locust that a user has for other tests."""
    kept = {name: value for name, value in own.items() if not name.startswith("LOCUST_")}
    return {**kept, FOLDER_VARIABLE: str(folder.absolute()), "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], int]]:
    """Counts SIGINT, SIGTERM and SIGHUP (unless it is ignored, as by nohup) instead of being ended
    by them; only a main thread can."""
    count = 0

    def took(_number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, took) for number in numbers}
    try:
        yield lambda: count
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
