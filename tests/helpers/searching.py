"""The planner's search against brute force."""

from __future__ import annotations

import math

import pytest

from tests.helpers.problems import brute_force
from tritier.planner.evaluate import evaluate, violations
from tritier.planner.problem import Problem, Weights
from tritier.planner.search import solve
from tritier.planner.solution import Status

WEIGHTS = [Weights(1.0, 0.0), Weights(0.0, 1.0), Weights(1.0, 0.3)]


def check(problem: Problem, weights: Weights) -> None:
    """The search finds what brute force finds, and its bound holds."""
    best, _ = brute_force(problem, weights)
    found = solve(problem, weights)
    assert found.bound <= best * (1 + 1e-9) + 1e-9
    if math.isinf(best):
        assert found.status is Status.INFEASIBLE
        assert found.placement is None
        return
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(best, rel=1e-6)
    assert found.placement is not None
    costs = evaluate(problem, found.placement)
    assert costs == found.costs
    assert violations(problem, found.placement, costs) == []
