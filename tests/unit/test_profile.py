"""Profiles of models: sizes, constants, the choice of layers, and the peak of activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.models import DIAMOND, layers_of, load, parse
from tritier.documents import (
    ModelProfile,
    SharedWeight,
    weight_bytes,
)
from tritier.errors import InputError
from tritier.graph import LoadedModel, Quantizable, graph_with_ends, profile_model
from tritier.graph.sizes import stored_bytes

CONVS = """
    g (float[N,2,H,W] x) => (float[N,2,H,W] y) <float[2,2,1,1] w = {1, 2, 3, 4}> {
      [a] h = Conv(x, w)
      [b] i = Relu(h)
      [c] j = Conv(i, w)
      [d] y = Conv(j, w)
    }
"""
SIZES = {"H": 3, "W": 5}


def profiled(folder: Path, text: str | onnx.ModelProto, **options: Any) -> ModelProfile:
    """Profile of a small model."""
    return profile_model(load(folder, text), **options)


def faults_of(model: LoadedModel, **options: Any) -> tuple[str, ...]:
    """What is said about options that the model can't have."""
    with pytest.raises(InputError) as caught:
        profile_model(model, **options)
    return caught.value.faults


# -- layers and tensors ---------------------------------------------------------------------------


def test_layers_and_tensors_of_a_small_model(tmp_path: Path) -> None:
    model = load(tmp_path, DIAMOND)
    profile = profile_model(model)
    assert (profile.model.name, profile.model.sha256) == ("m", model.sha256)
    rows = [(x.name, x.op_type, x.flops, x.weight_bytes, x.output_bytes) for x in profile.layers]
    assert rows == [
        ("relu", "Relu", 4, 0, 16),
        ("neg", "Neg", 4, 0, 16),
        ("mul", "Mul", 4, 16, 16),
        ("add", "Add", 4, 0, 16),
        ("sub", "Sub", 4, 16, 16),
    ]
    assert [(t.name, t.source, t.consumers) for t in profile.tensors] == [
        ("x", "generator", ("relu",)),
        ("h", "relu", ("neg", "mul")),
        ("n", "neg", ("add",)),
        ("m", "mul", ("add",)),
        ("s", "add", ("sub",)),
        ("y", "sub", ("receiver",)),
    ]
    assert {(t.dtype, t.shape, t.bytes) for t in profile.tensors} == {("float32", (4,), 16)}


def test_a_constant_that_layers_share_counts_once_in_the_total(tmp_path: Path) -> None:
    profile = profiled(tmp_path, DIAMOND)
    assert profile.shared_weights == (SharedWeight(name="w", bytes=16, layers=("mul", "sub")),)
    assert profile.totals.weight_bytes == 16
    assert weight_bytes(profile, ["mul", "sub", "relu"]) == 16
    assert weight_bytes(profile, ["sub"]) == 16
    assert weight_bytes(profile, []) == 0
    with pytest.raises(InputError, match=r"'mull' is no layer of the profile .*'mul'"):
        weight_bytes(profile, ["mull"])


def test_totals_count_constant_and_dropped_nodes(tmp_path: Path) -> None:
    profile = profiled(
        tmp_path,
        """
        g (float[2] x) => (float[2] y) <float[2] w = {1, 2}, float[9] unused> {
          [scale] c = Neg(w)
          [relu] h = Relu(x)
          [lost] l = Neg(h)
          [mul] y = Mul(h, c)
        }
        """.replace(", float[9] unused", ", float[3] unused = {1, 2, 3}"),
    )
    totals = profile.totals
    assert (totals.layers, totals.constant_nodes, totals.dropped_nodes) == (2, 1, 1)
    assert (totals.flops, totals.known_flops, totals.weight_bytes) == (4, 4, 8)


