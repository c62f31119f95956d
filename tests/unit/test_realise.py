"""Models with codecs on their wires: what each sub-model holds, and that the parts give the bits of
the uncut model with the same coding (rule R4)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.helpers.coded import measured_ranges, realised_proto, run_realised
from tests.helpers.models import Split, assert_same_bits, load, parse, spec
from tritier.divider import Array, Arrays
from tritier.documents import Assignment, Codec, Plan
from tritier.errors import InputError
from tritier.repository import GenerateOptions
from tritier.workflow import generate, plan_from_assignment

X = np.array([[1.25, -2, 3.3, -0.0]], np.float32)
CHAIN = "g (float[1,4] x) => (float[1,4] y) { [a] h = Relu(x) [b] k = Exp(h) [c] y = Neg(k) }"
ABA = {"a": "a", "b": "b", "c": "a"}
OPTIONS = GenerateOptions(max_batch_size=0)


def coded(
    folder: Path,
    model: str | onnx.ModelProto,
    where: Mapping[str, str],
    inputs: Arrays,
    default: Codec | None = None,
    codecs: Mapping[str, Codec] | None = None,
    layers: Sequence[str] = (),
) -> Split:
    """Everything from a model to its files, with ranges over one input."""
    loaded = load(folder, model)
    assignment = Assignment(
        layers=dict(where),
        wire_codec=default,
        wire_codecs=dict(codecs or {}),
        quantized_layers=tuple(layers),
    )
    ranges = measured_ranges(loaded, [inputs])
    plan = plan_from_assignment(loaded, assignment, spec("abcd"), ranges=ranges)
    return Split(loaded, plan, *generate(plan, loaded, OPTIONS))


def with_codecs(item: Split, codecs: Mapping[tuple[str, str], Codec]) -> Split:
    """The same with other codecs; keys are (tensor of the model, server where it arrives)."""
    data = json.loads(item.plan.to_json())
    del data["plan_id"]
    for wire in data["wires"]:
        key = (item.plan.tensor(wire["tensor"]).name, wire["to"])
        wire["codec"] = codecs.get(key, wire["codec"])
    plan = Plan.from_data(data)
    return Split(item.model, plan, *generate(plan, item.model, OPTIONS))


def check(item: Split, inputs: Arrays) -> Arrays:
    """The outputs; fails unless the uncut model with the same coding gives the same bits."""
    found = item.run_chain(inputs)
    assert_same_bits(run_realised(item, inputs), found)
    for name, array in found.items():
        assert array.dtype.kind != "f" or np.isfinite(array).all(), name
    return found


def gap(one: Array, other: Array) -> float:
    """The greatest difference."""
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())


def types(item: Split, component: str) -> list[str]:
    """Types of the nodes of a sub-model."""
    return [node.op_type for node in item.sub_model(component).graph.node]


# -- what sub-models hold -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "coding", "decoding"),
    [
        ("fp16", ["Clip", "Cast"], ["Cast"]),
        ("int8", ["QuantizeLinear"], ["DequantizeLinear"]),
        ("uint8", ["QuantizeLinear"], ["DequantizeLinear"]),
    ],
)
def test_each_side_of_a_wire_has_its_half_of_the_codec(
    tmp_path: Path, codec: Codec, coding: list[str], decoding: list[str]
) -> None:
    item = coded(tmp_path, CHAIN, ABA, {"x": X}, codec)
    assert types(item, "c0") == ["Relu", *coding]
    assert types(item, "c1") == [*decoding, "Exp", *coding]
    assert types(item, "c2") == [*decoding, "Neg"]
    assert 0 < gap(check(item, {"x": X})["y"], item.run_whole({"x": X})["y"]) < 0.2


def test_inputs_and_outputs_are_coded_and_decoded_on_the_entry(tmp_path: Path) -> None:
    item = coded(tmp_path, CHAIN, {"*": "b"}, {"x": X}, "fp16")
    assert [types(item, c) for c in ("c1", "c0", "c2")] == [
        ["Clip", "Cast"],
        ["Cast", "Relu", "Exp", "Neg", "Clip", "Cast"],
        ["Cast"],
    ]
    assert [v.name for v in realised_proto(item.model, item.plan).graph.output] == ["y"]
    check(item, {"x": X})


def test_a_layer_that_is_called_like_the_output_that_it_makes(tmp_path: Path) -> None:
    text = CHAIN.replace("[c]", "[y]").replace("[a]", "[x]")
    check(coded(tmp_path, text, {"*": "b"}, {"x": X}, "fp16"), {"x": X})


@pytest.mark.parametrize("codec", ["fp16", "int8"])
def test_names_of_codecs_make_way_for_those_of_the_model(tmp_path: Path, codec: Codec) -> None:
    model = parse(
        """
        g (float[1,4] x) => (float[1,4] y) <float[4] low = {1, 2, 3, 4}> {
          [a] h = Relu(x) [b] k = Mul(h, low) [c] l = Mul(k, low) [d] y = Add(k, l)
        }
        """
    )
    # Layers and constants that are called as a codec of `h` or `y` would call its own.
    model.graph.node[0].name = f"h/{codec}"
    model.graph.node[1].name = f"h/{codec}/b/{'Cast' if codec == 'fp16' else 'DequantizeLinear'}0"
    odd = "y/scale" if codec == "int8" else f"h/{codec}/low"
    model.graph.initializer[0].name = odd
    for node in model.graph.node[1:3]:
        node.input[1] = odd
    item = coded(tmp_path, model, {model.graph.node[0].name: "a", "*": "b"}, {"x": X}, codec)
    assert 0 < gap(check(item, {"x": X})["y"], item.run_whole({"x": X})["y"]) < 0.5


# -- one tensor, several links --------------------------------------------------------------------

FAN = """
    g (float[1,4] x) => (float[1,4] h, float[1,4] y, float[1,4] z) {
      [a] h = Relu(x) [b] y = Exp(h) [c] z = Abs(h)
    }
