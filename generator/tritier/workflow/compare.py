"""What is predicted of any plan, by the simulator that the planner uses, with its own components.

The plan may be by hand, imported or drawn at random: nothing is grouped or placed anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tritier.documents import (
    Codec,
    NetworkState,
    Plan,
    PredictedComponent,
    PredictedFigures,
    PredictedMessage,
    ServersSpec,
    TimelineEntry,
    TimingProfile,
    activation_peak_bytes,
    weight_bytes,
    wire_up,
)
from tritier.errors import InputError
from tritier.graph import LoadedModel, Quantizable, build_layer_graph, profile_model
from tritier.planner.problem import Placement
from tritier.planner.simulate import Event, simulate
from tritier.planner.simulation_build import PipelineBuilder
from tritier.planner.simulation_graph import Pipeline, SimMessage
from tritier.workflow.planning_figures import conditions
from tritier.workflow.planning_wires import uncounted
from tritier.workflow.problem import BuiltProblem, build_problem
from tritier.workflow.problem_request import PlanningRequest, listed

_INT8_SHARE = 0.25  # of the bytes of float32 weights
_INPUTS = "in"  # stands for the component that would make the model's inputs


@dataclass(frozen=True)
class Known:
    """What predictions are made from. Sizes of symbolic dimensions are those of the profiles;
    `app_ms` is what the app's own connection to the entry takes, None if that is not known."""

    model: LoadedModel
    servers: ServersSpec
    timings: Mapping[str, TimingProfile]
    network: NetworkState | None = None
    app_ms: float | None = None


def predict_plan(plan: Plan, known: Known) -> PredictedFigures:
    """What a request by the plan takes on idle servers.

    Raises InputError where documents are of another model, or a server or quantized layer of the
    plan has no time in its profile.
    """
    return PlanPredictor(plan, known).figures()


class PlanPredictor:
    """The problem of a plan, and its pipeline, whose components are those of the plan and then
    those that only code."""

    def __init__(self, plan: Plan, known: Known) -> None:
        _check_plan(plan, known)
        self.plan = plan
        self._app_ms = known.app_ms
        self.built = _built(plan, known)
        self.placement = _placement(plan, self.built)
        at = self.built.layer_at
        self._groups = tuple(
            tuple(sorted(at[layer] for layer in part.layers)) for part in plan.components
        )
        self.pipeline = self._pipeline()
        # As they are generated, those that only code after the others.
        wired = wire_up(plan).components
        self._parts = [*plan.components, *(part for part in wired if not part.layers)]

    def _pipeline(self) -> Pipeline:
        known = conditions(self.built, _crossing_codecs(self.plan, self.built))
        instances = {server.instances for server in self.plan.servers}
        known = replace(known, instances=min(instances))
        return PipelineBuilder(self.built.problem, known).build(self.placement, self._groups)

    def figures(self) -> PredictedFigures:
        """All that is predicted."""
        found = simulate(self.pipeline)
        watts = [*self.built.problem.compute_watt, *self.built.problem.send_watt]
        joule = math.fsum(found.server_energy_joule) if any(watts) else None
        return PredictedFigures(
            latency_ms=found.latency_ms + (self._app_ms or 0.0),
            app_ms=self._app_ms,
            energy_joule=joule,
            components=tuple(map(self._component, range(len(self.pipeline.components)))),
            messages=tuple(self._message(item) for item in self.pipeline.messages),
            memory_bytes=self._memory(),
            timeline=tuple(self._entry(event) for event in found.timeline),
            warnings=tuple(self._warnings()),
        )

    def sends(self) -> list[tuple[PredictedMessage, float, float]]:
        """Messages of one request with when each begins and ends to take its link, in ms."""
        return [
            (self._message(self.pipeline.messages[event.index]), event.start_ms, event.end_ms)
            for event in simulate(self.pipeline).timeline
            if event.kind != "compute"
        ]

    def _component(self, index: int) -> PredictedComponent:
        part, found = self._parts[index], self.pipeline.components[index]
        quantized = set(self.plan.quantized_layers)
        layers_ms = 0.0
        for position in found.layers:
            problem = self.built.problem
            times = problem.int8_ms if problem.layers[position] in quantized else problem.float_ms
            layers_ms += float(times[position, found.server])
        return PredictedComponent(
            id=part.id,
            server=part.server,
            layers=len(part.layers),
            layers_ms=layers_ms,
            ms=found.compute_ms,
        )

    def _message(self, item: SimMessage) -> PredictedMessage:
        names = self.built.problem.servers
        acknowledged = item.ack_ms if item.kind == "put" else 0.0
        return PredictedMessage.model_validate(
            {
                "kind": item.kind,
                "component": self._component_of(item),
                "from": names[item.source_server],
                "to": names[item.target_server],
                "tensors": tuple(self._ids[self.built.problem.flows[t].name] for t in item.tensors),
                "bytes": round(item.bytes),
                "ms": item.link_ms + item.delay_ms + acknowledged,
                "link_ms": item.link_ms,
            }
        )

    @property
    def _ids(self) -> dict[str, str]:
        return {tensor.name: tensor.id for tensor in self.plan.tensors}

    def _component_of(self, item: SimMessage) -> str:
        if item.kind == "fetch":
            item = self.pipeline.messages[item.waits[0][0]]
        ends = item.targets if item.kind == "call" else item.sources
        ends = tuple(end for end in ends if end < len(self._groups))
        return self._parts[ends[0]].id if ends else _INPUTS

    def _entry(self, event: Event) -> TimelineEntry:
        names = self.built.problem.servers
        if event.kind == "compute":
            name, end_ms = self._parts[event.index].id, event.end_ms
        else:
            item = self.pipeline.messages[event.index]
            name, end_ms = f"{item.kind} {self._component_of(item)}", event.arrived_ms
        return TimelineEntry(
            kind="compute" if event.kind == "compute" else "send",
            name=name,
            place=tuple(names[k] for k in event.place),
            start_ms=event.start_ms,
            end_ms=end_ms,
        )

    def _memory(self) -> dict[str, int]:
        """Of the processes of all components of a server."""
        request = self.built.request
        quantized = set(self.plan.quantized_layers)
        found: dict[str, float] = {}
        for part in self.plan.components:
            memory = request.timings[part.server].memory
            as_int8 = quantized.intersection(part.layers)
            weights = weight_bytes(request.profile, part.layers)
            if as_int8:
                weights -= round((1 - _INT8_SHARE) * weight_bytes(request.profile, as_int8))
            peak = activation_peak_bytes(request.profile, part.layers) or 0
            size = memory.process_bytes + memory.weight_factor * weights
            size += memory.activation_factor * peak
            count = self.plan.server(part.server).instances
            found[part.server] = found.get(part.server, 0.0) + size * count
        return {name: round(size) for name, size in found.items()}

    def _warnings(self) -> Iterator[str]:
        """Of links and codecs that the plan uses and that were not measured."""
        used = dict.fromkeys((item.source_server, item.target_server)
                             for item in self.pipeline.messages)  # fmt: skip
        for ends in used:
            link = self.built.links[ends]
            if link.origin != "measured":
                yield (
                    f"the link {link.source} -> {link.target} is not measured: it counts as the "
                    "servers file has it, and as if software at its ends took no time; measure it "
                    f"with `tritier monitor --link {link.source}:{link.target}`"
                )
        yield from uncounted(self.plan, self.built, self.placement)


