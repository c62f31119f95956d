"""The fixture of published planning cases, and the synthetic graphs of the scaling benchmark."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from benchmarks.planner_fit import HELD, fit
from benchmarks.planner_fixture import runs
from benchmarks.planner_instances import chain, random_graph, setting
from benchmarks.planner_published import components, per_server
from tests.helpers.published import (
    FIXTURE,
    MIB,
    NOMINAL,
    SETTINGS,
    fixture,
    problem,
    recorded_plans,
)
from tritier.planner.evaluate import evaluate, violations
from tritier.planner.problem import Placement, Problem

PLANS = recorded_plans()
# Of latency, energy and device energy, at most: what the fit leaves.
ERROR = {
    "Device": 0.0045,
    "DeviceEdge-1cpu": 0.0015,
    "DeviceEdge-2cpu": 0.0095,
    "DeviceEdgeCloud": 0.0023,
}


def everywhere(built: Problem, server: int, quantized: int = 0) -> Placement:
    inner = (server,) * (len(built.layers) - 2)
    return Placement((0, *inner, 0), quantized)


def test_fixture_is_small() -> None:
    assert FIXTURE.stat().st_size < 300_000


@pytest.mark.parametrize(("model", "layers"), [("yolo11x-seg", 654), ("yolo11m", 407)])
def test_models_are_whole(model: str, layers: int) -> None:
    built = problem(model)
    assert len(built.layers) == len(set(built.layers)) == layers
    assert len(built.quantizable) == 12
    assert all("Conv" in built.layers[layer] for layer in built.quantizable)
    read = {reader for flow in built.flows for reader in flow.consumers}
    assert read == set(range(1, layers))  # each layer but the generator reads something
    assert {flow.source for flow in built.flows} == set(range(layers - 1))


def test_noise_has_all_terms_up_to_three_layers() -> None:
    (row,) = problem(max_noise=0.1).noise.rows
    sizes = Counter(mask.bit_count() for mask in row.terms)
    assert sizes == {1: 12, 2: math.comb(12, 2), 3: math.comb(12, 3)}
    assert row.constant == pytest.approx(0.01423337)
    assert row.load((1 << 12) - 1) == pytest.approx(0.20443, abs=1e-5)


def test_layers_add_up_to_the_measured_model() -> None:
    built = problem()
    costs = evaluate(built, everywhere(built, 0))
    assert costs.latency_ms == pytest.approx(5131.340, abs=0.01)
    assert costs.energy_joule == pytest.approx(2.9165 * 5.131340, abs=1e-4)
    quantized = evaluate(built, everywhere(built, 0, (1 << 12) - 1))
    assert quantized.latency_ms == pytest.approx(3712.183, abs=0.01)


def test_uploading_the_image_pays_for_its_megabytes_and_the_latency() -> None:
    built = problem()
    costs = evaluate(built, everywhere(built, 1))
    sent = {(a, b): ms for _, a, b, _, ms in costs.crossings if (a, b) == (0, 1)}
    assert sent == {(0, 1): pytest.approx(1000 * 4.6875 * MIB / 5e6 + 5.0)}
    assert Counter((a, b) for _, a, b, _, _ in costs.crossings) == {(0, 1): 1, (1, 0): 2}


def test_int8_tensors_are_a_quarter() -> None:
    built = problem()
    index = next(i for i, flow in enumerate(built.flows) if flow.coded_by)
    latency = NOMINAL.latency_ms[0, 1]
    whole, coded = built.transfer_ms[index, 0, 1], built.coded_ms[index, 0, 1]
    assert coded - latency == pytest.approx((whole - latency) / 4)
    coders = {kind: [f.coded_by for f in problem(coded_by=kind).flows]
              for kind in ("source", "consumers", "both", "never")}  # fmt: skip
    assert all(set(a) | set(b) == set(c) for a, b, c in
               zip(coders["source"], coders["consumers"], coders["both"], strict=True))  # fmt: skip
    assert not any(coders["never"])


def test_published_gains_on_the_edge_exceed_the_times() -> None:
    quantizable = list(problem().quantizable)
    assert problem().int8_ms[quantizable, 1].max() < 0
    assert problem(clip=True).int8_ms[quantizable, 1].tolist() == [0.0] * 12


def test_there_are_99_plans() -> None:
    assert Counter(plan.case for plan in PLANS) == {
        "Device": 10, "DeviceEdge-1cpu": 30, "DeviceEdge-2cpu": 29, "DeviceEdgeCloud": 30,
    }  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_predictions_of_recorded_plans_are_reproduced(case: str) -> None:
    for plan in (plan for plan in PLANS if plan.case == case):
        built = problem(plan.model, SETTINGS[case], max_noise=plan.max_noise)
        costs = evaluate(built, plan.placement)
        assert violations(built, plan.placement, costs) == []
        assert costs.latency_ms == pytest.approx(plan.latency_ms, rel=ERROR[case])
        assert costs.energy_joule == pytest.approx(plan.energy_joule, rel=ERROR[case])
        device = costs.server_energy_joule[0]
        assert device == pytest.approx(plan.device_energy_joule, rel=ERROR[case])


def test_settings_are_what_the_fit_finds() -> None:
    case = "DeviceEdgeCloud"
    found, errors = fit([p for p in PLANS if p.case == case], "average", HELD[case])
    chosen = SETTINGS[case]
    assert chosen.whole_s is not None
    assert found["whole", 2] == pytest.approx(chosen.whole_s[2], rel=1e-3)
    assert 1 / found["per_mib", (0, 2)] == pytest.approx(chosen.bandwidth_mib_s[0, 2], rel=1e-3)
    assert 1000 * found["wait", (2, 0)] == pytest.approx(chosen.latency_ms[2, 0], rel=1e-3)
    assert np.abs(errors).max() < ERROR[case]


def test_the_constant_of_the_noise_counts() -> None:
    """At 0.025 the published plan leaves out layers that would fit without the constant."""
    noise = problem(max_noise=0.025).noise
    (row,) = noise.rows
    plan = next(p for p in PLANS if p.case == "DeviceEdge-1cpu" and p.max_noise == 0.025)
    taken = plan.placement.quantized
    larger = [taken | 1 << bit for bit in range(12) if not taken >> bit & 1]
    assert row.load(taken) == pytest.approx(0.0248, abs=1e-4)
    assert noise.allows(taken)
    assert not any(noise.allows(mask) for mask in larger)
    assert any(row.load(mask) - row.constant <= 0.025 for mask in larger)


def test_components_are_counted_as_published() -> None:
    built = problem(setting=SETTINGS["DeviceEdge-1cpu"])
    plan = next(p for p in PLANS if p.case == "DeviceEdge-1cpu" and p.max_noise == 0.1)
    assert per_server(built, plan.placement) == [63, 589]
    assert components(built, plan.placement) == plan.components == 4


def test_runs_of_equal_values() -> None:
    assert runs([0, 0, 2, 1, 1]) == [[0, 2], [2, 1], [1, 2]]
    assert runs([]) == []


@pytest.mark.parametrize("layers", [502, 1852])
def test_chain(layers: int) -> None:
    built = chain(layers, 2)
    assert len(built.layers) == layers
    assert [flow.consumers for flow in built.flows] == [(i + 1,) for i in range(layers - 1)]


@pytest.mark.parametrize("layers", [702, 1142])
def test_random_graph_has_five_branches(layers: int) -> None:
    built = random_graph(layers, 3)
    assert len(built.layers) == layers
    assert len(built.flows) == layers - 1
    longest: Counter[int] = Counter({0: 1})
    readers = {flow.source: flow.consumers for flow in built.flows}
    for source in range(layers - 1):
        for reader in readers[source]:
            longest[reader] = max(longest[reader], longest[source] + 1)
    main = 500 + (layers - 702) // 110 * 50
    assert longest[layers - 1] >= main + 2  # the main branch, or a way through another
    assert sum(len(x) for x in readers.values()) > layers - 1 + 4  # four joins, and skips


def test_random_graphs_are_the_same_each_time() -> None:
    one, other = random_graph(812, 2), random_graph(812, 2)
    assert one.flows == other.flows
    assert np.array_equal(one.float_ms, other.float_ms)
    assert random_graph(812, 2, seed=1).flows != one.flows


def test_servers_of_the_synthetic_graphs() -> None:
    where = setting(6)
    assert where.bandwidth_mib_s[0, 1] == 30.0
    assert where.bandwidth_mib_s[5, 0] == 10.0
    assert where.latency_ms[0, 5] == 45.0
    assert where.compute_watt == (3, 5, 7, 9, 11, 13)
    assert where.send_watt == (2, 4, 6, 8, 10, 12)
    built = chain(502, 3)
    assert np.allclose(built.float_ms[1:-1, 0], 1e6 * built.float_ms[1:-1, 2])


def test_what_is_recorded_of_scaling_fits_the_sizes() -> None:
    scaling = fixture()["scaling"]
    assert [row[:2] for row in scaling["chain"]] == [
        [layers, servers] for layers in range(502, 1853, 150) for servers in range(1, 7)
    ]
    assert {row[0] for row in scaling["random"]} == set(range(702, 1143, 110))
    assert max(row[-1] for row in scaling["chain"]) > 200