"""


def test_links_with_different_codecs_get_different_values(tmp_path: Path) -> None:
    where = {"a": "b", "b": "c", "c": "d"}
    plain = coded(tmp_path, FAN, where, {"x": X}, codecs={"h": "int8"})
    codecs: dict[tuple[str, str], Codec] = {("h", "c"): "fp16", ("h", "d"): "as_is"}
    item = with_codecs(plain, codecs)
    found = check(item, {"x": X})
    exact = np.maximum(X, 0)
    assert found["z"].tobytes() == np.abs(exact).tobytes()
    # Each reader has the codec of its own link, and no other's.
    rounded = exact.astype(np.float16).astype(np.float32)
    assert_same_bits(plain.run_whole({"x": rounded}), {"h": rounded, "z": rounded, "y": found["y"]})
    assert 0 < gap(found["h"], exact) < 0.05


def test_an_output_that_remote_layers_read_with_and_without_its_codec(tmp_path: Path) -> None:
    item = coded(tmp_path, FAN, {"a": "b", "b": "c", "c": "a"}, {"x": X}, codecs={"h": "int8"})
    codecs: list[Codec] = ["as_is", "fp16"]
    for codec in codecs:
        for target in ("a", "c"):
            found = check(with_codecs(item, {("h", target): codec}), {"x": X})
            assert np.array_equal(found["z"], found["h"])  # both come from the same wire


# -- types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["int8", "uint8"])
@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_8_bit_wires_of_other_floats(tmp_path: Path, codec: Codec, dtype: str) -> None:
    text = CHAIN.replace("float", dtype).replace("Exp", "Abs")
    inputs: Arrays = {"x": X.astype(np.float16 if dtype == "float16" else np.float64)}
    item = coded(tmp_path, text, ABA, inputs, codec)
    assert types(item, "c0") == ["Relu", "Cast", "QuantizeLinear"]
    clip = ["Clip"] if dtype == "float16" else []
    assert types(item, "c2") == ["DequantizeLinear", *clip, "Cast", "Neg"]
    check(item, inputs)


@pytest.mark.parametrize(
    ("codec", "dtype"),
    [("fp16", "float"), ("fp16", "double"), ("int8", "float16"), ("int8", "float")],
)
def test_values_beyond_what_a_wire_holds_saturate(tmp_path: Path, codec: Codec, dtype: str) -> None:
    text = CHAIN.replace("float", dtype).replace("Relu", "Neg").replace("Exp", "Neg")
    name = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    most = float(np.finfo(np.dtype(name)).max)
    inputs: Arrays = {"x": np.array([[most, -most, 0, most / 3]], name)}
    found = check(coded(tmp_path, text, ABA, inputs, codec), inputs)["y"]
    assert np.sign(found).tolist() == [[-1, 1, 0, -1]]


def test_integers_go_in_the_narrowest_type_that_holds_them(tmp_path: Path) -> None:
    text = """
        g (float[1,300] x) => (int64[1,7] y) <int64[1] k = {7}, int64 far = {40000}> {
          [a] v, i = TopK(x, k) [b] j = Add(i, far) [c] y = Identity(j)
        }
    """
    inputs: Arrays = {"x": np.random.default_rng(0).random((1, 300)).astype(np.float32)}
    item = coded(tmp_path, text, ABA, inputs, "fp16")
    assert {item.plan.tensor(w.tensor).name: w.codec for w in item.plan.wires} == {
        "i": "to_int16",
        "j": "to_int32",
    }
    assert types(item, "c0") == ["TopK", "Cast", "Clip", "Cast"]
    assert types(item, "c1") == ["Cast", "Add", "Cast", "Clip", "Cast"]
    assert_same_bits(item.run_whole(inputs), check(item, inputs))


@pytest.mark.parametrize("codec", ["fp16", "int8", "uint8"])
def test_scalars(tmp_path: Path, codec: Codec) -> None:
    text = "g (float x) => (float y) { [a] h = Relu(x) [b] k = Exp(h) [c] y = Neg(k) }"
    inputs: Arrays = {"x": np.array(1.5, np.float32)}
    for where in (ABA, {"*": "b"}):
        item = coded(tmp_path, text, where, inputs, codec)
        assert check(item, inputs)["y"].shape == ()


# -- sub-graphs -----------------------------------------------------------------------------------

IF = """
    g (bool[1] q, float[1,4] x) => (float[1,4] y, float[1,4] h) {
      [a] h = Sigmoid(x)
      [q] c = Squeeze(q)
      [if] r = If(c) <
        then_branch = g1 () => (float[1,4] z) { z = Neg(h) },
        else_branch = g2 () => (float[1,4] z2) { h2 = Exp(h) z2 = Add(h2, x) }
      >
      [c] y = Neg(r)
    }
