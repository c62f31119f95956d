"""Load by this tool itself: a check of perf_analyzer that has only the server in common with it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import grpc
import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype

from tritier.bench.figures import latency_figures
from tritier.bench.inputs import Sample
from tritier.deployment.access import open_channel
from tritier.documents import OpenLoopCheck
from tritier.documents.bench import Arrivals
from tritier.errors import ServerError, TritierError

# Over this it is said that the two do not agree.
TOLERANCE = 0.05
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_DEADLINE_S = 60.0
_CONNECT_S = 30.0
# So many requests of an open loop may be under way; what comes beyond that waits, which counts.
_MOST_SENDERS = 64
# Of fewer requests at random times nothing is said: that many may be late by chance.
LEAST_DECIDED = 100
_GROUPS = 10
# 97.5 % quantile of Student's t for as many groups, less the two numbers of a line.
_T_OF_GROUPS = 2.306


@dataclass(frozen=True)
class OwnLoad:
    """What is sent. `offered`: requests in flight (closed) or per second; ends after `requests` or
    `most_s`, whichever is first, after `warmup` requests that do not count. A request without an
    answer after `deadline_s` has failed."""

    url: str
    model: str
    samples: Sequence[Sample]
    arrivals: Arrivals
    offered: float
    requests: int
    most_s: float
    warmup: int = 3
    seed: int = 0
    deadline_s: float = _DEADLINE_S

    @property
    def senders(self) -> int:
        """Threads, each with a connection of its own."""
        if self.arrivals == "closed":
            return int(self.offered)
        return min(_MOST_SENDERS, max(1, self.requests))


@dataclass
class _Found:
    """(sent or due, answered) in seconds of the monotonic clock, one per answer. `broken`: what
    ended a sender that should not have ended."""

    times: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    broken: list[Exception] = field(default_factory=list)


@dataclass(frozen=True)
class OwnFigures:
    """What came of it. `rate_per_s`: requests answered per second while the load ran;
    `growth`: seconds by which latency grows per second, 0 where what comes is kept up with;
    `growth_low`: it is that much at least, with 97.5 % confidence, None of too few requests."""

    requests: int
    failures: tuple[str, ...]
    duration_s: float
    rate_per_s: float
    growth: float
    growth_low: float | None
    mean_ms: float
    p50_ms: float
    p95_ms: float


def run_own_load(load: OwnLoad) -> OwnFigures:
    """Send it and wait for all answers; raises ServerError if not one request is answered, or if a
    sender can't connect or breaks off."""
    found, stop = _Found(), threading.Event()
    schedule = _Schedule(load)
    ready = threading.Barrier(load.senders + 1)
    requests = [_encoded(load.model, sample) for sample in load.samples]  # once: they may be large
    senders = [_Sender(load, requests, schedule, ready, stop, found) for _ in range(load.senders)]
    threads = [
        threading.Thread(target=sender.run, args=(number == 0,), daemon=True)
        for number, sender in enumerate(senders)
    ]
    for thread in threads:
        thread.start()
    try:
        with suppress(threading.BrokenBarrierError):  # why stands in `broken`
            ready.wait()
        for thread in threads:
            thread.join()
    finally:
        stop.set()  # on Ctrl-C, they end after the answer that they wait for
        ready.abort()
    if found.broken:
        first = found.broken[0]
        if isinstance(first, TritierError):
            raise first
        raise ServerError(f"tritier's own load broke off: {type(first).__name__}: {first}")
    return _figures(found, load.senders if load.arrivals == "closed" else 0)


class _Schedule:
    """When the next request is due; shared by all senders."""

    def __init__(self, load: OwnLoad) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._count = 0
        self._start_s: float | None = None
        self._due_s = 0.0
        self._gaps = np.random.default_rng(load.seed)

    def next(self) -> tuple[int, float | None] | None:
        """(number, when it is due; None for at once); None at the end."""
        with self._lock:
            now = time.monotonic()
            if self._start_s is None:
                self._start_s = self._due_s = now
            if self._load.arrivals == "closed":
                due, over = None, now - self._start_s > self._load.most_s
            else:
                due = self._due_s
                over = due - self._start_s > self._load.most_s
                self._due_s += self._gap_s()
            if self._count >= self._load.requests or over:
                return None
            self._count += 1
            return self._count - 1, due

    def _gap_s(self) -> float:
        mean = 1 / self._load.offered
        return float(self._gaps.exponential(mean)) if self._load.arrivals == "poisson" else mean


@dataclass(frozen=True)
class _Sender:
    load: OwnLoad
    requests: Sequence[bytes]
    schedule: _Schedule
    ready: threading.Barrier
    stop: threading.Event
    found: _Found

    def run(self, warms_up: bool) -> None:
        """Send what is due until the end. One sender warms the server up: as many as there are
        would be a load of their own."""
        try:
            with open_channel(self.load.url) as channel:
                ask = _asker(channel, self.load.deadline_s)
                self._connect(channel)
                if warms_up:
                    for number in range(max(1, self.load.warmup)):
                        with suppress(grpc.RpcError):
                            ask(self.requests[number % len(self.requests)])
                # All connections are made before the first request counts.
                self.ready.wait()
                self._send(ask)
        except threading.BrokenBarrierError:
            return  # another one could not begin
        except Exception as error:  # a thread has nobody else to tell
            self.found.broken.append(error)
            self.stop.set()
            self.ready.abort()

    def _connect(self, channel: grpc.Channel) -> None:
        try:
            grpc.channel_ready_future(channel).result(_CONNECT_S)
        except grpc.FutureTimeoutError:
            raise ServerError(
                f"tritier's own load can't connect to {self.load.url} within {_CONNECT_S:.0f} s"
            ) from None

    def _send(self, ask: Callable[[bytes], object]) -> None:
        while not self.stop.is_set() and (turn := self.schedule.next()) is not None:
            number, due_s = turn
            if due_s is not None and self.stop.wait(max(0.0, due_s - time.monotonic())):
                return
            start_s = time.monotonic() if due_s is None else due_s
            try:
                ask(self.requests[number % len(self.requests)])
                self.found.times.append((start_s, time.monotonic()))
            except grpc.RpcError as error:
                self.found.failures.append(f"{error.code().name} {error.details()}"[:300])