def _check_plan(plan: Plan, known: Known) -> None:
    faults = []
    if plan.model.sha256 != known.model.sha256:
        faults.append(
            f"the plan is for a model with sha256 {plan.model.sha256[:12]}..., this is "
            f"{known.model.sha256[:12]}...: give the model of the plan"
        )
    for name in dict.fromkeys(part.server for part in plan.components):
        if name not in known.servers.names:
            names = ", ".join(known.servers.names)
            faults.append(f"the plan uses server '{name}'; the servers file has {names}")
        elif name not in known.timings:
            faults.append(
                f"the plan uses server '{name}', which has no timing profile: measure it with "
                f"`tritier profile --server {name}`"
            )
    entry = known.servers.entry.name
    if plan.entry.name != entry:
        faults.append(
            f"the entry of the plan is '{plan.entry.name}', that of the servers file '{entry}': "
            "give the servers file with which the plan was made"
        )
    if faults:
        raise InputError(faults)


def _built(plan: Plan, known: Known) -> BuiltProblem:
    """The problem in which the plan is a placement: its layers may be quantized, others not."""
    dims: dict[str, int] = {}
    for timing in known.timings.values():
        dims |= timing.dims
    layers = plan.quantized_layers
    request = PlanningRequest(
        model=known.model,
        graph=build_layer_graph(known.model.proto),
        profile=profile_model(known.model, dims, Quantizable(count=0, layers=layers)),
        servers=known.servers,
        timings=known.timings,
        network=known.network,
        unlimited_noise=bool(layers),
        int8_everywhere=bool(layers),
    )
    return build_problem(request)


def _placement(plan: Plan, built: BuiltProblem) -> Placement:
    problem = built.problem
    at = built.server_at
    where = {layer: at[part.server] for part in plan.components for layer in part.layers}
    ends = {problem.layers[0], problem.layers[-1]}
    if set(where) != set(problem.layers) - ends:
        raise InputError("the plan does not have the layers of the model: plan again")
    servers = tuple(where.get(layer, problem.entry) for layer in problem.layers)
    bits = {name: 1 << bit for bit, name in enumerate(built.quantizable)}
    position = built.layer_at
    missing = [
        name
        for name in plan.quantized_layers
        if name not in bits or not math.isfinite(problem.int8_ms[position[name], where[name]])
    ]
    if missing:
        raise InputError(
            f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} quantized in the plan, and "
            "the timing profile of that server has no time for that: profile again with "
            "`tritier profile --quantize-layer`"
        )
    return Placement(servers, sum(bits[name] for name in plan.quantized_layers))


def _crossing_codecs(plan: Plan, built: BuiltProblem) -> dict[tuple[int, int, int], Codec]:
    """The codec of each tensor of the plan on each of its links."""
    at = built.server_at
    return {
        (built.flow_at[plan.tensor(wire.tensor).name], at[wire.source], at[wire.target]): wire.codec
        for wire in plan.wires
    }
