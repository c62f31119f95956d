"""Cutting a model: names, constants, captures, types, bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.models import Split, assert_same_bits, layers_of, load, parse, spec, split
from tests.helpers.plans import plan_data
from tritier.divider import Array, check_against_model, cut_model, random_inputs, realise
from tritier.documents import Assignment, Plan
from tritier.errors import InputError
from tritier.graph import build_layer_graph, load_model
from tritier.workflow import plan_from_assignment

X = np.array([[1, -2, 3.5, -0.0]], np.float32)
RELU_NEG = "g (float[1,4] x) => (float[1,4] y) { [a] h = Relu(x) [b] y = Neg(h) }"


def agrees(item: Split, **inputs: Array) -> None:
    """Fail unless whole and parts give the same bits (rule R4)."""
    assert_same_bits(item.run_whole(inputs), item.run_chain(inputs))


def names_in(model: onnx.ModelProto) -> set[str]:
    """Names of all tensors at the top level of a sub-model."""
    return {name for node in model.graph.node for name in (*node.input, *node.output)}


# -- names ----------------------------------------------------------------------------------------


def test_borders_get_safe_names_and_inner_tensors_keep_theirs(tmp_path: Path) -> None:
    text = """
        g (float[1,4] x) => (float[1,4] y) {
          [a1] inner = Relu(x) [a2] h = Abs(inner) [b] y = Neg(h)
        }
    """
    item = split(tmp_path, text, {"a*": "a", "b": "b"})
    assert names_in(item.sub_model("c0")) == {"t0", "inner", "t1"}
    assert names_in(item.sub_model("c1")) == {"t1", "t2"}
    assert [v.name for v in item.sub_model("c0").graph.input] == ["t0"]
    assert [v.name for v in item.sub_model("c0").graph.output] == ["t1"]
    agrees(item, x=X)


def test_inner_names_that_look_like_border_names_make_way(tmp_path: Path) -> None:
    # Borders: x, y and two inner tensors that are called as other borders will be.
    text = """
        g (float[1,4] x) => (float[1,4] y) {
          [a1] t0 = Relu(x)
          [a2] t1_ = Abs(t0)
          [a3] t1 = Add(t0, t1_)
          [a4] t2 = Sub(t1, x)
          [b1] t3 = Add(t2, t1)
          [b2] y = Neg(t3)
        }
    """
    item = split(tmp_path, text, {"a*": "a", "b*": "b"})
    assert {t.id: t.name for t in item.plan.tensors} == {
        "t0": "x",
        "t1": "t1",
        "t2": "t2",
        "t3": "y",
    }
    assert names_in(item.sub_model("c0")) == {"t0", "t0_", "t1_", "t1", "t2"}
    assert names_in(item.sub_model("c1")) == {"t1", "t2", "t3", "t3_"}
    agrees(item, x=X)


def test_border_names_may_be_swapped_by_the_model(tmp_path: Path) -> None:
    text = """
        g (float[1,4] t1) => (float[1,4] t0) { [a] t2 = Relu(t1) [b] t0 = Neg(t2) }
    """
    item = split(tmp_path, text, {"a": "a", "b": "b"})
    assert {t.id: t.name for t in item.plan.tensors} == {"t0": "t1", "t1": "t2", "t2": "t0"}
    agrees(item, t1=X)


def test_an_initializer_makes_way_too(tmp_path: Path) -> None:
    text = """
        g (float[1,4] x) => (float[1,4] y) <float[4] t0 = {1, 2, 3, 4}> {
          [a] h = Add(x, t0) [b] y = Mul(h, t0)
        }
    """
    item = split(tmp_path, text, {"a": "a", "b": "b"})
    assert [t.name for t in item.sub_model("c0").graph.initializer] == ["t0_"]
    assert [t.name for t in item.sub_model("c1").graph.initializer] == ["t0"]
    agrees(item, x=X)


def test_odd_names_of_the_model_reach_no_sub_model_s_border(tmp_path: Path) -> None:
    model = parse(RELU_NEG)
    model.graph.input[0].name = model.graph.node[0].input[0] = "images/é:0 \n"
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "../../h"
    item = split(tmp_path, model, {"a": "a", "b": "b"})
    assert names_in(item.sub_model("c0")) == {"t0", "t1"}
    agrees(item, **{"images/é:0 \n": X})


# -- what is copied -------------------------------------------------------------------------------


def test_initializers_go_where_they_are_used_and_nowhere_else(tmp_path: Path) -> None:
    text = """
        g (float[1,4] x) => (float[1,4] y)
        <float[4] both = {1, 2, 3, 4}, float[4] left = {5, 6, 7, 8}, float[4] none = {0, 0, 0, 0}> {
          [a1] h = Add(x, both) [a2] k = Mul(h, left) [b] y = Mul(k, both)
        }
    """
    item = split(tmp_path, text, {"a*": "a", "b": "b"})
    assert [t.name for t in item.sub_model("c0").graph.initializer] == ["both", "left"]
    assert [t.name for t in item.sub_model("c1").graph.initializer] == ["both"]
    agrees(item, x=X)


def test_constant_nodes_are_copied_to_both_sides_with_what_they_need(tmp_path: Path) -> None:
    text = """
        g (float[1,4] x) => (float[1,4] y) <float[4] w = {1, 2, 3, 4}> {
          [neg] c = Neg(w)
          [one] k = Constant<value = float[4] {2, 2, 2, 2}>()
          [both] d = Mul(c, k)
          [a] h = Add(x, d)
          [b] y = Mul(h, d)
          [lost] z = Neg(h)
        }
    """
    item = split(tmp_path, text, {"a": "a", "b": "b"})
    for component, layer in (("c0", "a"), ("c1", "b")):
        nodes = [node.name for node in item.sub_model(component).graph.node]
        assert nodes == ["neg", "one", "both", layer]
    agrees(item, x=X)


def test_a_sparse_initializer_is_copied(tmp_path: Path) -> None:
    model = parse("g (float[1,4] x) => (float[1,4] y) { [a] h = Add(x, w) [b] y = Mul(h, w) }")
    values = numpy_helper.from_array(np.array([3, 7], np.float32), "w")
    indices = numpy_helper.from_array(np.array([1, 2], np.int64), "")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    item = split(tmp_path, model, {"a": "a", "b": "b"})
    assert len(item.sub_model("c1").graph.sparse_initializer) == 1
    agrees(item, x=X)


def test_local_functions_are_copied(tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[1,4] x) => (float[1,4] y) { [a] h = local.twice(x) [b] y = local.twice(h) }
        <domain: "local", opset_import: ["" : 17]> twice (v) => (w) { w = Add(v, v) }
    """)
    agrees(split(tmp_path, model, {"a": "a", "b": "b"}), x=X)