def test_constants_count_as_what_a_runtime_holds(tmp_path: Path) -> None:
    """A folded node at its own size, DequantizeLinear as the int8 that it reads."""
    model = parse("""
        g (float[2,8] x) => (float[2,8] y) <int64[2] shape = {2, 8}, float scale = {0.5}> {
          [fill] f = ConstantOfShape(shape)
          [dequantize] d = DequantizeLinear(q, scale)
          [literal] l = Constant <value_floats = [1.0, 2.0]> ()
          [one] o = Constant <value_int = 3> ()
          [add] a = Add(x, f)
          [mul] b = Mul(a, d)
          [pick] y = Where(c, b, x)
        }
    """)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 8), np.int8), "q"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 8), np.bool_), "c"))
    profile = profiled(tmp_path, model)
    held = {layer.name: layer.weight_bytes for layer in profile.layers}
    assert held == {"add": 2 * 8 * 4, "mul": 2 * 8 + 4, "pick": 16}


def test_constants_of_a_body_belong_to_its_layer(tmp_path: Path) -> None:
    profile = profiled(
        tmp_path,
        """
        g (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}> {
          [if] y = If (c) <
            then_branch = yes () => (float[2] a) {
              k = Constant <value_floats = [1.0, 2.0]> () i = Add(x, k) a = Add(i, w)
            },
            else_branch = no () => (float[2] b) <float[2] v = {3, 4}> { b = Add(x, v) }
          >
        }
        """,
    )
    (layer,) = profile.layers
    assert layer.weight_bytes == 8 + 8 + 8
    assert (layer.flops, profile.totals.flops, profile.totals.known_flops) == (None, None, 0)


@pytest.mark.parametrize(
    ("kind", "count", "expected"),
    [
        (TensorProto.INT4, 5, 3),
        (TensorProto.UINT4, 4, 2),
        (TensorProto.BFLOAT16, 5, 10),
        (TensorProto.FLOAT8E4M3FN, 5, 5),
        (TensorProto.DOUBLE, 5, 40),
        (TensorProto.BOOL, 5, 5),
    ],
)
def test_bytes_of_all_types(kind: int, count: int, expected: int) -> None:
    assert stored_bytes(helper.make_tensor("t", kind, [count], [0] * count)) == expected


def test_a_text_has_no_size_and_is_no_error(tmp_path: Path) -> None:
    profile = profiled(tmp_path, "g (string[2] x) => (string[2] y) { [id] y = Identity(x) }")
    assert [(t.dtype, t.shape, t.bytes) for t in profile.tensors] == [("string", (2,), None)] * 2
    assert profile.totals.activation_peak_bytes is None
    assert profile.totals.flops == 0


def test_a_sequence_is_no_tensor_with_a_size(tmp_path: Path) -> None:
    profile = profiled(
        tmp_path,
        """
        g (float[2] x) => (float[2] y) <int64 first = {0}> {
          [make] s = SequenceConstruct(x)
          [take] y = SequenceAt(s, first)
        }
        """,
    )
    found = {t.name: (t.dtype, t.shape, t.bytes) for t in profile.tensors}
    assert found["s"] == ("sequence", None, None)
    assert found["y"] == ("float32", (2,), 8)


# -- symbolic sizes -------------------------------------------------------------------------------


def test_the_batch_is_one_and_what_hangs_on_other_symbols_is_unknown(tmp_path: Path) -> None:
    profile = profiled(tmp_path, CONVS)
    assert profile.dims == {"N": 1}
    assert {layer.flops for layer in profile.layers} == {None}
    assert profile.tensors[0].shape == (1, 2, "H", "W")
    assert {t.bytes for t in profile.tensors} == {None}
    assert profile.totals.activation_peak_bytes is None
    assert profile.totals.weight_bytes == 16
    assert profile.quantizable_layers == ()


def test_given_sizes_reach_all_tensors(tmp_path: Path) -> None:
    profile = profiled(tmp_path, CONVS, dims={**SIZES, "N": 2})
    assert profile.dims == {"N": 2, **SIZES}
    assert {t.shape for t in profile.tensors} == {(2, 2, 3, 5)}
    assert profile.layers[0].flops == 2 * (2 * 2 * 3 * 5) * 2
    assert profile.totals.flops == 3 * 240 + 60


def test_inputs_with_different_leading_symbols_have_no_batch(tmp_path: Path) -> None:
    text = "g (float[N] x, float[M] z) => (float[K] y) { [cat] y = Concat<axis = 0>(x, z) }"
    assert profiled(tmp_path, text).dims == {}
    profile = profiled(tmp_path, text, dims={"N": 2, "M": 3})
    assert profile.tensors[-1].bytes == 20


