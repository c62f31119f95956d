"""The profile of a model: FLOPs and bytes of each layer, and the tensors between them."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx
import onnx

from tritier.documents import (
    GENERATOR,
    RECEIVER,
    LayerProfile,
    ModelProfile,
    PlanModel,
    ProfileTotals,
    SharedWeight,
    TensorProfile,
    activation_peak_bytes,
)
from tritier.errors import InputError, did_you_mean
from tritier.graph.flops import node_flops
from tritier.graph.layers import Layer, LayerGraph, build_layer_graph, free_names
from tritier.graph.load import LoadedModel
from tritier.graph.sizes import TensorSize, fill_dims, stored_bytes, tensor_sizes

DEFAULT_QUANTIZABLE = 12
DEFAULT_QUANTIZABLE_TYPES = ("Conv",)
_UNKNOWN_SIZE = TensorSize(None, None)


@dataclass(frozen=True)
class Quantizable:
    """Which layers may be quantized: those that `layers` (names, or shell patterns) names or, if it
    is empty, the `count` layers of `types` with the most FLOPs. None stands for Conv."""

    count: int = DEFAULT_QUANTIZABLE
    types: tuple[str, ...] | None = None
    layers: tuple[str, ...] = ()


def profile_model(
    model: LoadedModel,
    dims: Mapping[str, int] | None = None,
    quantizable: Quantizable | None = None,
) -> ModelProfile:
    """What each layer of a model computes and holds.

    `dims` gives sizes of symbolic dimensions; the batch is 1 if it has none. What hangs on a size
    that stays unknown is None. Raises InputError when the model has no layer graph, when a layer is
    called 'generator' or 'receiver', and for sizes, types or layers that the model does not have.
    """
    graph = build_layer_graph(model.proto)
    _refuse_end_names(graph)
    filled = fill_dims(model.proto, dims or {})
    sizes = tensor_sizes(model.proto, filled)
    weights = _weights(model.proto, graph, sizes)
    layers = _layer_profiles(model.proto, graph, sizes, weights)
    chosen = quantizable_layers(layers, quantizable or Quantizable())
    layers = [layer.model_copy(update={"quantizable": layer.name in chosen}) for layer in layers]
    profile = ModelProfile(
        model=PlanModel(name=model.default_name, sha256=model.sha256),
        dims=filled,
        layers=tuple(layers),
        tensors=tuple(_tensor_profiles(graph, sizes)),
        shared_weights=tuple(_shared(weights)),
        totals=_totals(graph, layers, weights),
    )
    peak = activation_peak_bytes(profile, [layer.name for layer in layers])
    totals = profile.totals.model_copy(update={"activation_peak_bytes": peak})
    return profile.model_copy(update={"totals": totals})


def quantizable_layers(layers: Sequence[LayerProfile], choice: Quantizable) -> set[str]:
    """Names of the chosen layers. Layers of equal FLOPs go by their order in the model, those of
    unknown FLOPs are not among the most.

    Raises InputError for patterns and types that no layer has.
    """
    if choice.layers:
        return _named_layers([layer.name for layer in layers], choice.layers)
    known = sorted({layer.op_type for layer in layers})
    unknown = [name for name in choice.types or () if name not in known]
    if unknown:
        has = f"the model has {', '.join(known)}"
        raise InputError(
            [f"no layer is of type '{name}'{did_you_mean(name, known)}; {has}" for name in unknown]
        )
    types = choice.types or DEFAULT_QUANTIZABLE_TYPES
    ranked = [x for x in layers if x.op_type in types and x.flops is not None]
    ranked.sort(key=lambda layer: -(layer.flops or 0))  # stable: ties keep the model's order
    return {layer.name for layer in ranked[: choice.count]}


def graph_with_ends(graph: LayerGraph) -> nx.DiGraph[str]:
    """DiGraph of layer names with 'generator', from which the model's inputs come, and 'receiver',
    to which its outputs go. Edges carry `tensors`, the names that flow along them.

    Raises InputError if a layer has one of these two names.
    """
    _refuse_end_names(graph)
    result: nx.DiGraph[str] = nx.DiGraph()
    result.add_nodes_from([GENERATOR, *(layer.name for layer in graph.layers), RECEIVER])
    for tensor in _tensors(graph):
        source = _source(graph, tensor)
        for consumer in _consumers(graph, tensor):
            if not result.has_edge(source, consumer):
                result.add_edge(source, consumer, tensors=[])
            result.edges[source, consumer]["tensors"].append(tensor)
    return result


def _refuse_end_names(graph: LayerGraph) -> None:
    faults = [
        f"a layer is called '{name}', which is the name of an end of the model: rename it"
        for name in (GENERATOR, RECEIVER)
        if name in graph.by_name
    ]
    if faults:
        raise InputError(faults)


def _tensors(graph: LayerGraph) -> tuple[str, ...]:
    """Inputs, then what layers make, in their order."""
    return (*graph.inputs, *graph.source)


def _source(graph: LayerGraph, tensor: str) -> str:
    return graph.source[tensor].name if tensor in graph.source else GENERATOR


def _consumers(graph: LayerGraph, tensor: str) -> tuple[str, ...]:
    names = [layer.name for layer in graph.consumers.get(tensor, ())]
    return (*names, *([RECEIVER] if tensor in graph.outputs else []))


def _tensor_profiles(graph: LayerGraph, sizes: Mapping[str, TensorSize]) -> Iterator[TensorProfile]:
    for tensor in _tensors(graph):
        size = sizes.get(tensor, _UNKNOWN_SIZE)
        yield TensorProfile(
            name=tensor,
            dtype=size.dtype,
            shape=size.shape,
            bytes=size.bytes,
            source=_source(graph, tensor),
            consumers=_consumers(graph, tensor),
        )


def _layer_profiles(
    model: onnx.ModelProto,
    graph: LayerGraph,
    sizes: Mapping[str, TensorSize],
    weights: Mapping[str, _Weight],
) -> list[LayerProfile]:
    shapes = {name: size.numbers for name, size in sizes.items() if size.numbers is not None}
    held: Counter[str] = Counter()
    for weight in weights.values():
        held.update(dict.fromkeys(weight.layers, weight.bytes))
    return [
        LayerProfile(
            name=layer.name,
            op_type=layer.op_type,
            flops=node_flops(model.graph.node[layer.index], shapes),
            weight_bytes=held[layer.name],
            output_bytes=_output_bytes(layer, sizes),
        )
        for layer in graph.layers
    ]


def _output_bytes(layer: Layer, sizes: Mapping[str, TensorSize]) -> int | None:
    found = [sizes.get(name, _UNKNOWN_SIZE).bytes for name in layer.outputs]
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None


def _totals(
    graph: LayerGraph, layers: Sequence[LayerProfile], weights: Mapping[str, _Weight]
) -> ProfileTotals:
    flops = [layer.flops for layer in layers if layer.flops is not None]
    return ProfileTotals(
        flops=sum(flops) if len(flops) == len(layers) else None,
        known_flops=sum(flops),
        weight_bytes=sum(weight.bytes for weight in weights.values() if weight.layers),
        layers=len(layers),
        constant_nodes=len(graph.constant_nodes),
        dropped_nodes=len(graph.dropped_nodes),
    )


# -- constants ------------------------------------------------------------------------------------


@dataclass
class _Weight:
    """A constant that is held in memory, and the layers that need it."""

    bytes: int
    layers: list[str] = field(default_factory=list)


def _weights(
    model: onnx.ModelProto, graph: LayerGraph, sizes: Mapping[str, TensorSize]
) -> dict[str, _Weight]:
    """Every constant by name, with the layers that read it.

    What a constant node makes counts at its own size, since runtimes compute it once, when they
    load the model; but DequantizeLinear, which they keep, counts as what it reads.
    """
    found = {t.name: _Weight(stored_bytes(t)) for t in model.graph.initializer}
    found |= {s.values.name: _Weight(_sparse_bytes(s)) for s in model.graph.sparse_initializer}
    held = {name: frozenset([name]) for name in found}  # constant tensor -> what is held for it
    for index in graph.constant_nodes:
        node = model.graph.node[index]
        reads = frozenset[str]().union(*(held.get(n, ()) for n in free_names(node)))
        for name in filter(None, node.output):
            count = sizes.get(name, _UNKNOWN_SIZE).bytes
            if node.op_type == "DequantizeLinear" or (count is None and reads):
                held[name] = reads
            else:
                found[name] = _Weight(_attribute_bytes(node) if count is None else count)
                held[name] = frozenset([name])
    for layer in graph.layers:
        node = model.graph.node[layer.index]
        for name in frozenset[str]().union(*(held.get(n, ()) for n in free_names(node))):
            found[name].layers.append(layer.name)
        if own := _attribute_bytes(node):  # of the bodies of If and Loop: nobody else's
            found[_free_key(f"{layer.name}/body", found)] = _Weight(own, [layer.name])
    return found


def _free_key(key: str, taken: Container[str]) -> str:
    while key in taken:
        key += "_"
    return key


def _attribute_bytes(node: onnx.NodeProto) -> int:
    """Bytes of the constants in a node's attributes and in the bodies that it holds."""
    total = 0
    for item in node.attribute:
        tensors = [item.t] if item.HasField("t") else list(item.tensors)
        sparse = [item.sparse_tensor] if item.HasField("sparse_tensor") else []
        for body in [item.g] if item.HasField("g") else item.graphs:
            tensors += body.initializer
            sparse += body.sparse_initializer
            total += sum(_attribute_bytes(inner) for inner in body.node)
        total += sum(map(stored_bytes, tensors)) + sum(map(_sparse_bytes, sparse))
        if node.op_type == "Constant":  # its short forms
            total += {"value_int": 8, "value_float": 4}.get(item.name, 0) + len(item.s)
            total += 8 * len(item.ints) + 4 * len(item.floats) + sum(map(len, item.strings))
    return total


def _sparse_bytes(tensor: onnx.SparseTensorProto) -> int:
    return stored_bytes(tensor.values) + stored_bytes(tensor.indices)


def _shared(weights: Mapping[str, _Weight]) -> Iterator[SharedWeight]:
    for name, weight in weights.items():
        if len(weight.layers) > 1:
            yield SharedWeight(name=name, bytes=weight.bytes, layers=tuple(weight.layers))


def _named_layers(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """Names go before patterns: a name with brackets in it names itself."""
    chosen: set[str] = set()
    faults = []
    for pattern in patterns:
        matches = (
            [pattern] if pattern in names else [n for n in names if fnmatch.fnmatchcase(n, pattern)]
        )
        if not matches:
            hint = did_you_mean(pattern, names)
            faults.append(f"'{pattern}' is the name of no layer and matches none{hint}")
        chosen.update(matches)
    if faults:
        raise InputError(faults)
    return chosen
