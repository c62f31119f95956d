"""Programs against brute force on random small problems with everything that a problem may hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.problems import (
    brute_force,
    feasible_placements,
    random_noise,
    random_problem,
)
from tritier.planner import pulp_noise
from tritier.planner.infeasible import Limit, limits_of, relaxations, without_limits
from tritier.planner.problem import Placement, Problem, Weights
from tritier.planner.pulp_bottleneck import bottleneck_ms, solve_bottleneck
from tritier.planner.pulp_model import solve_pulp
from tritier.planner.pulp_rows import Rows
from tritier.planner.pulp_solvers import run
from tritier.planner.solution import Solution, Status
from tritier.planner.thesis_model import solve_thesis

SEEDS = st.integers(0, 2**32 - 1)
WEIGHTS = st.sampled_from([Weights(1.0, 0.0), Weights(0.0, 1.0), Weights(0.7, 30.0)])


def agree(found: Solution, best: float) -> None:
    """The optimum, proven, or no placement where there is none."""
    if math.isinf(best):
        assert found.status == Status.INFEASIBLE
        return
    assert found.status == Status.OPTIMAL
    assert found.value == pytest.approx(best, rel=1e-6)
    assert found.bound <= best * (1 + 1e-9)


@settings(max_examples=examples(30))
@given(SEEDS, WEIGHTS, st.booleans())
def test_labels(seed: int, weights: Weights, with_rows: bool) -> None:
    problem = random_problem(np.random.default_rng(seed), with_rows=with_rows)
    agree(solve_pulp(problem, weights), brute_force(problem, weights)[0])


@settings(max_examples=examples(15))
@given(SEEDS, WEIGHTS)
def test_the_published_form(seed: int, weights: Weights) -> None:
    problem = random_problem(np.random.default_rng(seed), with_rows=True)
    agree(solve_thesis(problem, weights), brute_force(problem, weights)[0])


@settings(max_examples=examples(20))
@given(SEEDS, WEIGHTS)
def test_what_costs_more_in_8_bits_or_works_in_8_bits_only(seed: int, weights: Weights) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, layers=6, servers=2, quantizable=3, with_rows=True)
    swapped = rng.random(len(problem.flows)) < 0.5
    transfer_ms, coded_ms = problem.transfer_ms.copy(), problem.coded_ms.copy()
    transfer_ms[swapped], coded_ms[swapped] = problem.coded_ms[swapped], transfer_ms[swapped]
    float_ms = problem.float_ms.copy()
    offered = np.isfinite(problem.int8_ms) & (rng.random(float_ms.shape) < 0.5)
    float_ms[offered] = math.inf
    problem = replace(problem, transfer_ms=transfer_ms, coded_ms=coded_ms, float_ms=float_ms)
    best, _ = brute_force(problem, weights)
    agree(solve_pulp(problem, weights), best)
    agree(solve_thesis(problem, weights), best)


@settings(max_examples=examples(8))
@given(SEEDS, WEIGHTS)
def test_cbc(seed: int, weights: Weights) -> None:
    problem = random_problem(np.random.default_rng(seed), with_rows=True)
    agree(solve_pulp(problem, weights, solver="CBC"), brute_force(problem, weights)[0])


@settings(max_examples=examples(12))
@given(SEEDS)
def test_the_bottleneck(seed: int) -> None:
    problem = random_problem(np.random.default_rng(seed), with_rows=True)
    every = [(bottleneck_ms(costs), costs) for _, costs in feasible_placements(problem)]
    best = min((busy for busy, _ in every), default=math.inf)
    found = solve_bottleneck(problem)
    agree(found, best)
    if found.costs is not None:
        assert found.value == bottleneck_ms(found.costs)
        as_busy = [costs.latency_ms for busy, costs in every if busy <= best * (1 + 1e-9)]
        assert found.costs.latency_ms == pytest.approx(min(as_busy))


@pytest.mark.parametrize("most_sets", [pulp_noise.MOST_SETS, 0])
@settings(max_examples=examples(15))
@given(seed=SEEDS)
def test_noise_allows_what_it_should(most_sets: int, seed: int) -> None:
    """Each mask of quantized layers, fixed in turn, is a point of the program if it is allowed."""
    rng = np.random.default_rng(seed)
    noise = random_noise(rng, 3)
    lower = tuple(replace(row, budget=row.budget - rng.choice([0, 0, 0.3])) for row in noise.rows)
    noise = replace(noise, rows=lower)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pulp_noise, "MOST_SETS", most_sets)
        for mask in range(8):
            rows = Rows("noise")
            quantized = [rows.variable(f"q{bit}", binary=True) for bit in range(3)]
            pulp_noise.add_noise(rows, noise, quantized)
            for bit, variable in enumerate(quantized):
                rows.equal(f"fixed{bit}", variable, float(mask >> bit & 1))
            rows.minimise(quantized[0])
            allowed = run(rows.program).status == Status.OPTIMAL
            assert allowed == noise.allows(mask), (mask, noise)


@settings(max_examples=examples(10))
@given(SEEDS)
def test_conflicts(seed: int) -> None:
    problem = random_problem(np.random.default_rng(seed), layers=5, servers=2, with_rows=True)
    assume(not feasible_placements(problem))
    limits = limits_of(problem)

    def feasible(kept: tuple[Limit, ...]) -> list[Placement]:
        rest = without_limits(problem, [limit for limit in limits if limit not in kept])
        return [placement for placement, _ in feasible_placements(rest)]

    found = relaxations(problem, solve=solve_pulp)
    fewest = next(
        size
        for size in range(len(limits) + 1)
        if not all(feasible(kept) for kept in itertools.combinations(limits, size))
    )
    assert len(found) == fewest
    assert not feasible(tuple(conflict.limit for conflict in found))
    for conflict in found:
        measured = least(problem, conflict.limit)
        assert conflict.proven
        assert conflict.nearest == (measured if measured is None else pytest.approx(measured))


def least(problem: Problem, limit: Limit) -> float | None:
    """The least that a limit may be, by trying all placements."""
    measures: dict[str, Callable[..., float]] = {
        "latency": lambda _, costs: costs.latency_ms,
        "energy": lambda _, costs: costs.energy_joule,
        "server energy": lambda _, costs: costs.server_energy_joule[limit.index],
        "memory": lambda _, costs: costs.memory_bytes[limit.index],
        "noise": lambda p, _: problem.noise.rows[limit.index or 0].load(p.quantized),
        "refused": lambda _, __: 1.0,
        "allowed": lambda p, _: sum(not problem.allowed[i, k] for i, k in enumerate(p.servers)),
    }
    rest = feasible_placements(without_limits(problem, [limit]))
    return min((measures[limit.kind](*each) for each in rest), default=None)
