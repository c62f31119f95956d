"""Codecs of wires against limits of noise: what each loses, and which of them a plan uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tritier.planner.evaluate import Costs
from tritier.planner.makespan_bound import makespan_bound
from tritier.planner.objective import Aim, Extremes, ends
from tritier.planner.problem import Problem
from tritier.planner.pulp_bottleneck import solve_bottleneck
from tritier.planner.search import Search
from tritier.planner.simulation_graph import least_transfers
from tritier.planner.solution import Solution, finished
from tritier.planner.wires import Codings, Losses, Trial, Weighed, weigh
from tritier.workflow.planning_figures import Predictor
from tritier.workflow.planning_goals import AUTO, Goals
from tritier.workflow.planning_search import Found, aim_of, by_program, find
from tritier.workflow.problem import BuiltProblem
from tritier.workflow.problem_money import moved
from tritier.workflow.problem_noise import known_losses
from tritier.workflow.problem_request import WIRE_CODECS

Order = Sequence[int] | None
Solve = Callable[[Problem, Order], Solution]


def losses_of(built: BuiltProblem, problem: Problem) -> Losses:
    """What is known of codecs, as loads on the rows of a problem. Noise of separate causes adds up
    as a row adds that of layers: in squares, or as it is."""
    rows = problem.noise.rows
    known = known_losses(built.request.noise)
    loads: list[dict[tuple[int, int], float]] = [{} for _ in rows]
    for (tensor, codec), noise in known.items():
        flow = built.flow_at.get(tensor)
        if flow is None:  # nothing reads it
            continue
        position = WIRE_CODECS.index(codec)
        for index, row in enumerate(rows):
            load = noise.get(row.output, 0.0) ** built.output_of_row(index).power
            if load > 0:
                loads[index][flow, position] = load
    return Losses(rows, loads)


def coded_tensors(built: BuiltProblem, costs: Costs) -> dict[int, int]:
    """Tensor -> the codec, by position in WIRE_CODECS, in which it crosses somewhere, as is left
    out, and the 8 bits of quantized layers, too."""
    found: dict[int, int] = {}
    for flow, source, target, coded, _ in costs.crossings:
        codec = int(built.transfers.codecs[flow, source, target])
        if codec and not coded:
            found[flow] = max(codec, found.get(flow, 0))
    return found


@dataclass(frozen=True)
class Settling:
    """What was found, and the built problem and the problem with the codecs that it uses."""

    found: Found
    built: BuiltProblem
    problem: Problem


def find_with_codecs(
    built: BuiltProblem, problem: Problem, goals: Goals, losses: Losses, order: Order
) -> Settling:
    """As `planning_search.find`, with the codecs whose noise is within the limits beside that of
    quantized layers, proven to be the best choice as far as the solver proves its answers.

    The ends of a weighted objective are found first, each with its own codecs. For a makespan the
    codecs are those of the least sum of times.
    """
    weighing = _Weighing(built, problem, goals, losses, order)
    ends_of_front = None
    if goals.objective == "weighted":
        fastest, thriftiest = (weighing.by(_aim(aim)) for aim in (Aim.LATENCY, Aim.ENERGY))
        ends_of_front = Extremes(fastest.solution, thriftiest.solution)
    weighed = weighing.by(_solver(goals, ends_of_front))
    settled, final = weighing.changed(weighed.codings)
    overlap = goals.objective == "makespan"
    predictor = Predictor(settled, final, overlap)
    outer = ends_of_front if ends_of_front and ends_of_front.is_feasible else None
    found = find(final, goals, predictor, order, outer)
    return Settling(_bounded(found, weighed, problem, predictor, goals), settled, final)


class _Weighing:
    """Attempts with codecs decided, each a problem of its own."""

    def __init__(
        self, built: BuiltProblem, problem: Problem, goals: Goals, losses: Losses, order: Order
    ) -> None:
        self._built, self._problem, self._losses = built, problem, losses
        self._order = order
        self._time_limit_s = goals.time_limit_s

    def by(self, solve: Solve) -> Weighed:
        """The best codecs for a way of solving."""

        def attempt(codings: Codings) -> Trial:
            built, problem = self.changed(codings)
            solution = solve(problem, self._order)
            coded = coded_tensors(built, solution.costs) if solution.costs else {}
            reached = built.transfers.codecs.max(axis=(1, 2), initial=0)
            return Trial(solution, coded, dict(enumerate(reached.tolist())))

        return weigh(attempt, self._losses, time.monotonic() + self._time_limit_s)

    def changed(self, codings: Codings) -> tuple[BuiltProblem, Problem]:
        """With what is decided."""
        built = self._built.with_codings(codings)
        noise = replace(self._problem.noise, rows=self._losses.counting(codings.counted))
        changed = moved(self._problem, built.request, built.tensors, built.transfers)
        problem = replace(changed, noise=noise)
        return built, problem


def _aim(aim: Aim) -> Solve:
    return lambda problem, order: ends(Search(problem, order), [aim])[0]


def _solver(goals: Goals, outer: Extremes | None) -> Solve:
    """What solves for the goals, without what hangs on components or the simulation."""
    aim = aim_of(goals)
    weights = aim.value
    if outer is not None and outer.is_feasible:
        if goals.latency_weight in (0, 1):
            return _aim(Aim.LATENCY if goals.latency_weight else Aim.ENERGY)
        weights = outer.weights(goals.latency_weight)
    limit = goals.time_limit_s
    if goals.solver != AUTO or goals.formulation != "labels":
        return lambda problem, _: by_program(problem, weights, goals)
    if goals.objective == "throughput":
        return lambda problem, _: solve_bottleneck(problem, time_limit_s=limit)
    if goals.objective == "weighted":
        return lambda problem, order: Search(problem, order).solve(weights, time_limit_s=limit)
    return _aim(aim)


def _bounded(
    found: Found, weighed: Weighed, problem: Problem, predictor: Predictor, goals: Goals
) -> Found:
    """With a bound that holds for all codecs, not only for those that were settled."""
    solution = found.solution
    if solution.placement is None or solution.costs is None:
        return found
    bound = weighed.solution.bound
    if goals.objective == "makespan":
        bound = makespan_bound(problem, least_transfers(problem, predictor.conditions))
    method = f"{solution.method}, {weighed.trials} choices of codecs"
    bound = min(bound, solution.bound)
    wider = finished(solution.placement, solution.costs, solution.value, bound, method)
    return replace(found, solution=wider)
