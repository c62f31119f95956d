"""A model and a placement of its layers become a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tritier.documents import Assignment, Plan, PlanModel, PlanTensor, Ranges, ServersSpec
from tritier.errors import InputError
from tritier.graph import LayerGraph, LoadedModel, border_tensors, build_layer_graph
from tritier.planner import (
    Group,
    PlannedLayer,
    assemble_plan,
    crossing_tensors,
    plan_groups,
    resolve_assignment,
)
from tritier.workflow.coding import code_plan


def plan_from_assignment(
    model: LoadedModel,
    assignment: Assignment,
    servers: ServersSpec,
    name: str | None = None,
    ranges: Ranges | None = None,
) -> Plan:
    """Plan of a model whose layers are placed by hand.

    `name` is what apps will call the model in Triton, by default the file's stem; `ranges` are
    needed for quantized layers and 8-bit wires. Raises InputError with all faults of the
    assignment, or naming the tensors that can't cross a border.
    """
    graph = build_layer_graph(model.proto)
    unplaced = (*graph.constant_nodes, *graph.dropped_nodes)
    constants = [model.proto.graph.node[index].name for index in unplaced]
    layers = [layer.name for layer in graph.layers]
    server_of = resolve_assignment(assignment, layers, servers.names, constants)
    plan = plan_from_placement(model, graph, server_of, servers, name)
    return code_plan(
        plan,
        model,
        graph,
        assignment.quantized_layers,
        ranges,
        assignment.wire_codec,
        assignment.wire_codecs,
    )


def plan_from_placement(
    model: LoadedModel,
    graph: LayerGraph,
    server_of: Mapping[str, str],
    servers: ServersSpec,
    name: str | None = None,
) -> Plan:
    """Plan of a model with a server for each of its layers."""
    return plan_from_groups(
        model, graph, plan_groups(planned_layers(graph), server_of), servers, name
    )


def planned_layers(graph: LayerGraph) -> list[PlannedLayer]:
    """The layers as the planner takes them, in the model's order."""
    return [PlannedLayer(layer.name, layer.inputs, layer.outputs) for layer in graph.layers]


def plan_from_groups(
    model: LoadedModel,
    graph: LayerGraph,
    groups: Sequence[Group],
    servers: ServersSpec,
    name: str | None = None,
) -> Plan:
    """Plan of a model whose components are known: all its layers, in topological order."""
    layers = planned_layers(graph)
    borders = crossing_tensors(layers, groups, graph.outputs)
    crossing = [tensor for needs, makes in borders for tensor in (*needs, *makes)]
    infos = border_tensors(model.proto, graph, crossing)
    tensors = [
        PlanTensor(id=f"t{index}", name=info.name, dtype=info.dtype, shape=info.shape)
        for index, info in enumerate(infos.values())
    ]
    return assemble_plan(
        PlanModel(name=_checked_name(name or model.default_name), sha256=model.sha256),
        servers,
        groups,
        borders,
        tensors,
        graph.inputs,
        graph.outputs,
    )


def _checked_name(name: str) -> str:
    allowed = name.isascii() and all(c.isalnum() or c in "_.-" for c in name)
    if not name or not allowed or not name[0].isalnum() or len(name) > 100:
        raise InputError(
            f"the model name '{name}' can't be a Triton model name here: allowed are 1 to 100 "
            "letters, digits, '_', '.' and '-', a letter or digit first; pass another with --name"
        )
    if "__" in name:
        raise InputError(
            f"the model name '{name}' has two underscores together, which separate the parts of "
            "Triton model names: pass another with --name"
        )
    return name
