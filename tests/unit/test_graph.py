"""Loading models, finding their layers, and what is known about their tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.models import layers_of, load, parse
from tritier.errors import InputError
from tritier.graph import LayerGraph, TensorInfo, border_tensors, infer_tensors, load_model


def faults_of(text: str) -> tuple[str, ...]:
    """What is said about a model that can't be split."""
    with pytest.raises(InputError) as caught:
        layers_of(text)
    return caught.value.faults


def names(graph: LayerGraph) -> list[str]:
    """Names of the layers."""
    return [layer.name for layer in graph.layers]


# -- layers ---------------------------------------------------------------------------------------


def test_layers_carry_what_flows_between_them() -> None:
    graph = layers_of("""
        g (float[2] x) => (float[2] y) {
          [relu] h = Relu(x)
          [neg] n = Neg(h)
          [add] y = Add(h, n)
        }
    """)
    assert [(x.name, x.op_type, x.inputs, x.outputs) for x in graph.layers] == [
        ("relu", "Relu", ("x",), ("h",)),
        ("neg", "Neg", ("h",), ("n",)),
        ("add", "Add", ("h", "n"), ("y",)),
    ]
    assert [layer.name for layer in graph.consumers["h"]] == ["neg", "add"]
    assert graph.source["n"].name == "neg"
    assert "x" not in graph.source
    edges = {(u, v): data["tensors"] for u, v, data in graph.to_networkx().edges(data=True)}
    assert edges == {("relu", "neg"): ["h"], ("relu", "add"): ["h"], ("neg", "add"): ["n"]}


def test_two_tensors_between_the_same_layers_are_one_edge() -> None:
    graph = layers_of("""
        g (float[4] x) => (float[2] y) { [split] a, b = Split(x) [add] y = Add(a, b) }
    """)
    assert graph.to_networkx().edges["split", "add"]["tensors"] == ["a", "b"]


def test_what_no_input_reaches_is_constant_and_what_no_output_needs_is_dropped() -> None:
    graph = layers_of("""
        g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
          [scale] c = Neg(w)
          [twice] d = Add(c, c)
          [relu] h = Relu(x)
          [lost] l = Neg(h)
          [lost2] m = Neg(d)
          [mul] y = Mul(h, d)
        }
    """)
    assert names(graph) == ["relu", "mul"]
    assert graph.constant_nodes == (0, 1)
    assert graph.dropped_nodes == (3, 4)
    assert graph.by_name["mul"].inputs == ("h",)


def test_unnamed_and_equally_named_nodes_get_names_of_their_own() -> None:
    model = parse("""
        g (float[2] x) => (float[2] y) {
          a = Relu(x)
          b = Relu(a)
          c = Relu(b)
          d = Relu(c)
          e = Neg(d)
          y = Neg(e)
        }
    """)
    for node, name in zip(model.graph.node, ["", "one", "one", "Relu_0", "", "one_2"], strict=True):
        node.name = name
    assert names(layers_of(model)) == ["Relu_0_", "one", "one_2_", "Relu_0", "Neg_4", "one_2"]


def test_an_optional_input_that_is_left_out_is_no_tensor() -> None:
    graph = layers_of("""
        g (float[2] x) => (float[2] y) <float one = {1}> { [clip] y = Clip(x, "", one) }
    """)
    assert graph.by_name["clip"].inputs == ("x",)


def test_an_if_reads_what_its_branches_capture() -> None:
    graph = layers_of("""
        g (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}> {
          [relu] h = Relu(x)
          [neg] n = Neg(x)
          [if] y = If (c) <
            then_branch = yes () => (float[2] a) { i = Add(h, w) a = Neg(i) },
            else_branch = no () => (float[2] b) {
              b = If (c) <
                then_branch = yes2 () => (float[2] a2) { a2 = Neg(n) },
                else_branch = no2 () => (float[2] b2) { b2 = Abs(h) }
              >
            }
          >
        }
    """)
    assert graph.by_name["if"].inputs == ("c", "h", "n")


def test_a_loop_reads_what_its_body_captures_but_not_what_it_defines() -> None:
    graph = layers_of("""
        g (float[2] x, int64 n, bool c) => (float[2] y) {
          [relu] h = Relu(x)
          [loop] y = Loop (n, c, x) <
            body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] so) {
              co = Identity(ci)
              so = Add(s, h)
            }
          >
        }
    """)
    assert graph.by_name["loop"].inputs == ("n", "c", "x", "h")


