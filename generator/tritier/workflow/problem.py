"""From documents to the placement problem that the planner solves."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tritier.documents import (
    Codec,
    NetworkState,
    NoiseModel,
    OutputNoise,
    ServingTiming,
    TensorProfile,
)
from tritier.planner.noise_sets import NoiseLimit, NoiseRow
from tritier.planner.problem import INFINITE, Bools, Floats, Flow, Limits, Problem
from tritier.planner.wires import Codings
from tritier.workflow.problem_checks import check_request, network_faults
from tritier.workflow.problem_costs import (
    LayerCosts,
    Powers,
    allowed_servers,
    check_sizes,
    crosses,
    layer_costs,
    memory_limits,
    powers,
)
from tritier.workflow.problem_links import (
    LinkTimes,
    TensorCosts,
    Transfers,
    link_times,
    tensor_costs,
    transfers,
)
from tritier.workflow.problem_money import check_prices, money_of, moved
from tritier.workflow.problem_noise import candidates, coding_layers, noise_rows, translated
from tritier.workflow.problem_request import (
    WIRE_CODECS,
    Findings,
    Origin,
    PlanningRequest,
    listed,
)


@dataclass(frozen=True, eq=False)
class BuiltProblem:
    """A problem, and what is needed besides to make a plan of its solution.

    `serving` and `links` (by positions of servers) are for the simulator; `sources` tells of each
    kind of figure where it comes from (rule R9). `never_quantized` are layers that might be
    quantized by their noise, but int8 is offered on no server. `tensors` and `lasting_warnings` do
    not hang on the network.
    """

    request: PlanningRequest
    problem: Problem
    tensors: TensorCosts
    transfers: Transfers
    serving: tuple[ServingTiming, ...]
    links: Mapping[tuple[int, int], LinkTimes]
    sources: Mapping[str, Origin]
    warnings: tuple[str, ...]
    lasting_warnings: tuple[str, ...]
    never_quantized: tuple[str, ...]

    @property
    def flow_bytes(self) -> Floats:
        """Bytes of each tensor as it is; [m]."""
        sizes: Floats = self.tensors.sizes[0]
        return sizes

    @property
    def coded_bytes(self) -> Floats:
        """Bytes of each tensor in 8 bits; [m]."""
        return self.tensors.coded_bytes

    @cached_property
    def layer_at(self) -> dict[str, int]:
        """Position of each layer, with generator and receiver."""
        return {name: index for index, name in enumerate(self.problem.layers)}

    @cached_property
    def server_at(self) -> dict[str, int]:
        """Position of each server."""
        return {name: index for index, name in enumerate(self.problem.servers)}

    @cached_property
    def flow_at(self) -> dict[str, int]:
        """Position of each tensor that a layer or the receiver reads."""
        return {flow.name: index for index, flow in enumerate(self.problem.flows)}

    @cached_property
    def quantizable(self) -> tuple[str, ...]:
        """Names of the layers that the bits of a mask stand for."""
        return tuple(self.problem.layers[index] for index in self.problem.quantizable)

    def codec_of(self, flow: int, source: int, target: int, quantized: bool) -> Codec | None:
        """How a tensor crosses a link (all by position). None if one of the layers in `coded_by` is
        `quantized`: then in the 8 bits in which that layer has it."""
        if quantized:
            return None
        codec: Codec = WIRE_CODECS[self.transfers.codecs[flow, source, target]]
        return codec

    def output_of_row(self, row: int) -> OutputNoise:
        """The output of a noise model that a row of noise limits is about."""
        request = self.request
        pairs = [(model, name) for model in request.noise for name in request.noise_limits]
        model, name = pairs[row]
        return model.output(name)

    def rows_for(
        self,
        noise: NoiseModel,
        limits: Mapping[str, float] | None = None,
        share: float = 1.0,
        with_margin: bool = True,
    ) -> list[NoiseRow]:
        """The rows of a noise model, for masks of this problem. `limits` are those of the request
        if left out; each counts by `share`. Raises InputError as `noise_rows` does."""
        chosen = self.request.noise_limits if limits is None else limits
        return noise_rows(noise, chosen, self.quantizable, share, with_margin)

    def without_codecs(self, flows: Collection[int]) -> BuiltProblem:
        """The same where these tensors cross as they are, or in the 8 bits of quantized layers."""
        return self.with_codings(Codings(dict.fromkeys(flows, 0)))

    def with_codings(self, codings: Codings) -> BuiltProblem:
        """The same where tensors cross in no codec but what is decided, or in the 8 bits of
        quantized layers."""
        sizes = self.tensors.sizes.copy()
        if not codings.rest:
            others = [flow for flow in range(sizes.shape[1]) if flow not in codings.most]
            sizes[1:, others] = INFINITE
        for flow, most in codings.most.items():
            sizes[most + 1 :, flow] = INFINITE
        tensors = replace(self.tensors, sizes=sizes)
        moving = transfers(tensors, self.links)
        problem = moved(self.problem, self.request, tensors, moving)
        return replace(self, tensors=tensors, transfers=moving, problem=problem)

    def with_noise(
        self, rows: Sequence[NoiseRow], refused: Collection[int] = (), of: Sequence[str] = ()
    ) -> Problem:
        """The problem with other limits of noise. Masks in `refused` are over the layers `of`, by
        default `quantizable`; one with a layer that is never quantized needs no refusal."""
        layers = of or self.quantizable
        masks = {translated(mask, layers, self.quantizable) for mask in refused}
        kept = frozenset(mask for mask in masks if mask is not None)
        return replace(self.problem, noise=NoiseLimit(len(self.quantizable), tuple(rows), kept))


def build_problem(request: PlanningRequest) -> BuiltProblem:
    """The placement problem of a request.

    Raises InputError with all faults of documents, names and limits, or of layers that can't be
    quantized, and UsageError when the size of a tensor is unknown.
    """
    lasting, changing = Findings(), Findings()
    checked = _checked(request, lasting, changing)
    costs = layer_costs(request, checked.noisy, checked.allowed)
    offered = np.isfinite(costs.int8_ms).any(axis=1)
    chosen = [n for n, is_offered in zip(request.layer_names, offered, strict=True) if is_offered]
    read = [tensor for tensor in request.profile.tensors if tensor.consumers]
    coding = coding_layers(request.model.proto, request.graph, chosen)
    flows = _flows(request, read, coding)
    tensors = tensor_costs(request, read, [bool(flow.coded_by) for flow in flows])
    links = link_times(request, request.network, changing)
    moving = transfers(tensors, links)
    lasting.warnings += _stuck_types(read)
    return BuiltProblem(
        request=request,
        problem=_problem(request, checked, costs, flows, tensors, moving, chosen),
        tensors=tensors,
        transfers=moving,
        serving=tuple(request.timings[name].serving for name in request.planned_servers),
        links=links,
        sources=_sources(request, checked.watts, links),
        warnings=(*lasting.warnings, *changing.warnings),
        lasting_warnings=tuple(lasting.warnings),
        never_quantized=tuple(name for name in checked.noisy if name not in chosen),
    )


@dataclass(frozen=True, eq=False)
class _Checked:
    """What comes out of the checks: where layers may stand, bytes of servers, layers that may be
    quantized as far as noise goes, powers."""

    allowed: Bools
    memory: tuple[float, ...]
    noisy: tuple[str, ...]
    watts: Powers


def _checked(request: PlanningRequest, lasting: Findings, changing: Findings) -> _Checked:
    """Raises all faults together; `changing` has what may be another with another network."""
    check_request(request, lasting)
    check_prices(request, lasting)
    checked = _Checked(
        allowed_servers(request, lasting),
        memory_limits(request, lasting),
        candidates(request, lasting),
        powers(request, request.network, changing),
    )
    Findings([*lasting.faults, *changing.faults]).raise_faults()
    check_sizes(request.profile)
    return checked


def _problem(
    request: PlanningRequest,
    checked: _Checked,
    costs: LayerCosts,
    flows: tuple[Flow, ...],
    tensors: TensorCosts,
    moving: Transfers,
    chosen: Sequence[str],
) -> Problem:
    names = request.layer_names
    rows = [
        row
        for item in request.noise
        for row in noise_rows(item, request.noise_limits, chosen, 1.0, request.noise_margin)
    ]
    return Problem(
        layers=names,
        servers=request.planned_servers,
        entry=request.planned_servers.index(request.servers.entry.name),
        float_ms=costs.float_ms,
        int8_ms=costs.int8_ms,
        allowed=checked.allowed,
        flows=flows,
        transfer_ms=moving.transfer_ms,
        coded_ms=moving.coded_ms,
        compute_watt=np.array(checked.watts.compute_watt),
        send_watt=np.array(checked.watts.send_watt),
        float_bytes=costs.float_bytes,
        int8_bytes=costs.int8_bytes,
        working_bytes=costs.working_bytes,
        quantizable=tuple(i for i, name in enumerate(names) if name in set(chosen)),
        noise=NoiseLimit(len(chosen), tuple(rows)),
        limits=_limits(request, checked.memory),
        money=money_of(request, tensors, moving),
    )


def replan(built: BuiltProblem, network: NetworkState | None) -> BuiltProblem:
    """The same with other links and powers; all else is taken over. Raises InputError for links
    without bandwidth, and powers that are needed and not known any more."""
    request = replace(built.request, network=network)
    findings = Findings(faults=list(network_faults(network)))
    watts = powers(request, network, findings)
    findings.raise_faults()
    links = link_times(request, network, findings)
    moving = transfers(built.tensors, links)
    problem = replace(
        moved(built.problem, request, built.tensors, moving),
        compute_watt=np.array(watts.compute_watt),
        send_watt=np.array(watts.send_watt),
    )
    return replace(
        built,
        request=request,
        problem=problem,
        transfers=moving,
        links=links,
        sources=_sources(request, watts, links),
        warnings=(*built.lasting_warnings, *findings.warnings),
    )


def _flows(
    request: PlanningRequest,
    tensors: Sequence[TensorProfile],
    coding: Mapping[str, tuple[str, ...]],
) -> tuple[Flow, ...]:
    at = {name: index for index, name in enumerate(request.layer_names)}
    return tuple(
        Flow(
            tensor.name,
            at[tensor.source],
            tuple(at[name] for name in tensor.consumers),
            tuple(at[name] for name in coding.get(tensor.name, ())),
        )
        for tensor in tensors
    )


def _stuck_types(tensors: Sequence[TensorProfile]) -> Iterator[str]:
    if stuck := [tensor.name for tensor in tensors if not crosses(tensor)]:
        yield (
            f"{listed(stuck)} can't go between servers, by their types: what makes and what reads "
            "them stays together"
        )


def _limits(request: PlanningRequest, memory: tuple[float, ...]) -> Limits:
    joules = tuple(
        request.server_energy_joule.get(name, INFINITE) for name in request.planned_servers
    )
    return Limits(
        energy_joule=request.energy_joule,
        latency_ms=request.latency_ms,
        server_energy_joule=joules if any(map(math.isfinite, joules)) else (),
        memory_bytes=memory,
    )


def _has_codecs(request: PlanningRequest) -> bool:
    return any(codec != "as_is" for codecs in request.wire_codecs.values() for codec in codecs)


def _sources(
    request: PlanningRequest, watts: Powers, links: Mapping[tuple[int, int], LinkTimes]
) -> dict[str, Origin]:
    found: dict[str, Origin] = {}
    for name in request.planned_servers:
        found[f"times on {name}"] = "measured"
        found[f"memory on {name}"] = "predicted"
        if request.timings[name].codings and _has_codecs(request):
            found[f"codecs on {name}"] = "measured"
    found |= watts.sources
    found |= {f"link {x.source} -> {x.target}": x.origin for x in links.values()}
    if request.noise:
        found["noise"] = "predicted"
    if request.prices is not None:
        found["prices"] = "configured"
    return found
