"""The planner's search: brute force on small graphs, with every limit and without."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.helpers.problems import brute_force, random_problem
from tests.helpers.searching import WEIGHTS, check
from tritier.errors import CheckFailed
from tritier.planner import elimination as elimination_module
from tritier.planner import factors
from tritier.planner.baselines import baselines
from tritier.planner.elimination import Elimination, min_fill
from tritier.planner.evaluate import evaluate, violations
from tritier.planner.factors import TooWide
from tritier.planner.marginals import min_marginals
from tritier.planner.noise_sets import NoiseLimit, NoiseRow
from tritier.planner.objective import extremes, pareto_front, solve_weighted
from tritier.planner.problem import Flow, Limits, Placement, Problem, Weights
from tritier.planner.rows import worth_of
from tritier.planner.search import Search, solve
from tritier.planner.solution import Status


@pytest.mark.parametrize("seed", range(30))
def test_all_limits(seed: int) -> None:
    """Noise, latency, energy, memory; 200 more graphs in tests/conformance."""
    problem = random_problem(np.random.default_rng(seed), with_rows=True)
    check(problem, WEIGHTS[seed % 3])


@pytest.mark.parametrize("seed", range(12))
def test_noise_alone(seed: int) -> None:
    """By elimination: noise that may fall when a layer is added, and refused sets."""
    problem = random_problem(np.random.default_rng(1000 + seed), quantizable=3)
    for weights in WEIGHTS:
        check(problem, weights)


@pytest.mark.parametrize("seed", range(10))
def test_tensors_with_many_consumers_go_by_states(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain of states says the same as one large table."""
    monkeypatch.setattr(factors, "WIDEST", 1)
    problem = random_problem(np.random.default_rng(2000 + seed), layers=6)
    check(problem, WEIGHTS[2])


@pytest.mark.parametrize("seed", range(8))
def test_many_quantizable_layers_make_rows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many layers to look at every set: noise is a row like any other."""
    monkeypatch.setattr("tritier.planner.noise_sets.TABULATED", 2)
    problem = random_problem(np.random.default_rng(3000 + seed), quantizable=3, with_rows=True)
    check(problem, WEIGHTS[seed % 3])


def test_tables_that_are_too_large_go_to_the_integer_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is held in memory that does not fit."""
    problem = random_problem(np.random.default_rng(5), layers=7, servers=3)
    monkeypatch.setattr(elimination_module, "WIDEST_TABLE", 2)
    assert Search(problem).elimination is None
    check(problem, WEIGHTS[2])


