"""Folded problems: what is left says the same as the whole."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.problems import brute_force, random_problem
from tests.helpers.searching import WEIGHTS
from tritier.errors import UsageError
from tritier.planner import evaluate as evaluation
from tritier.planner import factors, fold, pulp_core
from tritier.planner.evaluate import evaluate, violations
from tritier.planner.fold import Core
from tritier.planner.problem import Limits, Problem
from tritier.planner.pulp_core import has_costly_limits, solve_folded
from tritier.planner.pulp_model import solve_pulp
from tritier.planner.rows import worth_of
from tritier.planner.solution import Status


def memory_only(seed: int, **settings: int) -> Problem:
    """With limits of memory, some tight, and of noise."""
    problem = random_problem(np.random.default_rng(seed), with_rows=True, **settings)  # type: ignore[arg-type]
    return replace(problem, limits=Limits(memory_bytes=problem.limits.memory_bytes))


def check(problem: Problem, seed: int) -> None:
    """Value, bound and feasibility are those of brute force."""
    weights = WEIGHTS[seed % 3]
    best, _ = brute_force(problem, weights)
    found = solve_folded(problem, weights)
    if math.isinf(best):
        assert found.status is Status.INFEASIBLE
        return
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(best, rel=1e-6)
    assert found.bound <= best * (1 + 1e-8)
    assert found.placement is not None
    assert violations(problem, found.placement, evaluate(problem, found.placement)) == []


@pytest.mark.parametrize("seed", range(12))
def test_noise(seed: int) -> None:
    """Quantizable layers stay in the core."""
    check(random_problem(np.random.default_rng(9000 + seed)), seed)


@pytest.mark.parametrize("seed", range(20))
def test_memory(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers with weights stay; one without that needs much while it runs comes back in time."""
    monkeypatch.setattr(pulp_core, "_MUCH", 10.0)
    problem = memory_only(9100 + seed)
    light = np.arange(len(problem.layers)) % 2 == 0
    weights = np.where(light[:, np.newaxis], 0.0, problem.float_bytes)
    check(replace(problem, float_bytes=weights, int8_bytes=weights / 4), seed)


@pytest.mark.parametrize("seed", range(6))
def test_tensors_with_many_consumers(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their states are variables like any other."""
    monkeypatch.setattr(factors, "WIDEST", 1)
    monkeypatch.setattr(fold, "FEW", 1)
    check(memory_only(9200 + seed, layers=6), seed)


@pytest.mark.parametrize("seed", range(8))
def test_a_limit_that_is_met_only_within_tolerance(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the solver takes for kept, and evaluation does not, is left out."""
    free = random_problem(np.random.default_rng(9300 + seed), layers=6, quantizable=0)
    best = solve_folded(free, WEIGHTS[0])
    assert best.costs is not None
    tight = replace(free, limits=Limits(memory_bytes=best.costs.memory_bytes))
    assert solve_folded(tight, WEIGHTS[0]).value == pytest.approx(best.value)
    monkeypatch.setattr(evaluation, "TOLERANCE", -1e-8)
    check(tight, 0)


def test_without_limits_nothing_is_left() -> None:
    """A graph that folds entirely is solved without a program."""
    problem = random_problem(np.random.default_rng(3), with_noise=False)
    core = Core(problem, worth_of(problem, WEIGHTS[2]))
    assert (core.variables, core.tables) == ((), ())
    best, _ = brute_force(problem, WEIGHTS[2])
    assert core.constant == pytest.approx(best)
    assert evaluate(problem, core.placement({})).value(WEIGHTS[2]) == pytest.approx(best)


def test_an_unknown_solver_is_refused_even_if_nothing_is_left_to_solve() -> None:
    """By both kinds of programs."""
    problem = random_problem(np.random.default_rng(3), with_noise=False)
    allowed = np.zeros_like(problem.allowed)
    allowed[:, problem.entry] = True
    fixed = replace(problem, allowed=allowed)
    for solve in (solve_folded, solve_pulp):
        with pytest.raises(UsageError, match="nonsense"):
            solve(fixed, WEIGHTS[0], solver="nonsense")


def test_which_limits_can_be_folded() -> None:
    """Energy and latency hang on every layer."""
    problem = memory_only(9101)
    assert not has_costly_limits(problem)
    for limits in (Limits(latency_ms=5.0), Limits(energy_joule=1.0),
                   Limits(server_energy_joule=(1.0,) * len(problem.servers))):  # fmt: skip
        assert has_costly_limits(replace(problem, limits=limits))
