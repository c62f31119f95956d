"""The layer graph of a model, coloured by the servers of a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tritier.documents import ModelProfile, Plan, TimingProfile
from tritier.graph import LayerGraph
from tritier.report.amounts import bytes_text, flops_text, ms_text
from tritier.report.drawing import Drawing, Table
from tritier.report.layer_layout import Layout, Spacing, layered_layout
from tritier.report.layer_view import (
    LayerEdge,
    LayerNode,
    LayerView,
    Placed,
    layer_view,
    placed_layers,
)
from tritier.report.palette import server_roles
from tritier.report.scene import Box, Group, Line, Scene, Shape, Text
from tritier.report.text_size import fitted

COLUMNS = ("Layer", "Type", "Server", "Component", "Precision", "Time", "FLOPs", "Weights",
           "Output")  # fmt: skip
_SPACE = Spacing(box_width=148, box_height=38, column_gap=18, rank_gap=24, margin=20)
_BAND = 7.0  # the stripe of strong colour at the left side of a box
_TAG = 34.0


def layer_graph(
    plan: Plan,
    source: ModelProfile | LayerGraph,
    timings: Mapping[str, TimingProfile] | None = None,
    name: str = "layer-graph",
) -> Drawing:
    """Every layer with its server and precision; what crosses servers is drawn bold.

    `timings` are timing profiles by the name of the server: with them, layers have times. Raises
    InputError when the plan is for another model.
    """
    view = layer_view(source)
    placed = placed_layers(plan, view, timings)
    layout = layered_layout(
        len(view.nodes), [(edge.source, edge.target) for edge in view.edges], _SPACE
    )
    roles = server_roles(server.name for server in plan.servers)
    edges = [_edge(index, edge, layout, view, placed) for index, edge in enumerate(view.edges)]
    # Bold edges last, so that no thin one is drawn over them.
    edges.sort(key=lambda group: "tt-cross" in group.kind)
    boxes = [
        _node(index, node, placed[index], layout, roles) for index, node in enumerate(view.nodes)
    ]
    return Drawing(
        id=name,
        title=f"Layers of {plan.model.name}",
        caption=_caption(plan, view, placed),
        scene=Scene(layout.width, layout.height, (*edges, *boxes), _legend(plan, roles)),
        table=Table(COLUMNS, tuple(_row(*pair) for pair in zip(view.nodes, placed, strict=True))),
        zoom=True,
    )


def _caption(plan: Plan, view: LayerView, placed: tuple[Placed, ...]) -> str:
    crossing = [e for e in view.edges if placed[e.source].server != placed[e.target].server]
    on = {place.server for place in placed if place.component}
    used = [server.name for server in plan.servers if server.name in on]
    int8 = sum(place.int8 for place in placed)
    layers = len(view.nodes) - 2
    return (
        f"Plan {plan.id}: {layers} layer{'s' * (layers != 1)} on {', '.join(used)}; "
        f"{int8 or 'none'} in int8; {len(crossing) or 'no'} "
        f"connection{'s' * (len(crossing) != 1)} between servers."
    )


def _row(node: LayerNode, place: Placed) -> tuple[str, ...]:
    if not node.op_type:
        return (_label(node), "", place.server, "", "", "", "", "", "")
    return (
        node.name, node.op_type, place.server, place.component,
        "int8" if place.int8 else "float", _known(ms_text, place.ms),
        _known(flops_text, node.flops), _known(bytes_text, node.weight_bytes),
        _known(bytes_text, node.output_bytes),
    )  # fmt: skip


def _known(text: Callable[[float], str], value: float | None) -> str:
    return "" if value is None else text(value)


def _label(node: LayerNode) -> str:
    return {"generator": "inputs of the model", "receiver": "outputs of the model"}[node.name]


def _node(
    index: int, node: LayerNode, place: Placed, layout: Layout, roles: Mapping[str, str]
) -> Group:
    x, y = layout.corners[index]
    role, width, height = roles[place.server], _SPACE.box_width, _SPACE.box_height
    data = (("row", index),)
    if not node.op_type:
        label = _label(node)
        shapes: tuple[Shape, ...] = (
            Box(x, y, width, height, "bg", role, 2.0, height / 2, kind="tt-box"),
            Text(x + width / 2, y + height / 2 + 4, label, size=12, anchor="middle", bold=True),
        )
        return Group(shapes, f"{label} · {place.server}", "tt-node", data)
    room = width - _BAND - 14 - (_TAG + 4 if place.int8 else 0)
    short = short_name(node)
    inside: list[Shape] = [
        Box(x, y, width, height, f"{role}-soft", role, kind="tt-box", dashed=place.int8, radius=3),
        Box(x - 0.8, y - 0.8, _BAND, height + 1.6, role, radius=2),
        Text(x + _BAND + 7, y + 16, fitted(node.op_type, room, 12, bold=True), bold=True),
        Text(x + _BAND + 7, y + 30, fitted(short, width - _BAND - 14, 10), "muted", 10),
    ]
    if place.int8:
        inside += int8_tag(x + width - _TAG - 6, y + 5)
        inside.append(Box(x, y, width, height, hatch=role))
    title = f"{node.name}\n{node.op_type} · {place.server} · {'int8' if place.int8 else 'float'}"
    return Group(tuple(inside), title, "tt-node tt-int8" if place.int8 else "tt-node", data)


def short_name(node: LayerNode) -> str:
    """The name without what the type of the layer says already."""
    name = node.name.strip("/")
    return name.removesuffix(f"/{node.op_type}") or name or node.name


def int8_tag(x: float, y: float) -> list[Shape]:
    """A small sign that says int8."""
    return [
        Box(x, y, _TAG, 14, "bg", "ink", 1.0, 7, kind="tt-tag"),
        Text(x + _TAG / 2, y + 10.5, "int8", size=9.5, anchor="middle", bold=True),
    ]


def _edge(
    index: int, edge: LayerEdge, layout: Layout, view: LayerView, placed: tuple[Placed, ...]
) -> Group:
    ends = placed[edge.source].server, placed[edge.target].server
    crosses = ends[0] != ends[1]
    size = "" if edge.bytes is None else f", {bytes_text(edge.bytes)}"
    many = f" and {len(edge.tensors) - 3} more" if len(edge.tensors) > 3 else ""
    title = (
        f"{view.nodes[edge.source].name} → {view.nodes[edge.target].name}\n"
        f"{', '.join(edge.tensors[:3])}{many}{size}"
        + (f"\n{ends[0]} → {ends[1]}" if crosses else "")
    )
    line = Line(
        layout.paths[index],
        stroke="cross" if crosses else "line",
        width=3.0 if crosses else 1.3,
        arrow=True,
        smooth=True,
    )
    kind = "tt-edge tt-cross" if crosses else "tt-edge"
    return Group((line,), title, kind, (("from", edge.source), ("to", edge.target)))


def _legend(plan: Plan, roles: Mapping[str, str]) -> tuple[tuple[str, Box | Line], ...]:
    used = {part.server for part in plan.components} | {plan.entry.name}
    found: list[tuple[str, Box | Line]] = [
        (server.name, Box(1, 1, 24, 14, f"{roles[server.name]}-soft", roles[server.name], 2, 3))
        for server in plan.servers
        if server.name in used
    ]
    if plan.quantized_layers:
        found.append(("int8 (dashed)", Box(1, 1, 24, 14, "bg", "ink", 1.5, 3, dashed=True)))
    if len(used) > 1:
        found.append(("between servers", Line(((1, 8), (25, 8)), "cross", 3)))
    return tuple(found)
