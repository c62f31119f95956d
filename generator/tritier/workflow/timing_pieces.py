"""Models that are made to be measured: a model whole, mixed, in pieces and layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from tritier.divider import Realised, cut_model, realise
from tritier.documents import (
    GENERATOR,
    ModelProfile,
    Plan,
    PlanTensor,
    Ranges,
    Server,
    ServersSpec,
    TensorProfile,
    WiredComponent,
    WiredPlan,
    wire_up,
)
from tritier.errors import InputError
from tritier.files import sha256_bytes
from tritier.graph import LayerGraph, LoadedModel, free_names
from tritier.planner import Group
from tritier.repository import TRITON_TYPES
from tritier.timing import Border, ModelNode
from tritier.workflow.coding import code_plan
from tritier.workflow.plan import plan_from_groups

_TRITON_TYPES = {name: kind.removeprefix("TYPE_") for name, kind in TRITON_TYPES.items()}
# More values than this are drawn: they are data, not sizes or indices.
_MAX_VALUES = 4096
_OUTPUTS_AT_ONCE = 50


@dataclass(frozen=True)
class Piece:
    """A model to measure. `inputs` are as the agent wants them, `tensors` as Triton does."""

    name: str
    data: bytes = field(repr=False)
    layers: tuple[str, ...]
    quantized: bool
    inputs: dict[str, dict[str, Any]] = field(repr=False)
    outputs: tuple[str, ...] = ()
    tensors: tuple[PlanTensor, ...] = field(default=(), repr=False)
    border: Border = field(default=Border(0, 0))
    # Names of the borders in the model.
    reads: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()

    @property
    def identity(self) -> list[Any]:
        """What its times hang on, as plain data: the model and what it is fed."""
        return [sha256_bytes(self.data), self.inputs]


@dataclass(frozen=True)
class Profiled:
    """A model for the profiler: its nodes have names of their own, and each belongs to a layer."""

    data: bytes = field(repr=False)
    nodes: tuple[ModelNode, ...] = field(repr=False)
    inputs: dict[str, dict[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class _Crossing:
    """A tensor at a border, the tensor of the model that it is or codes, and its share of that
    one's bytes."""

    tensor: PlanTensor
    source: str
    share: float