def test_sets_are_taken_in_parts_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same values, however many sets one pass may hold."""
    problem = replace(
        random_problem(np.random.default_rng(8), quantizable=3),
        noise=NoiseLimit(3, [NoiseRow("y", 0.0, {1: 1.0, 2: 1.0, 4: 1.0}, 2.0)]),
    )
    search = Search(problem)
    assert search.elimination is not None
    roots = search.roots()
    assert len(roots) == 3
    worths = [worth_of(problem, weights) for weights in WEIGHTS]
    whole = search.elimination.values(worths, roots)
    monkeypatch.setattr(elimination_module, "MOST_NUMBERS", search.elimination.numbers)
    assert np.array_equal(search.elimination.values(worths, roots), whole)


@pytest.mark.parametrize("seed", range(6))
def test_marginals_are_what_a_pin_costs(seed: int) -> None:
    """The least cost with a label, against the optimum when no other label is allowed."""
    rng = np.random.default_rng(4000 + seed)
    problem = random_problem(rng, with_noise=False, quantizable=0)
    elimination = Elimination(problem)
    worth = worth_of(problem, WEIGHTS[2])
    found = min_marginals(elimination, worth, Search(problem).roots())
    for layer, costs in found.items():
        for (server, _), cost in zip(problem.labels[layer], costs, strict=True):
            allowed = problem.allowed.copy()
            allowed[layer] = False
            allowed[layer, server] = True
            best, _ = brute_force(replace(problem, allowed=allowed), WEIGHTS[2])
            assert cost == pytest.approx(best) or (math.isinf(cost) and math.isinf(best))


@pytest.mark.parametrize("seed", [7, 17, 21, 41, 55, 60])
def test_limits_with_sets_of_which_not_all_parts_are_allowed(seed: int) -> None:
    """A smaller set may be the only one that keeps the other limits."""
    rng = np.random.default_rng(90000 + seed)
    count = int(rng.integers(2, 5))
    problem = random_problem(rng, layers=7, servers=2, quantizable=count, with_rows=True)
    refused = frozenset(m for m in range(1, 1 << count) if rng.random() < 0.5)
    check(replace(problem, noise=NoiseLimit(count, (), refused)), WEIGHTS[seed % 3])


def test_proofs_do_not_depend_on_the_unit() -> None:
    """An objective of 1e-13 is as far from its bound as one of a thousand."""
    problem = random_problem(
        np.random.default_rng(9), layers=6, servers=2, quantizable=2, with_rows=True
    )
    best, _ = brute_force(problem, Weights(1.0, 0.0))
    found = solve(problem, Weights(1e-15, 0.0))
    assert found.value == pytest.approx(best * 1e-15, rel=1e-6, abs=0)


def test_a_tensor_with_many_consumers_on_many_servers_needs_no_table() -> None:
    """States grow with two to the power of the servers: an integer program takes over."""
    count, servers = 9, 8
    rng = np.random.default_rng(1)
    times = rng.uniform(1, 9, (count, servers))
    times[[0, -1]] = 0
    allowed = np.ones((count, servers), dtype=bool)
    allowed[[0, -1], 1:] = False
    flows = [Flow("input", 0, (1,)), Flow("wide", 1, tuple(range(2, count - 1)), (2, 3))]
    flows += [Flow(f"output{i}", i, (count - 1,)) for i in range(2, count - 1)]
    off = ~np.eye(servers, dtype=bool)
    transfer_ms = off * rng.uniform(0.1, 1, (len(flows), 1, 1))
    problem = Problem(
        layers=tuple(map(str, range(count))), servers=tuple(map(str, range(servers))), entry=0,
        float_ms=times, int8_ms=times / 2, allowed=allowed, flows=tuple(flows),
        transfer_ms=transfer_ms, coded_ms=transfer_ms / 4, compute_watt=np.ones(servers),
        send_watt=np.ones(servers), float_bytes=times, int8_bytes=times, working_bytes=times,
        quantizable=(2, 3),
    )  # fmt: skip
    with pytest.raises(TooWide, match="wide"):
        Elimination(problem)
    found = solve(problem, Weights())
    assert found.status is Status.OPTIMAL
    few = replace(problem, allowed=allowed & (np.arange(servers) < 2))
    assert found.value <= solve(few, Weights()).value


def test_energy_that_nobody_uses_leaves_latency_to_choose() -> None:
    """The second aim counts even if the first is 0."""
    problem = random_problem(
        np.random.default_rng(2), layers=6, servers=3, quantizable=0, with_noise=False
    )
    free = replace(problem, compute_watt=np.zeros(3), send_watt=np.zeros(3))
    thriftiest = extremes(Search(free)).thriftiest
    assert thriftiest.costs is not None
    assert thriftiest.costs.latency_ms == pytest.approx(brute_force(free, WEIGHTS[0])[0])


def test_a_front_of_negative_sums_ends() -> None:
    """Recorded int8 times can be below 0."""
    problem = random_problem(
        np.random.default_rng(2), layers=6, servers=2, quantizable=2, with_noise=False
    )
    front = pareto_front(Search(replace(problem, int8_ms=problem.int8_ms - 200)))
    assert front[0].costs.latency_ms < 0


def test_a_front_without_time() -> None:
    """Points that were not found in time are left out."""
    problem = random_problem(
        np.random.default_rng(2), layers=7, servers=3, quantizable=2, with_rows=True
    )
    pareto_front(Search(problem), bounded=2, time_limit_s=0.0)


def test_numbers_that_no_solver_takes() -> None:
    """The error names the solver."""
    problem = random_problem(np.random.default_rng(4), with_noise=False)
    tiny = replace(problem, limits=Limits(latency_ms=1e-300))
    with pytest.raises(CheckFailed, match="HiGHS"):
        solve(tiny, WEIGHTS[0])


def test_a_layer_that_may_stand_nowhere() -> None:
    """Infeasible, and said so."""
    problem = random_problem(np.random.default_rng(1))
    allowed = problem.allowed.copy()
    allowed[2] = False
    found = solve(replace(problem, allowed=allowed), WEIGHTS[0])
    assert (found.status, found.placement) == (Status.INFEASIBLE, None)


def test_a_time_limit_never_looks_like_a_proof() -> None:
    """Without time there is a bound and perhaps a placement, but nothing is called optimal that
    was not proven."""
    ended = set()
    for seed in range(12):
        problem = random_problem(np.random.default_rng(seed), with_rows=True, layers=6, servers=3)
        best, _ = brute_force(problem, WEIGHTS[0])
        found = solve(problem, WEIGHTS[0], time_limit_s=0.0)
        ended.add(found.status)
        assert found.bound <= best * (1 + 1e-9)
        if found.status is Status.OPTIMAL:
            assert found.value == pytest.approx(best, rel=1e-6)
        if found.placement is not None:
            assert not violations(problem, found.placement, evaluate(problem, found.placement))
            assert found.gap == pytest.approx(max(0.0, 1 - found.bound / found.value))
    assert ended & {Status.FEASIBLE, Status.UNKNOWN}


@pytest.mark.parametrize("seed", range(8))
def test_ends_and_front(seed: int) -> None:
    """The ends are the least of each, then of the other; no point of the front beats another; and
    each weight's optimum is on the front."""
    problem = random_problem(np.random.default_rng(5000 + seed), with_rows=seed % 2 == 0)
    search = Search(problem)
    front = pareto_front(search, bounded=2)
    if math.isinf(brute_force(problem, WEIGHTS[0])[0]):
        assert front == []
        return
    ends = extremes(search)
    assert ends.fastest.value == pytest.approx(brute_force(problem, WEIGHTS[0])[0])
    assert ends.thriftiest.value == pytest.approx(brute_force(problem, WEIGHTS[1])[0])
    assert front[0].costs.latency_ms == pytest.approx(ends.latency_range_ms[0])
    assert front[-1].costs.energy_joule == pytest.approx(ends.energy_range_joule[0])
    for a, b in pairwise(front):
        assert a.costs.latency_ms < b.costs.latency_ms
        assert a.costs.energy_joule > b.costs.energy_joule
    for share in (0.2, 0.5, 0.8):
        found, _ = solve_weighted(search, share)
        assert found.costs is not None
        scores = [ends.score(point.costs, share) for point in front]
        assert min(scores) == pytest.approx(ends.score(found.costs, share), abs=1e-6)