# -- sub-graphs -----------------------------------------------------------------------------------

IF = """
    g (float[1,4] x, bool c) => (float[1,4] y) {
      [relu] h = Relu(x)
      [if] y = If (c) <
        then_branch = yes () => (float[1,4] o) { %s o = Add(%s, h) },
        else_branch = no () => (float[1,4] p) {
          p = If (c) <
            then_branch = yes2 () => (float[1,4] o2) { o2 = Identity(x) },
            else_branch = no2 () => (float[1,4] p2) { p2 = Neg(h) }
          >
        }
      >
    }
"""


@pytest.mark.parametrize("inner", ["i", "t0", "t1", "t2", "t3", "h_"])
@pytest.mark.parametrize("condition", [True, False])
def test_captures_are_renamed_and_the_names_of_bodies_make_way(
    tmp_path: Path, inner: str, condition: bool
) -> None:
    text = IF % (f"{inner} = Abs(h)", inner)
    item = split(tmp_path, text, {"relu": "b", "if": "c"})
    assert "h" not in names_in(item.sub_model("c1"))
    agrees(item, x=X, c=np.array(condition))


def test_names_of_a_loop_s_body_make_way(tmp_path: Path) -> None:
    text = """
        g (float[1,4] x, int64 n, bool c) => (float[1,4] y) {
          [relu] h = Relu(x)
          [loop] y = Loop (n, c, x) <
            body = b (int64 t0, bool t1, float[1,4] t3) => (bool co, float[1,4] t4)
            <float[4] t2 = {1, 2, 3, 4}> {
              co = Identity(t1)
              k = Add(t3, h)
              t4 = Mul(k, t2)
            }
          >
        }
    """
    item = split(tmp_path, text, {"relu": "b", "loop": "c"})
    agrees(item, x=X, n=np.array(3), c=np.array(True))


# -- kinds of tensors -----------------------------------------------------------------------------


