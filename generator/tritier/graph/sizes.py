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
from tritier.graph.tensors import (
    DTYPES,
    Dim,
    model_inputs,
    runtime_outputs,
    without_weights,
)

_UNNAMED = "?"
_ROOM_FOR_NODES = 16 << 20  # bytes of a model besides its constants
_BITS_OF_PARTS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
_RUNTIME_NAMES = {"float": "float32", "double": "float64", "seq": "sequence"}


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
    _refuse_contradiction(model, sized, dims)
    found = _inferred(sized)
    _add_masks(sized, found)
    open_names = [
        name
        for name in dict.fromkeys(name for node in sized.graph.node for name in node.output if name)
        if name not in found or found[name].numbers is None
    ]
    if open_names:
        for name, size in _by_runtime(sized, open_names).items():
            found[name] = _merged(found.get(name), size)
    for tensor in model.graph.initializer:
        found[tensor.name] = TensorSize(_dtype(tensor.data_type), tuple(tensor.dims))
    return found


def fill_dims(model: onnx.ModelProto, dims: Mapping[str, int]) -> dict[str, int]:
    """`dims` and 1 for the batch: the leading size of all inputs, if that is one and the same
    symbol, or has no name in any of them.

    An input's size without a name is called by its place, `x[2]`. Raises InputError for names that
    are no symbolic size of the model.
    """
    symbols = [_input_symbols(value) for value in model_inputs(model.graph)]
    leading = [names[0] if names else None for names in symbols]
    unnamed = [f"{value.name}[0]" for value in model_inputs(model.graph)]
    batch = [name for name in leading if name] if len({*leading}) == 1 else []
    if leading == unnamed:
        batch = unnamed
    others = [*model.graph.output, *model.graph.value_info]
    named = {s for v in others for d in _dims(v) if (s := _symbol(d)) and s != _UNNAMED}
    known = sorted(named | {name for names in symbols for name in names if name})
    unknown = [name for name in dims if name not in known]
    if unknown:
        has = f"it has {', '.join(known) or 'none'}"
        raise InputError(
            [
                f"'{name}' is no symbolic size of the model{did_you_mean(name, known)}; {has}"
                for name in unknown
            ]
        )
    return {**dict.fromkeys(batch, 1), **dims}


def constant_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the initializers of a model. Protobuf's own count would copy all of them."""
    return sum(map(stored_bytes, model.graph.initializer))


def fits_one_file(model: onnx.ModelProto) -> bool:
    """Whether a model with all its constants can be one protobuf message."""
    return constant_bytes(model) <= onnx.checker.MAXIMUM_PROTOBUF - _ROOM_FOR_NODES


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


def _dims(value: onnx.ValueInfoProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    if value.type.HasField("tensor_type"):
        yield from value.type.tensor_type.shape.dim


def _input_symbols(value: onnx.ValueInfoProto) -> list[str | None]:
    """Symbol of each size of an input, None for a number."""
    symbols = (_symbol(dim) for dim in _dims(value))
    return [f"{value.name}[{i}]" if s == _UNNAMED else s for i, s in enumerate(symbols)]


def _symbol(dim: onnx.TensorShapeProto.Dimension) -> str | None:
    """None for a number. Some exporters write -1 for a size that they don't know."""
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return None
    return dim.dim_param or _UNNAMED


def _skeleton(model: onnx.ModelProto, dims: Mapping[str, int]) -> onnx.ModelProto:
    """The model with numbers for symbols and without the content of large constants."""
    result = without_weights(model)
    _put_numbers(result.graph, [v.name for v in model_inputs(model.graph)], dims)
    return result


def _put_numbers(graph: onnx.GraphProto, inputs: list[str], dims: Mapping[str, int]) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        is_input = value.name in inputs
        symbols = _input_symbols(value) if is_input else [_symbol(dim) for dim in _dims(value)]
        for symbol, dim in zip(symbols, _dims(value), strict=True):
            if symbol is None:
                continue
            if symbol == _UNNAMED:
                dim.Clear()
            elif symbol in dims:
                dim.dim_value = dims[symbol]
            else:
                dim.dim_param = symbol


def _refuse_contradiction(
    model: onnx.ModelProto, sized: onnx.ModelProto, dims: Mapping[str, int]
) -> None:
    """Inference that fails with these sizes, and without them does not, shows that they are wrong;
    ONNX would leave out or keep shapes as they were declared, without a word."""
    fault = _strict_fault(sized) if dims else ""
    if fault and not _strict_fault(_skeleton(model, {})):
        sizes = ", ".join(f"{name}={size}" for name, size in dims.items())
        raise InputError(f"the sizes {sizes} don't fit the model: {fault}")


def _strict_fault(model: onnx.ModelProto) -> str:
    try:
        onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        return " ".join(str(error).split())
    return ""


def _inferred(model: onnx.ModelProto) -> dict[str, TensorSize]:
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        graph = model.graph  # ONNX Runtime is asked for the rest
    values: Iterable[onnx.ValueInfoProto] = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: _size(value) for value in values}


def _add_masks(model: onnx.ModelProto, found: dict[str, TensorSize]) -> None:
    """The mask of a Dropout, about which inference is silent before opset 10: as its data."""
    for node in model.graph.node:
        if node.op_type == "Dropout" and len(node.output) > 1 and node.output[0] in found:
            mask = found.get(node.output[1])
            if mask is None or mask.shape is None:
                found[node.output[1]] = found[node.output[0]]


def _size(value: onnx.ValueInfoProto) -> TensorSize:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return TensorSize(kind.removesuffix("_type") if kind else None, None)
    tensor = value.type.tensor_type
    shape = tuple(_symbol(dim) or int(dim.dim_value) for dim in tensor.shape.dim)
    return TensorSize(_dtype(tensor.elem_type), shape if tensor.HasField("shape") else None)


def _merged(inferred: TensorSize | None, runtime: TensorSize) -> TensorSize:
    """Of two sizes the number, else the symbol. ONNX Runtime gives a shape without dimensions when
    it does not know their number: then ONNX's inference is believed."""
    before = inferred or TensorSize(None, None)
    shape = before.shape
    if shape is None:
        shape = runtime.shape or None
    elif runtime.shape is not None and len(runtime.shape) == len(shape):
        pairs = zip(shape, runtime.shape, strict=True)
        shape = tuple(a if isinstance(a, int) or b == _UNNAMED else b for a, b in pairs)
    return TensorSize(before.dtype or runtime.dtype, shape)


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
    try:
        nodes = runtime_outputs(probe, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    except Exception:  # ONNX Runtime's own types; then these sizes stay unknown
        return {}
    wanted = set(names)
    return {node.name: _of_runtime(node) for node in nodes if node.name in wanted}


def _of_runtime(node: ort.NodeArg) -> TensorSize:
    kind, _, element = node.type.removesuffix(")").partition("(")
    if kind != "tensor":
        return TensorSize(_RUNTIME_NAMES.get(kind, kind), None)
    shape = tuple(dim if isinstance(dim, int | str) else _UNNAMED for dim in node.shape)
    return TensorSize(_RUNTIME_NAMES.get(element, element), shape)