def _asker(channel: grpc.Channel, deadline_s: float) -> Callable[[bytes], object]:
    """Sends bytes and gets bytes: making and reading messages in Python takes longer than in
    perf_analyzer, and is no part of what is compared."""
    call = channel.unary_unary(_INFER)
    return lambda request: call(request, timeout=deadline_s)


def _encoded(model: str, sample: Sample) -> bytes:
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, array in sample.items():
        datatype = np_to_triton_dtype(array.dtype)
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(np.ascontiguousarray(array).tobytes())
    return bytes(request.SerializeToString())


def _figures(found: _Found, senders: int = 0) -> OwnFigures:
    """`senders`: of a closed loop, 0 of an open one."""
    times = sorted(found.times)
    if not times:
        reason = found.failures[0] if found.failures else "no sender could connect"
        raise ServerError(f"no request of the check was answered: {reason}")
    # The first of each sender are sent at one moment, which later ones are not.
    counted = times[senders:] or times
    figures = latency_figures([(end - start) * 1000 for start, end in counted])
    last_end = max(end for _, end in times)
    growth, low = _growth(times)
    return OwnFigures(
        requests=len(times),
        failures=tuple(found.failures),
        duration_s=last_end - times[0][0],
        rate_per_s=_rate_per_s(times, senders),
        growth=growth,
        growth_low=low,
        mean_ms=figures.mean_ms,
        p50_ms=figures.p50_ms,
        p95_ms=figures.p95_ms,
    )


def _rate_per_s(times: Sequence[tuple[float, float]], senders: int) -> float:
    """Answers per second, of a closed loop while all senders have a request in flight: from the
    end of the first round to when the last request was sent. Answers may come in bunches, and from
    the first to the last answer there would be a bunch more than the time holds."""
    ends = sorted(end for _, end in times)
    if 0 < senders < len(ends):
        start, stop = ends[senders - 1], max(sent for sent, _ in times)
        answers = sum(start < end <= stop for end in ends)
        if answers and stop > start:
            return answers / (stop - start)
    between_s = ends[-1] - ends[0]
    lone = 1 / (ends[-1] - times[0][0])
    return (len(ends) - 1) / between_s if between_s > 0 else lone


def _growth(times: Sequence[tuple[float, float]]) -> tuple[float, float | None]:
    """(slope of latency over the time at which a request was due, lower end of its 95 % interval;
    None of too few requests). By means of groups of successive requests: neighbours wait in the
    same queue, so that single ones would say too small an interval."""
    if len(times) < LEAST_DECIDED:
        return 0.0, None
    groups = np.array_split(np.array(times), _GROUPS)
    due = np.array([group[:, 0].mean() for group in groups])
    latency = np.array([(group[:, 1] - group[:, 0]).mean() for group in groups])
    apart = due - due.mean()
    squares = float((apart**2).sum())
    if squares <= 0:
        return 0.0, None
    slope = float((apart * latency).sum()) / squares
    rest = latency - latency.mean() - slope * apart
    error = math.sqrt(float((rest**2).sum()) / (_GROUPS - 2) / squares)
    return max(0.0, slope), slope - _T_OF_GROUPS * error


def compared(
    load: OwnLoad, own: OwnFigures, batch: int, infer_per_s: float, p50_ms: float | None
) -> OpenLoopCheck:
    """The check beside figures of perf_analyzer at the same load; without `p50_ms` the load was
    another one, and it is only asked whether it is kept up with.

    How many random arrivals there are is chance: for them the same is asked instead of throughput.
    """
    rate = own.rate_per_s * batch
    random = load.arrivals == "poisson" or not p50_ms
    differences = [own.growth if random else abs(rate / infer_per_s - 1)]
    if p50_ms:
        differences.append(abs(own.p50_ms / p50_ms - 1))
    verdict: bool | None = max(differences) <= TOLERANCE
    if random:
        verdict = _kept_up(own, differences[1:])
    return OpenLoopCheck(
        arrivals=load.arrivals,
        offered=load.offered,
        batch=batch,
        requests=own.requests,
        failures=len(own.failures),
        duration_s=own.duration_s,
        infer_per_s=rate,
        mean_ms=own.mean_ms,
        p50_ms=own.p50_ms,
        p95_ms=own.p95_ms,
        difference=max(differences),
        agrees=False if own.failures else verdict,
    )


def _kept_up(own: OwnFigures, others: Sequence[float]) -> bool | None:
    """Of random arrivals: False if latency surely grows, or one of the other differences is too
    large; None if there are too few requests to tell."""
    if own.growth_low is None:
        return None
    if own.growth_low > TOLERANCE or any(item > TOLERANCE for item in others):
        return False
    return True if own.growth <= TOLERANCE else None
