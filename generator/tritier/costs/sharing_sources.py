"""Requests of streams over many runs: when they come, what they take, and what became of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritier.costs.sharing_load import Floats, Stream

Ints = NDArray[np.int64]
# Random numbers of a stream in a run; longer runs take them again from the start.
_NUMBERS = 2048
# What starts empty settles in the first third; what comes last meets streams that have ended.
_FROM, _TO = 1 / 3, 0.9


@dataclass(frozen=True)
class Effort:
    """How much is simulated: `runs` that are independent, in each at least `requests` of all
    streams together and `each` of each stream."""

    runs: int
    requests: int
    each: int
    seed: int = 1


class Sources:
    """The requests of all runs (rows) and streams (columns): when the next one of each comes, and
    how long it takes. What is drawn for a stream hangs neither on the others nor on the horizon."""

    def __init__(self, streams: Sequence[Stream], effort: Effort, horizon_ms: float) -> None:
        self.runs, self.count = effort.runs, len(streams)
        self.number = np.zeros((self.runs, self.count), np.int64)
        kinds = [item.arrivals.kind for item in streams]
        self._closed = np.array([kind == "closed" for kind in kinds])
        self._poisson = np.array([kind == "poisson" for kind in kinds])
        self._interval = np.array([item.arrivals.interval_ms for item in streams])
        self._outside = np.array([item.outside_ms for item in streams])
        self._size = _size(streams, horizon_ms)
        self._service = np.stack([
            _draw(effort, 2, index, self._size, item.service_ms)
            for index, item in enumerate(streams)
        ])  # fmt: skip
        self._gap: Floats | None = None
        if self._poisson.any():
            self._gap = np.stack([
                item.arrivals.interval_ms * _draw(effort, 1, index, self._size, None)
                for index, item in enumerate(streams)
            ])  # fmt: skip
        self._phase = _phases(streams, effort)
        self.head = self._phase * (self._interval + np.where(self._closed, self._outside, 0.0))
        if self._gap is not None:
            first = self._interval * -np.log1p(-self._phase)
            self.head = np.where(self._poisson, first, self.head)

    def service(self, rows: Ints, chosen: Ints) -> Floats:
        """Service times of the next requests of the chosen streams, one in each of the runs."""
        number = self.number[rows, chosen] % self._size
        found: Floats = self._service[chosen, rows, number]
        return found

    def advance(self, rows: Ints, chosen: Ints, done: Floats) -> None:
        """The next requests of the chosen streams are answered at `done`: the ones after them."""
        self.head[rows, chosen] = self._following(rows, chosen, self.head[rows, chosen], done)
        self.number[rows, chosen] += 1

    def _following(self, rows: Ints, chosen: Ints, came: Floats, done: Floats) -> Floats:
        number, interval = self.number[rows, chosen], self._interval[chosen]
        # Not the last arrival and one interval more: sums would drift apart.
        following: Floats = (self._phase[rows, chosen] + number + 1) * interval
        if self._gap is not None:
            gap = self._gap[chosen, rows, number % self._size]
            following = np.where(self._poisson[chosen], came + gap, following)
        back = done + interval + self._outside[chosen]
        return np.where(self._closed[chosen], back, following)

    def service_of(self, stream: int, run: int, number: int) -> float:
        """Service time of one request."""
        return float(self._service[stream, run, number % self._size])

    def arrival_after(self, stream: int, run: int, number: int, came: float) -> float | None:
        """When the request after that one comes; None if the stream is closed."""
        if self._closed[stream]:
            return None
        if self._poisson[stream]:
            assert self._gap is not None
            return came + float(self._gap[stream, run, number % self._size])
        return float((self._phase[run, stream] + number + 1) * self._interval[stream])

    def return_of(self, stream: int, done_ms: float) -> float | None:
        """When a closed stream comes back after an answer; None if it is open."""
        if not self._closed[stream]:
            return None
        return done_ms + float(self._interval[stream] + self._outside[stream])


class Log:
    """What was served of the requests that count: stream, arrival and end. What starts empty
    settles before the first of them comes; what comes after the last meets streams that have
    ended."""

    def __init__(self, horizon_ms: float) -> None:
        self._low_ms, self._high_ms = _FROM * horizon_ms, _TO * horizon_ms
        self._rows: list[tuple[Ints, Floats, Floats]] = []

    def __len__(self) -> int:
        return sum(row[0].size for row in self._rows)

    def add(self, chosen: Ints, came: Floats, done: Floats) -> None:
        """Some requests; only those that count are kept."""
        kept = (came >= self._low_ms) & (came < self._high_ms)
        if kept.any():
            self._rows.append((chosen[kept], came[kept], done[kept]))

    def latencies(self, streams: Sequence[Stream]) -> list[Floats]:
        """By stream."""
        none = (np.empty(0, np.int64), np.empty(0), np.empty(0))
        chosen, came, done = (np.concatenate(part) for part in zip(none, *self._rows, strict=True))
        time = done - came
        return [time[chosen == i] + item.outside_ms for i, item in enumerate(streams)]


def _size(streams: Sequence[Stream], horizon_ms: float) -> int:
    """Enough numbers for the busiest stream, at most _NUMBERS."""
    shortest = min(
        item.mean_ms + item.outside_ms + item.arrivals.interval_ms
        if item.arrivals.kind == "closed"
        else item.arrivals.interval_ms
        for item in streams
    )
    return min(_NUMBERS, math.ceil(1.2 * horizon_ms / max(shortest, 1e-6)) + 16)


def _draw(effort: Effort, what: int, index: int, size: int, samples: Floats | None) -> Floats:
    """Numbers (runs x size) of a stream: of the samples, or exponential with mean 1. A larger size
    has the same numbers first."""
    draw = np.random.default_rng([effort.seed, what, index])
    shape = (size, effort.runs)
    if samples is None:
        return np.ascontiguousarray(draw.exponential(1.0, shape).T)
    return np.ascontiguousarray(draw.choice(samples, size=shape).T)


def _phases(streams: Sequence[Stream], effort: Effort) -> Floats:
    """Where in its first interval each stream starts, from 0 to 1, in each run."""
    columns = []
    for item in streams:
        fixed = 0.0 if item.arrivals.phases == "worst" else item.arrivals.phase
        drawn = np.random.default_rng([effort.seed, 0, item.source]).random(effort.runs)
        columns.append(drawn if fixed is None else np.full(effort.runs, fixed))
    return np.column_stack(columns)
