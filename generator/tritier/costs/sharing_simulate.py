"""Latencies of streams that share an accelerator, by simulation (docs/sharing.md, section 3).

Many independent runs go side by side as arrays: each step serves the next request of every run.
Random numbers belong to the stream and the number of its request: a stream keeps its arrivals and
service times however many others there are, and the same seed gives the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tritier.costs.sharing_load import Floats, Station, Stream, utilisation
from tritier.costs.sharing_sources import Effort, Log, Sources
from tritier.costs.sharing_turns import turns

# Phases of cameras differ between runs only: many short runs. Else, few long ones.
_PERIODIC = Effort(runs=768, requests=0, each=12)
_OTHER = Effort(runs=128, requests=1500, each=24)
# Closed streams settle at once.
_CLOSED = Effort(runs=128, requests=600, each=12)
# Turns are played one by one, not as arrays; slices take two steps for a request.
_FEWER_RUNS = {"fifo": 1, "turns": 6, "sliced": 3}
# So near to 1 is 1, but for rounding.
FULL = 1.0 - 1e-9
# Requests of all runs: with unequal rates the fast streams have many until the slow ones have
# enough. Fewer runs then do, as each is long.
_MOST_REQUESTS = 2_000_000
_LEAST_RUNS = 16


def simulate(
    streams: Sequence[Stream], station: Station, effort: Effort | None = None
) -> list[Floats]:
    """Latencies (ms) of each stream's requests, from when they come until they are answered, after
    a warm-up. ValueError if open streams ask for all the time, or more: latencies would grow for
    ever."""
    if not streams:
        raise ValueError("no stream to simulate")
    if utilisation(streams, station) >= FULL:
        raise ValueError("the streams ask for more time than there is")
    effort = effort or default_effort(streams, station)
    horizon_ms = _horizon_ms(streams, station, effort)
    sources = Sources(streams, effort, horizon_ms)
    serve = {"fifo": _one_by_one, "turns": turns, "sliced": _sliced}[station.discipline]
    with np.errstate(invalid="ignore"):  # inf - inf of streams that have ended
        log = serve(sources, station, streams, horizon_ms)
    return log.latencies(streams)


def default_effort(streams: Sequence[Stream], station: Station, seed: int = 1) -> Effort:
    """Enough for a 95th percentile within some percent, in a second or two."""
    kinds = {item.arrivals.kind for item in streams}
    effort = _OTHER
    if len(kinds) == 1:
        effort = {"periodic": _PERIODIC, "closed": _CLOSED, "poisson": _OTHER}[kinds.pop()]
    found = replace(effort, seed=seed)
    runs = found.runs // _FEWER_RUNS[station.discipline]
    each = _horizon_ms(streams, station, found) * sum(1.0 / x for x in _cycles(streams, station))
    return replace(found, runs=min(runs, max(_LEAST_RUNS, int(_MOST_REQUESTS / each))))


def _horizon_ms(streams: Sequence[Stream], station: Station, effort: Effort) -> float:
    """How long each run is."""
    cycles = _cycles(streams, station)
    each = max(cycles) * effort.each
    return max(each, effort.requests / sum(1.0 / cycle for cycle in cycles))


def _cycles(streams: Sequence[Stream], station: Station) -> list[float]:
    """About how long it is from a request of each stream to its next, in ms."""
    busy = sum(item.mean_ms for item in streams) / station.instances
    return [
        max(busy, item.mean_ms + item.outside_ms + item.arrivals.interval_ms)
        if item.arrivals.kind == "closed"
        else item.arrivals.interval_ms
        for item in streams
    ]


def _one_by_one(
    sources: Sources,
    station: Station,
    streams: Sequence[Stream],  # noqa: ARG001 - as `turns`
    horizon_ms: float,
) -> Log:
    """A request that has begun runs to its end."""
    log, rows = Log(horizon_ms), np.arange(sources.runs)
    free = np.zeros((sources.runs, station.instances))
    while True:
        place = free.argmin(axis=1)
        start = np.maximum(free[rows, place], sources.head.min(axis=1))
        if start.min() > horizon_ms:
            return log
        chosen = sources.head.argmin(axis=1)
        came = sources.head[rows, chosen].copy()
        done = start + sources.service(rows, chosen)
        free[rows, place] = done
        log.add(chosen, came, done)
        sources.advance(rows, chosen, done)


def _sliced(
    sources: Sources,
    station: Station,
    streams: Sequence[Stream],  # noqa: ARG001 - as `turns`
    horizon_ms: float,
) -> Log:
    """All waiting streams get equal shares at once; a stream's own requests run one by one."""
    log = Log(horizon_ms)
    now = np.zeros(sources.runs)
    everyone = np.arange(sources.runs)
    left = np.column_stack(
        [sources.service(everyone, np.full(sources.runs, i)) for i in range(sources.count)]
    )
    while now.min() <= horizon_ms:
        active = sources.head <= now[:, None]
        count = np.maximum(active.sum(axis=1), 1)
        rate = np.minimum(1.0, station.instances / count)
        rate = np.where(count > station.instances, rate * station.useful, rate)
        ends = np.where(active, left, np.inf)
        first = ends.argmin(axis=1)
        to_end = ends.min(axis=1) / rate
        to_next = np.where(active, np.inf, sources.head).min(axis=1) - now
        step = np.minimum(to_end, to_next)
        step = np.where(np.isfinite(step), step, horizon_ms)
        left = np.where(active, left - (rate * step)[:, None], left)
        # The next arrival, exactly: a sum could fall just short of it, for ever.
        now = np.where(to_next <= to_end, now + to_next, now + step)
        now = np.where(np.isfinite(now), now, 2 * horizon_ms)
        rows = np.flatnonzero(to_end <= to_next)
        rows = rows[np.isfinite(to_end[rows])]
        if rows.size:
            chosen = first[rows]
            log.add(chosen, sources.head[rows, chosen].copy(), now[rows])
            sources.advance(rows, chosen, now[rows])
            left[rows, chosen] = sources.service(rows, chosen)
    return log