def test_a_tensor_may_be_output_and_intermediate(tmp_path: Path) -> None:
    text = """
        g (float[1,4] x) => (float[1,4] h, float[1,4] y) {
          [a] h = Relu(x) [b] k = Neg(h) [c] y = Add(h, k)
        }
    """
    for where in ({"a": "b", "b": "c", "c": "a"}, {"a": "a", "b": "a", "c": "a"}):
        item = split(tmp_path, text, where)
        assert len(item.plan.outputs) == 2
        agrees(item, x=X)


def test_scalars_and_shapes_may_cross(tmp_path: Path) -> None:
    text = """
        g (float[N,4] x) => (float[4,M] y) <int64[1] minus = {-1}> {
          [sum] s = ReduceSum<keepdims = 0>(x)
          [shape] k = Shape(x)
          [last] four = Gather(k, minus)
          [join] target = Concat<axis = 0>(four, minus)
          [mul] h = Mul(x, s)
          [reshape] y = Reshape(h, target)
        }
    """
    item = split(
        tmp_path,
        text,
        {"sum": "b", "shape": "b", "last": "c", "join": "b", "mul": "c", "reshape": "a"},
    )
    tensors = {t.name: (t.dtype, t.shape) for t in item.plan.tensors}
    assert tensors["s"] == ("float32", ())
    assert tensors["k"] == ("int64", (2,))
    assert tensors["four"] == ("int64", (1,))
    agrees(item, x=np.arange(12, dtype=np.float32).reshape(3, 4))


def test_scalars_may_be_inputs_and_outputs(tmp_path: Path) -> None:
    text = """
        g (float s, float[1,4] x) => (float y, float k) {
          [a] h = Mul(x, s) [b] y = ReduceMax<keepdims = 0>(h) [c] k = Add(y, s)
        }
    """
    item = split(tmp_path, text, {"a": "a", "b": "b", "c": "c"})
    agrees(item, s=np.array(3, np.float32), x=X)


@pytest.mark.parametrize(
    "dtype",
    ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
     "float16", "float", "double"],
)  # fmt: skip
def test_every_type_that_may_cross_crosses(tmp_path: Path, dtype: str) -> None:
    text = f"""
        g ({dtype}[1,4] x) => ({dtype}[4,1] y) {{
          [a] h = Identity(x) [b] y = Transpose<perm = [1, 0]>(h)
        }}
    """
    item = split(tmp_path, text, {"a": "a", "b": "b"})
    agrees(item, **random_inputs(item.plan, np.random.default_rng(0)))


def test_two_outputs_of_one_layer_may_part(tmp_path: Path) -> None:
    text = """
        g (float[1,4] x) => (float[1,2] y) {
          [split] l, r = Split<axis = 1>(x) [b] k = Neg(l) [c] y = Add(k, r)
        }
    """
    agrees(split(tmp_path, text, {"split": "a", "b": "b", "c": "c"}), x=X)


def test_a_layer_without_a_name_and_an_optional_output_left_out(tmp_path: Path) -> None:
    model = parse("""
        g (float[1,1,4] x) => (float[1,1,1] y)
        <float[1,1,4] w = {1, 2, 3, 4}, float[1,1,1] r = {1}> {
          "", h = RNN<hidden_size = 1>(x, w, r)
          y = Neg(h)
        }
    """)
    item = split(tmp_path, model, {"RNN_0": "b", "Neg_1": "a"})
    assert list(item.sub_model("c0").graph.node[0].output) == ["", "t1"]
    agrees(item, x=X.reshape(1, 1, 4))


# -- real models ----------------------------------------------------------------------------------


