"""Bounded load on a model, every answer compared with the one that is known to be right."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tritier.deployment.access import connect
from tritier.divider import Arrays

Question = tuple[Arrays, Arrays]
# A request that is not answered this long after its deadline is given up, and counted as a breach.
_GRACE_S = 20.0


@dataclass(frozen=True)
class Answer:
    """One request. Times are of the monotonic clock; `due_s` is when it was to be sent.

    Attributes:
        status: "OK", or the name of the gRPC status.
        wrong: answered with status OK, and not what the whole model answers.
        plan: which plan answered, where the server says so, else empty.
        attempts: how often it was tried, where the server says so, else 0.
    """

    due_s: float
    start_s: float
    end_s: float
    status: str
    wrong: bool = False
    plan: str = ""
    attempts: int = 0
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is the right answer."""
        return self.status == "OK" and not self.wrong

    @property
    def ms(self) -> float:
        """From sending to the answer."""
        return (self.end_s - self.start_s) * 1000


class Asker:
    """One model on one server and the questions that are asked of it, in turn."""

    def __init__(
        self,
        url: str,
        model: str,
        questions: Sequence[Question],
        deadline_ms: float = 10_000,
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._client = connect(url)
        self._model = model
        self._deadline_ms = deadline_ms
        self._parameters = dict(parameters or {}) or None
        self._headers = dict(headers or {}) or None
        self._asked = [(_inputs(arrays), right) for arrays, right in questions]

    def ask(self, number: int = 0, due_s: float | None = None) -> Answer:
        """Send the request of that number and compare its answer."""
        inputs, right = self._asked[number % len(self._asked)]
        start_s = time.monotonic()
        due = start_s if due_s is None else due_s
        try:
            result = self._client.infer(
                self._model,
                inputs,
                timeout=int(self._deadline_ms * 1000),
                client_timeout=self._deadline_ms / 1000 + _GRACE_S,
                parameters=self._parameters,
                headers=self._headers,
            )
        except InferenceServerException as error:
            status = str(error.status() or "UNKNOWN").removeprefix("StatusCode.")
            text = str(error.message())
            return Answer(due, start_s, time.monotonic(), status, message=text)
        end_s = time.monotonic()
        response = result.get_response()
        said = response.parameters
        return Answer(
            due,
            start_s,
            end_s,
            "OK",
            wrong=not _equal(right, {o.name: result.as_numpy(o.name) for o in response.outputs}),
            plan=said["tritier_plan"].string_param if "tritier_plan" in said else "",
            attempts=_number(said["tritier_attempts"]) if "tritier_attempts" in said else 0,
        )

    def close(self) -> None:
        self._client.close()


@dataclass
class Load:
    """What has been answered so far; grows while the load runs."""

    answers: list[Answer] = field(default_factory=list)
    started_s: float = field(default_factory=time.monotonic)
    not_sent: int = 0  # open loop: all senders were busy

    def wait_for(self, done: Callable[[list[Answer]], bool], timeout_s: float) -> None:
        """Wait until the answers satisfy `done`; AssertionError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not done(list(self.answers)):
            assert time.monotonic() < deadline, summary(self.answers)
            time.sleep(0.02)


@contextmanager
def closed_loop(asker: Asker, workers: int, pause_s: float = 0.0) -> Iterator[Load]:
    """`workers` requests in flight all the time, each sent when the one before it is answered.

    At the end of the block no more are sent, and those in flight are waited for.
    """
    load, stop = Load(), threading.Event()

    def work(first: int) -> None:
        number = first
        while not stop.is_set():
            load.answers.append(asker.ask(number))
            number += workers
            if pause_s:
                stop.wait(pause_s)

    with _threads([functools.partial(work, index) for index in range(workers)], stop):
        yield load


@contextmanager
def open_loop(asker: Asker, rate_per_s: float, senders: int = 128) -> Iterator[Load]:
    """`rate_per_s` requests per second, whether or not those before are answered.

    At most `senders` are in flight; what is due beyond that is not sent, and counted.
    """
    load, stop = Load(), threading.Event()
    free = threading.Semaphore(senders)
    turn = threading.Condition()
    due: list[tuple[int, float]] = []

    def send() -> None:
        while True:
            with turn:
                turn.wait_for(lambda: bool(due) or stop.is_set())
                if not due:
                    return
                number, due_s = due.pop(0)
            load.answers.append(asker.ask(number, due_s))
            free.release()

    def tick() -> None:
        number = 0
        while not stop.is_set():
            due_s = load.started_s + number / rate_per_s
            stop.wait(max(0.0, due_s - time.monotonic()))
            number += 1
            if not free.acquire(blocking=False):
                load.not_sent += 1
                continue
            with turn:
                due.append((number, due_s))
                turn.notify()
        with turn:
            turn.notify_all()

    with _threads([tick, *[send] * senders], stop):
        yield load


def summary(answers: Iterable[Answer]) -> str:
    """Counts and quantiles in one line, for messages of tests."""
    known = list(answers)
    statuses = dict(Counter(a.status for a in known))
    plans = dict(Counter(a.plan for a in known if a.status == "OK"))
    messages = list(dict.fromkeys(a.message[:300] for a in known if a.message))[:3]
    wrong = sum(a.wrong for a in known)
    times = ", ".join(f"p{q * 100:.0f} {ms:.0f} ms" for q, ms in quantiles_ms(known).items())
    return f"{len(known)} answers, {statuses}, plans {plans}, {wrong} wrong, {times}; {messages}"


def quantiles_ms(
    answers: Iterable[Answer], wanted: Sequence[float] = (0.5, 0.9, 0.99, 1.0)
) -> dict[float, float]:
    """Quantiles of the time from sending to the answer; empty without answers."""
    times = sorted(a.ms for a in answers)
    return {q: float(np.quantile(times, q)) for q in wanted} if times else {}


def between(answers: Iterable[Answer], from_s: float, to_s: float = float("inf")) -> list[Answer]:
    """The requests that were sent in that time."""
    return [a for a in answers if from_s <= a.start_s < to_s]


def goodput_per_s(answers: Iterable[Answer], from_s: float, to_s: float) -> float:
    """Right answers per second that came in that time."""
    return sum(a.ok and from_s <= a.end_s < to_s for a in answers) / (to_s - from_s)


@contextmanager
def _threads(jobs: Sequence[Callable[[], None]], stop: threading.Event) -> Iterator[None]:
    failures: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # a sender that dies must fail the test
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def _inputs(arrays: Arrays) -> list[Any]:
    items = []
    for name, array in arrays.items():
        item = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        item.set_data_from_numpy(array)
        items.append(item)
    return items


def _number(parameter: Any) -> int:
    return int(parameter.string_param or parameter.int64_param)


def _equal(right: Arrays, found: Mapping[str, Any]) -> bool:
    return right.keys() == found.keys() and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array, equal_nan=True)
        for name, array in right.items()
    )
