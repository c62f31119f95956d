"""Measure inputs on the workers of a dask cluster.

By dask's own client, not by joblib's backend for dask, so that waits are bounded and what goes
wrong is said in words.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from tritier.calibration import Arrays
from tritier.errors import InputError, ServerError
from tritier.noise import InputScores
from tritier.workflow.noise_work import Packed, Work, measure_packed, worker_facts

WAIT_S = 10.0  # for a scheduler to answer, and for a first worker
_LOOK_S = 2.0  # between looks at whether workers are still there
# Inputs per thread of a worker that are sent ahead, so that none waits for the next.
_AHEAD = 2


def check_scheduler(address: str) -> None:
    """Raise InputError without the package or for an address that is none, ServerError when the
    scheduler does not answer in 10 s, has no worker in 10 s more, or workers that would give other
    scores."""
    with _connected(address) as client:
        _alike_workers(client, address)


def measured_by_dask(
    work: Work, inputs: Iterator[tuple[int, Arrays]], address: str
) -> Generator[tuple[int, InputScores], None, None]:
    """(number, scores) of each (number, arrays), as they are done, by the workers that are there
    when it begins.

    When it is closed early, inputs that no worker has begun are not begun. Raises what
    `check_scheduler` and `Work.measure` raise, and ServerError when workers are lost.
    """
    with _connected(address) as client:
        run = _Run(client, address, _alike_workers(client, address), work)
        try:
            for number, arrays in inputs:
                run.send(number, arrays)
                while run.is_full:
                    yield from run.done()
            while run.waiting:
                yield from run.done()
        finally:
            run.cancel()


class _Run:
    """Inputs that are on their way."""

    def __init__(self, client: Any, address: str, workers: list[str], work: Work) -> None:
        self._client = client
        self._address = address
        self._workers = workers
        self._most: int = _AHEAD * sum(client.nthreads(workers).values())
        self._name = f"tritier-noise-{uuid4().hex}"
        # On each worker, so that the loss of one does not lose it.
        self._packed = client.scatter(Packed.of(work), workers=workers, broadcast=True, hash=False)
        self.waiting: set[Any] = set()

    @property
    def is_full(self) -> bool:
        return len(self.waiting) >= self._most

    def send(self, number: int, arrays: Arrays) -> None:
        [sent] = self._client.scatter([arrays], workers=self._workers, hash=False)
        future = self._client.submit(
            measure_packed, self._packed, sent, number,
            key=f"{self._name}-{number}", workers=self._workers, pure=False,
        )  # fmt: skip
        self.waiting.add(future)

    def done(self) -> list[tuple[int, InputScores]]:
        """Wait for at least one."""
        from distributed import wait
        from distributed.scheduler import KilledWorker

        try:
            while True:
                with suppress(TimeoutError), self._client.as_current():
                    found = wait(self.waiting, timeout=_LOOK_S, return_when="FIRST_COMPLETED")
                    break
                self._look()
            self.waiting -= found.done
            return [future.result() for future in found.done]
        except (CancelledError, KilledWorker, OSError) as error:
            raise self._lost(error) from None

    def _look(self) -> None:
        there = self._client.nthreads()
        if not set(self._workers) & set(there):
            raise self._lost("none of them is left")

    def _lost(self, why: object) -> ServerError:
        return ServerError(
            f"workers of the dask scheduler at {self._address} were lost ({why}): what was "
            "measured is stored; call it again to go on from there"
        )

    def cancel(self) -> None:
        if self.waiting:
            with suppress(CancelledError, OSError, TimeoutError):
                self._client.cancel(list(self.waiting))


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """A client of the scheduler, for the block."""
    if importlib.util.find_spec("distributed") is None:
        raise InputError("--backend dask needs dask: install it with pip install 'tritier[dask]'")
    from distributed import Client

    try:
        asyncio.run(_knock(address))
        client = Client(address, timeout=WAIT_S, set_as_default=False)
    except OSError as error:
        raise ServerError(
            f"no dask scheduler answers at {address} within {WAIT_S:g} s "
            f"({str(error) or type(error).__name__}): start one with `dask scheduler`, or give its "
            "address with --scheduler"
        ) from None
    except ValueError as error:
        raise InputError(
            f"--scheduler {address}: is no address ({error}); allowed are tcp://HOST:PORT and "
            "tls://HOST:PORT"
        ) from None
    try:
        yield client
    finally:
        client.close(timeout=WAIT_S)


async def _knock(address: str) -> None:
    """Raise an OSError unless something that speaks dask answers in time: `Client` would wait for
    ever for one that takes the connection and says nothing."""
    from distributed.comm import connect
    from distributed.security import Security

    options = Security().get_connection_args("client")
    comm = await asyncio.wait_for(connect(address, timeout=WAIT_S, **options), WAIT_S)
    await comm.close()


def _alike_workers(client: Any, address: str) -> list[str]:
    """The addresses of all workers; each would give the scores that this machine gives."""
    try:
        client.wait_for_workers(1, timeout=WAIT_S)
    except TimeoutError:
        raise ServerError(
            f"the dask scheduler at {address} has no worker after {WAIT_S:g} s: start some with "
            f"`dask worker {address}`"
        ) from None
    found = client.run(worker_facts, on_error="return")
    own = worker_facts()
    faults = [
        f"{worker}: {fault}"
        for worker, facts in sorted(found.items())
        for fault in _differences(facts, own)
    ]
    if faults:
        raise ServerError(
            "workers would give other scores than this machine: install the same there, use "
            "machines of one kind, or --backend threading\n"
            + "\n".join(f"  - {fault}" for fault in faults)
        )
    return sorted(found)


def _differences(facts: Mapping[str, str] | BaseException, own: Mapping[str, str]) -> list[str]:
    if isinstance(facts, BaseException):
        return [f"can't be asked ({type(facts).__name__}: {facts})"]
    return [
        f"{name} is '{facts[name]}' there, '{own[name]}' here"
        for name in own
        if facts[name] != own[name]
    ]
