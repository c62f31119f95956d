"""The component graph of a plan: a lane for each server, and what each wire carries."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tritier.documents import Component, ModelProfile, Plan, TimingProfile
from tritier.report.amounts import bytes_text, flops_text, ms_text
from tritier.report.component_flows import INPUTS, OUTPUTS, Flow, plan_flows
from tritier.report.component_layout import ComponentLayout
from tritier.report.drawing import Drawing, Table
from tritier.report.layer_graph import int8_tag
from tritier.report.palette import server_roles
from tritier.report.scene import Box, Group, Line, Scene, Shape, Text
from tritier.report.text_size import fitted

COLUMNS = ("Tensor", "From", "To", "Link", "Type and shape", "Coded", "Bytes", "Time")
_THINNEST, _THICKEST = 2.0, 5.0


def component_graph(
    plan: Plan,
    profile: ModelProfile | None = None,
    timings: Mapping[str, TimingProfile] | None = None,
    wire_ms: Mapping[tuple[str, str, str], float] | None = None,
    component_ms: Mapping[str, float] | None = None,
    name: str = "component-graph",
) -> Drawing:
    """Components in lanes, and bytes on each wire, with milliseconds where they are known.

    A profile fills in FLOPs, and sizes that the plan leaves open. Times of components come from
    `component_ms` (by id) or else from timing profiles (by server), those of wires from `wire_ms`
    by (id of the tensor, from, to).
    """
    flows = plan_flows(plan, profile, wire_ms or {})
    times = {**_layer_times(plan, timings or {}), **(component_ms or {})}
    layout = ComponentLayout(plan, flows)
    roles = server_roles(server.name for server in plan.servers)
    flops = {} if profile is None else {layer.name: layer.flops for layer in profile.layers}
    groups = [
        *(_lane(plan, server, layout, times, roles) for server in layout.servers),
        *(_wire(index, layout, roles) for index in range(len(flows))),
        *(_component(plan, part, layout, times, flops, roles) for part in plan.components),
        *(_end(plan, stop, layout, roles) for stop in (INPUTS, OUTPUTS)),
        *(_label(index, layout) for index, flow in enumerate(flows) if flow.crosses),
    ]
    return Drawing(
        id=name,
        title=f"Components of plan {plan.id}",
        caption=_caption(plan, flows),
        scene=Scene(layout.width, layout.height, tuple(groups)),
        table=Table(COLUMNS, tuple(row for flow in flows for row in _rows(flow))),
        minimum_width=round(layout.width * 0.92),
    )


def _layer_times(plan: Plan, timings: Mapping[str, TimingProfile]) -> dict[str, float]:
    """Sums of the layers' times, of components whose server has a profile of all their layers."""
    int8, found = set(plan.quantized_layers), {}
    for part in plan.components:
        if part.server not in timings:
            continue
        known = {layer.name: layer for layer in timings[part.server].layers}
        if not known.keys() >= set(part.layers):
            continue
        layers = [known[name] for name in part.layers]
        found[part.id] = sum(
            layer.float_ms if layer.int8_ms is None or layer.name not in int8 else layer.int8_ms
            for layer in layers
        )
    return found


def _caption(plan: Plan, flows: tuple[Flow, ...]) -> str:
    crossing = [parcel for flow in flows if flow.crosses for parcel in flow.parcels]
    parts, tensors = len(plan.components), len(crossing)
    text = f"{parts} component{'s' * (parts != 1)}"
    if not crossing:
        return f"{text} on {plan.entry.name}; nothing crosses a link."
    known = [parcel.bytes for parcel in crossing if parcel.bytes is not None]
    least = "" if len(known) == len(crossing) else "at least "
    return (
        f"{text}; {tensors} tensor{'s' * (tensors != 1)} cross{'es' * (tensors == 1)} a link, "
        f"{least}{bytes_text(sum(known))} for each request at batch 1. "
        "Thicker lines carry more."
    )


def _rows(flow: Flow) -> list[tuple[str, ...]]:
    link = f"{flow.source_server} → {flow.target_server}" if flow.crosses else ""
    return [
        (
            parcel.name, _stop_text(flow.source), ", ".join(map(_stop_text, parcel.readers)), link,
            parcel.shape, (parcel.codec or "").replace("_", " "), bytes_text(parcel.bytes),
            "" if parcel.ms is None else ms_text(parcel.ms),
        )
        for parcel in flow.parcels
    ]  # fmt: skip


def _stop_text(stop: str) -> str:
    return {INPUTS: "inputs of the model", OUTPUTS: "outputs of the model"}.get(stop, stop)


