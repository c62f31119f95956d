"""Who shares an accelerator, streams of requests, and how (docs/sharing.md, section 1). Times in
ms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tritier.errors import InputError

Floats = NDArray[np.float64]
ArrivalKind = Literal["periodic", "poisson", "closed"]
Phases = Literal["random", "worst"]
Discipline = Literal["fifo", "turns", "sliced"]


@dataclass(frozen=True)
class Arrivals:
    """When requests of a stream come: at `interval_ms`, exactly (a camera) or on average (Poisson),
    or one after the other (closed), `interval_ms` after each answer. A periodic stream starts at
    `phase` of its first interval, from 0 to 1; drawn, or 0 in the worst case, if that is None."""

    kind: ArrivalKind
    interval_ms: float
    phases: Phases = "random"
    phase: float | None = None

    def __post_init__(self) -> None:
        if self.kind != "closed" and self.interval_ms <= 0:
            raise InputError(
                f"arrivals: an interval of {self.interval_ms:g} ms; allowed are numbers above 0"
            )


@dataclass(frozen=True)
class Stream:
    """Requests of one model from one source.

    `service_ms` are samples of the time that a request holds the accelerator, alone; `outside_ms`
    is the rest of its latency, which no other request makes longer. Streams of the same `source`
    start together: models that look at the same frame. A stream of priority 2 gets half the turns
    of one of priority 1, where turns are counted. Streams of the same `model` share its instances;
    by default each stream has a model of its own.
    """

    name: str
    service_ms: Floats
    arrivals: Arrivals
    outside_ms: float = 0.0
    priority: int = 1
    source: int = 0
    model: str | None = None

    @property
    def mean_ms(self) -> float:
        """Mean service time."""
        return float(self.service_ms.mean())


@dataclass(frozen=True)
class Station:
    """An accelerator or core. `instances` requests run at once, each as fast as alone. Where turns
    are counted, each Triton model has `model_instances` that wait for one.

    - `fifo`: who came first goes first; a request that runs is not interrupted.
    - `turns`: the stream with the fewest turns so far (times its priority) goes first, as with
      Triton's rate limiter.
    - `sliced`: all requests, one per stream, run in slices, as processes on a GPU; a change from
      one to another takes `switch_ms` after each `slice_ms`.
    """

    instances: int = 1
    model_instances: int = 1
    discipline: Discipline = "fifo"
    slice_ms: float = 2.0
    switch_ms: float = 0.0

    @property
    def useful(self) -> float:
        """Share of the time that is not lost with changes, where several take turns."""
        return self.slice_ms / (self.slice_ms + self.switch_ms)


def utilisation(streams: Sequence[Stream], station: Station) -> float:
    """Share of the accelerator's time that is asked for, by open streams; closed ones take what is
    left, and so never ask for too much."""
    open_streams = [item for item in streams if item.arrivals.kind != "closed"]
    load = sum(item.mean_ms / item.arrivals.interval_ms for item in open_streams)
    return load / _capacity(streams, station)


def served_share(streams: Sequence[Stream], station: Station, latencies: Sequence[Floats]) -> float:
    """Share of the accelerator's time that serves requests, at most 1. A closed stream has a
    request in each of its rounds: its latency (ms, by stream) and the pause after it."""
    rounds = [
        float(times.mean()) + item.arrivals.interval_ms
        if item.arrivals.kind == "closed"
        else item.arrivals.interval_ms
        for item, times in zip(streams, latencies, strict=True)
    ]
    load = sum(item.mean_ms / each for item, each in zip(streams, rounds, strict=True))
    return min(1.0, load / _capacity(streams, station))


def _capacity(streams: Sequence[Stream], station: Station) -> float:
    """Service time that fits into a unit of time."""
    useful = station.useful if station.discipline == "sliced" and len(streams) > 1 else 1.0
    return station.instances * useful


def samples_of(
    median_ms: float, p95_ms: float | None = None, count: int = 201, least_share: float = 0.5
) -> Floats:
    """Samples of a service time of which only median and 95th percentile are known: a log-normal
    distribution, at even quantiles, not below `least_share` of the median. Constant without a
    percentile. InputError if the percentile is below the median."""
    if p95_ms is None or math.isclose(p95_ms, median_ms):
        return np.full(1, median_ms)
    if p95_ms < median_ms:
        raise InputError(f"p95 {p95_ms:g} ms is below the median, {median_ms:g} ms: exchange them")
    normal = NormalDist()
    sigma = math.log(p95_ms / median_ms) / normal.inv_cdf(0.95)
    places = (np.arange(count) + 0.5) / count
    values = median_ms * np.exp([sigma * normal.inv_cdf(x) for x in places])
    found: Floats = np.maximum(values, least_share * median_ms)
    return found
