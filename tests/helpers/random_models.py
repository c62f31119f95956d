"""Hypothesis strategies: random models of small layers, and random placements of their layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tritier.divider import Arrays

_UNARY = ["Relu", "Neg", "Abs", "Floor", "Sigmoid", "Tanh"]
_BINARY = ["Add", "Mul", "Sub", "Max", "Min"]
_WIDTH = 4
# Names that a plan, a config or an ensemble could confuse with its own.
_TRAPS = ["t0", "t1", "t2", "t3", "t1_", "key", "sent", "sent_c0", "ack_b", "a/b:0", "é ü", "c0"]


@dataclass
class _Builder:
    """A model that grows. Sizes are the rows of each tensor: 2, or 1 for halves."""

    names: list[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    constants: dict[str, int] = field(default_factory=dict)
    made: int = 0

    def name(self) -> str:
        """A fresh tensor name, at first one of the traps."""
        self.made += 1
        return self.names.pop() if self.names else f"x{self.made}"

    def add(self, op: str, inputs: list[str], rows: list[int], node_name: str) -> list[str]:
        """A layer with one output for each of `rows`."""
        outputs = [self.name() for _ in rows]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=node_name))
        self.rows.update(zip(outputs, rows, strict=True))
        return outputs


@st.composite
def models(draw: st.DrawFn, max_layers: int = 12) -> onnx.ModelProto:
    """Connected elementwise layers with several inputs, shared initializers, constant nodes, nodes
    of two outputs, tensors with many consumers, and unnamed nodes."""
    builder = _Builder(draw(st.permutations(_TRAPS)))
    inputs = [builder.name() for _ in range(draw(st.integers(1, 3)))]
    for name in inputs:
        builder.rows[name] = 2
    _add_constants(draw, builder)
    unread = list(inputs)
    for index in range(draw(st.integers(len(inputs), max_layers))):
        _add_layer(draw, builder, unread, index)
    while unread:
        _add_layer(draw, builder, unread, len(builder.nodes))
    used = {name for node in builder.nodes for name in node.input}
    loose = [name for name in builder.rows if name not in used]
    inner = [name for name in builder.rows if name in used and name not in inputs]
    extra = draw(st.lists(st.sampled_from(inner), max_size=2, unique=True)) if inner else []
    return _model(builder, inputs, [*loose, *extra])


@st.composite
def placements(draw: st.DrawFn, layers: list[str], servers: str) -> dict[str, str]:
    """A server for each layer."""
    chosen = draw(st.lists(st.sampled_from(servers), min_size=len(layers), max_size=len(layers)))
    return dict(zip(layers, chosen, strict=True))


def inputs_for(model: onnx.ModelProto, seed: int) -> Arrays:
    """Values from -2 to 2 for each input of a random model, with a -0.0 among them."""
    generator = np.random.default_rng(seed)
    found: Arrays = {}
    for value in model.graph.input:
        array = generator.uniform(-2, 2, (2, _WIDTH)).astype(np.float32)
        array[0, 0] = -0.0
        found[value.name] = array
    return found


def _add_constants(draw: st.DrawFn, builder: _Builder) -> None:
    """Initializers, constant nodes, and a node that depends on constants only."""
    for index in range(draw(st.integers(0, 2))):
        name = builder.name()
        data = np.arange(_WIDTH, dtype=np.float32).reshape(1, _WIDTH) - index
        builder.initializers.append(numpy_helper.from_array(data, name))
        builder.constants[name] = 1
    if draw(st.booleans()):
        name = builder.name()
        tensor = numpy_helper.from_array(np.full((2, _WIDTH), 0.5, np.float32))
        builder.nodes.append(helper.make_node("Constant", [], [name], name="", value=tensor))
        builder.constants[name] = 2
        if draw(st.booleans()):
            other = builder.name()
            builder.nodes.append(helper.make_node("Neg", [name], [other], name="constant"))
            builder.constants[other] = 2


def _add_layer(draw: st.DrawFn, builder: _Builder, unread: list[str], index: int) -> None:
    """A layer that reads an input that nothing has read yet, or any tensor there is."""
    first = unread.pop(0) if unread else draw(st.sampled_from(sorted(builder.rows)))
    rows = builder.rows[first]
    node_name = draw(st.sampled_from(["", f"layer {index}", f"a*[{index}]?"]))
    kind = draw(st.integers(0, 5))
    if kind == 0 and rows == 2:
        builder.add("Split", [first], [1, 1], node_name)
    elif kind <= 2:
        builder.add(draw(st.sampled_from(_UNARY)), [first], [rows], node_name)
    else:
        pool: Mapping[str, int] = {**builder.rows, **builder.constants}
        second = draw(st.sampled_from(sorted(pool)))
        op = draw(st.sampled_from(_BINARY))
        builder.add(op, [first, second], [max(rows, pool[second])], node_name)
        if second in unread:
            unread.remove(second)


def _model(builder: _Builder, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    def value(name: str) -> onnx.ValueInfoProto:
        shape = [builder.rows[name], _WIDTH]
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        builder.nodes,
        "random",
        [value(name) for name in inputs],
        [value(name) for name in outputs],
        initializer=builder.initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
