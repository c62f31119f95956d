"""Solve a program, read the placement, and believe only what plain evaluation confirms."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from tritier.planner.evaluate import Costs, Violation, evaluate, violations
from tritier.planner.noise_sets import NoiseLimit
from tritier.planner.problem import Placement
from tritier.planner.pulp_noise import refuse
from tritier.planner.pulp_solvers import DEFAULT_SOLVER, Outcome, run, solver_named
from tritier.planner.pulp_sums import Model
from tritier.planner.solution import GAP, Solution, Status, finished, without

# Solvers keep rows to a tolerance: a placement may exceed a limit by this much of it, and is then
# cut off. More is a fault of the program.
_EXCESS = 1e-4
_MOST_CUTS = 50
_AGREEMENT = 1e-5


@dataclass(frozen=True)
class Settings:
    """How to solve; `lower_bound` is one of the value that is known already."""

    solver: str = DEFAULT_SOLVER
    time_limit_s: float = 60.0
    gap: float = GAP
    method: str = "PuLP"
    lower_bound: float | None = None


def settle(
    model: Model, measure: Callable[[Placement, Costs], float], settings: Settings
) -> Solution:
    """Minimise the objective of the model; `measure` is the same by plain evaluation.

    A placement that only the tolerance of the solver lets through is cut off, and the rest is
    solved again. Raises AssertionError if the solver and the evaluation disagree.
    """
    end = time.perf_counter() + settings.time_limit_s
    known = -math.inf if settings.lower_bound is None else settings.lower_bound
    problem, scale = model.problem, model.rows.objective_scale
    for cut in range(_MOST_CUTS):
        if model.rows.impossible:
            return without(math.inf, settings.method)
        left = max(end - time.perf_counter(), 1e-3)
        outcome = _run(model, settings, left)
        bound = max(outcome.bound / scale, known)
        if outcome.status == Status.INFEASIBLE:
            return without(math.inf, settings.method)
        if outcome.status == Status.UNKNOWN:
            return without(bound, settings.method, Status.UNKNOWN)
        placement = model.placement()
        costs = evaluate(problem, placement)
        broken = violations(problem, placement, costs)
        value = measure(placement, costs)
        if not broken:
            _check_value(value, outcome, scale)
            return finished(placement, costs, value, bound, settings.method)
        slight = all(_is_slight(violation, problem.noise, placement) for violation in broken)
        assert slight, f"the program allows what breaks limits: {broken}"
        _cut_off(model, placement, broken, f"cut_{cut}")
    raise AssertionError(f"{_MOST_CUTS} placements are within the tolerance only: {broken}")


def _run(model: Model, settings: Settings, time_limit_s: float) -> Outcome:
    program = model.rows.program
    solver_named(settings.solver)  # an unknown one is a fault even if there is nothing to solve
    if not program.variables():  # everything is a constant
        value = program.objective.constant
        return Outcome(Status.OPTIMAL, value, value)
    return run(program, solver=settings.solver, time_limit_s=time_limit_s, gap=settings.gap)


def _check_value(value: float, outcome: Outcome, scale: float) -> None:
    """Products that a stopped solver has not yet drawn down may only make its own value worse."""
    told = outcome.objective / scale
    slack = _AGREEMENT * max(abs(told), abs(value)) + 1e-3 / scale
    assert value <= told + slack, f"evaluated {value}, more than the solver's {told}"
    if outcome.status == Status.OPTIMAL:
        assert value >= told - slack, f"evaluated {value}, less than the optimum {told}"


def _is_slight(broken: Violation, noise: NoiseLimit, placement: Placement) -> bool:
    if broken.kind == "noise":
        mask = placement.quantized
        return mask not in noise.refused and all(
            row.load(mask) - row.budget
            <= _EXCESS * max(map(abs, (row.budget, *row.terms.values())))
            for row in noise.rows
        )
    return broken.kind != "allowed" and broken.value <= broken.limit * (1 + _EXCESS) + 1e-6


def _cut_off(model: Model, placement: Placement, broken: list[Violation], name: str) -> None:
    if any(violation.kind == "noise" for violation in broken):
        refuse(model.rows, placement.quantized, model.quantized, name)
    else:
        model.forbid(placement, name)
