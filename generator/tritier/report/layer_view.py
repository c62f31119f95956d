"""What the drawings need to know of the layers of a model, from its profile or its layer graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tritier.documents import GENERATOR, RECEIVER, ModelProfile, Plan, TimingProfile
from tritier.errors import InputError, did_you_mean
from tritier.graph import LayerGraph


@dataclass(frozen=True)
class LayerNode:
    """A layer, or an end of the model (with an empty `op_type`). None is a figure not known."""

    name: str
    op_type: str
    flops: int | None = None
    weight_bytes: int | None = None
    output_bytes: int | None = None


@dataclass(frozen=True)
class LayerEdge:
    """Tensors from a node to another, by their places in `LayerView.nodes`."""

    source: int
    target: int
    tensors: tuple[str, ...]
    bytes: int | None = None


@dataclass(frozen=True)
class LayerView:
    """The model's inputs as the first node, its layers in its order, its outputs as the last."""

    nodes: tuple[LayerNode, ...]
    edges: tuple[LayerEdge, ...]


@dataclass(frozen=True)
class Placed:
    """Where a layer runs and how."""

    server: str
    component: str
    int8: bool
    ms: float | None = None


def layer_view(source: ModelProfile | LayerGraph) -> LayerView:
    """Layers and what flows between them; figures are known from a profile only."""
    if isinstance(source, ModelProfile):
        layers = [LayerNode(x.name, x.op_type, x.flops, x.weight_bytes, x.output_bytes)
                  for x in source.layers]  # fmt: skip
        flows = [(x.name, x.source, x.consumers, x.bytes) for x in source.tensors]
    else:
        layers = [LayerNode(x.name, x.op_type) for x in source.layers]
        flows = [(name, *_ends(source, name), None) for name in (*source.inputs, *source.source)]
    nodes = (LayerNode(GENERATOR, ""), *layers, LayerNode(RECEIVER, ""))
    place = {node.name: index for index, node in enumerate(nodes)}
    place |= {GENERATOR: 0, RECEIVER: len(nodes) - 1}
    found: dict[tuple[int, int], list[tuple[str, int | None]]] = {}
    for tensor, made_by, readers, size in flows:
        for reader in readers:
            found.setdefault((place[made_by], place[reader]), []).append((tensor, size))
    edges = (LayerEdge(a, b, tuple(name for name, _ in tensors), _sum(size for _, size in tensors))
             for (a, b), tensors in found.items())  # fmt: skip
    return LayerView(nodes, tuple(edges))


def placed_layers(
    plan: Plan, view: LayerView, timings: Mapping[str, TimingProfile] | None = None
) -> tuple[Placed, ...]:
    """Where each node of the view runs; `timings` are timing profiles by the name of the server.

    Raises InputError for a layer that is not in the plan, which is then for another model.
    """
    times = {
        (server, layer.name): (layer.float_ms, layer.int8_ms)
        for server, profile in (timings or {}).items()
        for layer in profile.layers
    }
    int8 = set(plan.quantized_layers)
    homes = {layer: part for part in plan.components for layer in part.layers}
    unknown = [node.name for node in view.nodes if node.op_type and node.name not in homes]
    if unknown:
        raise InputError(
            f"the plan {plan.id} has no layer '{unknown[0]}'{did_you_mean(unknown[0], homes)}"
            f"{f' ({len(unknown)} such layers)' if len(unknown) > 1 else ''}: give the model or "
            f"the profile that the plan is for, {plan.model.name}"
        )
    found = []
    for node in view.nodes:
        if not node.op_type:
            found.append(Placed(plan.entry.name, "", int8=False))
            continue
        part, quantized = homes[node.name], node.name in int8
        float_ms, int8_ms = times.get((part.server, node.name), (None, None))
        ms = int8_ms if quantized and int8_ms is not None else float_ms
        found.append(Placed(part.server, part.id, quantized, ms))
    return tuple(found)


def _ends(graph: LayerGraph, tensor: str) -> tuple[str, tuple[str, ...]]:
    made_by = graph.source[tensor].name if tensor in graph.source else GENERATOR
    readers = tuple(layer.name for layer in graph.consumers.get(tensor, ()))
    return made_by, (*readers, RECEIVER) if tensor in graph.outputs else readers


def _sum(sizes: Iterable[int | None]) -> int | None:
    found = list(sizes)
    return None if None in found else sum(size for size in found if size is not None)
