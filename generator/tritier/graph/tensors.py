"""Types and shapes of tensors, by ONNX's inference and, where that is silent, ONNX Runtime's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort

from tritier.errors import InputError

Dim = int | str
DType = Literal[
    "bool", "uint8", "uint16", "uint32", "uint64",
    "int8", "int16", "int32", "int64", "float16", "float32", "float64",
]  # fmt: skip

# ONNX element type -> the name that plans use. What is missing here can't cross a border.
DTYPES: dict[int, DType] = {
    onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.UINT16: "uint16",
    onnx.TensorProto.UINT32: "uint32",
    onnx.TensorProto.UINT64: "uint64",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.INT16: "int16",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
}
ELEMENT_TYPES: dict[str, int] = {name: number for number, name in DTYPES.items()}
# What is larger can hold no shape; it is declared instead of copied, so that inference is quick and
# models above 2 GiB fit into the message that it takes.
_SMALL_ELEMENTS = 1024
_ORT_NAMES = {"float32": "float", "float64": "double"}
_ORT_DTYPES = {_ORT_NAMES.get(name, name): name for name in DTYPES.values()}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's type and shape. A size is a number or a symbol; '?' is an unknown one."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]

    @property
    def bytes(self) -> int | None:
        """Size of the data; None when a dimension is symbolic."""
        sizes = [dim for dim in self.shape if isinstance(dim, int)]
        if len(sizes) < len(self.shape):
            return None
        return math.prod(sizes) * np.dtype(self.dtype).itemsize


def infer_tensors(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, TensorInfo]:
    """Type and shape of each named tensor.

    Raises InputError for tensors of a type that can't cross between servers (texts, sequences,
    optionals, bfloat16) or of an unknown number of dimensions, naming all of them.
    """
    wanted = list(dict.fromkeys(names))
    values = _inferred_values(model)
    found = {name: info for name in wanted if (info := _of_value(values.get(name))) is not None}
    unknown = [name for name in wanted if name not in found and not _is_odd(values.get(name))]
    if unknown:
        found |= _ask_runtime(model, unknown)
    bad = [name for name in wanted if name not in found]
    if bad:
        raise InputError([_fault(name, values.get(name)) for name in bad])
    return {name: found[name] for name in wanted}


def model_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are no constants."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model for checks and shape inference: constants that are large, or still lie in another
    file, are inputs without content, and inputs that only declare an initializer are left out."""
    graph = model.graph
    result = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    result.opset_import.extend(model.opset_import)
    result.functions.extend(model.functions)
    result.graph.name = graph.name
    result.graph.node.extend(graph.node)
    result.graph.sparse_initializer.extend(graph.sparse_initializer)
    result.graph.output.extend(graph.output)
    result.graph.value_info.extend(graph.value_info)
    result.graph.input.extend(model_inputs(graph))
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= _SMALL_ELEMENTS and not _lies_outside(tensor):
            result.graph.initializer.append(tensor)
        else:
            result.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return result


def _lies_outside(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def _inferred_values(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    try:
        graph = onnx.shape_inference.infer_shapes(without_weights(model), data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        graph = model.graph  # ONNX Runtime is asked below for all that is missing
    return {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}


def _is_odd(value: onnx.ValueInfoProto | None) -> bool:
    """Whether it is known to be something that can't cross, whatever ONNX Runtime says."""
    kind = None if value is None else value.type.WhichOneof("value")
    if value is None or kind is None:
        return False
    return kind != "tensor_type" or value.type.tensor_type.elem_type not in (
        onnx.TensorProto.UNDEFINED,
        *DTYPES,
    )


def _of_value(value: onnx.ValueInfoProto | None) -> TensorInfo | None:
    if value is None or value.type.WhichOneof("value") != "tensor_type":
        return None
    tensor = value.type.tensor_type
    if tensor.elem_type not in DTYPES or not tensor.HasField("shape"):
        return None
    dims = tuple(_dim(dim) for dim in tensor.shape.dim)
    return TensorInfo(value.name, DTYPES[tensor.elem_type], dims)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= 0:  # some exporters write -1 for any size
        return int(dim.dim_value)
    return dim.dim_param or "?"


def _ask_runtime(model: onnx.ModelProto, names: list[str]) -> dict[str, TensorInfo]:
    """Make the tensors outputs and let ONNX Runtime infer what they are."""
    found = {}
    for node in _probe(model, names):
        dtype = _ORT_DTYPES.get(node.type.removeprefix("tensor(").removesuffix(")"))
        if node.name in names and dtype is not None:
            dims = tuple(d if isinstance(d, int | str) else "?" for d in node.shape)
            found[node.name] = TensorInfo(node.name, dtype, dims)
    # An unknown number of dimensions looks like none at all; the shape of the shape tells.
    flat = {f"{name}//tritier-shape": name for name, info in found.items() if not info.shape}
    if flat:
        for node in _probe(model, list(flat), flat):
            if node.name in flat and node.shape != [0]:
                del found[flat[node.name]]
    return found


def _probe(
    model: onnx.ModelProto, outputs: list[str], shapes_of: Mapping[str, str] | None = None
) -> list[ort.NodeArg]:
    """The outputs of the model with others added; `shapes_of` maps new ones to a tensor each."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    for name, tensor in (shapes_of or {}).items():
        probe.graph.node.append(onnx.helper.make_node("Shape", [tensor], [name]))
    try:
        return runtime_outputs(probe, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    except Exception as error:  # ONNX Runtime's own types, one per status code
        raise InputError(
            f"the types of {len(outputs)} tensors are unknown and ONNX Runtime refuses the model: "
            f"{error}"
        ) from None


def runtime_outputs(model: onnx.ModelProto, level: ort.GraphOptimizationLevel) -> list[ort.NodeArg]:
    """What ONNX Runtime infers of the outputs; raises its own errors if it refuses the model."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.get_outputs())


def _fault(name: str, value: onnx.ValueInfoProto | None) -> str:
    if value is None or not _is_odd(value):
        return (
            f"the type or the number of dimensions of tensor '{name}' is unknown: declare its "
            "shape in the model, or assign the layers on both sides of it to one server"
        )
    kind = str(value.type.WhichOneof("value")).removesuffix("_type")
    if kind == "tensor":
        number = value.type.tensor_type.elem_type
        kind = f"tensor of {onnx.TensorProto.DataType.Name(number).lower()}"
    return (
        f"tensor '{name}' is a {kind}; only tensors of {', '.join(DTYPES.values())} can cross "
        "between components: assign the layers on both sides of it to one server, or take it from "
        "the inputs and outputs of the model"
    )
