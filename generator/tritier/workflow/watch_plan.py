"""Plan again for what a watch sees: other links, servers that are away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tritier.documents import (
    WHOLE,
    Figure,
    LinkState,
    NetworkState,
    Plan,
    ServersSpec,
)
from tritier.network.contact import timestamp
from tritier.network.quick import FASTEST_MIB_S
from tritier.planner.problem import Placement
from tritier.workflow.family_classes import without_server
from tritier.workflow.planning import Planned, plan_built
from tritier.workflow.planning_figures import Predictor
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem import BuiltProblem, build_problem, replan
from tritier.workflow.problem_request import PlanningRequest
from tritier.workflow.watch import Offer, Pair

# What a link that carries nothing counts as: no plan uses it if there is another.
_NOTHING_MIB_S = 1e-3
_LEAST_MS_PER_MIB = 0.1


@dataclass(frozen=True)
class Found:
    """The best plan as things are, and what it is compared with."""

    planned: Planned
    offer: Offer


class Replanner:
    """Plans a model again and again. Keeps what does not hang on the network between two times.

    `request` is for all servers; noise is within its limits with the margin of the noise models.
    """

    def __init__(self, request: PlanningRequest, goals: Goals, name: str) -> None:
        self._request, self._name = request, name
        self._goals = replace(goals, explain=False, front=None)
        self._built: dict[frozenset[str], BuiltProblem] = {}
        self._earlier: dict[frozenset[str], Planned] = {}

    @property
    def request(self) -> PlanningRequest:
        """What is planned."""
        return self._request

    def find(
        self, network: NetworkState, absent: frozenset[str], deployed: Sequence[Plan | None]
    ) -> Found:
        """The best plan for the network without the servers that are away.

        `deployed` are the plans that requests go through, in the order in which they are tried;
        None stands for the whole model on the entry. Raises InfeasibleError, InputError.
        """
        built = self._problem(network, absent)
        earlier = self._earlier.get(absent)
        planned = plan_built(built, self._goals, self._name, earlier=earlier)
        self._earlier[absent] = planned
        ms = planned.report.figures.latency_ms
        name, now_ms = _deployed(Predictor(built), absent, deployed)
        return Found(planned, Offer(planned.plan.id, ms, name, now_ms))

    def _problem(self, network: NetworkState, absent: frozenset[str]) -> BuiltProblem:
        if absent not in self._built:
            request = replace(self._request, network=network)
            for name in sorted(absent):
                request = without_server(request, name)
            self._built[absent] = build_problem(request)
        return replan(self._built[absent], network)


def with_bandwidths(
    network: NetworkState, spec: ServersSpec, figures_mib_s: Mapping[Pair, float]
) -> NetworkState:
    """The network with other bandwidths, as quick probes find them (see `network.quick`). Of a link
    that was not measured before, nothing else is known than what the servers file says."""
    known = {(link.source, link.target): link for link in network.links}
    for (source, target), mib_s in figures_mib_s.items():
        link = known.get((source, target)) or _described(spec, source, target)
        if mib_s >= FASTEST_MIB_S <= link.bandwidth_mib_s.value:
            continue  # a quick probe tells fast links not apart
        ms_per_mib = 1e3 / max(mib_s, _NOTHING_MIB_S) - link.copy_ms_per_mib.value
        figure = Figure(value=1e3 / max(ms_per_mib, _LEAST_MS_PER_MIB), n=1)
        update = {"bandwidth_mib_s": figure, "measured_at": timestamp()}
        known[source, target] = link.model_copy(update=update)
    return network.model_copy(update={"links": tuple(known.values())})


def expected_figures(network: NetworkState, pairs: Sequence[Pair]) -> dict[Pair, float]:
    """What quick probes of links should find where nothing has changed; MiB/s."""
    found = {}
    for link in network.links:
        if (link.source, link.target) in pairs:
            ms_per_mib = 1e3 / link.bandwidth_mib_s.value + max(link.copy_ms_per_mib.value, 0.0)
            found[link.source, link.target] = min(1e3 / ms_per_mib, FASTEST_MIB_S)
    return found


def _described(spec: ServersSpec, source: str, target: str) -> LinkState:
    latency_ms = {(link.source, link.target): link.latency_ms for link in spec.links}
    trip_ms = latency_ms.get((source, target), 0.0) + latency_ms.get((target, source), 0.0)
    return LinkState.model_validate(
        {
            "from": source,
            "to": target,
            "measured_at": timestamp(),
            "bandwidth_mib_s": Figure(value=1.0),  # which is replaced
            "round_trip_ms": Figure(value=trip_ms, source="configured"),
            "call_ms": Figure(value=0.0, source="configured"),
            "copy_ms_per_mib": Figure(value=0.0, source="configured"),
        }
    )


def _deployed(
    predictor: Predictor, absent: frozenset[str], plans: Sequence[Plan | None]
) -> tuple[str, float]:
    """(id, predicted ms) of the first of the deployed plans that can work."""
    for plan in plans:
        if plan is not None and any(part.server in absent for part in plan.components):
            continue
        return (plan.id if plan else WHOLE), predicted_ms(predictor, plan)
    first = plans[0] if plans else None
    return (first.id if first else WHOLE), math.inf


def predicted_ms(predictor: Predictor, plan: Plan | None) -> float:
    """What a plan takes in this problem; None: the whole model on the entry. Infinite if it has a
    layer where none may stand, or sends a tensor where it can't go."""
    problem = predictor.problem
    at = predictor.built.server_at
    servers = [problem.entry] * len(problem.layers)
    quantized = 0
    if plan is not None:
        where = {layer: part.server for part in plan.components for layer in part.layers}
        if any(server not in at for server in where.values()):
            return math.inf
        for index, layer in enumerate(problem.layers):
            if layer in where:
                servers[index] = at[where[layer]]
        bits = {name: 1 << bit for bit, name in enumerate(predictor.built.quantizable)}
        quantized = sum(bits.get(name, 0) for name in plan.quantized_layers)
    return predictor.predict(Placement(tuple(servers), quantized)).simulated_ms
