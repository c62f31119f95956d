"""Solvers that know nothing of each other agree on graphs of the size of real models.

Brute force can't check these sizes. The exact search is compared with the integer program, with
and without wide tensors, and with minimum cuts where there are two servers and no int8.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.conformance.graphs import EXPORTED, GRAPHS, graph, variation
from tests.conformance.mincut import minimum_cut
from tests.conformance.wide import layered_problem, wide_problem
from tritier.planner.evaluate import evaluate, violations
from tritier.planner.factors import WIDEST
from tritier.planner.problem import Problem, Weights
from tritier.planner.pulp_core import solve_folded
from tritier.planner.pulp_model import solve_pulp
from tritier.planner.search import Search
from tritier.planner.solution import Solution, Status

VARIATIONS = 40
PARTS = 5
# Of the variations, those that the integer program solves unfolded: a second or two each for the
# larger graphs. The rest it solves folded, which shares the tables of the search.
UNFOLDED = {"yolo11x-seg": 3, "yolo11m": 4, "yolo11n export": 20, "yolo11m export": 4}


def confirm(problem: Problem, weights: Weights, found: Solution) -> None:
    """A proven optimum is one that plain evaluation confirms."""
    assert found.status is Status.OPTIMAL
    assert found.placement is not None
    costs = evaluate(problem, found.placement)
    assert found.costs == costs
    assert violations(problem, found.placement, costs) == []
    assert found.value == pytest.approx(costs.value(weights), rel=1e-9)
    assert found.bound <= found.value
    assert found.bound == pytest.approx(found.value, rel=1e-6)


def agree(problem: Problem, weights: Weights, program: Solution, what: str) -> None:
    """The search and an integer program, to one part in a million."""
    ours = Search(problem).solve(weights)
    assert ours.status is program.status, what
    if program.status is not Status.INFEASIBLE:
        confirm(problem, weights, ours)
        confirm(problem, weights, program)
    assert ours.value == pytest.approx(program.value, rel=1e-6), what


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", GRAPHS)
def test_search_and_integer_program(name: str, part: int) -> None:
    """Times, links from 0.1 to 1000 MiB/s, noise, pins, int8 and weights are drawn."""
    for seed in range(part, VARIATIONS, PARTS):
        problem, weights = variation(graph(name), seed)
        solver = solve_pulp if seed < UNFOLDED[name] else solve_folded
        agree(problem, weights, solver(problem, weights), f"{name}, variation {seed}")


@pytest.mark.parametrize("name", GRAPHS)
def test_minimum_cuts_of_models(name: str) -> None:
    """Two servers without int8, on the graphs of models."""
    for seed in range(1000, 1004):
        problem, weights = variation(graph(name), seed, servers=2, quantizable=0)
        cut(problem, weights)


@pytest.mark.parametrize("part", range(4))
def test_minimum_cuts_of_random_graphs(part: int) -> None:
    """Two servers without int8, on 40 random graphs of 50 to 200 layers."""
    for seed in range(part, 40, 4):
        rng = np.random.default_rng(2000 + seed)
        problem = layered_problem(rng, int(rng.integers(50, 201)))
        cut(problem, Weights(1.0, float(rng.choice([0.0, 20.0]))))


def cut(problem: Problem, weights: Weights) -> None:
    """The search and the minimum cut, to one part in a million."""
    value, placement = minimum_cut(problem, weights)
    found = Search(problem).solve(weights)
    if placement is None:
        assert found.status is Status.INFEASIBLE
        return
    assert math.isfinite(value)
    assert violations(problem, placement, evaluate(problem, placement)) == []
    confirm(problem, weights, found)
    assert found.value == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_tensors_with_many_consumers(seed: int) -> None:
    """Tensors of 6 to 12 consumers, some of which code them."""
    problem = wide_problem(np.random.default_rng(3000 + seed))
    widths = [len(flow.consumers) for flow in problem.flows]
    assert max(widths) >= 6 > WIDEST
    weights = (Weights(1.0, 0.0), Weights(0.0, 1.0), Weights(1.0, 50.0))[seed % 3]
    agree(problem, weights, solve_pulp(problem, weights), f"graph {seed}")


def test_variations_differ() -> None:
    """What is compared is not one server for everything over and over."""
    servers = set()
    cuts = 0
    for seed in range(0, 40, 4):
        problem, weights = variation(graph(EXPORTED[0]), seed)
        found = Search(problem).solve(weights)
        assert found.costs is not None
        servers.add(len(problem.servers))
        cuts += len(found.costs.crossings) > 2
    assert servers == {2, 3, 4}
    assert cuts >= 5
