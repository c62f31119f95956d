"""Build a plan from a placement of layers. Pure: no file is read or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tritier.documents import (
    Component,
    Plan,
    PlanModel,
    PlanServer,
    PlanTensor,
    Quantization,
    ServersSpec,
    Wire,
    required_wires,
)
from tritier.planner.components import Group, group_layers


class PlannedLayer:
    """What planning must know of a layer: its name and the tensors that it reads and makes."""

    __slots__ = ("inputs", "name", "outputs")

    def __init__(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)


def crossing_tensors(
    layers: Sequence[PlannedLayer], groups: Sequence[Group], outputs: Sequence[str]
) -> list[tuple[list[str], list[str]]]:
    """(inputs, outputs) of each group as tensor names, each in the order of the model."""
    by_name = {layer.name: layer for layer in layers}
    group_of = {name: index for index, group in enumerate(groups) for name in group.layers}
    made_by = {t: group_of[layer.name] for layer in layers for t in layer.outputs}
    needed: list[dict[str, None]] = [{} for _ in groups]
    for layer in layers:
        index = group_of[layer.name]
        for tensor in layer.inputs:
            if made_by.get(tensor) != index:
                needed[index][tensor] = None
    wanted = {t for tensors in needed for t in tensors} | set(outputs)
    makes = [
        [t for name in group.layers for t in by_name[name].outputs if t in wanted]
        for group in groups
    ]
    return [(list(tensors), made) for tensors, made in zip(needed, makes, strict=True)]


def plan_groups(layers: Sequence[PlannedLayer], server_of: Mapping[str, str]) -> list[Group]:
    """Components of a placement; see `group_layers`."""
    made_by = {t: layer.name for layer in layers for t in layer.outputs}
    predecessors = {
        layer.name: list(dict.fromkeys(made_by[t] for t in layer.inputs if t in made_by))
        for layer in layers
    }
    return group_layers([layer.name for layer in layers], predecessors, server_of)


def assemble_plan(
    model: PlanModel,
    servers: ServersSpec,
    groups: Sequence[Group],
    borders: Sequence[tuple[Sequence[str], Sequence[str]]],
    tensors: Sequence[PlanTensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Plan:
    """The plan document. `borders` are the (inputs, outputs) of each group and `tensors` all
    tensors named there, by the names of the model."""
    ids = {tensor.name: tensor.id for tensor in tensors}
    components = tuple(
        Component(
            id=f"c{index}",
            server=group.server,
            layers=group.layers,
            inputs=tuple(ids[name] for name in needs),
            outputs=tuple(ids[name] for name in makes),
        )
        for index, (group, (needs, makes)) in enumerate(zip(groups, borders, strict=True))
    )
    passages = required_wires(
        {c.id: c.server for c in components},
        [(c.id, c.inputs, c.outputs) for c in components],
        [ids[name] for name in inputs],
        [ids[name] for name in outputs],
        servers.entry.name,
    )
    used = {c.server for c in components} | {servers.entry.name}
    return Plan(
        model=model,
        servers=tuple(
            PlanServer(
                name=server.name,
                entry=server.entry,
                url=server.url,
                execution_provider=server.execution_provider,
                threads=server.threads,
                instances=server.instances,
                quantization=None if server.quantization == Quantization() else server.quantization,
            )
            for server in servers.servers
            if server.name in used
        ),
        inputs=tuple(ids[name] for name in inputs),
        outputs=tuple(ids[name] for name in outputs),
        tensors=tuple(tensors),
        components=components,
        wires=tuple(Wire.of(*passage) for passage in passages),
    )
