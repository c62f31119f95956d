"""From documents to the placement problem: each figure by hand, and again with another network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.models import load
from tests.helpers.planning import (
    ALL_GAIN,
    BOTH,
    CHAIN,
    LAYERS,
    build,
    faults,
    link,
    network,
    quantizing,
    request,
    servers,
    timing,
)
from tritier.documents import (
    Ranges,
    ServersSpec,
)
from tritier.errors import InputError
from tritier.graph import LoadedModel
from tritier.planner.evaluate import evaluate
from tritier.planner.problem import Placement
from tritier.timing import Border, predict_component_ms
from tritier.timing.durations import MIB
from tritier.workflow.problem import build_problem, replan


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


# -- layers and tensors --------------------------------------------------------------------------


def test_layers_stand_between_the_ends_in_the_models_order(chain: LoadedModel) -> None:
    built = build(chain)
    problem = built.problem
    assert problem.layers == ("generator", *LAYERS, "receiver")
    assert (problem.servers, problem.entry) == (("a", "b"), 0)
    assert problem.float_ms[:, 1].tolist() == [0, 8, 1, 4, 2, 16, 0]
    flows = [(flow.name, flow.source, flow.consumers) for flow in problem.flows]
    assert flows == [
        ("x", 0, (1,)), ("a", 1, (2,)), ("b", 2, (3, 4)), ("c", 3, (4,)), ("d", 4, (5,)),
        ("y", 5, (6,)),
    ]  # fmt: skip
    assert problem.allowed[[0, -1]].tolist() == [[True, False], [True, False]]
    assert problem.allowed[1:-1].all()
    assert (built.layer_at["c1"], built.server_at["b"], built.flow_at["d"]) == (1, 1, 4)
    assert built.flow_bytes.tolist() == [MIB] * 6


def test_the_entry_need_not_be_the_first_server(chain: LoadedModel) -> None:
    other = ServersSpec.from_data(
        {"servers": [{"name": "b", "tier": "edge"}, {"name": "a", "tier": "edge", "entry": True}]}
    )
    problem = build(chain, servers=other).problem
    assert (problem.servers, problem.entry) == (("b", "a"), 1)
    assert problem.allowed[0].tolist() == [False, True]


def test_tensors_that_nobody_reads_do_not_flow(tmp_path: Path) -> None:
    text = """g (float[4] x) => (float[2] y) {
        [split] y, unread = Split<axis = 0>(x) }"""
    model = load(tmp_path, text)
    built = build(model, times={"split": (1.0, None)})
    assert list(built.flow_at) == ["x", "y"]


# -- times ---------------------------------------------------------------------------------------


def test_a_crossing_costs_link_borders_and_serving(chain: LoadedModel) -> None:
    """Half a round trip, a call, bandwidth and copies per MiB; making 0.125 and reading 0.0625;
    0.25 per tensor and 2 per MiB at both ends."""
    times = build(chain).problem.transfer_ms
    link_ab, link_ba = 4 + 3 + 100 + 5, 3 + 1 + 50 + 2
    assert times[2, 0, 1] == link_ab + 0.125 + 0.0625 + 2 * 0.25 + 2 * 2
    assert times[2, 1, 0] == link_ba + 0.125 + 0.0625 + 2 * 0.25 + 2 * 2
    assert times[1, 0, 1] == link_ab + 2 * 0.25 + 2 * 2  # 'a' has no other layout
    assert times[:, [0, 1], [0, 1]].max() == 0


def test_the_ends_serve_nothing(chain: LoadedModel) -> None:
    """No component makes a model input; none reads what only the receiver gets."""
    times = build(chain).problem.transfer_ms
    assert times[0, 0, 1] == 4 + 3 + 100 + 5 + 0.25 + 2
    assert times[5, 1, 0] == 3 + 1 + 50 + 2 + 0.25 + 2


def test_costs_at_an_end_are_those_of_its_server(chain: LoadedModel) -> None:
    dear = {"call_ms": 0.5, "tensor_ms": 10.0, "copy_ms_per_mib": 100.0}
    both = {"a": timing(chain, "a"), "b": timing(chain, "b", borders=[], serving=dear)}
    times = build(chain, timings=both).problem.transfer_ms
    assert times[2, 0, 1] == 112 + 0.125 + 0 + 0.25 + 10 + 2 + 100
    assert times[0, 0, 1] == 112 + 10 + 100
    assert times[2, 1, 0] == 56 + 0.0625 + 0.25 + 10 + 2 + 100


def test_the_sum_is_that_of_components_and_messages_without_calls(chain: LoadedModel) -> None:
    item = request(chain)
    built = build_problem(item)
    on_b = {"c2", "add", "c3"}
    placed = Placement(tuple(int(name in on_b) for name in built.problem.layers))
    first = predict_component_ms(
        item.timings["a"], {"c1", "r1"}, (), ["x"], ["b"], Border(2, 2 * MIB)
    )
    second = predict_component_ms(item.timings["b"], on_b, (), ["b"], ["y"], Border(2, 2 * MIB))
    links = built.links[0, 1].message_ms(MIB) + built.links[1, 0].message_ms(MIB)
    served_at_entry = 0.25 + 2.0  # the model input, which did not cross
    wanted = first + second + links - 2 * 0.5 - served_at_entry
    assert evaluate(built.problem, placed).latency_ms == pytest.approx(wanted)
    assert [item.call_ms for item in built.serving] == [0.5, 0.5]


def test_links_of_the_servers_file_and_none_at_all(chain: LoadedModel) -> None:
    """Latency is one way; bandwidth left out is unlimited; the rest is not known."""
    given = [{"from": "a", "to": "b", "bandwidth_mib_s": 50, "latency_ms": 7},
             {"from": "b", "to": "a", "latency_ms": 9}]  # fmt: skip
    built = build(chain, network=None, servers=servers(links=given))
    assert built.problem.transfer_ms[1, 0, 1] == 7 + 20 + 0.5 + 4
    assert built.problem.transfer_ms[1, 1, 0] == 9 + 0.5 + 4
    assert built.sources["link a -> b"] == "configured"
    assert built.warnings == ()
    found = build(chain, network=None, servers=servers(links=given[:1]))
    assert found.problem.transfer_ms[1, 1, 0] == 0.5 + 4
    assert [x for x in found.warnings if "b -> a is not measured, nor" in x] == list(found.warnings)
    assert len(found.warnings) == 1
    closed = build(chain, network=None, servers=servers(links=given[:1]), closed_links=[("b", "a")])
    assert closed.warnings == ()


def test_a_link_that_is_not_measured_is_told(chain: LoadedModel) -> None:
    given = [{"from": "a", "to": "b", "latency_ms": 7}, {"from": "b", "to": "a", "latency_ms": 9}]
    built = build(chain, network=network(BOTH[0]), servers=servers(links=given))
    assert built.problem.transfer_ms[1, 1, 0] == 9 + 0.5 + 4
    assert [built.sources[f"link {x}"] for x in ("a -> b", "b -> a")] == ["measured", "configured"]
    (warning,) = built.warnings
    assert "b -> a is not measured: the figures of the servers file count" in warning
    assert "tritier monitor --link b:a" in warning


# -- wires ---------------------------------------------------------------------------------------


def test_fp16_halves_a_tensor_on_its_link(chain: LoadedModel) -> None:
    built = build(chain, wire_codecs={("a", "b"): ("as_is", "fp16")})
    times = built.problem.transfer_ms
    assert times[1, 0, 1] == 4 + 3 + (100 + 5 + 4) / 2 + 0.5
    assert times[1, 1, 0] == 3 + 1 + 50 + 2 + 4 + 0.5
    assert [built.codec_of(1, *ends, quantized=False) for ends in ((0, 1), (1, 0))] == [
        "fp16", "as_is",
    ]  # fmt: skip


def test_a_codec_that_saves_nothing_is_not_taken(chain: LoadedModel) -> None:
    free = {"call_ms": 0.5, "tensor_ms": 0.25, "copy_ms_per_mib": 0.0}
    both = {name: timing(chain, name, serving=free) for name in "ab"}
    item = request(chain, timings=both, network=None, wire_codecs={("a", "b"): ("fp16", "as_is")})
    assert build_problem(item).codec_of(1, 0, 1, quantized=False) == "as_is"


def test_int8_is_for_the_tensors_that_are_named(chain: LoadedModel) -> None:
    nominal = Ranges(model_sha256=chain.sha256, method="minmax", samples=1, ranges={"b": (0, 1)})
    item = request(
        chain, wire_codecs={("a", "b"): ("as_is", "fp16", "int8")}, int8_tensors=["b"],
        ranges=nominal,
    )  # fmt: skip
    built = build_problem(item)
    codecs = [built.codec_of(t, 0, 1, quantized=False) for t in range(6)]
    assert codecs == ["fp16", "fp16", "int8", "fp16", "fp16", "fp16"]
    assert built.problem.transfer_ms[2, 0, 1] == 7 + (100 + 5 + 4) / 4 + 0.5 + 0.125 + 0.0625
    assert "'b' can't cross in 8 bits without a range" in faults(replace(item, ranges=None))


def test_a_tensor_that_no_codec_suits_can_not_cross_a_coded_link(tmp_path: Path) -> None:
    text = """g (float[4] x) => (float[4] y) {
        [max] i = ArgMax(x) [cast] f = Cast<to = 1>(i) [add] y = Add(f, x) }"""
    model = load(tmp_path, text)
    times: dict[str, tuple[float, float | None]] = dict.fromkeys(("max", "cast", "add"), (1, None))
    built = build(model, times=times, wire_codecs={("a", "b"): ("fp16",)})
    index = built.flow_at["i"]
    assert np.isinf(built.problem.transfer_ms[index, 0, 1])
    assert np.isfinite(built.problem.transfer_ms[index, 1, 0])
    assert np.isfinite(built.problem.transfer_ms[built.flow_at["f"], 0, 1])


# -- where layers and tensors may be -------------------------------------------------------------


def test_pins_and_forbidden_servers(chain: LoadedModel) -> None:
    allowed = build(
        chain, pins={"c*": "b", "c1": "a"}, forbidden={"add": ["b"], "r?": ["a"]}
    ).problem.allowed
    assert allowed[1:-1].tolist() == [
        [True, False], [False, True], [False, True], [True, False], [False, True],
    ]  # fmt: skip
    found = faults(request(chain, pins={"c1": "a"}, forbidden={"c*": ["a", "b"]}))
    assert "'c1', 'c2', 'c3' may stand on no server" in found


def test_private_tensors_and_closed_links(chain: LoadedModel) -> None:
    built = build(chain, times=ALL_GAIN, local_tensors=["x", "[cd]"], closed_links=[("b", "a")])
    inf = np.isinf(built.problem.transfer_ms)
    assert inf[:, 0, 1].tolist() == [True, False, False, True, True, False]
    assert inf[:, 1, 0].all()
    assert not inf[:, [0, 1], [0, 1]].any()
    quantized = build_problem(quantizing(chain, local_tensors=["x"]))
    assert quantized.problem.flows[0].coded_by  # nor in 8 bits
    assert np.isinf(quantized.problem.coded_ms[0, 0, 1])


# -- memory, power, limits -----------------------------------------------------------------------


def test_memory_of_weights_and_activations(chain: LoadedModel) -> None:
    problem = build_problem(quantizing(chain)).problem
    assert problem.float_bytes[:, 1].tolist() == [0, 8, 0, 8, 0, 16, 0]
    assert problem.int8_bytes[:, 1].tolist() == [0, 2, 0, 2, 0, 4, 0]
    alive = [0, 2, 2, 2, 3, 2, 0]  # of 1 MiB: the layer's own, and b while c2 and add run
    assert (problem.working_bytes[:, 0] / MIB).tolist() == [3 * count for count in alive]
    assert problem.limits.memory_bytes == ()


def test_outputs_stay_alive_and_instances_hold_their_own(
    chain: LoadedModel, tmp_path: Path
) -> None:
    text = """g (float[512,512] x) => (float[512,512] early, float[512,512] y) {
        [one] early = Relu(x) [two] h = Neg(early) [three] y = Neg(h) }"""
    model = load(tmp_path, text)
    times: dict[str, tuple[float, float | None]] = dict.fromkeys(("one", "two", "three"), (1, None))
    twice = servers(b={"instances": 2})
    problem = build(model, times=times, servers=twice).problem
    assert (problem.working_bytes[1:-1] / MIB / 3).tolist() == [[2, 4], [2, 4], [3, 6]]
    held = build(chain, servers=twice).problem.float_bytes
    assert (held[:, 1] == 2 * held[:, 0]).all()


def test_memory_limits_leave_out_what_a_process_takes(chain: LoadedModel) -> None:
    given = servers(a={"memory_mib": 100.0}, b={"memory_mib": 100.0})
    limits = build(chain, servers=given, memory_mib={"b": 50.0}).problem.limits
    assert limits.memory_bytes == (90 * MIB, 40 * MIB)
    assert build(chain, memory_mib={"b": 50.0}).problem.limits.memory_bytes == (
        math.inf, 40 * MIB,
    )  # fmt: skip
    found = faults(request(chain, memory_mib={"b": 10.0}))
    assert "the memory limit of 'b' is 10 MiB, and a model that does nothing takes 10.0" in found


def test_measured_power_goes_before_the_servers_file(chain: LoadedModel) -> None:
    plain = build(chain)
    assert (plain.problem.compute_watt.tolist(), plain.problem.send_watt.tolist()) == (
        [3.0, 3.0], [2.0, 2.0],
    )  # fmt: skip
    assert plain.sources["power of a while computing"] == "configured"
    measured = {"compute_power_watt": {"value": 7.0}}
    whole = {"whole_joule": {"value": 1.2}}  # in 100 ms
    both = {"a": timing(chain, "a", energy=measured), "b": timing(chain, "b", energy=whole)}
    built = build(chain, timings=both)
    assert built.problem.compute_watt.tolist() == [7.0, 12.0]
    assert built.sources["power of b while computing"] == "measured"
    old = {"compute_power_watt": {"value": 7.0, "source": "configured"},
           "whole_joule": {"value": 1.2, "source": "predicted"}}  # fmt: skip
    both = {name: timing(chain, name, energy=old) for name in "ab"}
    assert build(chain, timings=both).problem.compute_watt.tolist() == [3.0, 3.0]


def test_powers_of_the_network_state(chain: LoadedModel) -> None:
    """Facts count that are measured and called after their use; counters were read idle."""
    facts = [{"what": "rapl package-0", "watt": {"value": 50.0}},
             {"what": "compute", "watt": {"value": 8.0}},
             {"what": "tx_other", "watt": {"value": 9.0, "source": "configured"}}]  # fmt: skip
    built = build(chain, network=network(*BOTH, b=facts))
    assert built.problem.compute_watt.tolist() == [3.0, 8.0]
    assert built.problem.send_watt.tolist() == [2.0, 2.0]


def test_energy_needs_powers_only_where_it_counts(chain: LoadedModel) -> None:
    without = servers(b={"compute_power_watt": None, "tx_other_power_watt": None})
    built = build(chain, servers=without)
    assert built.problem.compute_watt.tolist() == [3.0, 0.0]
    (warning,) = built.warnings
    assert "the power of 'b' while computing and sending is unknown" in warning
    assert "power of b while computing" not in built.sources
    ask = "give compute_power_watt and tx_other_power_watt in the servers file"
    item = request(chain, servers=without)
    assert ask in faults(replace(item, uses_energy=True))
    assert ask in faults(replace(item, energy_joule=5.0))
    assert ask in faults(replace(item, server_energy_joule={"b": 5.0}))
    limits = build_problem(replace(item, server_energy_joule={"a": 5.0})).problem.limits
    assert limits.server_energy_joule == (5.0, math.inf)


def test_limits_come_through(chain: LoadedModel) -> None:
    limits = build(chain, energy_joule=4.0, latency_ms=30.0).problem.limits
    assert (limits.energy_joule, limits.latency_ms, limits.server_energy_joule) == (4.0, 30.0, ())
    assert "the latency limit (ms) is nan" in faults(request(chain, latency_ms=math.nan))
    found = faults(request(chain, server_energy_joule={"b": -1.0}))
    assert "the energy limit of 'b' (J) is -1.0" in found


# -- again ---------------------------------------------------------------------------------------


def test_replanning_changes_what_hangs_on_the_network(chain: LoadedModel) -> None:
    item = quantizing(
        chain, servers=servers(b={"tx_other_power_watt": None, "threads": 4}), local_tensors=["x"],
        wire_codecs={("a", "b"): ("as_is", "fp16")},
    )  # fmt: skip
    fact = {"what": "tx_other", "watt": {"value": 5.0}}
    later = network(link("a", "b", 40, 2, 1, 1), BOTH[1], b=[fact])
    before = build_problem(item)
    after, fresh = replan(before, later), build_problem(replace(item, network=later))
    for name in ("transfer_ms", "coded_ms", "compute_watt", "send_watt"):
        assert np.array_equal(getattr(after.problem, name), getattr(fresh.problem, name)), name
    assert not np.array_equal(after.problem.transfer_ms, before.problem.transfer_ms)
    assert (after.warnings, after.sources, after.links) == (
        fresh.warnings, fresh.sources, fresh.links,
    )  # fmt: skip
    assert len(after.warnings) == len(before.warnings) - 1
    assert after.problem.flows is before.problem.flows
    assert after.problem.float_ms is before.problem.float_ms
    assert after.request.network is later
    back = replan(after, item.network)
    assert np.array_equal(back.problem.transfer_ms, before.problem.transfer_ms)
    assert back.warnings == before.warnings
    with pytest.raises(InputError, match=r"has 0\.0 MiB/s"):
        replan(before, network(link("a", "b", 0, 1)))
