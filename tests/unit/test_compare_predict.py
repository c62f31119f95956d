"""Plans predicted from their documents: what the planner itself says of its plans, and others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.helpers.compared import known_of, placed
from tests.helpers.models import load
from tests.helpers.planned import mixed, noisy, ranges
from tests.helpers.planning import CHAIN, LAYERS, timing
from tritier.documents import wire_up
from tritier.errors import InputError
from tritier.graph import LoadedModel, build_layer_graph
from tritier.timing.durations import MIB
from tritier.workflow.coding import code_plan
from tritier.workflow.compare import Known, predict_plan
from tritier.workflow.planning import make_plan
from tritier.workflow.planning_goals import Goals


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


@pytest.mark.parametrize("objective", ["latency", "throughput", "makespan"])
def test_plans_of_the_planner_are_predicted_as_it_does(chain: LoadedModel, objective: Any) -> None:
    request = mixed(chain)
    planned = make_plan(request, Goals(objective=objective, search_s=0.1))
    found = predict_plan(planned.plan, known_of(request))
    assert found.latency_ms == pytest.approx(planned.report.figures.latency_ms, rel=1e-12)
    assert len(found.components) == planned.report.figures.components


def test_int8_layers_and_codecs_are_predicted_as_the_planner_does(chain: LoadedModel) -> None:
    wires: Any = {("a", "b"): ("as_is", "fp16")}
    request = noisy(chain, wire_codecs=wires)
    planned = make_plan(request, Goals())
    assert planned.plan.quantized_layers
    found = predict_plan(planned.plan, known_of(request))
    assert found.latency_ms == pytest.approx(planned.report.figures.latency_ms, rel=1e-12)


def test_each_message_has_its_bytes_and_time(chain: LoadedModel) -> None:
    request = mixed(chain)
    found = predict_plan(placed(request, "abbaa"), known_of(request))
    call, answer = found.messages
    assert (call.kind, call.source, call.target) == ("call", "a", "b")
    assert call.bytes == MIB  # tensor a
    assert answer.bytes == 2 * MIB  # b and c
    assert call.ms == pytest.approx(1000 / 250 + 4 / 2)
    assert answer.ms == pytest.approx(2000 / 250 + 4 / 2)
    assert [part.layers for part in found.components] == [1, 2, 2]


def test_a_codec_of_one_wire_changes_only_its_bytes(chain: LoadedModel) -> None:
    request = mixed(chain)
    plan = placed(request, "abbaa")
    name = next(plan.tensor(w.tensor).name for w in plan.wires if w.target == "b")
    coded = code_plan(plan, chain, build_layer_graph(chain.proto), wire_codecs={name: "fp16"})
    found = predict_plan(coded, known_of(request))
    assert [item.bytes for item in found.messages] == [MIB // 2, 2 * MIB]


def test_coded_inputs_and_outputs_have_components_of_their_own(chain: LoadedModel) -> None:
    request = mixed(chain)
    plan = placed(request, "bbbbb")
    coded = code_plan(plan, chain, build_layer_graph(chain.proto), wire_codec="fp16")
    found = predict_plan(coded, known_of(request))
    serving = 0.5 + 2 * 0.25 + 2 * 1.5  # a tensor in, another out, 1.5 MiB
    assert [(x.id, x.server, x.layers) for x in found.components] == [
        ("c0", "b", 5),
        ("c1", "a", 0),
        ("c2", "a", 0),
    ]
    assert [x.ms for x in found.components[1:]] == pytest.approx([serving, serving])
    assert {part.id for part in wire_up(coded).components} == {"c0", "c1", "c2"}
    middle = found.components[0].ms + sum(item.ms for item in found.messages)
    assert found.latency_ms == pytest.approx(2 * serving + middle)


def test_a_codec_that_the_planner_chose_is_in_its_latency(chain: LoadedModel) -> None:
    wires: Any = {("a", "b"): ("as_is", "fp16"), ("b", "a"): ("as_is", "fp16")}
    request = mixed(chain, wire_codecs=wires)
    request = replace(request, pins={"*": "b"})
    planned = make_plan(request, Goals())
    assert [wire.codec for wire in planned.plan.wires] == ["fp16", "fp16"]
    found = predict_plan(planned.plan, known_of(request))
    assert found.latency_ms == pytest.approx(planned.report.figures.latency_ms, rel=1e-12)


def test_what_a_cut_costs_is_in_a_component(chain: LoadedModel) -> None:
    """Of `timing`: making b 0.125 ms, reading it 0.0625; a call 0.5, a tensor 0.25, 2 per MiB."""
    request = mixed(chain)
    first, second = predict_plan(placed(request, "aabbb"), known_of(request)).components
    layers = {layer.name: layer.float_ms for layer in request.timings["a"].layers}
    assert first.layers_ms == pytest.approx(layers["c1"] + layers["r1"])
    serving = 0.5 + 2 * 0.25 + 2 * 2.0  # x in, b out
    assert first.ms == pytest.approx(first.layers_ms + serving + 0.125)
    assert second.ms == pytest.approx(second.layers_ms + serving + 0.0625)


def test_memory_is_of_the_processes_of_a_server(chain: LoadedModel) -> None:
    """Of `timing`: twice the weights, three times the activations, 10 MiB for nothing."""
    request = mixed(chain)
    found = predict_plan(placed(request, "abbba"), known_of(request)).memory_bytes
    # c1 on a: x and a; c3 on a: d and y; both have 4 or 8 bytes of weights
    assert found["a"] == 2 * (10 * MIB + 3 * 2 * MIB) + 2 * 4 + 2 * 8
    assert found["b"] == pytest.approx(10 * MIB + 3 * 3 * MIB, rel=0.01)


def test_what_does_not_fit_is_told_at_once(chain: LoadedModel) -> None:
    request = mixed(chain)
    plan = placed(request, "abbaa")
    only_a = {"a": request.timings["a"]}
    with pytest.raises(InputError, match="'b', which has no timing profile"):
        predict_plan(plan, Known(chain, request.servers, only_a))
    other = plan.model_copy(update={"model": plan.model.model_copy(update={"sha256": "0" * 64})})
    with pytest.raises(InputError, match="the plan is for a model with sha256 000000000000"):
        predict_plan(other, known_of(request))


def test_a_layer_that_was_not_timed_in_int8_is_an_error(chain: LoadedModel) -> None:
    request = mixed(chain)
    graph = build_layer_graph(chain.proto)
    plan = code_plan(placed(request, "aaabb"), chain, graph, ["c3"], ranges(chain))
    times = dict.fromkeys(LAYERS, (1.0, None))
    known = Known(chain, request.servers, {"a": timing(chain, "a"), "b": timing(chain, "b", times)})
    with pytest.raises(InputError, match="'c3' is quantized in the plan"):
        predict_plan(plan, known)


def test_links_that_are_used_and_not_measured_are_warned_of(chain: LoadedModel) -> None:
    request = mixed(chain)
    known = known_of(request)
    assert predict_plan(placed(request, "abbaa"), known).warnings == ()
    bare = replace(known, network=None)
    found = predict_plan(placed(request, "abbaa"), bare).warnings
    assert [text.partition(" is ")[0] for text in found] == ["the link a -> b", "the link b -> a"]
    assert predict_plan(placed(request, "aaaaa"), bare).warnings == ()
