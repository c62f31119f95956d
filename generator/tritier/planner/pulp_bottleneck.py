"""Throughput of requests that follow each other closely: the busiest server or link limits it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

from tritier.planner.evaluate import Costs
from tritier.planner.problem import Problem
from tritier.planner.pulp_model import constrained
from tritier.planner.pulp_rows import Sum, safe
from tritier.planner.pulp_solve import Settings, settle
from tritier.planner.pulp_solvers import DEFAULT_SOLVER
from tritier.planner.pulp_sums import Model
from tritier.planner.solution import GAP, Solution

# How much of the bottleneck the search for a shorter latency may not add.
_SLACK = 1e-9


def solve_bottleneck(
    problem: Problem,
    *,
    solver: str = DEFAULT_SOLVER,
    time_limit_s: float = 60.0,
    gap: float = GAP,
) -> Solution:
    """The placement whose busiest server or link is busy for the least time per request.

    `value` and `bound` are that time in ms. Of placements with the same one, that of the least
    latency is taken if the time is enough to find it. Raises UsageError for an unknown solver.
    """
    end = time.perf_counter() + time_limit_s
    settings = Settings(solver, time_limit_s, gap, f"PuLP ({solver})")
    model = constrained(problem)
    busiest = model.rows.variable("bottleneck_ms", high=None)
    for name, busy in _resources(model):
        model.rows.at_least(f"bottleneck_{name}", busiest, busy)
    model.rows.minimise(busiest)
    found = settle(model, lambda _, costs: bottleneck_ms(costs), settings)
    if found.costs is None or time.perf_counter() >= end:
        return found
    left = replace(settings, time_limit_s=end - time.perf_counter())
    return _quickest(problem, found, left)


def bottleneck_ms(costs: Costs) -> float:
    """Time per request of the busiest server or link; a link is an ordered pair of servers."""
    links: dict[tuple[int, int], list[float]] = {}
    for _, source, target, _, milliseconds in costs.crossings:
        links.setdefault((source, target), []).append(milliseconds)
    return max([*costs.server_ms, *map(math.fsum, links.values())])


def _quickest(problem: Problem, found: Solution, settings: Settings) -> Solution:
    """With the least latency among the placements that are no busier."""
    most = found.value * (1 + _SLACK)
    model = constrained(problem)
    for name, busy in _resources(model):
        model.rows.limit(f"bottleneck_{name}", busy, most)
    model.rows.minimise(model.latency_ms())
    quick = settle(model, lambda _, costs: costs.latency_ms, settings)
    if quick.costs is None or found.costs is None or bottleneck_ms(quick.costs) > most:
        return found
    if quick.costs.latency_ms >= found.costs.latency_ms:
        return found
    value = bottleneck_ms(quick.costs)
    bound = min(found.bound, value)
    return replace(found, placement=quick.placement, costs=quick.costs, value=value, bound=bound)


def _resources(model: Model) -> Iterator[tuple[str, Sum]]:
    names = [f"{k}_{safe(server)}" for k, server in enumerate(model.problem.servers)]
    for k, busy in enumerate(model.busy_ms):
        yield f"server_{names[k]}", busy
    for (k, h), busy in model.links_ms.items():
        yield f"link_{names[k]}_{names[h]}", busy
