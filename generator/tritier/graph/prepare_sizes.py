"""Sizes of a model's inputs: which are asked for, and how they get into the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from tritier.errors import InputError, did_you_mean
from tritier.graph.sizes import TensorSize, tensor_sizes
from tritier.graph.tensors import ELEMENT_TYPES, Dim, model_inputs

_UNNAMED = "?"  # as some exporters call every size that they don't know


def dims_of(value: onnx.ValueInfoProto) -> list[Dim]:
    """Sizes of a tensor as numbers and symbols; one without a name is called by its place."""
    dims = value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else []
    return [
        int(dim.dim_value)
        if dim.HasField("dim_value") and dim.dim_value >= 0
        else (dim.dim_param if dim.dim_param != _UNNAMED else "") or f"{value.name}[{place}]"
        for place, dim in enumerate(dims)
    ]


def fix_sizes(
    model: onnx.ModelProto, shapes: Mapping[str, Sequence[Dim]], dims: Mapping[str, int]
) -> dict[str, int]:
    """Put sizes into a model; returns the symbols that became numbers.

    `shapes` gives all sizes of an input, a text keeping that one symbolic under this name; `dims`
    gives a symbol its size everywhere. Raises InputError for inputs and symbols that the model does
    not have and for sizes that contradict it or each other.
    """
    numbers, names = _asked(model, shapes, dims)
    if not numbers and not names:
        return {}
    if numbers:
        del model.graph.value_info[:]  # may be of other sizes; all that can be is inferred again
        tensor_sizes(model, numbers)
    inputs = {value.name for value in model_inputs(model.graph)}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if not value.type.HasField("tensor_type"):
            continue
        for symbol, dim in zip(dims_of(value), value.type.tensor_type.shape.dim, strict=True):
            if not isinstance(symbol, str) or not (dim.dim_param or value.name in inputs):
                continue
            if symbol in numbers:
                dim.dim_value = numbers[symbol]
            elif symbol in names:
                dim.dim_param = names[symbol]
    return numbers


def declare_sizes(model: onnx.ModelProto) -> None:
    """Write what inference finds about all tensors into the model, and numbers for the sizes of its
    outputs that are found."""
    graph = model.graph
    before = {value.name: value for value in graph.value_info}
    symbols = {d for value in model_inputs(graph) for d in dims_of(value) if isinstance(d, str)}
    own = _without_own_names(graph, symbols)
    found = tensor_sizes(model, {})
    ends = {value.name for value in (*graph.input, *graph.output)}
    made = [name for node in graph.node for name in node.output if name and name not in ends]
    infos = [_info(name, found.get(name)) or before.get(name) for name in made]
    kept = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in infos if v is not None]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for value in graph.output:
        size = found.get(value.name)
        if not value.type.HasField("tensor_type") or size is None or size.shape is None:
            continue
        shape = value.type.tensor_type.shape
        if not value.type.tensor_type.HasField("shape"):
            shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in size.shape)
        if len(shape.dim) == len(size.shape):
            for dim, size_found in zip(shape.dim, size.shape, strict=True):
                _fill(dim, size_found, symbols)
    for dim, name in own:
        if not dim.HasField("dim_value") and not dim.dim_param:
            dim.dim_param = name


def _without_own_names(
    graph: onnx.GraphProto, symbols: set[str]
) -> list[tuple[onnx.TensorShapeProto.Dimension, str]]:
    """Take away names of output sizes that no input has, which would hide what inference finds;
    returns the sizes and their names."""
    taken = []
    for value in graph.output:
        dims = value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else []
        for dim in dims:
            if dim.dim_param and dim.dim_param not in symbols:
                taken.append((dim, dim.dim_param))
                dim.Clear()
    return taken


def _fill(dim: onnx.TensorShapeProto.Dimension, found: Dim, symbols: set[str]) -> None:
    """A size of an output, if it has no number yet: a number, or a symbol of the inputs."""
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return
    if isinstance(found, int):
        dim.dim_value = found
    elif dim.dim_param in ("", _UNNAMED) and found in symbols:
        dim.dim_param = found


def _info(name: str, size: TensorSize | None) -> onnx.ValueInfoProto | None:
    if size is None or size.shape is None or size.dtype not in ELEMENT_TYPES:
        return None
    shape = [None if dim == _UNNAMED else dim for dim in size.shape]
    return onnx.helper.make_tensor_value_info(name, ELEMENT_TYPES[size.dtype], shape)


def _asked(
    model: onnx.ModelProto, shapes: Mapping[str, Sequence[Dim]], dims: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, str]]:
    """Sizes and new names of symbols."""
    inputs = {value.name: dims_of(value) for value in model_inputs(model.graph)}
    faults = [
        f"the model has no input '{name}'{did_you_mean(name, inputs)}; it has {', '.join(inputs)}"
        for name in shapes
        if name not in inputs
    ]
    known = sorted({dim for sizes in inputs.values() for dim in sizes if isinstance(dim, str)})
    faults += [
        f"'{name}' is no symbolic size of the inputs{did_you_mean(name, known)}; "
        f"they have {', '.join(known) or 'none'}"
        for name in dims
        if name not in known
    ]
    asked: dict[str, Dim] = {}
    pairs: list[tuple[Dim, Dim, str]] = [(name, size, name) for name, size in dims.items()]
    for name in shapes.keys() & inputs.keys():
        given, sizes = shapes[name], inputs[name]
        if len(given) != len(sizes):
            text = ", ".join(map(str, sizes))
            faults.append(
                f"input '{name}' has {len(sizes)} sizes ({text}); {len(given)} were given"
            )
            continue
        pairs += [(sizes[i], given[i], f"{name}[{i}]") for i in range(len(sizes))]
    faults += _contradictions(pairs, asked)
    if faults:
        raise InputError(faults)
    numbers = {symbol: size for symbol, size in asked.items() if isinstance(size, int)}
    renamed = {s: new for s, new in asked.items() if isinstance(new, str) and new != s}
    return numbers, renamed


def _contradictions(pairs: list[tuple[Dim, Dim, str]], asked: dict[str, Dim]) -> Iterator[str]:
    """Fills `asked`, symbol -> size or new name; yields what can't hold together."""
    for old, new, place in pairs:
        if isinstance(old, int):
            if new != old:
                yield f"{place} is {old} in the model and can't be {new}: export the model anew"
        elif old not in asked:
            asked[old] = new
        elif asked[old] != new:
            yield f"the size '{old}' can't be both {asked[old]} and {new}"
