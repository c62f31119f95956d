"""Puts the preprocessing of images into a model: its input then takes 8-bit pixels.

A quarter of the bytes cross the wire to it, and clients only resize.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tritier.documents import Preprocessing
from tritier.errors import InputError, did_you_mean
from tritier.graph.layers import free_names
from tritier.graph.prepare_sizes import dims_of
from tritier.graph.tensors import DTYPES, ELEMENT_TYPES, Dim, model_inputs

_FLOATS = ("float16", "float32", "float64")


def image_sizes(model: onnx.ModelProto, preprocessing: Preprocessing) -> dict[str, int]:
    """Sizes of symbols of the image input that the preprocessing tells.

    Raises InputError when the model has no such input, or it can't hold such images.
    """
    value = _image_value(model, preprocessing)
    sizes = dims_of(value)
    height, width = preprocessing.size or (None, None)
    wanted: dict[int, int | None] = dict(
        zip(_places(preprocessing), (preprocessing.channels, height, width), strict=True)
    )
    faults, known = [], {}
    for place, size in wanted.items():
        if size is None:
            continue
        found = sizes[place]
        if isinstance(found, str):
            known[found] = size
        elif found != size:
            faults.append(
                f"{value.name}[{place}] is {found} in the model, and {size} in the preprocessing "
                f"({preprocessing.layout}, {preprocessing.color}): correct the file"
            )
    if faults:
        raise InputError(faults)
    return known


def put_preprocessing(model: onnx.ModelProto, preprocessing: Preprocessing) -> str:
    """Give the image input the type uint8 and the layout NHWC with RGB pixels, or grey ones, and
    put nodes behind it that make of them what it was; returns its name.

    Values are computed in float32: (pixel * scale - mean) / std.
    """
    value = _image_value(model, preprocessing)
    name, dtype = value.name, DTYPES[value.type.tensor_type.elem_type]
    ready = _free_name("preprocess/image", model)
    for node in model.graph.node:
        _rename_reads(node, name, ready)
    _declare_pixels(value, preprocessing)
    nodes, constants = _steps(name, ready, dtype, preprocessing)
    taken = {node.name for node in model.graph.node} | _tensor_names(model)
    clash = [n for n in (*(x.name for x in nodes), *(c.name for c in constants)) if n in taken]
    if clash:
        raise InputError(f"the model has a '{clash[0]}' already: its images are prepared")
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    model.graph.initializer.extend(constants)
    return name


def normalised(
    pixels: npt.NDArray[np.uint8], preprocessing: Preprocessing, dtype: str
) -> npt.NDArray[Any]:
    """What the nodes make of uint8 pixels (batch, height, width, channels), by numpy."""
    values = pixels[..., ::-1] if preprocessing.color == "bgr" else pixels
    mean, std = (np.array(v, np.float32) for v in (preprocessing.mean, preprocessing.std))
    result = values.astype(np.float32) * np.float32(preprocessing.scale)
    result = ((result - mean) / std).astype(dtype)
    if preprocessing.layout == "nchw":
        result = result.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(result)


def pixel_shape(sizes: list[Dim], preprocessing: Preprocessing) -> list[Dim]:
    """Sizes of the image input as (batch, height, width, channels)."""
    channels, height, width = _places(preprocessing)
    return [sizes[0], sizes[height], sizes[width], sizes[channels]]


def _places(preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Where channels, height and width stand."""
    return (1, 2, 3) if preprocessing.layout == "nchw" else (3, 1, 2)


def _image_value(model: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ValueInfoProto:
    values = {value.name: value for value in model_inputs(model.graph)}
    names = ", ".join(values)
    name = preprocessing.input
    if name is None and len(values) > 1:
        raise InputError(f"the model has the inputs {names}: name one as `input` of the file")
    if name is not None and name not in values:
        raise InputError(
            f"input: the model has no input '{name}'{did_you_mean(name, values)}; it has {names}"
        )
    value = next(iter(values.values())) if name is None else values[name]
    sizes = dims_of(value)
    dtype = DTYPES.get(value.type.tensor_type.elem_type)
    if dtype not in _FLOATS or len(sizes) != 4:
        raise InputError(
            f"input '{value.name}' is of {dtype or 'another type'} with {len(sizes)} sizes; "
            f"preprocessing makes images with 4 sizes of {', '.join(_FLOATS)}"
        )
    return value


def _steps(
    name: str, ready: str, dtype: str, preprocessing: Preprocessing
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Order and layout are changed while pixels are still single bytes."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def add(op_type: str, what: str, constant: npt.NDArray[Any] | None = None, **more: Any) -> None:
        label = f"preprocess/{what}"
        inputs = [nodes[-1].output[0] if nodes else name]
        if constant is not None:
            constants.append(numpy_helper.from_array(constant, f"{label}/value"))
            inputs.append(f"{label}/value")
        nodes.append(helper.make_node(op_type, inputs, [f"{label}/out"], name=label, **more))

    nchw = preprocessing.layout == "nchw"
    if preprocessing.color == "bgr":
        add("Gather", "colour", np.array([2, 1, 0], np.int64), axis=3)
    if nchw:
        add("Transpose", "layout", perm=[0, 3, 1, 2])
    add("Cast", "cast", to=onnx.TensorProto.FLOAT)
    if preprocessing.scale != 1:
        add("Mul", "scale", np.array(preprocessing.scale, np.float32))
    if any(preprocessing.mean):
        add("Sub", "mean", _per_channel(preprocessing.mean, nchw))
    if any(value != 1 for value in preprocessing.std):
        add("Div", "std", _per_channel(preprocessing.std, nchw))
    if dtype != "float32":
        add("Cast", "type", to=ELEMENT_TYPES[dtype])
    nodes[-1].output[0] = ready
    return nodes, constants


def _per_channel(values: tuple[float, ...], nchw: bool) -> npt.NDArray[np.float32]:
    array = np.array(values, np.float32)
    return array.reshape(-1, 1, 1) if nchw else array


def _declare_pixels(value: onnx.ValueInfoProto, preprocessing: Preprocessing) -> None:
    tensor = value.type.tensor_type
    channels, height, width = _places(preprocessing)
    dims = [onnx.TensorShapeProto.Dimension() for _ in range(4)]
    for dim, place in zip(dims, (0, height, width, channels), strict=True):
        dim.CopyFrom(tensor.shape.dim[place])
    del tensor.shape.dim[:]
    tensor.shape.dim.extend(dims)
    tensor.elem_type = onnx.TensorProto.UINT8


def _rename_reads(node: onnx.NodeProto, old: str, new: str) -> None:
    """Let a node, and what its sub-graphs capture, read another tensor."""
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new
    for item in node.attribute:
        for body in [item.g] if item.HasField("g") else item.graphs:
            own = {v.name for v in body.input} | {t.name for t in body.initializer}
            if old in own | {name for inner in body.node for name in inner.output}:
                continue  # another tensor of this name
            for inner in body.node:
                if old in free_names(inner):
                    _rename_reads(inner, old, new)
            for value in body.output:
                if value.name == old:
                    value.name = new


def _free_name(name: str, model: onnx.ModelProto) -> str:
    taken = _tensor_names(model)
    while name in taken:
        name += "_"
    return name


def _tensor_names(model: onnx.ModelProto) -> set[str]:
    graph = model.graph
    names = {t.name for t in graph.initializer} | {v.name for v in graph.input}
    return names | {name for node in graph.node for name in node.output}
