"""The program of a problem row by row, and that nothing is believed that isn't so."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pulp
import pytest

from tests.helpers.problems import (
    MIB,
    brute_force,
    feasible_placements,
    placements,
    random_problem,
    tiny_problem,
)
from tritier.errors import CheckFailed, UsageError
from tritier.planner import infeasible, pulp_noise, pulp_solvers
from tritier.planner.evaluate import evaluate
from tritier.planner.infeasible import limits_of, relaxations, without_limits
from tritier.planner.noise_sets import NoiseLimit, NoiseRow
from tritier.planner.problem import Flow, Limits, Placement, Problem, Weights
from tritier.planner.pulp_bottleneck import bottleneck_ms, solve_bottleneck
from tritier.planner.pulp_model import build, solve_pulp
from tritier.planner.pulp_noise import is_closed
from tritier.planner.pulp_solve import Settings, settle
from tritier.planner.pulp_solvers import run, solver_named
from tritier.planner.solution import Solution, Status
from tritier.planner.thesis_model import build_thesis, solve_thesis

BOTH = Weights(1.0, 100.0)
LATENCY = Weights(1.0, 0.0)
SOLVES = (solve_pulp, solve_thesis)


def names(problem: Problem) -> tuple[set[str], set[str]]:
    program = build(problem, BOTH).rows.program
    return {v.name for v in program.variables()}, {c.name for c in program.constraints()}


def large_problem() -> Problem:
    """Not to be solved in a few milliseconds."""
    rng = np.random.default_rng(1)
    return random_problem(rng, layers=30, servers=4, quantizable=8, with_rows=True)


class TestProgram:
    def test_every_limit_is_a_row(self) -> None:
        _, rows = names(tiny_problem())
        limits = {"latency_ms", "energy_joule", "energy_joule_0_device", "memory_mib_1_edge"}
        assert limits | {"sets"} <= rows
        _, unlimited = names(replace(tiny_problem(), limits=Limits(), noise=NoiseLimit(2)))
        assert not (limits | {"sets"}) & unlimited

    def test_layers_with_one_label_are_constants(self) -> None:
        problem = tiny_problem()
        variables, rows = names(problem)
        assert {v for v in variables if v.startswith("x_")} == {
            "x_1_conv1_0_device", "x_1_conv1_1_edge", "x_2_conv2_0_device", "x_2_conv2_1_edge",
            "x_1_conv1_0_device_int8", "x_1_conv1_1_edge_int8", "x_2_conv2_0_device_int8",
            "x_3_add_0_device", "x_3_add_1_edge",
        }  # fmt: skip
        assert {r for r in rows if r.startswith("label_")} == {"label_1", "label_2", "label_3"}
        allowed = problem.allowed.copy()
        allowed[3, 0] = False
        pinned, _ = names(replace(problem, allowed=allowed))
        assert not any(v.startswith("x_3_") for v in pinned)

    def test_only_labels_are_whole_numbers(self) -> None:
        program = build(tiny_problem(), BOTH).rows.program
        for variable in program.variables():
            assert variable.isInteger() == variable.name.startswith("x_")

    def test_the_relaxation_is_tight(self) -> None:
        rng = np.random.default_rng(28)
        problem = random_problem(rng, layers=7, servers=3, with_noise=False)
        best, _ = brute_force(problem, LATENCY)
        bounds = []
        for model in (build(problem, LATENCY), build_thesis(problem, LATENCY)):
            for variable in model.rows.program.variables():
                variable.cat = pulp.LpContinuous
            outcome = run(model.rows.program)
            bounds.append(outcome.objective / model.rows.objective_scale)
        assert bounds[0] == pytest.approx(best)
        assert bounds[1] < 0.9 * best

    @pytest.mark.parametrize("solve", SOLVES)
    @pytest.mark.parametrize("solver", ["HiGHS", "CBC"])
    def test_any_names_will_do(self, solve: object, solver: str) -> None:
        odd = ("/in put", "a-b[0]", "a+b(0)", "e1 <= 2;", "\u00fc" * 300)
        flows = tuple(replace(flow, name="t:0/" * 80) for flow in tiny_problem().flows)
        problem = replace(tiny_problem(), layers=odd, flows=flows, servers=("a b", "a_b"))
        found = solve(problem, BOTH, solver=solver)  # type: ignore[operator]
        assert found.value == pytest.approx(brute_force(problem, BOTH)[0])

    def test_everything_pinned(self) -> None:
        allowed = np.zeros((5, 2), dtype=bool)
        allowed[:, 0] = True
        problem = replace(tiny_problem(), allowed=allowed, quantizable=(), noise=NoiseLimit())
        found = solve_pulp(problem, BOTH)
        assert found.status == Status.OPTIMAL
        assert found.placement == Placement((0,) * 5)
        assert found.value == pytest.approx(96.2)
        tight = replace(problem, limits=Limits(latency_ms=73.9))
        assert solve_pulp(tight, BOTH).status == Status.INFEASIBLE

    @pytest.mark.parametrize("solve", SOLVES)
    def test_a_layer_without_a_server(self, solve: object) -> None:
        allowed = tiny_problem().allowed.copy()
        allowed[2] = False
        found = solve(replace(tiny_problem(), allowed=allowed), BOTH)  # type: ignore[operator]
        assert found.status == Status.INFEASIBLE
        assert found.placement is None

    def test_weights_below_zero_are_refused(self) -> None:
        with pytest.raises(AssertionError):
            build(tiny_problem(), Weights(-1.0, 0.0))


class TestModes:
    @pytest.mark.parametrize("solve", SOLVES)
    def test_int8_only_where_it_is_offered(self, solve: object) -> None:
        problem = replace(tiny_problem(), limits=Limits(), noise=NoiseLimit(2))
        transfer_ms = problem.transfer_ms * 0.0
        problem = replace(problem, transfer_ms=transfer_ms, coded_ms=transfer_ms)
        found = solve(problem, LATENCY)  # type: ignore[operator]
        # conv2 is faster on the edge as it is than quantized on the device: not both.
        assert found.placement == Placement((0, 1, 1, 1, 0), 0b01)
        assert found.value == pytest.approx(5 + 6 + 2)

    @pytest.mark.parametrize("solve", SOLVES)
    def test_a_consumer_codes_a_tensor(self, solve: object) -> None:
        problem = replace(tiny_problem(), limits=Limits(), noise=NoiseLimit(2))
        flows = list(problem.flows)
        flows[0] = Flow("image", 0, (1,), (1,))
        flows[1] = Flow("first", 1, (2, 3), (1, 2))
        coded_ms = problem.coded_ms.copy()
        coded_ms[0] /= 10
        problem = replace(problem, flows=tuple(flows), coded_ms=coded_ms)
        for per_joule in (0.0, 100.0, 1000.0):
            weights = Weights(1.0, per_joule)
            found = solve(problem, weights)  # type: ignore[operator]
            assert found.value == pytest.approx(brute_force(problem, weights)[0])
        crossing = {index: coded for index, *_, coded, _ in found.costs.crossings}
        assert crossing[0], "the image reaches conv1 in 8 bits, since that is quantized"

    @pytest.mark.parametrize("solve", SOLVES)
    @pytest.mark.parametrize("pinned", [None, 1, 2, 3])
    def test_coding_may_cost_more(self, solve: object, pinned: int | None) -> None:
        problem = replace(tiny_problem(), limits=Limits(), noise=NoiseLimit(2))
        allowed = problem.allowed.copy()
        if pinned is not None:
            allowed[pinned, pinned % 2] = False
        flows = list(problem.flows)
        flows[1] = Flow("first", 1, (2, 3), (1, 2))
        for factor in (0.0, 3.0, 10.0):
            coded_ms = problem.coded_ms.copy()
            coded_ms[1] = problem.transfer_ms[1] * factor
            changed = replace(problem, flows=tuple(flows), coded_ms=coded_ms, allowed=allowed)
            found = solve(changed, LATENCY)  # type: ignore[operator]
            assert found.value == pytest.approx(brute_force(changed, LATENCY)[0])

    @pytest.mark.parametrize("solve", SOLVES)
    def test_a_tensor_that_may_only_go_coded(self, solve: object) -> None:
        problem = replace(tiny_problem(), limits=Limits())
        transfer_ms, int8_ms = problem.transfer_ms.copy(), problem.int8_ms.copy()
        transfer_ms[1, 0, 1] = math.inf
        allowed = problem.allowed.copy()
        allowed[1, 1] = False
        problem = replace(problem, transfer_ms=transfer_ms, allowed=allowed)
        found = solve(problem, LATENCY)  # type: ignore[operator]
        assert found.placement == Placement((0, 0, 1, 1, 0), 0b01)
        int8_ms[1, 0] = 45.0  # not worth it but for the tensor
        problem = replace(problem, int8_ms=int8_ms)
        for weights in (LATENCY, BOTH):
            found = solve(problem, weights)  # type: ignore[operator]
            assert found.value == pytest.approx(brute_force(problem, weights)[0])

    def test_labels_that_are_left_out(self) -> None:
        problem = tiny_problem()
        for layer in (1, 2, 3):
            for gone in problem.labels[layer]:
                labels = [
                    [x for x in own if (i, x) != (layer, gone)]
                    for i, own in enumerate(problem.labels)
                ]
                left = [
                    costs.value(BOTH)
                    for p, costs in feasible_placements(problem)
                    if (p.servers[layer], bool(p.quantized >> (layer - 1) & 1 and layer < 3))
                    != gone
                ]
                found = solve_pulp(problem, BOTH, allowed_labels=labels)
                assert found.value == pytest.approx(min(left))

    def test_a_known_bound_is_kept(self) -> None:
        problem = large_problem()
        found = solve_pulp(problem, BOTH, time_limit_s=0.0, lower_bound=12.5)
        assert found.status == Status.UNKNOWN
        assert found.bound == 12.5


class TestNoise:
    def test_closed_limits(self) -> None:
        rising = NoiseLimit(3, (NoiseRow("a", 0.1, {1: 1.0, 2: 1.0, 4: 1.0, 3: 0.5}, 2.2),))
        assert is_closed(rising)
        assert not is_closed(replace(rising, refused=frozenset({1})))
        falling = NoiseLimit(2, (NoiseRow("a", 0.0, {1: 1.0, 2: 1.0, 3: -1.5}, 0.6),))
        assert not is_closed(falling)
        assert falling.allows(3)
        assert not falling.allows(1)

    def test_many_layers_are_limited_term_by_term(self) -> None:
        """18 layers, of which 16 have no int8 anywhere: too many sets to look at."""
        problem = random_problem(
            np.random.default_rng(5), layers=20, servers=2, quantizable=18, with_noise=False
        )
        allowed = np.zeros((20, 2), dtype=bool)
        allowed[:, problem.entry] = True
        allowed[4] = allowed[9] = True
        int8_ms = np.full((20, 2), math.inf)
        int8_ms[4], int8_ms[9] = problem.float_ms[4] / 2, problem.float_ms[9] / 2
        four, nine = 1 << 3, 1 << 8
        terms = {four: 0.2, nine: 0.3, four | nine: -0.25}
        finite = np.where(np.isfinite(problem.transfer_ms), problem.transfer_ms, 5.0)
        problem = replace(
            problem, allowed=allowed, int8_ms=int8_ms, transfer_ms=finite, coded_ms=finite / 2
        )
        chosen = set()
        for budget in (-1.0, -0.07, 0.0, 0.15, 0.21, 0.35):
            for constant in (-0.3, -0.05, 0.0, 0.05):
                noise = NoiseLimit(18, (NoiseRow("a", constant, terms, budget),))
                assert not noise.is_tabulated
                limited = replace(problem, noise=noise)
                best, _ = brute_force(limited, LATENCY)
                for solve in SOLVES:
                    found = solve(limited, LATENCY)
                    assert found.value == pytest.approx(best)
                    assert found.placement is not None
                    chosen.add(found.placement.quantized)
        assert chosen == {0, four, four | nine}

    def test_some_masks_only(self) -> None:
        problem = tiny_problem()
        found = solve_pulp(problem, BOTH, masks=[0b10])
        assert found.placement is not None
        assert found.placement.quantized == 0b10
        assert found.value == pytest.approx(69.6)

    def test_refused_masks_without_rows(self) -> None:
        noise = NoiseLimit(2, refused=frozenset({0b01, 0b11}))
        problem = replace(tiny_problem(), noise=noise)
        best, placement = brute_force(problem, BOTH)
        for solve in SOLVES:
            found = solve(problem, BOTH)
            assert found.value == pytest.approx(best)
            assert found.placement == placement

    def test_too_many_sets_become_terms(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pulp_noise, "MOST_SETS", 0)
        _, rows = names(tiny_problem())
        assert "noise_0_sum" in rows
        assert "sets" not in rows


class TestTrust:
    @pytest.mark.parametrize("solver", ["HiGHS", "CBC"])
    def test_out_of_time_is_not_optimal(self, solver: str) -> None:
        problem = large_problem()
        for seconds in (0.0, 0.02):
            found = solve_pulp(problem, BOTH, solver=solver, time_limit_s=seconds)
            assert found.status in (Status.FEASIBLE, Status.UNKNOWN)
            assert found.bound < found.value

    def test_optimal_as_pulp_says_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = build(tiny_problem(), BOTH)
        run(model.rows.program)

        def stopped(program: pulp.LpProblem, *_: object) -> None:
            program.status = pulp.LpStatusOptimal
            program.sol_status = pulp.LpSolutionIntegerFeasible

        monkeypatch.setattr(pulp_solvers, "_solve", stopped)
        assert run(model.rows.program, solver="CBC").status == Status.FEASIBLE
        for variable in model.rows.program.variables():
            variable.varValue = 0.3
        assert run(model.rows.program, solver="CBC").status == Status.UNKNOWN

    def test_infeasible_as_a_stopped_cbc_says_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def stopped(program: pulp.LpProblem, *_: object) -> None:
            program.status = pulp.LpStatusInfeasible
            program.sol_status = pulp.LpSolutionInfeasible

        monkeypatch.setattr(pulp_solvers, "_solve", stopped)
        program = build(tiny_problem(), BOTH).rows.program
        assert run(program, solver="CBC", time_limit_s=0.0).status == Status.UNKNOWN
        assert run(program, solver="CBC", time_limit_s=60.0).status == Status.INFEASIBLE

    def test_a_limit_within_the_tolerance_of_solvers(self) -> None:
        problem = replace(tiny_problem(), limits=Limits())
        ranked = sorted({round(c.value(BOTH), 9) for _, c in feasible_placements(problem)})
        energies = sorted({c.energy_joule for _, c in feasible_placements(problem)})
        assert len(energies) > 2
        for solver in ("HiGHS", "CBC"):
            for k in (0, 1, 2):
                under = Limits(energy_joule=energies[k] * (1 - 3e-9))
                limited = replace(problem, limits=under)
                found = solve_pulp(limited, BOTH, solver=solver)
                best, _ = brute_force(limited, BOTH)
                assert found.value == (pytest.approx(best) if k else math.inf)
                exact = replace(problem, limits=Limits(energy_joule=energies[k]))
                found = solve_pulp(exact, BOTH, solver=solver)
                assert found.value == pytest.approx(brute_force(exact, BOTH)[0])
        assert ranked[0] < ranked[1]

    def test_what_only_the_tolerance_allows_is_cut_off(self) -> None:
        problem = tiny_problem()

        def settled(edge_mib: float) -> Solution:
            """The program knows a limit of 16 MiB, the evaluation another one."""
            other = Limits(memory_bytes=(math.inf, edge_mib * MIB))
            model = replace(build(problem, BOTH), problem=replace(problem, limits=other))
            return settle(model, lambda _, costs: costs.value(BOTH), Settings())

        assert settled(12.0).value == pytest.approx(40.3)
        slightly_less = settled(12.0 * (1 - 1e-6))
        assert slightly_less.status == Status.OPTIMAL
        assert slightly_less.value == pytest.approx(51.35)
        with pytest.raises(AssertionError, match="allows what breaks limits"):
            settled(11.0)

    def test_disagreement_is_an_error(self) -> None:
        for factor, what in ((1.01, "more than"), (0.99, "less than")):
            model = build(tiny_problem(), BOTH)
            with pytest.raises(AssertionError, match=what):
                settle(model, lambda _, c, f=factor: f * c.value(BOTH), Settings())  # type: ignore[misc]


class TestSolvers:
    def test_names(self) -> None:
        assert solver_named("highs") == "HiGHS"
        assert solver_named("PULP_CBC_CMD") == solver_named("cbc") == "CBC"

    @pytest.mark.parametrize("name", ["gurobbi", "CPLEX_PY"])
    def test_an_unknown_solver(self, name: str) -> None:
        if name in pulp.listSolvers(onlyAvailable=True):
            pytest.skip(f"{name} is installed here")
        with pytest.raises(UsageError, match=f"'{name}' is not installed.*HiGHS, CBC"):
            solve_pulp(tiny_problem(), BOTH, solver=name)

    @pytest.mark.parametrize("solver", ["HiGHS", "CBC"])
    def test_silent(self, solver: str, capfd: pytest.CaptureFixture[str]) -> None:
        for problem in (tiny_problem(), replace(tiny_problem(), limits=Limits(latency_ms=9.0))):
            solve_pulp(problem, BOTH, solver=solver)
        out, err = capfd.readouterr()
        assert out == err == ""

    def test_no_file_is_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setenv("TMP", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        assert solve_pulp(tiny_problem(), BOTH, solver="CBC").status == Status.OPTIMAL
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr(pulp.PULP_CBC_CMD, "pulp_cbc_path", "/bin/false")
        with pytest.raises(CheckFailed, match="solver 'CBC' failed"):
            solve_pulp(tiny_problem(), BOTH, solver="CBC")
        assert list(tmp_path.iterdir()) == []


class TestBottleneck:
    def test_of_servers_and_links(self) -> None:
        problem = tiny_problem()
        costs = evaluate(problem, Placement((0, 0, 0, 1, 0)))
        # device 70 ms, edge 2 ms, to the edge 20 + 9 ms, back 1.5 ms
        assert bottleneck_ms(costs) == 70.0
        costs = evaluate(problem, Placement((0, 0, 1, 1, 0), 0b01))
        assert bottleneck_ms(costs) == 22.0

    def test_the_least(self) -> None:
        problem = replace(tiny_problem(), limits=Limits())
        found = solve_bottleneck(problem)
        every = [(bottleneck_ms(c), c.latency_ms) for _, c in feasible_placements(problem)]
        assert found.costs is not None
        assert (found.value, found.costs.latency_ms) == pytest.approx(min(every))
        assert found.status == Status.OPTIMAL

    def test_infeasible(self) -> None:
        problem = replace(tiny_problem(), limits=Limits(latency_ms=1.0))
        assert solve_bottleneck(problem).status == Status.INFEASIBLE


class TestInfeasible:
    @pytest.mark.parametrize("tries", [60, 0])
    def test_latency_against_pins(self, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(infeasible, "_MOST_TRIES", tries)
        allowed = tiny_problem().allowed.copy()
        allowed[1, 1] = False
        problem = replace(
            tiny_problem(), allowed=allowed, limits=Limits(latency_ms=30.0, energy_joule=5.0)
        )
        found = {c.limit.kind: c for c in relaxations(problem, solve=solve_pulp)}
        assert set(found) == {"latency", "allowed"}
        assert found["latency"].nearest == pytest.approx(36.5)
        assert found["allowed"].nearest == 1.0
        assert found["allowed"].placement is not None
        assert found["allowed"].placement.servers == (0, 1, 1, 1, 0)
        assert all(conflict.proven for conflict in found.values())

    def test_refused_masks(self) -> None:
        noise = NoiseLimit(2, refused=frozenset({0b01, 0b11}))
        problem = replace(tiny_problem(), noise=noise, limits=Limits(latency_ms=27.0))
        found = {c.limit.kind: c for c in relaxations(problem, solve=solve_pulp)}
        assert set(found) == {"latency", "refused"}
        assert found["refused"].nearest == 1.0
        assert found["refused"].placement is not None
        assert noise.refused.issuperset({found["refused"].placement.quantized})

    def test_no_limit_is_to_blame(self) -> None:
        transfer_ms = tiny_problem().transfer_ms.copy()
        transfer_ms[:, 0, 1] = math.inf
        float_ms = tiny_problem().float_ms.copy()
        float_ms[3, 0] = math.inf
        problem = replace(
            tiny_problem(), transfer_ms=transfer_ms, coded_ms=transfer_ms, float_ms=float_ms
        )
        assert relaxations(problem, solve=solve_pulp) == []

    def test_a_feasible_problem(self) -> None:
        with pytest.raises(ValueError, match="feasible"):
            relaxations(tiny_problem(), solve=solve_pulp)

    def test_all_limits_are_found_and_dropped(self) -> None:
        allowed = tiny_problem().allowed.copy()
        allowed[3, 1] = False
        noise = replace(tiny_problem().noise, refused=frozenset({3}))
        problem = replace(tiny_problem(), allowed=allowed, noise=noise)
        limits = limits_of(problem)
        assert [limit.kind for limit in limits] == [
            "latency", "energy", "server energy", "memory", "noise", "refused", "allowed"
        ]  # fmt: skip
        free = without_limits(problem, limits)
        assert limits_of(free) == []
        assert len(feasible_placements(free)) == len(list(placements(free))) == 24
