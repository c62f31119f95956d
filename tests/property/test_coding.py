"""Random models with random codecs on their wires and randomly quantized layers: what crosses is
coded as the plan says, and the parts give what the uncut model with the same coding gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.coded import measured_ranges, run_realised
from tests.helpers.examples import examples
from tests.helpers.models import Split, assert_same_bits, spec
from tests.helpers.random_models import inputs_for, models, placements
from tests.helpers.simulator import Simulation
from tritier.divider import realise
from tritier.documents import Assignment, Codec, Plan, Quantization, ServersSpec, wire_up
from tritier.files import sha256_bytes
from tritier.graph import LoadedModel, build_layer_graph
from tritier.repository import GenerateOptions
from tritier.workflow import code_plan, generate, plan_from_assignment

SERVERS = "abcd"
OPTIONS = GenerateOptions(max_batch_size=0)
# What ONNX Runtime's quantizer takes of the types that random models have.
CODECS: tuple[Codec, ...] = ("as_is", "fp16", "int8", "uint8")
QUANTIZABLE = ("Add", "Mul", "Sigmoid", "Relu")


@st.composite
def servers_with_settings(draw: st.DrawFn) -> ServersSpec:
    """Two to four servers, each quantizing in its own way."""
    found = spec(SERVERS[: draw(st.integers(2, 4))])
    kinds = st.builds(
        Quantization,
        activation_type=st.sampled_from(["int8", "uint8"]),
        per_channel=st.booleans(),
        reduce_range=st.booleans(),
    )
    servers = tuple(s.model_copy(update={"quantization": draw(kinds)}) for s in found.servers)
    return found.model_copy(update={"servers": servers})


@st.composite
def coded(draw: st.DrawFn) -> Split:
    """A random model with a codec drawn for each tensor on a link, and all that is generated."""
    proto = draw(models(8))
    model = LoadedModel(Path("m.onnx"), sha256_bytes(proto.SerializeToString()), proto)
    onnx.checker.check_model(proto)
    graph = build_layer_graph(proto)
    spec_ = draw(servers_with_settings())
    where = draw(placements([layer.name for layer in graph.layers], "".join(spec_.names)))
    plain = plan_from_assignment(model, Assignment(layers=where), spec_)
    ranges = measured_ranges(model, [inputs_for(proto, 0)])
    names = [x.name for x in graph.layers if x.op_type in QUANTIZABLE]
    layers = draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) if names else []
    crossing = sorted({plain.tensor(wire.tensor).name for wire in plain.wires})
    codecs: dict[str, Codec] = {}
    for name in crossing:
        if draw(st.booleans()):
            codecs[name] = draw(st.sampled_from(CODECS))
    plan = code_plan(plain, model, graph, layers, ranges, None, codecs)
    # The same tensor may cross different links in different ways.
    data = json.loads(plan.to_json())
    for wire in data["wires"]:
        if plain.tensor(wire["tensor"]).name in codecs and draw(st.booleans()):
            wire["codec"] = draw(st.sampled_from(["as_is", "fp16", wire["codec"]]))
    plan = Plan.from_data({k: v for k, v in data.items() if k != "plan_id"})
    return Split(model, plan, *generate(plan, model, OPTIONS))


@settings(max_examples=examples(60))
@given(coded(), st.integers(0, 2**16))
def test_r4_parts_give_the_bits_of_the_uncut_model_with_the_same_coding(
    item: Split, seed: int
) -> None:
    inputs = inputs_for(item.model.proto, seed)
    assert_same_bits(run_realised(item, inputs), item.run_chain(inputs))


@settings(max_examples=examples(40))
@given(coded(), st.integers(0, 2**16))
def test_the_data_plane_moves_what_is_coded(item: Split, seed: int) -> None:
    inputs = inputs_for(item.model.proto, seed)
    whole = run_realised(item, inputs)
    servers = Simulation(item.files)
    assert_same_bits(whole, servers.infer("a", "m", inputs))
    wired = wire_up(item.plan)
    assert servers.crossed == {(w.tensor, w.source, w.target): 1 for w in wired.wires}
    assert servers.left_over() == []


@settings(max_examples=examples(40))
@given(coded())
def test_r3_a_wire_is_a_tensor_of_its_type_once_over_the_link(item: Split) -> None:
    wired = wire_up(item.plan)
    types = {tensor.id: tensor.dtype for tensor in wired.tensors}
    origin = {new: source for new, (source, _) in wired.coded.items()}
    crossing = sorted((origin.get(w.tensor, w.tensor), w.source, w.target, types[w.tensor])
                      for w in wired.wires)  # fmt: skip
    stated = [(w.tensor, w.source, w.target, item.plan.wire_dtype(w)) for w in item.plan.wires]
    assert crossing == sorted(stated)
    for component in wired.components:
        sub = item.sub_model(component.id)
        for value in (*sub.graph.input, *sub.graph.output):
            made = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            assert made == np.dtype(types[value.name]), value.name


@settings(max_examples=examples(20))
@given(coded())
def test_r6_the_same_plan_gives_the_same_bytes(item: Split) -> None:
    again = Plan.from_data(json.loads(item.plan.to_json()))
    assert generate(again, item.model, OPTIONS)[0] == item.files


@settings(max_examples=examples(20))
@given(coded())
def test_the_model_itself_is_not_changed(item: Split) -> None:
    before = item.model.proto.SerializeToString(deterministic=True)
    realise(item.model.proto, build_layer_graph(item.model.proto), item.plan)
    assert item.model.proto.SerializeToString(deterministic=True) == before