def test_one_placement_best_in_both() -> None:
    """Ranges of 0 make no division by 0."""
    problem = random_problem(np.random.default_rng(3), servers=2, with_noise=False)
    allowed = np.zeros_like(problem.allowed)
    allowed[:, problem.entry] = True
    one = replace(problem, allowed=allowed)
    found, ends = solve_weighted(Search(one), 0.5)
    assert found.status is Status.OPTIMAL
    assert found.costs is not None
    assert ends.score(found.costs, 0.5) == pytest.approx(0.0)
    assert len(pareto_front(Search(one), bounded=3)) == 1


@pytest.mark.parametrize("seed", range(10))
def test_baselines(seed: int) -> None:
    """The best cut is what trying all cuts finds; no baseline that keeps the limits beats the plan;
    one that does not says which it breaks."""
    problem = random_problem(np.random.default_rng(6000 + seed), with_rows=seed % 2 == 0)
    weights = WEIGHTS[2]
    best, _ = brute_force(problem, weights)
    found = baselines(problem, weights)
    for item in found:
        assert list(item.broken) == violations(problem, item.placement, item.costs)
        if item.is_feasible:
            assert item.costs.value(weights) >= best * (1 - 1e-9)
    count = len(problem.layers)
    for server in range(len(problem.servers)):
        if server == problem.entry:
            continue
        values = [math.inf]
        for first in range(2, count - 1):
            servers = [problem.entry] * first + [server] * (count - 1 - first) + [problem.entry]
            for mask in range(1 << len(problem.quantizable)):
                placement = Placement(tuple(servers), mask)
                costs = evaluate(problem, placement)
                if not violations(problem, placement, costs):
                    values.append(costs.value(weights))
        cut = [item for item in found if item.kind == "single cut" and item.server == server]
        # noise may allow a set and not a part of it, and only the largest sets are tried
        if cut and cut[0].is_feasible:
            assert cut[0].costs.value(weights) >= min(values) * (1 - 1e-9)
        if not problem.quantizable and not math.isinf(min(values)):
            assert cut[0].costs.value(weights) == pytest.approx(min(values))


def test_a_limit_of_energy_moves_layers_off_the_device() -> None:
    """And the fewer joules there are, the longer it takes."""
    problem = random_problem(np.random.default_rng(11), layers=7, servers=3, with_noise=False)
    free = solve(problem, WEIGHTS[0])
    assert free.costs is not None
    server = max(range(3), key=lambda k: free.costs.server_energy_joule[k])  # type: ignore[union-attr]
    energies = [math.inf] * 3
    energies[server] = 0.5 * free.costs.server_energy_joule[server]
    tight = solve(replace(problem, limits=Limits(server_energy_joule=tuple(energies))), WEIGHTS[0])
    assert tight.costs is not None
    assert tight.costs.server_energy_joule[server] <= energies[server] * (1 + 1e-9)
    assert tight.value > free.value


def test_an_order_of_elimination_joins_few() -> None:
    """A chain never joins more than two, whichever way its ends are numbered."""
    near = [{1}, {0, 2}, {1, 3}, {2, 4}, {3}]
    order = min_fill([set(n) for n in near], range(5))
    assert sorted(order) == list(range(5))
    problem = random_problem(np.random.default_rng(0), layers=5, with_noise=False)
    chain = replace(
        problem,
        flows=tuple(replace(f, source=i, consumers=(i + 1,), coded_by=())
                    for i, f in enumerate(problem.flows[:1] * 4)),
        transfer_ms=problem.transfer_ms[[0] * 4],
        coded_ms=problem.coded_ms[[0] * 4],
        quantizable=(),
        noise=NoiseLimit(),
    )  # fmt: skip
    assert max(len(step.scope) for step in Elimination(chain).steps) == 1
