"""Both programs against brute force on 200 random small problems, most with all limits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.helpers.problems import feasible_placements, random_problem
from tritier.planner.problem import Weights
from tritier.planner.pulp_model import solve_pulp
from tritier.planner.solution import Status
from tritier.planner.thesis_model import solve_thesis

WEIGHTS = (Weights(1.0, 0.0), Weights(0.0, 1.0), Weights(0.7, 30.0))


@pytest.mark.parametrize("part", range(10))
def test_brute_force_and_both_programs(part: int) -> None:
    for seed in range(part * 20, part * 20 + 20):
        problem = random_problem(np.random.default_rng(seed), with_rows=seed % 4 != 0)
        weights = WEIGHTS[seed % 3]
        solver = "CBC" if seed % 10 == 9 else "HiGHS"
        feasible = [costs.value(weights) for _, costs in feasible_placements(problem)]
        best = min(feasible, default=math.inf)
        for solve in (solve_pulp, solve_thesis):
            found = solve(problem, weights, solver=solver)
            assert found.status == (Status.OPTIMAL if feasible else Status.INFEASIBLE), seed
            assert found.value == pytest.approx(best, rel=1e-6), seed
            assert found.bound <= best * (1 + 1e-9), seed