class PieceMaker:
    """Cuts one model for one server. Times hang on shapes and types only, so ranges of quantized
    layers may be nominal."""

    def __init__(
        self,
        model: LoadedModel,
        graph: LayerGraph,
        profile: ModelProfile,
        server: Server,
        ranges: Ranges | None = None,
    ) -> None:
        self._model = model
        self._graph = graph
        self._profile = profile
        self._server = server
        self._ranges = ranges or self._nominal_ranges()
        self._sizes = {tensor.name: tensor for tensor in profile.tensors}
        self._samples = _Samples(model.proto, self._sizes, profile.dims)
        self.quantizable = profile.quantizable_layers

    def pieces(self, cuts: Sequence[int], quantized: bool, prefix: str) -> list[Piece]:
        """The layers between consecutive cuts (indices into the order of the model), each run of
        them as a piece. Each is cut as if the next one were on another server, so that tensors of
        quantized layers cross in 8 bits."""
        names = [layer.name for layer in self._graph.layers]
        ends = [0, *cuts, len(names)]
        plan = self._plan([names[a:b] for a, b in pairwise(ends)], quantized)
        realised = realise(self._model.proto, self._graph, plan)
        subs = {sub.component: sub.data for sub in cut_model(realised)}
        wired = wire_up(plan)
        computing = [component for component in wired.components if component.layers]
        borders = [self._borders(plan, wired, component) for component in computing]
        self._samples.prepare(border.source for inputs, _ in borders for border in inputs)
        return [
            self._piece(component, *ends, subs[component.id], quantized, f"{prefix}{index}")
            for index, (component, ends) in enumerate(zip(computing, borders, strict=True))
        ]

    def whole(self, quantized: bool) -> Piece:
        """The uncut model, as Triton serves it."""
        piece = self.pieces([], quantized, "")[0]
        return replace(piece, name="mixed" if quantized else "whole")

    def profiled(self, quantized: bool) -> Profiled:
        """The uncut model with names that its kernels can be traced by."""
        names = [layer.name for layer in self._graph.layers]
        plan = self._plan([names], quantized)
        realised = realise(self._model.proto, self._graph, plan)
        proto = realised.to_proto()
        for index, node in enumerate(proto.graph.node):
            node.name = f"tritier_{index}"
        inputs = [self._sizes[name] for name in self._graph.inputs]
        return Profiled(
            proto.SerializeToString(),
            tuple(_model_nodes(proto, realised, set(self.quantizable if quantized else ()))),
            {x.name: self._samples.of(x.name, str(x.dtype)) for x in inputs},
        )

    def _plan(self, runs: Sequence[Sequence[str]], quantized: bool) -> Plan:
        """A plan with a server of its own, all like the one that is measured, for each run."""
        names = [f"p{index}" for index in range(len(runs))]
        alike = {"memory_mib": None, "url": None}
        servers = tuple(
            self._server.model_copy(update={"name": name, "entry": name == "p0", **alike})
            for name in names
        )
        groups = [Group(name, tuple(run)) for name, run in zip(names, runs, strict=True)]
        spec = ServersSpec(servers=servers)
        plan = plan_from_groups(self._model, self._graph, groups, spec, "measured")
        chosen = self.quantizable if quantized else ()
        return code_plan(plan, self._model, self._graph, chosen, self._ranges)

    def _piece(
        self,
        component: WiredComponent,
        inputs: Sequence[_Crossing],
        outputs: Sequence[_Crossing],
        data: bytes,
        quantized: bool,
        name: str,
    ) -> Piece:
        sizes = [self._samples.bytes_of(x.source) * x.share for x in (*inputs, *outputs)]
        return Piece(
            name,
            data,
            tuple(component.layers),
            quantized,
            {x.tensor.id: self._samples.of(x.source, x.tensor.dtype) for x in inputs},
            tuple(border.tensor.id for border in outputs),
            tuple(border.tensor for border in (*inputs, *outputs)),
            Border(len(sizes), round(sum(sizes))),
            tuple(border.source for border in inputs if border.share == 1),
            tuple(border.source for border in outputs if border.share == 1),
        )

    def _borders(
        self, plan: Plan, wired: WiredPlan, component: WiredComponent
    ) -> tuple[list[_Crossing], list[_Crossing]]:
        """Inputs and outputs of a component, and whose they are in the model."""
        originals = {tensor.id: tensor for tensor in plan.tensors}
        every = {tensor.id: tensor for tensor in wired.tensors}

        def crossing(id: str) -> _Crossing:
            tensor = every[id]
            source = originals[wired.decoded.get(id) or wired.coded.get(id, (id,))[0]]
            share = np.dtype(tensor.dtype).itemsize / np.dtype(source.dtype).itemsize
            return _Crossing(tensor, source.name, share)

        return [crossing(x) for x in component.inputs], [crossing(x) for x in component.outputs]

    def _nominal_ranges(self) -> Ranges:
        chosen = [self._graph.by_name[name] for name in self._profile.quantizable_layers]
        names = dict.fromkeys(t for layer in chosen for t in (*layer.inputs, *layer.outputs))
        return Ranges(
            model_sha256=self._model.sha256,
            method="minmax",
            samples=1,
            source="nominal, for timing",
            ranges=dict.fromkeys(names, (-1.0, 1.0)),
        )


