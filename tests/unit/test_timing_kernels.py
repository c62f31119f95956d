"""Kernels of real optimised graphs are traced to the layers whose work they do."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.helpers.models import load
from tests.helpers.timing import nodes_of, optimised
from tritier.graph import LoadedModel
from tritier.timing import Attribution, CutCost, attribute, cut_costs

# Two convolutions in the blocked layout with an activation of two layers between, as in YOLO, and
# one that is fused with its activation.
CONVS = """
    g (float[1,16,8,8] x) => (float[1,16,8,8] y)
      <float[16,16,1,1] w1 = {W}, float[16,16,1,1] w2 = {W}, float[16,16,1,1] w3 = {W}> {
      [conv1] a = Conv(x, w1)
      [sig1] s = Sigmoid(a)
      [mul1] b = Mul(a, s)
      [conv2] c = Conv(b, w2)
      [relu2] d = Relu(c)
      [conv3] e = Conv(d, w3)
      [soft] y = Softmax<axis = 1>(e)
    }
""".replace("{W}", "{" + ", ".join(["0.1"] * 256) + "}")
KERNEL_MS = 1.0


@pytest.fixture
def convs(tmp_path: Path) -> LoadedModel:
    return load(tmp_path, CONVS)


def traced(
    model: LoadedModel, folder: Path, quantized: tuple[str, ...] = ()
) -> tuple[onnx.GraphProto, Attribution]:
    """What each kernel takes is 1: an attribution counts kernels."""
    data, nodes = nodes_of(model, quantized)
    graph = optimised(data, folder)
    return graph, attribute(nodes, graph, {kernel.name: KERNEL_MS for kernel in graph.node})


def test_each_kernel_counts_for_the_main_layer_of_its_work(
    convs: LoadedModel, tmp_path: Path
) -> None:
    graph, found = traced(convs, tmp_path)
    kinds = [kernel.op_type for kernel in graph.node]
    assert "QuickGelu" in kinds, "else the model does not test what it should"
    assert "ReorderOutput" in kinds
    assert found.unmapped == {}
    # The fused activation, and the change of layout that the softmax needs, have no other place.
    assert dict(found.layers) == {
        "conv1": 1 + kinds.count("ReorderInput"), "mul1": 1, "conv2": 1,
        "conv3": 1 + kinds.count("ReorderOutput"), "soft": 1,
    }  # fmt: skip
    assert sorted(map(sorted, found.groups)) == [["conv2", "relu2"], ["mul1", "sig1"]]


def test_no_time_is_lost(convs: LoadedModel, tmp_path: Path) -> None:
    graph, found = traced(convs, tmp_path)
    assert sum(found.layers.values()) == len(graph.node) * KERNEL_MS


def test_a_kernel_that_no_graph_has_is_told(convs: LoadedModel, tmp_path: Path) -> None:
    data, nodes = nodes_of(convs)
    found = attribute(nodes, optimised(data, tmp_path), {"subgraph_1": 3.0})
    assert found.unmapped == {"subgraph_1": 3.0}
    assert sum(found.layers.values()) == 0


def test_time_inside_a_loop_is_that_of_the_loop(tmp_path: Path) -> None:
    _, nodes = nodes_of(load(tmp_path, "g (float[4] x) => (float[4] y) { [a] y = Abs(x) }"))
    body = helper.make_graph([helper.make_node("Neg", ["x"], ["b"], name="inner")], "body", [], [])
    outer = helper.make_node("If", ["c"], ["y"], name=nodes[0].name, then_branch=body)
    found = attribute(nodes, graph_of([outer]), {nodes[0].name: 5.0, "inner": 4.0})
    assert dict(found.layers) == {"a": 5.0}
    assert found.unmapped == {}


def test_what_quantization_puts_in_belongs_to_the_quantized_layer(
    convs: LoadedModel, tmp_path: Path
) -> None:
    graph, found = traced(convs, tmp_path, ("conv2",))
    kinds = [kernel.op_type for kernel in graph.node]
    assert "QuantizeLinear" in kinds
    assert found.unmapped == {}
    assert sum(found.layers.values()) == len(kinds)
    served = {"QLinearConv", "QuantizeLinear", "DequantizeLinear"}
    assert found.layers["conv2"] >= sum(kind in served for kind in kinds)


def test_a_fused_kernel_without_a_name_is_found_between_its_neighbours(tmp_path: Path) -> None:
    """Gelu as ONNX Runtime names it where a blocked convolution follows: by nothing."""
    model = load(
        tmp_path,
        """
        g (float[4] x) => (float[4] y) <float two = {2.0}, float one = {1.0}> {
          [neg] a = Neg(x)
          [div] b = Div(a, two)
          [erf] c = Erf(b)
          [add] d = Add(c, one)
          [mul] e = Mul(a, d)
          [abs] y = Abs(e)
        }
        """,
    )
    _, nodes = nodes_of(model)
    kernels = [
        helper.make_node("Neg", ["x"], ["hidden_0"], name=nodes[0].name),
        helper.make_node("Gelu", ["hidden_0"], ["hidden_1"], name="Gelu"),
        helper.make_node("ReorderInput", ["hidden_1"], ["hidden_2"], name="ReorderInput"),
        helper.make_node("Abs", ["hidden_2"], ["y"], name="y_nchwc"),
    ]
    found = attribute(nodes, graph_of(kernels), {"Gelu": 5.0, "ReorderInput": 2.0, "y_nchwc": 1.0})
    assert found.unmapped == {}
    assert found.layers["mul"] == 5.0
    assert found.layers["abs"] == 3.0
    assert {"mul", "add", "erf", "div"} in [set(group) for group in found.groups]


def test_borders_cost_a_change_of_layout_where_a_tensor_is_blocked(
    convs: LoadedModel, tmp_path: Path
) -> None:
    data, nodes = nodes_of(convs)
    graph = optimised(data, tmp_path)
    times = {kernel.name: KERNEL_MS for kernel in graph.node}
    makers = attribute(nodes, graph, times).makers
    sizes = dict.fromkeys("abcdesxy", 4096)
    found = cut_costs(sizes, makers, graph, times)
    # e is brought back anyway, for the softmax; x and y are plain.
    assert set(found) == {"a", "b", "c", "d", "s"}
    changes = {k.op_type for k in graph.node} & {"ReorderInput", "ReorderOutput"}
    assert found["b"] == CutCost(
        making=KERNEL_MS if "ReorderOutput" in changes else 0.0,
        reading=KERNEL_MS if "ReorderInput" in changes else 0.0,
    )


def test_a_tensor_twice_as_large_costs_twice_as_much() -> None:
    kernels = [
        helper.make_node("Conv", ["x"], ["hidden"], name="a_nchwc"),
        helper.make_node("Conv", ["hidden"], ["blocked"], name="b_nchwc"),
        helper.make_node("ReorderOutput", ["blocked"], ["b"], name="back"),
    ]
    found = cut_costs(
        {"a": 200, "b": 100}, {"a": "a_nchwc", "b": "b_nchwc"}, graph_of(kernels), {"back": 3.0}
    )
    assert found == {"a": CutCost(making=6.0, reading=0.0)}


def graph_of(kernels: list[onnx.NodeProto]) -> onnx.GraphProto:
    value = helper.make_tensor_value_info
    x, y = (value(name, TensorProto.FLOAT, [4]) for name in "xy")
    return helper.make_graph(kernels, "g", [x], [y])