def test_a_branch_that_gives_back_an_outer_tensor_reads_it() -> None:
    model = parse("""
        g (float[2] x, bool c) => (float[2] y) {
          [relu] h = Relu(x)
          [if] y = If (c) <
            then_branch = yes () => (float[2] a) { a = Identity(x) },
            else_branch = no () => (float[2] b) { b = Identity(x) }
          >
        }
    """)
    branch = model.graph.node[1].attribute[0].g
    del branch.node[:]
    branch.output[0].name = "h"
    assert layers_of(model).by_name["if"].inputs == ("c", "h", "x")


def test_an_initializer_that_is_listed_as_input_is_no_input() -> None:
    model = parse("g (float[2] x) => (float[2] y) { [add] y = Add(x, w) }")
    weights = numpy_helper.from_array(np.array([1, 2], np.float32), "w")
    model.graph.initializer.append(weights)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))
    graph = layers_of(model)
    assert graph.inputs == ("x",)
    assert graph.by_name["add"].inputs == ("x",)


def test_a_sparse_initializer_is_no_input() -> None:
    model = parse("g (float[2] x) => (float[2] y) { [add] y = Add(x, w) }")
    values = numpy_helper.from_array(np.array([3], np.float32), "w")
    indices = numpy_helper.from_array(np.array([1], np.int64), "")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2]))
    assert layers_of(model).inputs == ("x",)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "g () => (float[2] y) <float[2] w = {1, 2}> { y = Neg(w) }",
            "the model has no input: there is nothing to split",
        ),
        (
            "g (float[2] x, float[2] z) => (float[2] y) { y = Neg(x) }",
            "input 'z' is read by no layer: remove it from the model",
        ),
        (
            "g (float[2] x, float[2] z) => (float[2] y) { y = Neg(x) l = Neg(z) }",
            "input 'z' is read by no layer: remove it from the model",
        ),
        (
            "g (float[2] x) => (float[2] y, float[2] k) <float[2] w = {1, 2}> "
            "{ y = Neg(x) k = Neg(w) }",
            "output 'k' depends on no input: remove it from the model",
        ),
        (
            "g (float[2] x) => (float[2] y, float[2] x) { y = Neg(x) }",
            "output 'x' is an input, unchanged: remove it from the outputs of the model",
        ),
        (
            "g (float[2] x) => (float[2] y, float[2] y) { y = Neg(x) }",
            "output 'y' stands 2 times: give it once",
        ),
        (
            "g (float[2] x) => (float[2] y) { [noise] r = RandomNormal<shape = [2]>() "
            "y = Add(x, r) }",
            "node 'noise' (RandomNormal) draws random numbers: the model has no reproducible "
            "output to compare with",
        ),
    ],
)
def test_a_model_that_cannot_be_split_is_refused(text: str, fault: str) -> None:
    assert fault in faults_of(text)


def test_random_nodes_that_are_dropped_do_not_matter() -> None:
    graph = layers_of("""
        g (float[2] x) => (float[2] y) { r = RandomNormal<shape = [2]>() [neg] y = Neg(x) }
    """)
    assert names(graph) == ["neg"]


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.onnx", b"not a model", "is not a readable ONNX model ("),
        ("m.onnx", b"", "is not an ONNX model with layers: its graph is empty"),
        ("plan.json", b'{"format": "tritier/plan/1"}', "is not a readable ONNX model ("),
        ("m.textproto", b"ir_version: 8", "is not a"),
        ("m.onnxtxt", b"<ir_version: 8>", "is not a readable ONNX model ("),
    ],
)
def test_a_file_that_is_no_model_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    del model.opset_import[1]  # without which it would be as good
    whole = model.SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            load_model(path)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(InputError, match="no such file: give the path of an ONNX model"):
            load_model(path)


def test_a_model_against_onnx_s_rules_is_refused(tmp_path: Path) -> None:
    model = parse("g (float[2] x) => (float[2] y) { h = Neg(z) y = Neg(h) }")
    with pytest.raises(InputError, match=r"breaks ONNX's rules: .*z"):
        load(tmp_path, model)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("yolo11n-seg", "yolo11n-seg"),
        ("my model (1)", "my_model_1_"),
        ("größe", "gr_e"),
        ("__a__b", "a_b"),
        ("._-", "model"),
        ("a" * 120, "a" * 100),
    ],
)
def test_the_default_name_is_one_that_triton_accepts(tmp_path: Path, stem: str, name: str) -> None:
    model = load(tmp_path, "g (float[2] x) => (float[2] y) { y = Neg(x) }", stem)
    assert model.default_name == name


