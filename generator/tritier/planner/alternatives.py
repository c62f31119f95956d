"""What else could be done: the best plans without some server, the nearest other placement, and
what a looser limit or a better link would buy. All of it is solved, nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from tritier.planner.marginals import min_marginals
from tritier.planner.problem import Placement, Problem, Weights
from tritier.planner.rows import worth_of
from tritier.planner.search import Search
from tritier.planner.solution import Solution

# Layers whose other label is tried out for the nearest other placement.
_NEAREST = 3


@dataclass(frozen=True)
class RunnerUp:
    """`servers` is what the plan could use; `solution` its optimum there."""

    what: str
    servers: tuple[int, ...]
    solution: Solution


def runner_ups(
    search: Search, weights: Weights, best: Solution, *, time_limit_s: float = 10.0
) -> list[RunnerUp]:
    """The optimum of every smaller set of servers with the entry, and the nearest other placement;
    the best first, each placement once, the best one itself left out."""
    assert best.placement is not None
    problem = search.problem
    used = sorted({problem.entry, *best.placement.servers})
    found: dict[Placement, RunnerUp] = {}
    for servers in _smaller(len(problem.servers), problem.entry):
        solution = _restricted(problem, servers, weights, time_limit_s)
        names = " and ".join(problem.servers[k] for k in servers)
        _keep(found, RunnerUp(f"on {names} only", servers, solution), best)
    nearest = _nearest(search, weights, best, time_limit_s)
    if nearest is not None:
        _keep(found, RunnerUp("the nearest other placement", tuple(used), nearest), best)
    return sorted(found.values(), key=lambda item: item.solution.value)


def _smaller(count: int, entry: int) -> list[tuple[int, ...]]:
    others = [k for k in range(count) if k != entry]
    return [
        tuple(sorted((entry, *chosen)))
        for size in range(len(others))
        for chosen in combinations(others, size)
    ]


def _keep(found: dict[Placement, RunnerUp], item: RunnerUp, best: Solution) -> None:
    placement = item.solution.placement
    if placement is not None and placement != best.placement:
        found.setdefault(placement, item)


def _restricted(
    problem: Problem, servers: Sequence[int], weights: Weights, time_limit_s: float
) -> Solution:
    allowed = np.zeros_like(problem.allowed)
    allowed[:, list(servers)] = problem.allowed[:, list(servers)]
    return Search(replace(problem, allowed=allowed)).solve(weights, time_limit_s=time_limit_s)


def _nearest(
    search: Search, weights: Weights, best: Solution, time_limit_s: float
) -> Solution | None:
    """The optimum among placements with one of the layers whose other server costs least; not known
    where energy, latency or memory is limited."""
    assert best.placement is not None
    if search.elimination is None or search.rows:
        return None  # what limits cost is not in the marginals
    problem = search.problem
    worth = worth_of(problem, weights)
    costs: list[tuple[float, int, int]] = []
    for layer, values in min_marginals(search.elimination, worth, search.roots()).items():
        for (server, _), value in zip(problem.labels[layer], values.tolist(), strict=True):
            if server != best.placement.servers[layer] and np.isfinite(value):
                costs.append((value, layer, server))
    solutions = []
    for _, layer, server in sorted(costs)[:_NEAREST]:
        allowed = problem.allowed.copy()
        allowed[layer] = False
        allowed[layer, server] = True
        other = Search(replace(problem, allowed=allowed))
        solutions.append(other.solve(weights, time_limit_s=time_limit_s))
    feasible = [item for item in solutions if item.placement is not None]
    return min(feasible, key=lambda item: item.value, default=None)


@dataclass(frozen=True)
class Variant:
    """The same problem with one thing changed, e.g. '+1 MiB/s on device -> edge'."""

    what: str
    problem: Problem


@dataclass(frozen=True)
class Relaxation:
    """What a variant's optimum gains; `solution` has a placement of its own. `usd` is None without
    prices."""

    what: str
    latency_ms: float
    energy_joule: float
    solution: Solution
    usd: float | None = None


def relaxations(
    search: Search,
    weights: Weights,
    best: Solution,
    variants: Sequence[Variant],
    *,
    time_limit_s: float = 10.0,
) -> list[Relaxation]:
    """Each variant solved again: how far its latency, energy and cost are from the best's (negative
    is less). Those that are infeasible are left out."""
    assert best.costs is not None
    found = []
    for variant in variants:
        solution = Search(variant.problem, search.order).solve(weights, time_limit_s=time_limit_s)
        if solution.costs is None:
            continue
        usd, before = solution.costs.usd, best.costs.usd
        found.append(
            Relaxation(
                variant.what,
                solution.costs.latency_ms - best.costs.latency_ms,
                solution.costs.energy_joule - best.costs.energy_joule,
                solution,
                None if usd is None or before is None else usd - before,
            )
        )
    return found