"""


@pytest.mark.parametrize("layers", [[], ["a", "c"]])
@pytest.mark.parametrize("default", [None, "as_is", "fp16", "int8"])
def test_bodies_read_what_came_over_the_wire(
    tmp_path: Path, default: Codec | None, layers: list[str]
) -> None:
    for truth in (True, False):
        inputs: Arrays = {"q": np.array([truth]), "x": X}
        where = {"a": "b", "if": "c", "*": "a"}
        item = coded(tmp_path, IF, where, inputs, default, layers=layers)
        found = check(item, inputs)
        exact = item.run_whole(inputs)
        noise = max(gap(found[name], exact[name]) for name in exact)
        assert noise < 0.1
        assert (noise > 0) == bool(layers or default in ("fp16", "int8"))


def loop() -> onnx.ModelProto:
    """A Loop of two turns whose body captures `h`."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Add", ["before", "h"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [1, 4]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [1, 4]),
        ],
    )
    model = parse(
        """
        g (float[1,4] x) => (float[1,4] y) <int64 two = {2}> {
          [a] h = Sigmoid(x) [b] k = Neg(x) [loop] y = Identity(k)
        }
        """
    )
    node = helper.make_node("Loop", ["two", "", "k"], ["y"], name="loop", body=body)
    model.graph.node[2].CopyFrom(node)
    return model


@pytest.mark.parametrize("layers", [[], ["a", "b"]])
@pytest.mark.parametrize("default", [None, "as_is", "fp16", "int8"])
def test_a_loop_reads_what_came_over_the_wire(
    tmp_path: Path, default: Codec | None, layers: list[str]
) -> None:
    item = coded(tmp_path, loop(), {"a": "b", "b": "c", "loop": "d"}, {"x": X}, default, {}, layers)
    found = check(item, {"x": X})["y"]
    noise = gap(found, item.run_whole({"x": X})["y"])
    assert noise < 0.1
    assert (noise > 0) == bool(layers or default in ("fp16", "int8"))


# -- messages -------------------------------------------------------------------------------------


def test_a_model_that_is_too_old_for_a_codec(tmp_path: Path) -> None:
    model = parse(CHAIN)
    model.opset_import[0].version = 10
    with pytest.raises(InputError, match="has opset 10, the wire codec fp16 needs 11 or more"):
        coded(tmp_path, model, ABA, {"x": X}, "fp16")
