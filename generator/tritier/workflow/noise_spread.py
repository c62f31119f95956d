"""Measure inputs side by side: in threads or processes of this machine, or on a dask cluster.

Each input is measured by itself, so that scores are the same, bit for bit, wherever and in
whatever order that is done.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Literal, get_args

from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor

from tritier.calibration import Arrays
from tritier.errors import ServerError
from tritier.noise import InputScores
from tritier.noise.metrics import Score
from tritier.workflow.noise_dask import measured_by_dask
from tritier.workflow.noise_work import Packed, Work, measure_packed

Backend = Literal["threading", "loky", "dask"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
Scores = Generator[tuple[int, InputScores], None, None]
Numbered = Iterator[tuple[int, Arrays]]


@dataclass(frozen=True)
class Where:
    """In which threads or processes inputs are measured: `jobs` of this machine (`loky` are
    processes), or all threads of the workers of the dask scheduler at an address."""

    backend: Backend = "threading"
    jobs: int = 1
    scheduler: str = ""


def measured_side_by_side(work: Work, inputs: Numbered, where: Where) -> Scores:
    """(number, scores) of each (number, arrays), as they are done; inputs are read when there is
    room for them. Closing it ends what runs, soon.

    Raises InputError for scores that mean nothing and what else a metric of the user raises;
    ServerError when workers are lost or can't be reached.
    """
    if where.backend == "dask":
        return measured_by_dask(work, inputs, where.scheduler)
    if where.backend == "loky":
        return _in_processes(work, inputs, where.jobs)
    return _in_threads(work, inputs, where.jobs)


def _in_threads(work: Work, inputs: Numbered, jobs: int) -> Scores:
    running = _Running(work)
    tasks = (delayed(running.measure)(arrays, number) for number, arrays in inputs)
    parallel = Parallel(
        n_jobs=jobs, require="sharedmem", return_as="generator_unordered", pre_dispatch="n_jobs"
    )
    results = parallel(tasks)
    try:
        for item in results:  # noqa: UP028 - `yield from` would close them first, with a warning
            yield item
    finally:
        with warnings.catch_warnings():  # of tasks that were begun, when a run is cut off
            warnings.simplefilter("ignore")
            results.close()
        running.stop()


def _in_processes(work: Work, inputs: Numbered, jobs: int) -> Scores:
    packed = Packed.of(work)
    tasks = (delayed(measure_packed)(packed, arrays, number) for number, arrays in inputs)
    parallel = Parallel(
        n_jobs=jobs, backend="loky", return_as="generator_unordered", pre_dispatch="n_jobs",
        batch_size=1, max_nbytes=None,
    )  # fmt: skip
    results = parallel(tasks)
    try:
        for item in results:  # noqa: UP028 - `yield from` would close them first, with a warning
            yield item
    except BrokenProcessPool as error:
        raise ServerError(
            f"a process that measured inputs has died, perhaps for want of memory ({error}): what "
            "was measured is stored; go on with fewer --jobs"
        ) from None
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.close()
        if jobs != 1:
            # They would wait for more work, with models in their memory.
            get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


class _CutOff(Exception):
    """The run was cut off."""


class _Running:
    """Inputs that are being measured. None may be when the process ends: a thread inside ONNX
    Runtime would abort it."""

    def __init__(self, work: Work) -> None:
        of_input = work.metric.of_input

        def guarded(reference: Arrays, found: Arrays, number: int) -> dict[str, Score]:
            self._check()
            return of_input(reference, found, number)

        self._work = replace(work, metric=replace(work.metric, of_input=guarded))
        self._count = 0
        self._changed = threading.Condition()
        self._stopped = threading.Event()

    def measure(self, arrays: Arrays, number: int) -> tuple[int, InputScores]:
        """The scores of one input; it ends early, with an error, after `stop`."""
        with self._changed:
            self._count += 1
        try:
            self._check()
            return number, self._work.measure(arrays, number)
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def stop(self) -> None:
        """Return when nothing runs any more, soon."""
        self._stopped.set()
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise _CutOff
