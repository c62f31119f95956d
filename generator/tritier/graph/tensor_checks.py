"""What the tensors of a model must hold: sizes that fit their data, weights that can be read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import onnx
from onnx import external_data_helper

from tritier.graph.checks import bodies_of, node_label, quoted

_MOST_ELEMENTS = 2**63 - 1
_AGAIN = ": export the model again"
_PACKED = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}  # bits of an element
_FIELDS = {"float": "float_data", "double": "double_data", "int64": "int64_data",
           "uint32": "uint64_data", "uint64": "uint64_data", "string": "string_data",
           "complex64": "float_data", "complex128": "double_data"}  # fmt: skip


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a graph holds, in its nodes and sub-graphs too."""
    for _, tensor in named_tensors(graph):
        yield tensor


def named_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """The same with what messages call each."""
    for tensor in graph.initializer:
        yield f"constant {quoted(tensor.name)}", tensor
    for sparse in graph.sparse_initializer:
        yield f"values of constant {quoted(sparse.values.name)}", sparse.values
        yield f"indices of constant {quoted(sparse.values.name)}", sparse.indices
    for index, node in enumerate(graph.node):
        for item in node.attribute:
            for tensor in [item.t] if item.HasField("t") else item.tensors:
                yield f"constant in node {node_label(node, index)}", tensor
        for body in bodies_of(node):
            yield from named_tensors(body)


def tensor_faults(graph: onnx.GraphProto, folder: Path) -> list[str]:
    """Sizes that can't be, constants whose data don't fit their sizes, external data that are
    missing, cut off or not in the model's folder. External data are looked at, not read."""
    faults = [fault for value in _values(graph) for fault in _declared_faults(value)]
    places: dict[str, str] = {}  # of external data: the fault with it, if any
    for label, tensor in named_tensors(graph):
        fault = _size_fault(tensor)
        if not fault and external_data_helper.uses_external_data(tensor):
            place = _entry(tensor, "location")
            if place not in places:
                places[place] = _place_fault(place, folder)
                faults += [f"{label}: {places[place]}"] if places[place] else []
            fault = "" if places[place] else _external_fault(tensor, folder / place)
        elif not fault:
            fault = _data_fault(tensor)
        if fault:
            faults.append(f"{label}: {fault}")
    return faults


def data_bytes(tensor: onnx.TensorProto) -> int | None:
    """Bytes of a tensor's data by its type and dims; None for texts."""
    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    if name == "STRING":
        return None
    bits = _PACKED.get(name)
    if bits is None:
        bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return -(-math.prod(tensor.dims) * bits // 8)


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.output
    yield from graph.value_info


def _declared_faults(value: onnx.ValueInfoProto) -> Iterator[str]:
    if not value.type.HasField("tensor_type"):
        return
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim if d.HasField("dim_value")]
    # Some exporters write -1 for a size that they don't know.
    if bad := [size for size in dims if size < -1]:
        yield f"tensor {quoted(value.name)}: declares the size {bad[0]}; sizes are from 0{_AGAIN}"
    elif math.prod(size for size in dims if size > 0) > _MOST_ELEMENTS:
        yield (
            f"tensor {quoted(value.name)}: declares the sizes {_sizes(dims)}, more than 2^63 - 1 "
            f"elements{_AGAIN}"
        )


def _size_fault(tensor: onnx.TensorProto) -> str:
    if tensor.data_type not in onnx.TensorProto.DataType.values() or not tensor.data_type:
        return f"has the data type {tensor.data_type}, which ONNX doesn't know{_AGAIN}"
    if bad := [size for size in tensor.dims if size < 0]:
        return f"has the size {bad[0]}; sizes are from 0{_AGAIN}"
    if math.prod(tensor.dims) > _MOST_ELEMENTS:
        return f"has the sizes {_sizes(tensor.dims)}, more than 2^63 - 1 elements{_AGAIN}"
    return ""


def _data_fault(tensor: onnx.TensorProto) -> str:
    what = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
    if tensor.HasField("raw_data"):
        wanted, found, unit = data_bytes(tensor), len(tensor.raw_data), "bytes"
    else:
        field = _FIELDS.get(what, "int32_data")
        found, unit = len(getattr(tensor, field)), "values"
        count = math.prod(tensor.dims) * (2 if what.startswith("complex") else 1)
        packed = 8 // _PACKED.get(what.upper(), 8)
        wanted = -(-count // packed)
    if wanted is None or found == wanted:
        return ""
    return (
        f"has {found:,} {unit} of data, but its sizes {_sizes(tensor.dims)} of {what} need "
        f"{wanted:,}{_AGAIN}"
    )


def _place_fault(place: str, folder: Path) -> str:
    """Why a file of external data can't be read. ONNX itself refuses links of both kinds."""
    try:
        return _place_fault_on_disk(place, folder)
    except (OSError, ValueError):  # too long, a zero byte in it ...
        return f"its data lie in {quoted(place)}, which is no name of a file{_AGAIN}"


def _place_fault_on_disk(place: str, folder: Path) -> str:
    path = folder / place
    inside = "keep it as a plain file in the folder of the model"
    if not place:
        return "its external data have no location{_AGAIN}"
    if PurePosixPath(place).is_absolute() or Path(place).is_absolute():
        return f"its data lie at the absolute path {quoted(PurePosixPath(place).name)}: {inside}"
    if not path.resolve().is_relative_to(folder.resolve()) or ".." in PurePosixPath(place).parts:
        return f"its data lie in {quoted(place)}, which leaves the folder of the model: {inside}"
    if path.is_symlink():
        return f"its data lie in {quoted(place)}, which is a symbolic link: {inside}"
    if not path.is_file():
        return f"its data lie in {quoted(place)}, which is missing: put it beside the model"
    if path.stat().st_nlink > 1:
        return f"its data lie in {quoted(place)}, which has several hard links: {inside}"
    return ""


def _external_fault(tensor: onnx.TensorProto, path: Path) -> str:
    what = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
    wanted = data_bytes(tensor)
    if wanted is None:
        return "its external data are texts, which ONNX keeps in the model: export it again"
    numbers = [_entry(tensor, key) or "0" for key in ("offset", "length")]
    if not all(text.isdecimal() for text in numbers):
        return f"its external data have the offset or length {quoted(' / '.join(numbers))}{_AGAIN}"
    offset, length = (int(text) for text in numbers)
    if length and length != wanted:
        return (
            f"has {length:,} bytes of data, but its sizes {_sizes(tensor.dims)} of {what} need "
            f"{wanted:,}{_AGAIN}"
        )
    size = path.stat().st_size
    if offset + wanted > size:
        return (
            f"its data end at byte {offset + wanted:,} of {quoted(path.name)}, which has {size:,}: "
            "it is cut off; copy it again"
        )
    return ""


def _entry(tensor: onnx.TensorProto, key: str) -> str:
    return next((item.value for item in tensor.external_data if item.key == key), "")


def _sizes(dims: Iterable[int]) -> str:
    return "x".join(map(str, dims)) or "()"
