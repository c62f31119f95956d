"""Fit a recorded plan to a model: its components name tensors only, their layers are derived."""

from __future__ import annotations

import graphlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tritier.documents.thesis_plan import ThesisComponent, ThesisKey, ThesisPlan
from tritier.errors import did_you_mean
from tritier.graph import LayerGraph
from tritier.planner import Group

# What the quantizer of the recording system appended to the names of the tensors that it made. A
# cut behind a QuantizeLinear node means that the tensor crosses as 8-bit integers.
_QUANTIZED = "_QuantizeLinear_Output"
_DEQUANTIZED = "_DequantizeLinear_Output"
_MANY = 3  # names and sizes that don't fit, from which on a single slip is not the reason
_SHOWN = 10  # names of one kind in a message


@dataclass(frozen=True)
class Fit:
    """A recorded plan in the terms of a model; `faults` is empty if it fits."""

    layers: Mapping[ThesisKey, tuple[str, ...]]
    int8_tensors: tuple[str, ...]
    faults: tuple[str, ...]


def fit_to_model(recorded: ThesisPlan, graph: LayerGraph) -> Fit:
    """The layers of each component, in the model's order: all that is reached backwards from its
    outputs down to its inputs and to constants. `int8_tensors` are those recorded as crossing
    behind a QuantizeLinear node."""
    known = {*graph.inputs, *graph.source}
    parts = {
        key: _Part(key, item, graph, known)
        for key, item in recorded.components.items()
        if all(_base(name, known) in known for name in _names(item))
    }
    names = dict.fromkeys(n for item in recorded.all_components.values() for n in _names(item))
    unknown = [_base(name, known) for name in names if _base(name, known) not in known]
    faults = _unknown_faults("tensor", unknown, known) + _end_faults(recorded, graph, known)
    layers = [name for name in recorded.quantized_nodes if name not in graph.by_name]
    faults += _unknown_faults("quantized layer", layers, graph.by_name)
    faults += [fault for part in parts.values() for fault in part.faults(recorded)]
    if not unknown:
        faults += _coverage_faults(parts.values(), graph)
    if len(faults) >= _MANY:
        faults.append(
            "so many differences mean that it is another model, or that the model was exported "
            "otherwise than the planned one: export it in the same way (exporter, version), "
            "or plan again"
        )
    int8 = dict.fromkeys(
        name.removesuffix(_QUANTIZED)
        for name in names
        if name not in known and name.endswith(_QUANTIZED)
    )
    order = {key: part.in_order() for key, part in parts.items()}
    return Fit(order, tuple(int8), tuple(faults))


def ordered_groups(
    recorded: ThesisPlan,
    fit: Fit,
    graph: LayerGraph,
    server_of: Mapping[str, str],
) -> list[Group]:
    """The components in topological order, each on the server to which `server_of` maps its
    number; components that are free to swap stand by their first layer."""
    sorter = graphlib.TopologicalSorter(recorded.predecessors)
    sorter.prepare()
    ready: list[tuple[int, ThesisKey]] = []
    groups = []
    while sorter.is_active():
        for key in sorter.get_ready():
            heapq.heappush(ready, (graph.by_name[fit.layers[key][0]].index, key))
        _, key = heapq.heappop(ready)
        sorter.done(key)
        groups.append(Group(server_of[key.server], fit.layers[key]))
    return groups


class _Part:
    """A component whose tensors the model knows."""

    def __init__(
        self, key: ThesisKey, item: ThesisComponent, graph: LayerGraph, known: set[str]
    ) -> None:
        self.key = key
        self._size = item.component_size
        self._quantized = item.quantized_nodes_num
        self._graph = graph
        self._inputs = {_base(name, known) for name in item.input_names}
        self.layers: set[str] = set()
        self._missing: list[str] = []
        self._walk(_base(name, known) for name in item.output_connections)

    def _walk(self, outputs: Iterable[str]) -> None:
        seen = set(self._inputs)
        waiting = list(outputs)
        while waiting:
            tensor = waiting.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            layer = self._graph.source.get(tensor)
            if layer is None:
                self._missing.append(tensor)
            else:
                self.layers.add(layer.name)
                waiting += layer.inputs

    def in_order(self) -> tuple[str, ...]:
        """The layers in the model's order."""
        return tuple(sorted(self.layers, key=lambda name: self._graph.by_name[name].index))

    def faults(self, recorded: ThesisPlan) -> list[str]:
        """Where the record and the derived layers differ."""
        read = {t for name in self.layers for t in self._graph.by_name[name].inputs}
        faults = [
            f"{self.key}: needs the model's input '{tensor}', which it does not list"
            for tensor in sorted(self._missing)
        ]
        faults += [
            f"{self.key}: lists the input '{tensor}', which none of its layers reads"
            for tensor in sorted(self._inputs - read)
        ]
        if not self.layers:
            faults.append(f"{self.key}: holds no layers")
        elif len(self.layers) != self._size:
            faults.append(
                f"{self.key}: component_size is {self._size}; from its inputs to its outputs the "
                f"model has {len(self.layers)}"
            )
        quantized = len(self.layers.intersection(recorded.quantized_nodes))
        if quantized != self._quantized:
            faults.append(
                f"{self.key}: quantized_nodes_num is {self._quantized}; quantized_nodes has "
                f"{quantized} of its layers"
            )
        return faults


def _names(item: ThesisComponent) -> tuple[str, ...]:
    return (*item.input_names, *item.output_connections)


def _base(name: str, known: set[str]) -> str:
    """A tensor's name in the float model."""
    if name in known:
        return name
    return name.removesuffix(_QUANTIZED).removesuffix(_DEQUANTIZED)


def _unknown_faults(what: str, unknown: Iterable[str], known: Iterable[str]) -> list[str]:
    names = list(dict.fromkeys(unknown))
    known = list(known)
    faults = [
        f"{what} '{name}' is not in the model{did_you_mean(name, known)}" for name in names[:_SHOWN]
    ]
    if len(names) > _SHOWN:
        faults.append(f"{what}s that are not in the model, besides: {len(names) - _SHOWN}")
    return faults


def _end_faults(recorded: ThesisPlan, graph: LayerGraph, known: set[str]) -> list[str]:
    """The generator must send the model's inputs, the receiver take its outputs."""
    ends = (
        ("inputs", recorded.generator[1].output_connections, graph.inputs),
        ("outputs", recorded.receiver[1].input_names, graph.outputs),
    )
    return [
        f"the recorded {what} are {', '.join(names)}, the model's {', '.join(expected)}"
        for what, names, expected in ends
        if {_base(name, known) for name in names} != set(expected)
    ]


def _coverage_faults(parts: Iterable[_Part], graph: LayerGraph) -> list[str]:
    """Rule R1: every layer is in exactly one component."""
    owner: dict[str, ThesisKey] = {}
    shared: Counter[tuple[ThesisKey, ThesisKey]] = Counter()
    first: dict[tuple[ThesisKey, ThesisKey], str] = {}
    for part in parts:
        for layer in part.in_order():
            pair = (owner.setdefault(layer, part.key), part.key)
            if pair[0] != part.key:
                shared[pair] += 1
                first.setdefault(pair, layer)
    faults = [
        f"layers in both {a} and {b} (rule R1): {count}, the first is '{first[a, b]}'"
        for (a, b), count in shared.items()
    ]
    loose = [layer.name for layer in graph.layers if layer.name not in owner]
    if loose:
        faults.append(f"layers in no component (rule R1): {len(loose)}, the first is '{loose[0]}'")
    return faults
