"""A small discrete-event model of the data plane: latency, throughput and energy of a pipeline.

Servers compute one component after another (or as many at once as they may), in the order in which
those become ready; a link carries one message after another. Since both serve in that order, the
start of each is known as soon as it is ready. Ties go to the earlier request, then to components
before messages, each by position. What is modelled, and what not: docs/simulator.md.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

from tritier.planner.simulation_graph import Moment, Pipeline


@dataclass(frozen=True)
class Event:
    """A component that computes ('compute') or a message on its link ('send'), by position.

    `place` is (server,) or (source server, target server). A message has left its link at
    `end_ms` and is there at `arrived_ms`.
    """

    kind: str
    index: int
    place: tuple[int, ...]
    start_ms: float
    end_ms: float
    arrived_ms: float


@dataclass(frozen=True)
class Simulated:
    """One request alone. `timeline` by time of start; `server_busy_ms` and `server_energy_joule`
    by server; `link_busy_ms` by (source server, target server), without links that carry nothing.
    `device_energy_joule` is that of the entry."""

    latency_ms: float
    timeline: tuple[Event, ...]
    server_busy_ms: tuple[float, ...]
    link_busy_ms: dict[tuple[int, int], float]
    server_energy_joule: tuple[float, ...]
    device_energy_joule: float


@dataclass(frozen=True)
class Throughput:
    """`concurrency` users, each with one request after another. Latencies and shares of time in
    use are of the requests, or the time, after the warm-up. `bound_per_s` is what the busiest
    server, component or link allows at most."""

    concurrency: int
    requests: int
    infer_per_s: float
    bound_per_s: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    server_share: tuple[float, ...]
    link_share: dict[tuple[int, int], float]


def simulate(pipeline: Pipeline) -> Simulated:
    """One request through an idle system.

    Compute power counts while a server computes, power of sending while a link is busy.
    """
    run = _Run(pipeline)
    ends = run.go(users=1, total=1)
    events = [run.event(*job) for job in run.jobs]
    busy = work_of(pipeline)
    energy = energy_of(pipeline)
    return Simulated(
        latency_ms=ends[0][1],
        timeline=tuple(sorted(events, key=lambda e: (e.start_ms, e.end_ms, e.kind, e.index))),
        server_busy_ms=busy[0],
        link_busy_ms=busy[1],
        server_energy_joule=energy,
        device_energy_joule=energy[pipeline.entry],
    )


def latency_ms(pipeline: Pipeline) -> float:
    """The latency of one request through an idle system."""
    return _Run(pipeline).go(users=1, total=1)[0][1]


def throughput(
    pipeline: Pipeline, concurrency: int, requests: int = 200, warmup: int | None = None
) -> Throughput:
    """Closed loop: `requests` count, after `warmup` (twice the concurrency if left out) that
    don't. Over a finite time more requests may end than the busiest part could serve in it, by
    those that were under way when it began: the rate is cut at the bound."""
    assert concurrency >= 1, concurrency
    assert requests >= 1, requests
    warmup = 2 * concurrency if warmup is None else warmup
    run = _Run(pipeline)
    ends = run.go(users=concurrency, total=warmup + requests)
    opened = ends[warmup - 1][1] if warmup else 0.0
    closed = ends[-1][1]
    assert math.isfinite(closed), "something takes for ever: the placement is not allowed"
    window = closed - opened
    bound = bound_per_s(pipeline)
    rate = 1000.0 * requests / window if window > 0 else math.inf
    spent = np.array([end - start for start, end in ends[warmup:]])
    p50, p90, p99 = (float(x) for x in np.percentile(spent, [50, 90, 99]))
    servers, links = run.used(opened, closed)
    return Throughput(
        concurrency=concurrency,
        requests=requests,
        infer_per_s=min(rate, bound),
        bound_per_s=bound,
        mean_ms=float(spent.mean()),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        server_share=tuple(
            _share(used, window * pipeline.slots(k)) for k, used in enumerate(servers)
        ),
        link_share={link: _share(used, window) for link, used in links.items()},
    )


def bound_per_s(pipeline: Pipeline) -> float:
    """Requests per second that no concurrency can exceed; infinite if nothing takes time."""
    servers, links = work_of(pipeline)
    longest = max(
        [
            *(busy / pipeline.slots(k) for k, busy in enumerate(servers)),
            *(c.compute_ms / c.instances for c in pipeline.components),
            *links.values(),
        ],
        default=0.0,
    )
    return 1000.0 / longest if longest > 0 else math.inf


def work_of(pipeline: Pipeline) -> tuple[tuple[float, ...], dict[tuple[int, int], float]]:
    """Time in ms that a request takes of each server, and of each link that carries something."""
    servers = [0.0] * pipeline.servers
    for component in pipeline.components:
        servers[component.server] += component.compute_ms
    links: dict[tuple[int, int], float] = {}
    for message in pipeline.messages:
        if message.link_ms > 0:
            link = (message.source_server, message.target_server)
            links[link] = links.get(link, 0.0) + message.link_ms
    return tuple(servers), links


def energy_of(pipeline: Pipeline) -> tuple[float, ...]:
    """Energy of a request in J, by server."""
    servers, links = work_of(pipeline)
    sending = [0.0] * pipeline.servers
    for (source, _), busy in links.items():
        sending[source] += busy
    zero = (0.0,) * pipeline.servers
    return tuple(
        (compute * busy + send * sent) / 1000.0
        for compute, busy, send, sent in zip(
            pipeline.compute_watt or zero, servers, pipeline.send_watt or zero, sending, strict=True
        )
    )


def _share(used: float, available: float) -> float:
    return used / available if available > 0 else 0.0


class _Run:
    """Requests on their way. Nodes are components, then messages, then the end of a request."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._count = len(pipeline.components)
        self._last = self._count + len(pipeline.messages)
        self._link_free: dict[tuple[int, int], float] = {}
        self._slots = [[0.0] * pipeline.slots(k) for k in range(pipeline.servers)]
        self._instances = [[0.0] * c.instances for c in pipeline.components]
        # (node, request, start, end, arrival) of all that was served
        self.jobs: list[tuple[int, int, float, float, float]] = []
        self._connect()

    def _connect(self) -> None:
        """Who waits for what of each node, and how many things each node waits for."""
        count, last = self._count, self._last
        self._next: dict[Moment, list[list[int]]] = {m: [[] for _ in range(last)] for m in Moment}
        arrived = self._next[Moment.ARRIVED]
        for index, component in enumerate(self._pipeline.components):
            arrived[index].append(last)
            for earlier in component.after:
                arrived[earlier].append(index)
        for index, message in enumerate(self._pipeline.messages, start=count):
            for source in message.sources:
                arrived[source].append(index)
            arrived[index] += message.targets
            arrived[index] += [last] * message.to_app
            for other, moment in message.waits:
                self._next[moment][count + other].append(index)
        self._needs = [0] * (last + 1)
        for table in self._next.values():
            for waiting in table:
                for node in waiting:
                    self._needs[node] += 1

    def go(self, users: int, total: int) -> list[tuple[float, float]]:
        """(start, end) of the first `total` requests that end. Until then no user rests."""
        begun = total + users - 1
        needs = [[*self._needs] for _ in range(begun)]
        ready = [[0.0] * (self._last + 1) for _ in range(begun)]
        starts: list[float] = []
        ends: list[tuple[float, float]] = []
        heap: list[tuple[float, int, int]] = []

        def begin(now: float) -> None:
            request = len(starts)
            starts.append(now)
            for node, count in enumerate(self._needs):
                if count == 0:
                    heapq.heappush(heap, (now, request, node))

        def tell(nodes: list[int], request: int, when: float) -> None:
            missing, times = needs[request], ready[request]
            for node in nodes:
                missing[node] -= 1
                times[node] = max(times[node], when)
                if missing[node] == 0:
                    heapq.heappush(heap, (times[node], request, node))

        for _ in range(users):
            begin(0.0)
        issued, arrived, acknowledged = (self._next[moment] for moment in Moment)
        while heap:
            now, request, node = heapq.heappop(heap)
            if node == self._last:
                ends.append((starts[request], now))
                if len(starts) < begun:
                    begin(now)
                if len(ends) == total < begun:
                    break
                continue
            job = self._serve(node, request, now)
            self.jobs.append(job)
            tell(arrived[node], request, job[4])
            if node >= self._count:
                tell(issued[node], request, now)
                back = self._pipeline.messages[node - self._count].ack_ms
                tell(acknowledged[node], request, job[4] + back)
        assert len(ends) == total, "the components or messages wait for each other in a circle"
        return ends

    def event(self, node: int, _request: int, start: float, end: float, arrived: float) -> Event:
        """A job of one request."""
        if node < self._count:
            place: tuple[int, ...] = (self._pipeline.components[node].server,)
            return Event("compute", node, place, start, end, arrived)
        message = self._pipeline.messages[node - self._count]
        place = (message.source_server, message.target_server)
        return Event("send", node - self._count, place, start, end, arrived)

    def used(
        self, opened: float, closed: float
    ) -> tuple[list[float], dict[tuple[int, int], float]]:
        """Time in ms for which each server and link was in use within a window."""
        servers = [0.0] * self._pipeline.servers
        links = dict.fromkeys(work_of(self._pipeline)[1], 0.0)
        for job in self.jobs:
            event = self.event(*job)
            within = max(0.0, min(event.end_ms, closed) - max(event.start_ms, opened))
            if event.kind == "compute":
                servers[event.place[0]] += within
            elif within:
                links[event.place[0], event.place[1]] += within
        return servers, links

    def _serve(self, node: int, request: int, now: float) -> tuple[int, int, float, float, float]:
        if node < self._count:
            component = self._pipeline.components[node]
            start = self._reserve(component.server, node, now, component.compute_ms)
            end = start + component.compute_ms
            return node, request, start, end, end
        message = self._pipeline.messages[node - self._count]
        if message.link_ms == 0:
            return node, request, now, now, now + message.delay_ms
        link = (message.source_server, message.target_server)
        start = max(now, self._link_free.get(link, 0.0))
        end = self._link_free[link] = start + message.link_ms
        return node, request, start, end, end + message.delay_ms

    def _reserve(self, server: int, component: int, now: float, takes_ms: float) -> float:
        """Start in the slot of the server that waited least of those free by then."""
        slots, instances = self._slots[server], self._instances[component]
        if len(slots) == 1:  # then no component needs a second instance
            start = max(now, slots[0])
            slots[0] = start + takes_ms
            return start
        instance = min(range(len(instances)), key=instances.__getitem__)
        start = max(now, instances[instance], min(slots))
        slot = max((i for i, free in enumerate(slots) if free <= start), key=slots.__getitem__)
        slots[slot] = instances[instance] = start + takes_ms
        return start
