"""Find the placement that is best at a goal, and let a baseline win if nothing beats it (R8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tritier.errors import UsageError
from tritier.planner.baselines import Baseline, baselines
from tritier.planner.evaluate import evaluate
from tritier.planner.makespan import improve
from tritier.planner.makespan_bound import makespan_bound
from tritier.planner.objective import (
    Aim,
    Extremes,
    ends,
    extremes,
    pareto_front,
    solve_weighted,
)
from tritier.planner.problem import Placement, Problem, Weights
from tritier.planner.pulp_bottleneck import bottleneck_ms, solve_bottleneck
from tritier.planner.pulp_core import has_costly_limits, solve_folded
from tritier.planner.pulp_model import solve_pulp
from tritier.planner.pulp_solvers import DEFAULT_SOLVER
from tritier.planner.search import Search
from tritier.planner.simulation_graph import least_transfers
from tritier.planner.solution import Solution, finished
from tritier.planner.thesis_model import solve_thesis
from tritier.workflow.planning_components import fewer
from tritier.workflow.planning_figures import Predictor
from tritier.workflow.planning_goals import AUTO, Goals


@dataclass(frozen=True)
class Found:
    """A placement for a goal. `solution` is the solver's answer in its own model; `placement` what
    is to be done, which is a baseline's if `baseline` is given. `weights` are those of the additive
    model; `ends` are known for the objective `weighted` only."""

    solution: Solution
    placement: Placement | None
    weights: Weights
    search: Search
    baselines: tuple[Baseline, ...] = ()
    baseline: Baseline | None = None
    ends: Extremes | None = None


def find(
    problem: Problem,
    goals: Goals,
    predictor: Predictor,
    order: Sequence[int] | None = None,
    outer: Extremes | None = None,
) -> Found:
    """The best placement for the goal: what the solver found, or a baseline if that is better by
    what is predicted of it. `order` is that of an earlier search (see `Search`), `outer` the ends
    of a weighted objective, if they are known."""
    search = Search(problem, order)
    solution, weights, outer = _solved(search, goals, predictor, outer)
    if solution.placement is None:
        return Found(solution, None, weights, search, ends=outer)
    known = tuple(baselines(problem, weights))
    if goals.max_components is not None:
        solution = fewer(search, weights, solution, known, goals, predictor)
    assert solution.placement is not None
    score = _scorer(goals, weights, predictor)
    best, chosen = score(solution.placement), None
    for item in known:
        few = goals.max_components is None or _components(predictor, item) <= goals.max_components
        if item.is_feasible and few and score(item.placement) < best * (1 - 1e-9):
            best, chosen = score(item.placement), item
    placement = chosen.placement if chosen else solution.placement
    return Found(solution, placement, weights, search, known, chosen, outer)


def _solved(
    search: Search, goals: Goals, predictor: Predictor, outer: Extremes | None
) -> tuple[Solution, Weights, Extremes | None]:
    limit = goals.time_limit_s
    if goals.solver != AUTO or goals.formulation != "labels":
        weights = _weights_of(search, goals, outer)
        return by_program(search.problem, weights, goals), weights, None
    if goals.objective == "throughput":
        found = solve_bottleneck(search.problem, time_limit_s=limit)
        return found, Weights(1.0, 0.0), None
    if goals.objective == "weighted":
        weight = goals.latency_weight
        found, known = solve_weighted(search, weight, known=outer, time_limit_s=limit)
        feasible = found.costs is not None
        return found, known.weights(goals.latency_weight) if feasible else Weights(), known
    aim = aim_of(goals)
    best = ends(search, [aim], time_limit_s=limit)[0]
    if goals.objective == "makespan" and best.placement is not None:
        best = _makespan(search, best, goals, predictor)
    return best, aim.value, None


def _weights_of(search: Search, goals: Goals, outer: Extremes | None) -> Weights:
    if goals.objective == "weighted":
        known = outer or extremes(search, time_limit_s=goals.time_limit_s)
        return known.weights(goals.latency_weight) if known.is_feasible else Weights()
    if goals.objective in ("latency", "energy", "cost"):
        return aim_of(goals).value
    raise UsageError(
        "--solver and --formulation are for the objectives latency, energy, cost and weighted, not "
        f"for {goals.objective}: leave them out"
    )


def aim_of(goals: Goals) -> Aim:
    """The one that counts, or that a search for something else starts from."""
    return {"energy": Aim.ENERGY, "cost": Aim.COST}.get(goals.objective, Aim.LATENCY)


def by_program(problem: Problem, weights: Weights, goals: Goals) -> Solution:
    """By an integer program, in the formulation and with the solver of the goals."""
    solver = DEFAULT_SOLVER if goals.solver == AUTO else goals.solver
    if goals.formulation == "thesis":
        return solve_thesis(problem, weights, solver=solver, time_limit_s=goals.time_limit_s)
    solve = solve_pulp if has_costly_limits(problem) else solve_folded
    return solve(problem, weights, solver=solver, time_limit_s=goals.time_limit_s)


def _makespan(search: Search, fastest: Solution, goals: Goals, predictor: Predictor) -> Solution:
    """Local search on the simulated latency, from the points of the front and the baselines. The
    bound is of the simulation, too."""
    problem = search.problem
    starts = [point.solution.placement for point in pareto_front(search)]
    starts += [item.placement for item in baselines(problem, Weights(1.0, 0.0))]
    found = improve(
        problem,
        [start for start in [fastest.placement, *starts] if start is not None],
        predictor.simulated_ms(),
        time_limit_s=goals.search_s,
        seed=goals.seed,
    )
    bound = makespan_bound(problem, least_transfers(problem, predictor.conditions))
    method = f"{fastest.method}, then local search ({found.evaluations} placements)"
    costs = evaluate(problem, found.placement)
    return finished(found.placement, costs, found.makespan_ms, bound, method)


def _scorer(goals: Goals, weights: Weights, predictor: Predictor) -> Callable[[Placement], float]:
    """What a placement is predicted to be worth at the goal; less is better."""

    def score(placement: Placement) -> float:
        found = predictor.predict(placement)
        if goals.objective == "throughput":
            return bottleneck_ms(found.costs)
        if goals.objective == "cost":
            usd = predictor.usd(placement)
            assert usd is not None
            return usd
        return (
            weights.per_ms * found.simulated_ms + weights.per_joule * found.costs.energy_joule
        )  # fmt: skip

    return score


def _components(predictor: Predictor, item: Baseline) -> int:
    return predictor.predict(item.placement).components