def test_an_unnamed_size_of_an_input_is_called_by_its_place(tmp_path: Path) -> None:
    """The declared sizes of outputs have no name either, and other values."""
    model = load(
        tmp_path, "g (float[?,?,3] x) => (float[?,?,?] y) { [cat] y = Concat<axis = 1>(x, x) }"
    )
    profile = profile_model(model)
    assert profile.dims == {"x[0]": 1}
    assert profile.tensors[0].shape == (1, "x[1]", 3)
    assert profile.tensors[1].bytes is None
    assert profile_model(model, {"x[1]": 7}).tensors[1].shape == (1, 14, 3)
    assert profile_model(model, {"x[1]": 7, "x[0]": 2}).tensors[1].shape == (2, 14, 3)
    assert "it has x[0], x[1]" in faults_of(model, dims={"?": 7})[0]


def test_a_leading_size_that_only_some_inputs_leave_open_is_no_batch(tmp_path: Path) -> None:
    text = "g (float[?] x, float[3] z) => (float[?] y) { [cat] y = Concat<axis = 0>(x, z) }"
    assert profiled(tmp_path, text).dims == {}
    both = "g (float[?,2] x, float[?,2] z) => (float[?,2] y) { [add] y = Add(x, z) }"
    assert profiled(tmp_path, both).dims == {"x[0]": 1, "z[0]": 1}


def test_a_size_of_minus_one_is_an_unnamed_one(tmp_path: Path) -> None:
    model = parse("g (float[N,3] x) => (float[N,K] y) { [relu] h = Relu(x) [neg] y = Neg(h) }")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = -1
    loaded = load(tmp_path, model)
    assert {t.shape for t in profile_model(loaded).tensors} == {(1, 3)}
    assert {t.shape for t in profile_model(loaded, {"x[0]": 4}).tensors} == {(4, 3)}


def test_an_unknown_symbol_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    model = load(tmp_path, CONVS.replace("H", "height"))
    assert faults_of(model, dims={"heigth": 3, "Q": 2}) == (
        "'heigth' is no symbolic size of the model (did you mean 'height'?); it has N, W, height",
        "'Q' is no symbolic size of the model; it has N, W, height",
    )


@pytest.mark.parametrize(
    "text",
    [
        "g (float[H] x) => (float[4] y) { [relu] y = Relu(x) }",
        "g (float[H] x) => (float[K] y) <float[4] w = {1, 2, 3, 4}> { [add] y = Add(x, w) }",
    ],
)
def test_sizes_that_the_model_can_not_have_are_refused(tmp_path: Path, text: str) -> None:
    model = load(tmp_path, text)
    (fault,) = faults_of(model, dims={"H": 5})
    assert fault.startswith("the sizes H=5 don't fit the model: ")
    assert profile_model(model, {"H": 4}).tensors[-1].shape == (4,)


def test_shapes_that_are_computed_are_found(tmp_path: Path) -> None:
    """ONNX's inference is silent about ConstantOfShape of an edited shape; folding is not."""
    profile = profiled(
        tmp_path,
        """
        g (float[N,C] x) => (float[P,Q] y) <int64[1] two = {2}, int64 k = {1}> {
          [shape] s = Shape(x)
          [cast] f = Cast<to = 1>(s)
          [up] u = Ceil(f)
          [back] i = Cast<to = 7>(u)
          [double] t = Mul(i, two)
          [fill] y = ConstantOfShape(t)
        }
        """,
        dims={"C": 5},
    )
    assert profile.tensors[-1].shape == (2, 10)


