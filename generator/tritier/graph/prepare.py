"""Makes a model ready to be split: sizes fixed, constants folded, every node named.

Whatever is changed is compared with the original on random inputs, and taken back if it differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import external_data_helper

from tritier.documents import Preprocessing
from tritier.errors import InputError
from tritier.graph.checks import name_faults
from tritier.graph.image_input import image_sizes
from tritier.graph.layers import build_layer_graph
from tritier.graph.load import load_external_data, read_model
from tritier.graph.prepare_choose import Choice, Task, choose_form
from tritier.graph.prepare_sizes import dims_of, fix_sizes
from tritier.graph.prepare_steps import (
    computation,
    converted,
    freeze_constants,
    lift_constant_nodes,
    name_nodes,
    opset_of,
)
from tritier.graph.prepare_write import write_model
from tritier.graph.tensor_checks import data_bytes, tensors_of
from tritier.graph.tensors import DTYPES, Dim, model_inputs

# Above this a model stays in several files, and is never in one message.
LARGE_BYTES = onnx.checker.MAXIMUM_PROTOBUF
_SIMPLIFIED_FROM_OPSET = 7
_SMALL_ELEMENTS = 1024  # external constants that inference may want to read


@dataclass(frozen=True)
class PrepareOptions:
    """What to do. `shapes` gives all sizes of an input, a text keeping a size symbolic; `dims` a
    symbol its size; `opset` what to convert to; `preprocessing` what goes into the graph, whose
    image input is then uint8."""

    shapes: Mapping[str, Sequence[Dim]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    opset: int | None = None
    preprocessing: Preprocessing | None = None
    simplify: bool = True


@dataclass(frozen=True)
class Tensor:
    """An input or output as it is afterwards. '?' is a type or a size that has no name."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class PrepareReport:
    """What was done. `dims` are the symbols that got a number. Differences are between the original
    and the prepared model over `runs` runs on random inputs: None when none could be made, 0
    without a run when operators, constants and connections are the `same_computation`. `messages`
    tell what was not done, and why."""

    layers_before: int
    layers_after: int
    nodes_before: int
    nodes_after: int
    opset_before: int
    opset_after: int
    constants_converted: int
    names_given: int
    dims: dict[str, int]
    simplified: str
    runs: int
    same_computation: bool
    max_difference: float | None
    max_relative_difference: float | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    messages: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """A prepared model. Large constants of a `large` one still lie beside the file `source`."""

    model: onnx.ModelProto
    source: Path
    large: bool
    report: PrepareReport

    def write(self, path: Path, force: bool = False) -> None:
        """Write `path`, and `<path>.data` with the constants of a large model, each in one step.

        Raises InputError when one of them exists and `force` is not given.
        """
        write_model(self.model, self.source, path, self.large, force)


def prepare_model(path: Path, options: PrepareOptions | None = None) -> Prepared:
    """Prepare a model for splitting; the file stays as it is.

    Raises InputError when the model can't be split or converted, and for inputs, sizes and
    preprocessing that don't fit it.
    """
    options = options or PrepareOptions()
    model, facts = _base(path, options)
    fresh = [model]  # made already; the next forms of it are made anew
    del model
    chosen = choose_form(
        Task(
            path=path,
            make=lambda: fresh.pop() if fresh else _base(path, options)[0],
            large=facts.large,
            simplify=options.simplify,
            obstacle=_obstacle(facts, options),
            preprocessing=options.preprocessing,
            must_compare=options.preprocessing is not None
            or options.opset not in (None, facts.opset),
            computation=facts.computation,
            equal_names=facts.equal_names,
        )
    )
    return Prepared(chosen.model, path, facts.large, _report(facts, chosen))


@dataclass(frozen=True)
class _Facts:
    """About the model as it was, and the steps before simplification."""

    large: bool
    computation: str
    equal_names: bool
    layers: int
    names: tuple[str, ...]
    opset: int
    constants: int
    dims: dict[str, int]


def _base(path: Path, options: PrepareOptions) -> tuple[onnx.ModelProto, _Facts]:
    """The model with all that changes no result, and in the opset that is asked for."""
    model = read_model(path, unique_nodes=False)
    large = _total_bytes(model, path) > LARGE_BYTES
    _load_constants(model, path, large)
    before = computation(model)
    equal_names = bool(name_faults(model.graph, unique_nodes=True))
    layers, opset = len(build_layer_graph(model).layers), opset_of(model)
    names = tuple(node.name for node in model.graph.node)
    name_nodes(model.graph)  # before any node goes: layers are called so in the model as it is
    if options.opset is not None:
        if large and options.opset != opset:
            raise InputError("models above 2 GiB can't be converted to another opset", str(path))
        model = converted(model, options.opset)
    freeze_constants(model)
    dims = _fixed(model, options)
    constants = lift_constant_nodes(model)
    name_nodes(model.graph)
    return model, _Facts(large, before, equal_names, layers, names, opset, constants, dims)


def _obstacle(facts: _Facts, options: PrepareOptions) -> str:
    """Why a model can't be simplified."""
    if facts.large:
        return "it is above 2 GiB"
    if (options.opset or facts.opset) < _SIMPLIFIED_FROM_OPSET:
        return f"its opset is below {_SIMPLIFIED_FROM_OPSET}; --opset converts it"
    return ""


def _report(facts: _Facts, chosen: Choice) -> PrepareReport:
    graph = chosen.model.graph
    known = chosen.same or chosen.runs > 0
    return PrepareReport(
        layers_before=facts.layers,
        layers_after=len(build_layer_graph(chosen.model).layers),
        nodes_before=len(facts.names),
        nodes_after=len(graph.node),
        opset_before=facts.opset,
        opset_after=opset_of(chosen.model),
        constants_converted=facts.constants,
        names_given=sum(node.name not in facts.names for node in graph.node),
        dims=facts.dims,
        simplified=chosen.how,
        runs=chosen.runs,
        same_computation=chosen.same,
        max_difference=chosen.difference.absolute if known else None,
        max_relative_difference=chosen.difference.relative if known else None,
        inputs=tuple(map(_tensor, model_inputs(graph))),
        outputs=tuple(map(_tensor, graph.output)),
        messages=tuple(chosen.messages),
    )


def _fixed(model: onnx.ModelProto, options: PrepareOptions) -> dict[str, int]:
    dims = dict(options.dims)
    result = fix_sizes(model, options.shapes, dims)
    if options.preprocessing is not None:
        result |= fix_sizes(model, {}, image_sizes(model, options.preprocessing))
    return result


def _total_bytes(model: onnx.ModelProto, path: Path) -> int:
    outside = (t for t in tensors_of(model.graph) if external_data_helper.uses_external_data(t))
    return path.stat().st_size + sum(data_bytes(tensor) or 0 for tensor in outside)


def _load_constants(model: onnx.ModelProto, path: Path, large: bool) -> None:
    """External data into the model: all of them, or of a large model the small ones, in which
    shapes may be."""
    if not large:
        if any(map(external_data_helper.uses_external_data, tensors_of(model.graph))):
            load_external_data(model, path)
        return
    for tensor in tensors_of(model.graph):
        is_outside = external_data_helper.uses_external_data(tensor)
        if is_outside and math.prod(tensor.dims) <= _SMALL_ELEMENTS:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    is_tensor = value.type.HasField("tensor_type")
    dtype = DTYPES.get(value.type.tensor_type.elem_type) if is_tensor else None
    shape = tuple(
        "?" if dim == f"{value.name}[{i}]" else dim for i, dim in enumerate(dims_of(value))
    )
    return Tensor(value.name, dtype or "?", shape)
