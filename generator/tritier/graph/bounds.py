"""Bounds of integer tensors that follow from the graph alone: of shapes, indices and the like.

Such a tensor can cross a link in a narrower type without loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from tritier.graph.tensors import DTYPES, Dim, infer_tensors

Bounds = tuple[int, int]
# No size of a tensor that Triton serves is above this: its messages are limited to it in bytes.
_SIZES = (0, 2**31 - 1)
_MOVING = {
    "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather",
    "GatherElements", "GatherND", "Expand", "Tile", "Split",
}  # fmt: skip
_JOINING = {"Concat", "Max", "Min"}
_MOST_ELEMENTS = 1 << 20  # of a constant that is looked through


def integer_bounds(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, Bounds]:
    """(least, greatest) possible value of those tensors for which the graph tells.

    Raises nothing: what is not known is left out.
    """
    wanted = set(names)
    if not wanted:
        return {}
    found = {
        t.name: bounds for t in model.graph.initializer if (bounds := _of_constant(t)) is not None
    }
    shapes = _shapes(model)
    for node in model.graph.node:
        for name, bounds in _of_node(node, found, shapes).items():
            found[name] = bounds
    return {name: found[name] for name in wanted if name in found}


def holds(dtype: str, bounds: tuple[float, float]) -> bool:
    """Whether an integer type (numpy's name) holds all values between two."""
    info = np.iinfo(dtype)
    return bool(info.min <= bounds[0] and bounds[1] <= info.max)


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[Dim, ...]]:
    """Shapes of what indices are taken over, as far as the model declares them."""
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    known = {
        v.name
        for v in values
        if v.type.tensor_type.HasField("shape") and v.type.tensor_type.elem_type in DTYPES
    }
    sources = [
        node.input[0]
        for node in model.graph.node
        if node.op_type in ("ArgMax", "ArgMin", "TopK") and node.input[0] in known
    ]
    return {name: info.shape for name, info in infer_tensors(model, sources).items()}


def _of_constant(tensor: onnx.TensorProto) -> Bounds | None:
    if tensor.data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
        return None
    if not 0 < math.prod(tensor.dims) <= _MOST_ELEMENTS:
        return None
    values = numpy_helper.to_array(tensor)
    return int(values.min()), int(values.max())


def _of_node(
    node: onnx.NodeProto, found: Mapping[str, Bounds], shapes: Mapping[str, tuple[Dim, ...]]
) -> dict[str, Bounds]:
    """Bounds of the outputs of a node, as far as they are known."""
    if node.domain not in ("", "ai.onnx"):
        return {}
    given = [found.get(name) for name in node.input]
    if node.op_type in ("Shape", "NonZero"):
        return {node.output[0]: _SIZES}
    if node.op_type in ("ArgMax", "ArgMin"):
        return {node.output[0]: _of_index(node, shapes, 0)}
    if node.op_type == "TopK" and len(node.output) > 1:
        return {node.output[1]: _of_index(node, shapes, -1)}
    if node.op_type == "Constant":
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        bounds = None if value is None else _of_constant(value)
        return {} if bounds is None else {node.output[0]: bounds}
    if node.op_type == "Cast":
        return _of_cast(node, given)
    if node.op_type in _MOVING and given and given[0] is not None:
        return {name: given[0] for name in node.output if name}
    if node.op_type in _JOINING and given and None not in given:
        known = [bounds for bounds in given if bounds is not None]
        return {node.output[0]: (min(b[0] for b in known), max(b[1] for b in known))}
    return _of_arithmetic(node, given)


def _of_cast(node: onnx.NodeProto, given: list[Bounds | None]) -> dict[str, Bounds]:
    target = next(a.i for a in node.attribute if a.name == "to")
    if target not in (onnx.TensorProto.INT64, onnx.TensorProto.INT32) or given[0] is None:
        return {}
    least, greatest = given[0]
    info = np.iinfo(np.int64 if target == onnx.TensorProto.INT64 else np.int32)
    fits = info.min <= least and greatest <= info.max
    return {node.output[0]: (least, greatest)} if fits else {}


def _of_arithmetic(node: onnx.NodeProto, given: list[Bounds | None]) -> dict[str, Bounds]:
    if len(given) != 2 or given[0] is None or given[1] is None:
        return {}
    (a, b), (c, d) = given[0], given[1]
    ends = {
        "Add": [a + c, b + d],
        "Sub": [a - d, b - c],
        "Mul": [a * c, a * d, b * c, b * d],
    }.get(node.op_type)
    if ends is None or max(map(abs, ends)) > np.iinfo(np.int32).max:
        return {}  # it may have wrapped around
    return {node.output[0]: (min(ends), max(ends))}


def _of_index(
    node: onnx.NodeProto, shapes: Mapping[str, tuple[Dim, ...]], default_axis: int
) -> Bounds:
    shape = shapes.get(node.input[0])
    axis = next((a.i for a in node.attribute if a.name == "axis"), default_axis)
    size = shape[axis] if shape and -len(shape) <= axis < len(shape) else None
    return (0, max(size - 1, 0)) if isinstance(size, int) else _SIZES