def test_large_constants_are_known_by_their_shape(tmp_path: Path) -> None:
    model = parse("g (float[1,50] x) => (float[1,60] y) { [mul] y = MatMul(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((50, 60), np.float32), "w"))
    profile = profiled(tmp_path, model)
    assert (profile.layers[0].flops, profile.layers[0].weight_bytes) == (6000, 12000)


def test_an_old_dropout_has_a_mask_like_its_data(tmp_path: Path) -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { [drop] y, mask = Dropout(x) }")
    model.opset_import[0].version = 7
    profile = profiled(tmp_path, model)
    assert profile.layers[0].output_bytes == 48
    assert profile.totals.activation_peak_bytes == 72


# -- choice of layers -----------------------------------------------------------------------------


def test_equal_layers_are_chosen_in_the_order_of_the_model(tmp_path: Path) -> None:
    proto = parse(CONVS)
    for node, name in zip(proto.graph.node, ("z", "b", "d", "c"), strict=True):
        node.name = name
    model = load(tmp_path, proto)
    for count, names in ((0, ()), (1, ("z",)), (2, ("z", "d")), (12, ("z", "d", "c"))):
        chosen = profile_model(model, SIZES, Quantizable(count)).quantizable_layers
        assert chosen == names


def test_the_most_flops_come_first(tmp_path: Path) -> None:
    text = """
        g (float[1,2,8,8] x) => (float[1,4,8,8] y)
          <float[2,2,1,1] w = {1, 2, 3, 4}, float[4,2,1,1] v = {1, 2, 3, 4, 5, 6, 7, 8}> {
          [small] h = Conv(x, w) [big] i = Conv(h, v) [add] y = Add(i, i)
        }
    """
    model = load(tmp_path, text)
    assert profile_model(model, None, Quantizable(1)).quantizable_layers == ("big",)
    choice = Quantizable(2, ("Add", "Conv"))
    assert profile_model(model, None, choice).quantizable_layers == ("small", "big")
    assert profile_model(model, None, Quantizable(5, ("Add",))).quantizable_layers == ("add",)


def test_layers_are_chosen_by_name_and_pattern(tmp_path: Path) -> None:
    model = load(tmp_path, CONVS)
    assert profile_model(model, None, Quantizable(0, None, ("[bd]",))).quantizable_layers == (
        "b",
        "d",
    )
    renamed = parse(CONVS)
    renamed.graph.node[0].name = "[bd]"
    named = profile_model(load(tmp_path, renamed), None, Quantizable(layers=("[bd]",)))
    assert named.quantizable_layers == ("[bd]",)


def test_patterns_and_types_without_a_layer_are_refused(tmp_path: Path) -> None:
    model = load(tmp_path, CONVS)
    assert faults_of(model, quantizable=Quantizable(layers=("z*", "a", "q"))) == (
        "'z*' is the name of no layer and matches none",
        "'q' is the name of no layer and matches none",
    )
    assert faults_of(model, quantizable=Quantizable(types=("Convv",))) == (
        "no layer is of type 'Convv' (did you mean 'Conv'?); the model has Conv, Relu",
    )
    plain = load(tmp_path, DIAMOND)  # no Conv, and none was asked for
    assert profile_model(plain).quantizable_layers == ()


# -- the graph with its ends ----------------------------------------------------------------------


def test_the_graph_has_a_generator_and_a_receiver() -> None:
    graph = layers_of("""
        g (float[2] x, float[2] z) => (float[2] h, float[2] y) {
          [relu] h = Relu(x)
          [add] s = Add(h, x)
          [mul] y = Mul(s, z)
        }
    """)
    ends = graph_with_ends(graph)
    assert list(ends) == ["generator", "relu", "add", "mul", "receiver"]
    assert {(u, v): data["tensors"] for u, v, data in ends.edges(data=True)} == {
        ("generator", "relu"): ["x"],
        ("generator", "add"): ["x"],
        ("generator", "mul"): ["z"],
        ("relu", "add"): ["h"],
        ("relu", "receiver"): ["h"],
        ("add", "mul"): ["s"],
        ("mul", "receiver"): ["y"],
    }
    assert "generator" not in graph.to_networkx()


def test_a_layer_with_the_name_of_an_end_is_refused(tmp_path: Path) -> None:
    text = "g (float[2] x) => (float[2] y) { [receiver] y = Relu(x) }"
    with pytest.raises(InputError, match="'receiver', which is the name of an end"):
        graph_with_ends(layers_of(text))
    assert "rename it" in faults_of(load(tmp_path, text))[0]


def test_the_peak_of_the_whole_model_is_in_the_totals(tmp_path: Path) -> None:
    assert profiled(tmp_path, DIAMOND).totals.activation_peak_bytes == 48  # h or n, m, and s