def test_a_model_of_ir_version_3_with_inputs_for_its_weights(tmp_path: Path) -> None:
    folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
    model = load_model(folder / "light_squeezenet.onnx")
    assert model.proto.ir_version == 3
    layers = [layer.name for layer in build_layer_graph(model.proto).layers]
    where = {name: "abc"[index * 3 // len(layers)] for index, name in enumerate(layers)}
    item = split(tmp_path, model.proto, where)
    assert len(item.plan.components) == 3
    assert item.sub_model("c0").ir_version == 4
    agrees(item, **random_inputs(item.plan, np.random.default_rng(0)))


# -- bytes ----------------------------------------------------------------------------------------


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    model = load(tmp_path, RELU_NEG)
    plan = plan_from_assignment(model, Assignment(layers={"a": "a", "b": "b"}), spec())
    graph = build_layer_graph(model.proto)
    first = cut_model(realise(model.proto, graph, plan))
    assert cut_model(realise(model.proto, graph, plan)) == first
    copy = load_model(model.path)
    assert cut_model(realise(copy.proto, build_layer_graph(copy.proto), plan)) == first


def test_another_model_gives_other_bytes(tmp_path: Path) -> None:
    one = split(tmp_path, RELU_NEG, {"a": "a", "b": "b"})
    other = split(tmp_path, RELU_NEG.replace("Relu", "Abs"), {"a": "a", "b": "b"})
    assert one.sub_models["c0"] != other.sub_models["c0"]
    assert one.sub_models["c1"] == other.sub_models["c1"]


# -- plans that don't fit -------------------------------------------------------------------------


def plan_for(tmp_path: Path, change: Any) -> tuple[Plan, str, Any]:
    """(changed plan, hash of the model, its graph) of Relu on a and Neg on b."""
    model = load(tmp_path, RELU_NEG)
    plan = plan_from_assignment(model, Assignment(layers={"a": "a", "b": "b"}), spec())
    data = json.loads(plan.to_json())
    del data["plan_id"]
    change(data)
    return Plan.from_data(data), model.sha256, build_layer_graph(model.proto)


def test_a_plan_for_another_model_is_refused(tmp_path: Path) -> None:
    plan, _, graph = plan_for(tmp_path, dict.keys)
    check_against_model(plan, plan.model.sha256, graph)
    with pytest.raises(InputError, match=r"with sha256 .*, this one has eee"):
        check_against_model(plan, "e" * 64, graph)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda data: data["components"][0].update(layers=["a", "z"]),
            "the plan places layer 'z', which the model has not",
        ),
        (
            lambda data: data["components"][0].update(layers=["z"]),
            "the plan leaves out layer 'a' (rule R1)",
        ),
        (
            lambda data: data["tensors"][0].update(name="z"),
            "the plan's inputs are z, the model's x",
        ),
        (
            lambda data: (
                data.update(outputs=["t1"]),
                data["components"].pop(),
                data["tensors"].pop(),
                data["wires"].clear(),
            ),
            "the plan's outputs are h, the model's y",
        ),
    ],
)
def test_a_plan_that_does_not_fit_the_model_is_refused(
    tmp_path: Path, change: Any, fault: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_against_model(*plan_for(tmp_path, change))
    assert fault in caught.value.faults


def test_a_component_that_lacks_an_input_cannot_be_cut_out(tmp_path: Path) -> None:
    text = "g (float[1,4] x) => (float[1,4] y) { [a] h = Relu(x) [b] y = Add(h, x) }"
    model = load(tmp_path, text)
    data = plan_data(
        ["a: t0 -> t1", "b: t1 -> t2"], outputs="t2", names={"t0": "x", "t1": "h", "t2": "y"}
    )
    data["components"][0]["layers"], data["components"][1]["layers"] = ["a"], ["b"]
    plan = Plan.from_data(data)
    with pytest.raises(InputError, match=r"component c1 can't be cut out: .*x"):
        cut_model(realise(model.proto, layers_of(model.proto), plan))


def test_a_component_that_no_file_can_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "g (float[4] x) => (float[4] y) { [a] h = Relu(x) [b] y = Neg(h) }"
    item = split(tmp_path, text, {"a": "a", "b": "b"})
    graph = build_layer_graph(item.model.proto)
    monkeypatch.setattr(onnx.checker, "MAXIMUM_PROTOBUF", 40)
    with pytest.raises(
        InputError,
        match=r"component c0 on server 'a' would have .* bytes of constants; one file holds 40 ",
    ):
        cut_model(realise(item.model.proto, graph, item.plan))


def test_the_value_of_an_unknown_size_is_left_open(tmp_path: Path) -> None:
    text = "g (float[?,4] x) => (float[?,4] y) { [a] h = Relu(x) [b] y = Neg(h) }"
    item = split(tmp_path, text, {"a": "a", "b": "b"})
    dims = item.sub_model("c0").graph.input[0].type.tensor_type.shape.dim
    assert dims[0].WhichOneof("value") is None
    assert dims[1].dim_value == 4
    assert item.sub_model("c0").graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    agrees(item, x=np.repeat(X, 3, axis=0))
