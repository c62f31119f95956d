"""Turns as Triton's rate limiter gives them (docs/sharing.md, section 4), by simulation.

Of the waiting instances the one with the fewest executions since it was loaded, times its priority,
goes first; among equals the order is that of a binary heap, neither of arrival nor random. So it is
played here as the server does it: a waiting request takes a free instance of its model, and that
instance waits for the resource.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tritier.costs.sharing_load import Station, Stream
from tritier.costs.sharing_sources import Log, Sources


@dataclass(eq=False)
class Instance:
    """An instance of a Triton model. What it serves: stream, when it came, the time it takes."""

    model: str
    priority: int
    done: int = 0
    serves: tuple[int, float, float] = (0, 0.0, 0.0)

    @property
    def rank(self) -> int:
        """The least goes first."""
        return self.done * self.priority


class Heap:
    """The priority queue of the C++ standard library, with its order among equals."""

    def __init__(self) -> None:
        self._items: list[Instance] = []

    def __len__(self) -> int:
        return len(self._items)

    def push(self, item: Instance) -> None:
        """Add."""
        self._items.append(item)
        self._rise(len(self._items) - 1, item)

    def pop(self) -> Instance:
        """Take the least."""
        items = self._items
        last = items.pop()
        if not items:
            return last
        found, hole, size = items[0], 0, len(items)
        child = 0
        while child < (size - 1) // 2:  # down to a leaf, along the lesser; of equals the right one
            child = 2 * (child + 1)
            if items[child].rank > items[child - 1].rank:
                child -= 1
            items[hole] = items[child]
            hole = child
        if size % 2 == 0 and child == (size - 2) // 2:
            child = 2 * child + 1
            items[hole] = items[child]
            hole = child
        self._rise(hole, last)
        return found

    def _rise(self, hole: int, item: Instance) -> None:
        items = self._items
        while hole > 0 and items[(hole - 1) // 2].rank > item.rank:
            items[hole] = items[(hole - 1) // 2]
            hole = (hole - 1) // 2
        items[hole] = item


@dataclass
class _Model:
    free: Heap = field(default_factory=Heap)
    pending: deque[tuple[int, float, float]] = field(default_factory=deque)


class _Limiter:
    """One run: models with their instances, and who waits for the resource."""

    def __init__(self, streams: Sequence[Stream], station: Station) -> None:
        self._of = [item.model or item.name for item in streams]
        self._models: dict[str, _Model] = {}
        self._staged = Heap()
        self._idle = station.instances
        for item, name in zip(streams, self._of, strict=True):
            if name not in self._models:
                self._models[name] = _Model()
                for _ in range(station.model_instances):
                    self._models[name].free.push(Instance(name, item.priority))

    def arrive(self, stream: int, now: float, service: float) -> Instance | None:
        """A request came; returns an instance that starts now."""
        model = self._models[self._of[stream]]
        model.pending.append((stream, now, service))
        self._stage(model)
        return self._start()

    def finish(self, instance: Instance) -> Instance | None:
        """An instance has ended; returns the one that starts now."""
        instance.done += 1
        self._idle += 1
        model = self._models[instance.model]
        model.free.push(instance)
        self._stage(model)
        return self._start()

    def _stage(self, model: _Model) -> None:
        while len(model.free) and model.pending:
            instance = model.free.pop()
            instance.serves = model.pending.popleft()
            self._staged.push(instance)

    def _start(self) -> Instance | None:
        if not len(self._staged) or not self._idle:
            return None
        self._idle -= 1
        return self._staged.pop()


def turns(sources: Sources, station: Station, streams: Sequence[Stream], horizon_ms: float) -> Log:
    """All runs, one after the other."""
    log = Log(horizon_ms)
    for run in range(sources.runs):
        rows = _run(sources, run, station, streams, horizon_ms)
        table = np.array(rows).reshape(-1, 3)
        log.add(table[:, 0].astype(np.int64), table[:, 1], table[:, 2])
    return log


def _run(
    sources: Sources, run: int, station: Station, streams: Sequence[Stream], horizon_ms: float
) -> list[tuple[float, float, float]]:
    limiter, rows = _Limiter(streams, station), []
    # (time, order, stream that asks or -1, instance that ends)
    events: list[tuple[float, int, int, Instance | None]] = []
    order = 0
    numbers = [0] * len(streams)
    for index in range(len(streams)):
        events.append((float(sources.head[run, index]), order, index, None))
        order += 1
    heapq.heapify(events)
    while events and events[0][0] <= horizon_ms:
        now, _, stream, ended = heapq.heappop(events)
        following: float | None
        if ended is None:
            service = sources.service_of(stream, run, numbers[stream])
            begun = limiter.arrive(stream, now, service)
            following = sources.arrival_after(stream, run, numbers[stream], now)
            numbers[stream] += 1
        else:
            stream, came, _ = ended.serves
            rows.append((float(stream), came, now))
            begun = limiter.finish(ended)
            following = sources.return_of(stream, now)
        if following is not None:
            heapq.heappush(events, (following, order, stream, None))
            order += 1
        if begun is not None:
            heapq.heappush(events, (now + begun.serves[2], order, -1, begun))
            order += 1
    return rows