def _lane(
    plan: Plan, name: str, layout: ComponentLayout, times: Mapping[str, float],
    roles: Mapping[str, str],
) -> Group:  # fmt: skip
    lane, server = layout.lanes[name], plan.server(name)
    parts = [part for part in plan.components if part.server == name]
    layers = sum(len(part.layers) for part in parts)
    facts = [server.execution_provider, f"{layers} layer{'s' * (layers != 1)}"]
    if parts and all(part.id in times for part in parts):
        facts.append(ms_text(sum(times[part.id] for part in parts)))
    text = " · ".join(facts)
    shapes: list[Shape] = [
        Box(lane.x, 10, lane.width, layout.height - 20, "panel", radius=8),
        Box(lane.x, 10, lane.width, 5, roles[name], radius=2.5),
        Text(lane.x + 16, 36, fitted(name, lane.width - 90, 15, bold=True), size=15, bold=True),
        Text(lane.x + 16, 53, fitted(text, lane.width - 32, 11), "muted", 11),
    ]
    if server.entry:
        shapes.append(
            Text(lane.x + lane.width - 16, 36, "entry", "muted", 11, anchor="end", bold=True)
        )
    return Group(tuple(shapes), f"{name}: {text}")


def _wire(index: int, layout: ComponentLayout, roles: Mapping[str, str]) -> Group:
    flow = layout.flows[index]
    stroke = roles[flow.source_server] if flow.crosses else "line"
    width = _thickness(flow, layout) if flow.crosses else 1.5
    lines = tuple(Line(points, stroke, width, arrow=True) for points in layout.lines(index))
    names = ", ".join(parcel.name for parcel in flow.parcels[:4])
    more = f" and {len(flow.parcels) - 4} more" if len(flow.parcels) > 4 else ""
    targets = ", ".join(map(_stop_text, flow.targets))
    title = f"{_stop_text(flow.source)} → {targets}\n{names}{more}\n{bytes_text(flow.bytes)}"
    return Group(lines, title, "tt-edge tt-cross" if flow.crosses else "tt-edge")


def _thickness(flow: Flow, layout: ComponentLayout) -> float:
    """By the square root of the bytes, so that the least can still be seen."""
    most = max((other.bytes or 0 for other in layout.flows if other.crosses), default=0)
    share = (flow.bytes or 0) / most if most else 0.0
    return _THINNEST + (_THICKEST - _THINNEST) * math.sqrt(share)


def _label(index: int, layout: ComponentLayout) -> Group:
    flow = layout.flows[index]
    x, y = layout.label(index)
    count = len(flow.parcels)
    parts = [f"{count} tensors"] if count > 1 else []
    parts.append("size unknown" if flow.bytes is None else bytes_text(flow.bytes))
    codecs = dict.fromkeys(p.codec for p in flow.parcels if p.codec not in (None, "as_is"))
    parts += [str(codec).replace("_", " ") for codec in codecs]
    if flow.ms is not None:
        parts.append(ms_text(flow.ms))
    text = Text(x, y - 7, " · ".join(parts), size=11.5, anchor="middle", bold=True, halo="panel")
    return Group((text,))


def _component(
    plan: Plan, part: Component, layout: ComponentLayout, times: Mapping[str, float],
    flops: Mapping[str, int | None], roles: Mapping[str, str],
) -> Group:  # fmt: skip
    x, y, width, height = layout.box(part.id)
    role, count = roles[part.server], len(part.layers)
    int8 = len(set(part.layers) & set(plan.quantized_layers))
    facts = [f"{count} layer{'s' * (count != 1)}"]
    if flops and all(flops.get(name) is not None for name in part.layers):
        facts.append(flops_text(sum(flops[name] or 0 for name in part.layers)))
    span = part.layers[0] if count == 1 else f"{part.layers[0]} … {part.layers[-1]}"
    room = width - 30
    shapes: list[Shape] = [
        Box(x, y, width, height, f"{role}-soft", role, 2, 5, dashed=bool(int8)),
        Box(x - 1, y - 1, 8, height + 2, role, radius=3),
        Text(x + 17, y + 20, part.id, size=14, bold=True),
        Text(x + 17, y + 37, fitted(" · ".join(facts), room, 11), size=11),
        Text(x + 17, y + 53, fitted(span, room, 10), "muted", 10),
    ]
    right = x + width - 10
    if int8:
        shapes += int8_tag(right - 34, y + 8)
        right -= 40
    if part.id in times:
        shapes.append(
            Text(right, y + 20, ms_text(times[part.id]), size=12, anchor="end", bold=True)
        )
    title = f"{part.id} on {part.server}: {', '.join(facts)}, {int8 or 'none'} in int8\n{span}"
    return Group(tuple(shapes), title)


def _end(plan: Plan, stop: str, layout: ComponentLayout, roles: Mapping[str, str]) -> Group:
    x, y, width, height = layout.box(stop)
    shapes: tuple[Shape, ...] = (
        Box(x, y, width, height, "bg", roles[plan.entry.name], 2, height / 2),
        Text(x + width / 2, y + 19.5, _stop_text(stop), size=12, anchor="middle", bold=True),
    )
    return Group(shapes, f"{_stop_text(stop)}, on {plan.entry.name}")