def copying_piece(tensors: int, elements: int) -> Piece:
    """A model that only hands on some vectors of that many floats."""
    value = helper.make_tensor_value_info
    pairs = [(f"t{2 * index}", f"t{2 * index + 1}") for index in range(tensors)]
    graph = helper.make_graph(
        [helper.make_node("Identity", [source], [target]) for source, target in pairs],
        "copying",
        [value(source, TensorProto.FLOAT, [elements]) for source, _ in pairs],
        [value(target, TensorProto.FLOAT, [elements]) for _, target in pairs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return Piece(
        f"copy{tensors}x{elements}",
        model.SerializeToString(),
        (),
        False,
        {source: {"datatype": "FP32", "shape": [elements]} for source, _ in pairs},
        tuple(target for _, target in pairs),
        tuple(
            PlanTensor(id=name, name=name, dtype="float32", shape=(elements,))
            for pair in pairs
            for name in pair
        ),
        Border(2 * tensors, 2 * tensors * 4 * elements),
    )


class _Samples:
    """Shapes of tensors and, for integers, real values: they may be sizes or indices."""

    def __init__(
        self,
        model: onnx.ModelProto,
        sizes: Mapping[str, TensorProfile],
        dims: Mapping[str, int],
    ) -> None:
        self._model = model
        self._sizes = sizes
        self._dims = dims
        self._found: dict[str, dict[str, Any]] = {}
        self._inputs = [tensor.name for tensor in sizes.values() if tensor.source == GENERATOR]

    def of(self, name: str, dtype: str) -> dict[str, Any]:
        """What the agent must be told of an input that is a tensor, or codes it in another type."""
        if name not in self._found:
            self.prepare([name])
        found = self._found[name]
        datatype = _TRITON_TYPES[dtype]
        if datatype == found["datatype"]:
            return found
        return {"datatype": datatype, "shape": found["shape"]}

    def bytes_of(self, name: str) -> int:
        """Its size, by running the model where shapes do not tell."""
        known = self._sizes[name].bytes
        if known is not None:
            return known
        self.prepare([name])
        count = int(np.prod(self._found[name]["shape"], dtype=np.int64))
        return count * np.dtype(str(self._sizes[name].dtype)).itemsize

    def prepare(self, names: Iterable[str]) -> None:
        """Find out about several tensors at once."""
        unknown = []
        for name in dict.fromkeys(names):
            tensor = self._sizes[name]
            shape = self._shape(tensor)
            is_float = (tensor.dtype or "").startswith("float")
            if name in self._found:
                continue
            if shape is not None and (is_float or name in self._inputs):
                self._found[name] = {"datatype": _TRITON_TYPES[str(tensor.dtype)], "shape": shape}
            else:
                unknown.append(name)
        for start in range(0, len(unknown), _OUTPUTS_AT_ONCE):
            self._run(unknown[start : start + _OUTPUTS_AT_ONCE])

    def _shape(self, tensor: TensorProfile) -> list[int] | None:
        if tensor.shape is None:
            return None
        numbers = [self._dims.get(d) if isinstance(d, str) else d for d in tensor.shape]
        if any(number is None for number in numbers):
            return None
        # A scalar is a vector of one element in every sub-model.
        return [number for number in numbers if number is not None] or [1]

    def _run(self, names: Sequence[str]) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        present = {value.name for value in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        draw = np.random.default_rng(0)
        feed = {name: _drawn(self._sizes[name], self._shape_of_input(name), draw)
                for name in self._inputs}  # fmt: skip
        for name, array in zip(names, session.run(list(names), feed), strict=True):
            array = np.atleast_1d(array)
            item: dict[str, Any] = {
                "datatype": _TRITON_TYPES[array.dtype.name],
                "shape": list(array.shape),
            }
            if array.dtype.kind != "f" and array.size <= _MAX_VALUES:
                item["values"] = array.reshape(-1).tolist()
            self._found[name] = item

    def _shape_of_input(self, name: str) -> list[int]:
        shape = self._shape(self._sizes[name])
        if shape is None:
            dims = self._sizes[name].shape or ()
            unknown = [d for d in dims if isinstance(d, str) and d not in self._dims]
            size = unknown[0] if unknown else f"{name}[0]"
            raise InputError(
                f"input '{name}' has the symbolic size '{size}': give it a number with "
                f"--dim {size}=N"
            )
        return shape


def _drawn(tensor: TensorProfile, shape: Sequence[int], draw: np.random.Generator) -> Any:
    dtype = np.dtype(str(tensor.dtype))
    size = [] if tensor.shape == () else list(shape)
    if dtype.kind == "f":
        return draw.random(size).astype(dtype)
    return draw.integers(0, 2, size).astype(dtype)


def _model_nodes(
    proto: onnx.ModelProto, realised: Realised, quantized: set[str]
) -> Iterable[ModelNode]:
    """Nodes that depend on an input of the model. One that was put in belongs to the quantized
    layer that reads what it makes, else to the one whose output it reads."""
    nodes = list(proto.graph.node)
    alive = {value.name for value in proto.graph.input}
    kept = []
    for node, layer in zip(nodes, realised.layers, strict=True):
        if layer is not None or any(name in alive for name in free_names(node)):
            alive |= set(node.output)
            kept.append((node, layer))
    readers: dict[str, list[int]] = {}
    makers: dict[str, int] = {}
    for index, (node, _) in enumerate(kept):
        makers |= dict.fromkeys(node.output, index)
        for name in free_names(node):
            readers.setdefault(name, []).append(index)

    def nearest(index: int, forward: bool) -> list[str]:
        found, waiting, seen = [], [index], {index}
        for position in waiting:
            node = kept[position][0]
            steps = (
                [i for name in node.output for i in readers.get(name, ())]
                if forward
                else [makers[name] for name in free_names(node) if name in makers]
            )
            for step in steps:
                layer = kept[step][1]
                if layer is not None:
                    found.append(layer)
                elif step not in seen:
                    seen.add(step)
                    waiting.append(step)
        return found

    for index, (node, layer) in enumerate(kept):
        owner = layer
        if owner is None:
            around = [*nearest(index, forward=True), *nearest(index, forward=False)]
            owner = next((name for name in around if name in quantized), None) or around[0]
        yield ModelNode(node.name, node.op_type, owner, free_names(node), tuple(node.output))
