"""Scalars at the border of a model travel as vectors of one element.

Triton has no tensor of rank 0 (`dims: []` is refused, and so is an empty `reshape` unless the model
is batched), so the change of shape is part of the sub-model, as wire codecs are (rule R5).
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from tritier.divider.rename import fresh_names, names_of_bodies, rename_in_place
from tritier.errors import InputError

# Before this version Reshape has its shape as an attribute and can't make a scalar.
_FIRST_OPSET = 5


def wrap_scalars(model: onnx.ModelProto) -> bool:
    """Give every input and output of rank 0 the shape [1], in place; returns whether there was one.

    Raises InputError if the model's opset is too old for it.
    """
    graph = model.graph
    constants = {t.name for t in graph.initializer}
    inputs = [v for v in graph.input if _is_scalar(v) and v.name not in constants]
    outputs = [v for v in graph.output if _is_scalar(v)]
    if not inputs and not outputs:
        return False
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _FIRST_OPSET:
        names = ", ".join(f"'{v.name}'" for v in (*inputs, *outputs))
        raise InputError(
            f"scalars {names} at the border of a model of opset {opset}: from opset "
            f"{_FIRST_OPSET} on they can be served; convert the model"
        )
    _wrap(graph, inputs, outputs)
    return True


def _wrap(
    graph: onnx.GraphProto,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> None:
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {name for node in graph.node for name in names_of_bodies(node)}
    taken |= {t.name for t in graph.initializer}
    inner = fresh_names([v.name for v in (*inputs, *outputs)], taken)
    shapes = fresh_names(["shape_of_scalar", "shape_of_vector"], taken)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    for node in nodes:
        rename_in_place(node, inner, {})
    opening = [
        helper.make_node("Reshape", [v.name, shapes["shape_of_scalar"]], [inner[v.name]])
        for v in inputs
    ]
    closing = [
        helper.make_node("Reshape", [inner[v.name], shapes["shape_of_vector"]], [v.name])
        for v in outputs
    ]
    del graph.node[:]
    graph.node.extend([*opening, *nodes, *closing])
    if inputs:
        name = shapes["shape_of_scalar"]
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [0], []))
    if outputs:
        name = shapes["shape_of_vector"]
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [1], [1]))
    for value in (*inputs, *outputs):
        value.type.tensor_type.shape.dim.add().dim_value = 1


def _is_scalar(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return tensor.HasField("shape") and not tensor.shape.dim
