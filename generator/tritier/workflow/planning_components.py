"""Find the best placement with few components, which no solver here limits by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from tritier.errors import InfeasibleError
from tritier.planner.baselines import Baseline
from tritier.planner.evaluate import evaluate, violations
from tritier.planner.problem import Floats, Money, Placement, Problem, Weights
from tritier.planner.pulp_bottleneck import bottleneck_ms
from tritier.planner.search import Search
from tritier.planner.solution import Solution, finished
from tritier.workflow.planning_figures import Predicted, Predictor
from tritier.workflow.planning_goals import Goals

# Steps in which crossings are made dearer to get fewer components.
_PENALTIES = 14


def fewer(
    search: Search,
    weights: Weights,
    solution: Solution,
    known: Sequence[Baseline],
    goals: Goals,
    predictor: Predictor,
) -> Solution:
    """The best placement found with at most `max_components`; the bound stays that of any number.

    Raises InfeasibleError if none is found.
    """
    assert goals.max_components is not None
    assert solution.placement is not None
    if predictor.predict(solution.placement).components <= goals.max_components:
        return solution
    starts = list(
        dict.fromkeys([solution.placement, *_with_dearer_crossings(search, weights, goals)])
    )
    merged = [x for start in starts for x in _merged(start, weights, goals, predictor)]
    baselines = [item.placement for item in known if item.is_feasible]
    return _best_of([*starts, *merged, *baselines], weights, solution, goals, predictor)


def _with_dearer_crossings(search: Search, weights: Weights, goals: Goals) -> Iterator[Placement]:
    problem = search.problem
    typical = float(np.median(problem.float_ms.sum(axis=0)))
    off = ~np.eye(len(problem.servers), dtype=bool)
    for step in range(_PENALTIES):
        fee = typical * 10.0 ** (-3 + step * 0.35)
        dearer = replace(
            problem,
            transfer_ms=problem.transfer_ms + fee * off,
            coded_ms=problem.coded_ms + fee * off,
            money=problem.money and _dearer(problem.money, fee * off, problem.float_ms),
        )
        if problem.has_rows:  # limits of time and energy would count the fees
            dearer = replace(dearer, limits=replace(problem.limits, latency_ms=np.inf))
        found = Search(dearer, search.order).solve(weights, time_limit_s=goals.time_limit_s / 10)
        if found.placement is not None:
            yield found.placement


def _dearer(money: Money, fee_ms: Floats, layers_ms: Floats) -> Money:
    """Money with fees that are worth as much as so much time on the dearest server or, if all are
    free, as if the dearest crossing were paid for as much time as the slowest server takes."""
    whole = float(layers_ms.sum(axis=0).max()) or 1.0
    per_ms = float(money.per_ms.max()) or float(money.crossing.max(initial=0.0)) / whole or 1e-9
    fee = per_ms * fee_ms
    return replace(money, crossing=money.crossing + fee, coded_crossing=money.coded_crossing + fee)


def _merged(
    start: Placement, weights: Weights, goals: Goals, predictor: Predictor
) -> Iterator[Placement]:
    """Whole components moved to another server, the cheapest move first, while that leaves fewer.

    Fewer components may have more crossings, which dearer crossings don't find.
    """
    problem, current = predictor.problem, start
    while True:
        found = predictor.predict(current)
        moves = [
            moved
            for group in found.groups
            for server in range(len(problem.servers))
            if (moved := _moved(current, group, server)) != current
            if not _broken(problem, moved)
            if predictor.predict(moved).components < found.components
        ]
        if not moves:
            return
        current = min(moves, key=lambda x: _value(goals, weights, predictor.predict(x)))
        yield current


def _moved(placement: Placement, layers: Sequence[int], server: int) -> Placement:
    servers = list(placement.servers)
    for layer in layers:
        servers[layer] = server
    return replace(placement, servers=tuple(servers))


def _broken(problem: Problem, placement: Placement) -> bool:
    return bool(violations(problem, placement, evaluate(problem, placement)))


def _best_of(
    candidates: Sequence[Placement],
    weights: Weights,
    solution: Solution,
    goals: Goals,
    predictor: Predictor,
) -> Solution:
    assert goals.max_components is not None
    kept = [x for x in dict.fromkeys(candidates) if not _broken(predictor.problem, x)]
    found = [predictor.predict(placement) for placement in kept]
    few = [item for item in found if item.components <= goals.max_components]
    if not few:
        fewest = min(item.components for item in found)
        raise InfeasibleError(
            f"--max-components {goals.max_components}: no placement with so few was found that "
            f"keeps all limits, the fewest found are {fewest}; allow more, or loosen a limit or a "
            "pin"
        )
    best = min(few, key=lambda item: _value(goals, weights, item))
    method = f"{solution.method}, then fewer components"
    value = _value(goals, weights, best)
    return finished(best.placement, best.costs, value, solution.bound, method)


def _value(goals: Goals, weights: Weights, found: Predicted) -> float:
    """What the solver of the objective minimises."""
    if goals.objective == "throughput":
        return bottleneck_ms(found.costs)
    return found.simulated_ms if goals.objective == "makespan" else found.costs.value(weights)