# -- types and shapes -----------------------------------------------------------------------------


def test_borders_stand_in_the_model_s_order() -> None:
    model = parse("""
        g (float[N,4] x, int64[2] s) => (float[2,N] y) {
          [t] h = Transpose<perm = [1, 0]>(x)
          [shape] k = Shape(h)
          [add] a = Add(k, s)
          [reshape] r = Reshape(h, a)
          [y] y = Reshape(r, s)
        }
    """)
    found = border_tensors(model, layers_of(model), ["k", "h"])
    assert list(found) == ["x", "s", "h", "k", "y"]
    assert found["h"] == TensorInfo("h", "float32", (4, "N"))
    assert found["k"] == TensorInfo("k", "int64", (2,))


def test_sizes_that_are_known_give_bytes() -> None:
    assert TensorInfo("x", "float32", (2, 3)).bytes == 24
    assert TensorInfo("x", "float16", ()).bytes == 2
    assert TensorInfo("x", "int8", (0, 5)).bytes == 0
    assert TensorInfo("x", "int8", (2, "N")).bytes is None


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("com.microsoft.Gelu(x)", TensorInfo("h", "float32", ("N", 4))),
        ("com.microsoft.Gelu(r)", TensorInfo("h", "float32", ())),
    ],
)
def test_what_onnx_does_not_know_onnx_runtime_is_asked(op: str, expected: TensorInfo) -> None:
    model = parse(f"""
        g (float[N,4] x) => (float[] y) {{
          r = ReduceSum<keepdims = 0>(x)
          h = {op}
          y = Neg(h)
        }}
    """)
    assert infer_tensors(model, ["h"]) == {"h": expected}
    assert infer_tensors(model, ["y"])["y"].shape == expected.shape


def test_an_unknown_number_of_dimensions_is_refused_not_taken_for_none() -> None:
    model = parse("""
        g (float[N,4] x, int64[K] s) => (float[] y) { h = Reshape(x, s) y = Neg(h) }
    """)
    with pytest.raises(InputError) as caught:
        infer_tensors(model, ["x", "h", "y"])
    assert [fault.split(": ")[0] for fault in caught.value.faults] == [
        "the type or the number of dimensions of tensor 'h' is unknown",
        "the type or the number of dimensions of tensor 'y' is unknown",
    ]


def test_a_size_without_a_name_is_unknown() -> None:
    model = parse("g (float[?,4] x) => (float[?,4] y) { y = Neg(x) }")
    assert infer_tensors(model, ["x"])["x"].shape == ("?", 4)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "g (string[2] x) => (string[2] y) { y = Identity(x) }",
            "tensor 'x' is a tensor of string; only tensors of bool, uint8, ",
        ),
        (
            "g (bfloat16[2] x) => (bfloat16[2] y) { y = Identity(x) }",
            "tensor 'x' is a tensor of bfloat16; only tensors of bool, uint8, ",
        ),
        (
            "g (seq(float[2]) x) => (seq(float[2]) y) { y = Identity(x) }",
            "tensor 'x' is a sequence; only tensors of bool, uint8, ",
        ),
        (
            "g (optional(float[2]) x) => (float[2] y) { y = OptionalGetElement(x) }",
            "tensor 'x' is a optional; only tensors of bool, uint8, ",
        ),
    ],
)
def test_what_cannot_cross_is_named(text: str, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        infer_tensors(parse(text), ["x"])
    assert caught.value.faults[0].startswith(fault)
    assert "assign the layers on both sides of it to one server" in caught.value.faults[0]


def test_a_size_of_minus_one_is_an_unknown_one() -> None:
    model = parse("m (float[4] x) => (float[4] y) { y = Relu (x) }")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    assert infer_tensors(model, ["x", "y"])["x"].shape == ("?",)


def test_a_model_that_neither_knows_is_refused() -> None:
    model = parse("g (float[2] x) => (float[2] y) { h = com.example.Op(x) y = Neg(h) }")
    model.opset_import.add(domain="com.example", version=1)
    with pytest.raises(InputError, match="1 tensors are unknown and ONNX Runtime refuses"):
        infer_tensors(model, ["h"])


def test_loading_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    model = load(tmp_path, "g (float[2] x) => (float[2] y) { h = Abs(x) y = Neg(h) }")
    before = model.proto.SerializeToString()
    graph = layers_of(model.proto)
    border_tensors(model.proto, graph, ["h"])
    assert model.proto.SerializeToString() == before == model.path.read_bytes()
    assert onnx.load_model_from_string(before) == model.proto
