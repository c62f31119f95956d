"""Comparisons of plans that never ran: measured is what other documents predict."""

from __future__ import annotations

from dataclasses import replace

from tests.helpers.planning import LAYERS, WHEN
from tritier.documents import (
    Comparison,
    Duration,
    MeasuredComponent,
    MeasuredFigures,
    MeasuredMessage,
    NetworkState,
    Plan,
    TimingProfile,
)
from tritier.graph import LoadedModel, build_layer_graph
from tritier.workflow.compare import Known, predict_plan
from tritier.workflow.compare_rounds import latency_of
from tritier.workflow.plan import plan_from_placement
from tritier.workflow.problem_request import PlanningRequest


def known_of(request: PlanningRequest) -> Known:
    """What a request has for predictions."""
    return Known(request.model, request.servers, request.timings, request.network)


def placed(request: PlanningRequest, letters: str) -> Plan:
    """The small chain with a server for each of its layers."""
    where = dict(zip(LAYERS, letters, strict=True))
    graph = build_layer_graph(request.model.proto)
    return plan_from_placement(request.model, graph, where, request.servers, "m")


def scaled(timing: TimingProfile, factors: dict[str, float]) -> TimingProfile:
    """The profile of a server on which layers take so many times as long."""
    layers = tuple(
        layer.model_copy(update={"float_ms": layer.float_ms * factors.get(layer.name, 1.0)})
        for layer in timing.layers
    )
    return timing.model_copy(update={"layers": layers})


def with_bandwidth(network: NetworkState, source: str, target: str, mib_s: float) -> NetworkState:
    """The network with another bandwidth of a link."""
    links = tuple(
        link.model_copy(
            update={"bandwidth_mib_s": link.bandwidth_mib_s.model_copy(update={"value": mib_s})}
        )
        if (link.source, link.target) == (source, target)
        else link
        for link in network.links
    )
    return network.model_copy(update={"links": links})


def duration(ms: float, std_ms: float = 0.0, n: int = 10) -> Duration:
    """Of so many times that differ by so much."""
    return Duration(median_ms=ms, mean_ms=ms, std_ms=std_ms, n=n)


def compared(
    plan: Plan, known: Known, truth: Known, more_ms: float = 0.0, std_ms: float = 0.0
) -> Comparison:
    """The plan predicted by what is known; measured is what the truth says, and `more_ms` of the
    whole request."""
    found = predict_plan(plan, truth)
    times = [found.latency_ms + more_ms + std_ms * x for x in (-1.0, -0.5, 0.0, 0.5, 1.0) * 4]
    measured = MeasuredFigures(
        latency=latency_of(times),
        components=tuple(
            MeasuredComponent(
                id=part.id, server=part.server, service=duration(part.ms, std_ms), queue_ms=0.0
            )
            for part in found.components
        ),
        messages=tuple(
            MeasuredMessage.model_validate(
                {
                    "kind": item.kind, "component": item.component, "from": item.source,
                    "to": item.target, "bytes": item.bytes, "time": duration(item.ms, std_ms),
                }
            )
            for item in found.messages
        ),
    )  # fmt: skip
    return Comparison(
        plan_id=plan.id,
        model="m",
        plan=plan,
        predicted_at=WHEN,
        predicted=predict_plan(plan, known),
        measured_at=WHEN,
        measured=measured,
    )


def changed(known: Known, model: LoadedModel | None = None, **factors: dict[str, float]) -> Known:
    """Other documents: layers of servers (by name of the server) that take longer."""
    timings = {name: scaled(x, factors.get(name, {})) for name, x in known.timings.items()}
    return replace(known, timings=timings, model=model or known.model)
