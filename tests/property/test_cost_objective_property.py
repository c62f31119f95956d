"""The cheapest placement, by every way of solving, against brute force on random small problems."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.problems import (
    brute_force,
    feasible_placements,
    random_problem,
    with_money,
)
from tritier.planner import factors
from tritier.planner.baselines import baselines
from tritier.planner.noise_sets import NoiseLimit
from tritier.planner.objective import Aim, ends
from tritier.planner.problem import Problem, Weights
from tritier.planner.pulp_core import has_costly_limits, solve_folded
from tritier.planner.pulp_model import solve_pulp
from tritier.planner.search import Search, solve
from tritier.planner.solution import Solution, Status
from tritier.planner.thesis_model import solve_thesis

SEEDS = st.integers(0, 2**32 - 1)
COST = Aim.COST.value
# Money beside time and energy, as second aims and makers of bounds have it.
MIXED = Weights(0.5, 2.0, 3e5)


def agree(found: Solution, best: float) -> None:
    """The optimum, proven, or no placement where there is none."""
    if math.isinf(best):
        assert found.status == Status.INFEASIBLE
        return
    assert found.status == Status.OPTIMAL
    assert found.value == pytest.approx(best, rel=2e-6)
    assert found.bound <= best * (1 + 1e-9)


def priced(
    seed: int, with_rows: bool, layers: int | None = None, quantizable: int | None = None
) -> Problem:
    rng = np.random.default_rng(seed)
    bare = random_problem(rng, with_rows=with_rows, layers=layers, quantizable=quantizable)
    return with_money(rng, bare)


@settings(max_examples=examples(25))
@given(SEEDS, st.booleans(), st.sampled_from([COST, MIXED]))
def test_elimination_programs_and_brute_force(seed: int, with_rows: bool, weights: Weights) -> None:
    problem = priced(seed, with_rows)
    best, _ = brute_force(problem, weights)
    agree(solve(problem, weights), best)
    agree(solve_pulp(problem, weights), best)
    if not has_costly_limits(problem):
        agree(solve_folded(problem, weights), best)


@settings(max_examples=examples(8))
@given(SEEDS)
def test_the_published_form(seed: int) -> None:
    problem = priced(seed, with_rows=True)
    agree(solve_thesis(problem, COST), brute_force(problem, COST)[0])


@settings(max_examples=examples(8))
@given(SEEDS)
def test_tensors_with_many_consumers_are_paid_once(seed: int) -> None:
    problem = priced(seed, with_rows=False, layers=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factors, "WIDEST", 1)
        agree(solve(problem, COST), brute_force(problem, COST)[0])


@settings(max_examples=examples(8))
@given(SEEDS)
def test_8_bits_that_are_cheaper_but_no_quicker(seed: int) -> None:
    """What crosses in 8 bits then still counts."""
    problem = priced(seed, with_rows=False, quantizable=3)
    problem = replace(problem, coded_ms=problem.transfer_ms, noise=NoiseLimit(3))
    best, _ = brute_force(problem, COST)
    for found in (solve(problem, COST), solve_pulp(problem, COST), solve_thesis(problem, COST)):
        agree(found, best)


@settings(max_examples=examples(10))
@given(SEEDS, st.booleans())
def test_of_the_cheapest_the_quickest(seed: int, with_rows: bool) -> None:
    problem = priced(seed, with_rows)
    (found,) = ends(Search(problem), [Aim.COST])
    best, _ = brute_force(problem, COST)
    agree(found, best)
    if found.costs is not None:
        as_cheap = [
            costs.latency_ms
            for _, costs in feasible_placements(problem)
            if costs.value(COST) <= best * (1 + 1e-9)
        ]
        assert found.costs.latency_ms <= min(as_cheap) * (1 + 1e-6)


@settings(max_examples=examples(30))
@given(SEEDS, st.booleans())
def test_no_baseline_is_cheaper_and_cuts_are_the_cheapest(seed: int, with_rows: bool) -> None:
    problem = priced(seed, with_rows, quantizable=0 if seed % 2 else None)
    best, _ = brute_force(problem, COST)
    values = {placement: costs.value(COST) for placement, costs in feasible_placements(problem)}
    for item in baselines(problem, COST):
        if not item.is_feasible:
            continue
        assert item.costs.value(COST) >= best * (1 - 1e-9)
        if item.cut_after is not None and not problem.quantizable:
            end = len(problem.layers) - 1
            cuts = [
                (problem.entry,) * first + (item.server,) * (end - first) + (problem.entry,)
                for first in range(2, end)
            ]
            known = [value for placement, value in values.items() if placement.servers in cuts]
            assert item.costs.value(COST) == pytest.approx(min(known))
