"""Types and shapes of all tensors of a model for given symbolic sizes, as far as they are known.

Unlike `tritier.graph.tensors`, which is asked about tensors that cross borders and refuses what
can't, this tells what it knows and leaves out the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx
import onnxruntime as ort

from tritier.errors import InputError, did_you_mean
from tritier.graph.tensors import DTYPES, Dim

# What is larger can hold no shape; it is declared instead of copied, so that inference is quick and
# models above 2 GiB fit into the message that it takes.
_SMALL_ELEMENTS = 1024
_UNNAMED = "?"
_BITS_OF_PARTS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
_RUNTIME_NAMES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class TensorSize:
    """What is known of a tensor. `shape` is None when the number of dimensions is not."""

    dtype: str | None
    shape: tuple[Dim, ...] | None

    @property
    def numbers(self) -> tuple[int, ...] | None:
        """The shape if all sizes are numbers."""
        sizes = tuple(dim for dim in self.shape or () if isinstance(dim, int))
        return sizes if self.shape is not None and len(sizes) == len(self.shape) else None

    @property
    def bytes(self) -> int | None:
        """Size of the data; None when a size or the size of an element is unknown."""
        bits = _BITS.get(self.dtype or "")
        if bits is None or self.numbers is None:
            return None
        return -(-math.prod(self.numbers) * bits // 8)


def tensor_sizes(model: onnx.ModelProto, dims: Mapping[str, int]) -> dict[str, TensorSize]:
    """Type and shape of every tensor of the main graph about which something is known.

    `dims` gives sizes of symbolic dimensions, as `fill_dims` completes them. ONNX's own inference
    goes first; ONNX Runtime, which also folds computed shapes, fills what that leaves open. Raises
    InputError when the model's tensors can't have these sizes.
    """
    sized = _skeleton(model, dims)
    found = _inferred(sized)
    open_names = [
        name
        for name in dict.fromkeys(name for node in sized.graph.node for name in node.output if name)
        if name not in found or found[name].numbers is None
    ]
    if open_names:
        found |= {
            name: size if size.shape else TensorSize(size.dtype, _shape(found.get(name)))
            for name, size in _by_runtime(sized, open_names).items()
        }
    for tensor in model.graph.initializer:
        found[tensor.name] = TensorSize(_dtype(tensor.data_type), tuple(tensor.dims))
    return found


def fill_dims(model: onnx.ModelProto, dims: Mapping[str, int]) -> dict[str, int]:
    """`dims` and, when all inputs have one and the same symbolic leading size, 1 for that.

    A size without a name is '?', which stands for all such sizes of the inputs. Raises InputError
    for names that are no symbolic size of the model.
    """
    inputs = _inputs(model)
    leading = {_symbol(v.type.tensor_type.shape.dim[0]) if _rank(v) else None for v in inputs}
    symbol = next(iter(leading), None)
    filled = {symbol: 1} if len(leading) == 1 and symbol not in (None, _UNNAMED) else {}
    values = [*inputs, *model.graph.output, *model.graph.value_info]
    known = sorted({s for v in values for d in _dims(v) if (s := _symbol(d)) is not None})
    unknown = [name for name in dims if name not in known]
    if unknown:
        names = ", ".join(known) or "none"
        raise InputError(
            [f"'{name}' is no symbolic size of the model{did_you_mean(name, known)}; it has {names}"
             for name in unknown]  # fmt: skip
        )
    return {**{name: size for name, size in filled.items() if name is not None}, **dims}


def stored_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a constant's data, whether it lies in the model or beside it."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(len(text) for text in tensor.string_data)
    return TensorSize(_dtype(tensor.data_type), tuple(tensor.dims)).bytes or 0


def _dtype(elem_type: int) -> str | None:
    """Numpy's name of a type or, where it has none, ONNX's in lower case."""
    if elem_type == onnx.TensorProto.UNDEFINED:
        return None
    return DTYPES.get(elem_type) or onnx.TensorProto.DataType.Name(elem_type).lower()


def _bits_by_dtype() -> dict[str, int]:
    bits = {}
    for name, number in onnx.TensorProto.DataType.items():
        if name not in ("UNDEFINED", "STRING"):
            whole = 8 * onnx.helper.tensor_dtype_to_np_dtype(number).itemsize
            bits[str(_dtype(number))] = _BITS_OF_PARTS.get(name, whole)
    return bits


_BITS = _bits_by_dtype()


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    constants = {t.name for t in model.graph.initializer}
    return [v for v in model.graph.input if v.name not in constants]


def _dims(value: onnx.ValueInfoProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    if value.type.HasField("tensor_type"):
        yield from value.type.tensor_type.shape.dim


def _rank(value: onnx.ValueInfoProto) -> int:
    return sum(1 for _ in _dims(value))


def _symbol(dim: onnx.TensorShapeProto.Dimension) -> str | None:
    return None if dim.HasField("dim_value") else dim.dim_param or _UNNAMED


def _skeleton(model: onnx.ModelProto, dims: Mapping[str, int]) -> onnx.ModelProto:
    """The model with numbers for symbols, large constants being inputs without content."""
    graph = model.graph
    result = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    result.opset_import.extend(model.opset_import)
    result.functions.extend(model.functions)
    result.graph.name = graph.name
    result.graph.node.extend(graph.node)
    result.graph.sparse_initializer.extend(graph.sparse_initializer)
    result.graph.output.extend(graph.output)
    result.graph.value_info.extend(graph.value_info)
    result.graph.input.extend(_inputs(model))
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= _SMALL_ELEMENTS:
            result.graph.initializer.append(tensor)
        else:
            result.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    _put_numbers(result.graph, [v.name for v in _inputs(model)], dims)
    return result


def _put_numbers(graph: onnx.GraphProto, inputs: list[str], dims: Mapping[str, int]) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        for index, dim in enumerate(_dims(value)):
            symbol = _symbol(dim)
            if symbol == _UNNAMED and value.name not in inputs:
                continue
            # Without a name, a leading size is nearly always the batch.
            default = 1 if symbol == _UNNAMED and index == 0 else None
            number = dims.get(symbol, default) if symbol is not None else None
            if number is not None:
                dim.dim_value = number


def _inferred(model: onnx.ModelProto) -> dict[str, TensorSize]:
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        graph = model.graph  # ONNX Runtime is asked for the rest
    values: Iterable[onnx.ValueInfoProto] = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: _size(value) for value in values}


def _size(value: onnx.ValueInfoProto) -> TensorSize:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return TensorSize(kind.removesuffix("_type") if kind else None, None)
    tensor = value.type.tensor_type
    shape = tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or _UNNAMED
        for dim in tensor.shape.dim
    )
    return TensorSize(_dtype(tensor.elem_type), shape if tensor.HasField("shape") else None)


def _shape(size: TensorSize | None) -> tuple[Dim, ...] | None:
    return size.shape if size else None


def _by_runtime(model: onnx.ModelProto, names: list[str]) -> dict[str, TensorSize]:
    """What ONNX Runtime knows of these tensors when they are outputs and constants are folded.

    An unknown number of dimensions looks like none at all here.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    declared = {value.name for value in probe.graph.output}
    probe.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in declared
    )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # ONNX Runtime's own types; then these sizes stay unknown
        return {}
    wanted = set(names)
    return {node.name: _of_runtime(node) for node in session.get_outputs() if node.name in wanted}


def _of_runtime(node: ort.NodeArg) -> TensorSize:
    kind = node.type.removesuffix(")").removeprefix("tensor(")
    shape = tuple(dim if isinstance(dim, int | str) else _UNNAMED for dim in node.shape)
    if not node.type.startswith("tensor("):
        return TensorSize(node.type.partition("(")[0], None)
    return TensorSize(_RUNTIME_NAMES.get(kind, kind), shape)
