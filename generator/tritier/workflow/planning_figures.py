"""What is predicted of placements: by the additive model, and by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tritier.documents import WIRE_DTYPES, Codec, PlanFigures
from tritier.planner.evaluate import Costs, evaluate, quantized_layers
from tritier.planner.makespan import simulated_latency
from tritier.planner.problem import Floats, Placement, Problem
from tritier.planner.pulp_bottleneck import bottleneck_ms
from tritier.planner.simulate import latency_ms
from tritier.planner.simulation_build import PipelineBuilder
from tritier.planner.simulation_graph import Conditions, LinkModel, Pipeline, ServingCost
from tritier.planner.simulation_groups import best_groups
from tritier.workflow.problem import BuiltProblem
from tritier.workflow.problem_money import usd_of
from tritier.workflow.problem_noise import known_losses, wire_load
from tritier.workflow.problem_request import WIRE_CODECS, WireCodec


@dataclass(frozen=True)
class Predicted:
    """A placement with what is predicted of it."""

    placement: Placement
    costs: Costs
    simulated_ms: float
    groups: tuple[tuple[int, ...], ...]

    @property
    def components(self) -> int:
        """How many."""
        return len(self.groups)


class Predictor:
    """Predicts placements of a problem. `problem` is what counts, the built one's if left out; with
    `overlap`, components let servers work beside each other where that is shorter."""

    def __init__(
        self, built: BuiltProblem, problem: Problem | None = None, overlap: bool = False
    ) -> None:
        self.built = built
        self.overlap = overlap
        self.problem = problem or built.problem
        self._base = conditions(built)
        self._builder = PipelineBuilder(self.problem, self._base)
        self._known: dict[Placement, Predicted] = {}
        self._losses = known_losses(built.request.noise)

    def predict(self, placement: Placement) -> Predicted:
        """Of one placement; remembered."""
        if placement not in self._known:
            costs = evaluate(self.problem, placement)
            if self.overlap:
                known = conditions(self.built, self._crossing_codecs(costs))
                groups, _ = best_groups(self.problem, placement, known)
            else:
                groups = self._builder.groups(placement)
            pipeline = self._pipeline(placement, costs, groups)
            self._known[placement] = Predicted(placement, costs, latency_ms(pipeline), groups)
        return self._known[placement]

    def pipeline(self, placement: Placement) -> Pipeline:
        """For the simulator, with each tensor as large as it crosses in this placement."""
        found = self.predict(placement)
        return self._pipeline(placement, found.costs, found.groups)

    def _pipeline(
        self, placement: Placement, costs: Costs, groups: tuple[tuple[int, ...], ...]
    ) -> Pipeline:
        crossing = self._crossing_codecs(costs)
        if not crossing:
            return self._builder.build(placement, groups)
        known = conditions(self.built, crossing)
        return PipelineBuilder(self.problem, known).build(placement, groups)

    def simulated_ms(self) -> Callable[[Placement], float]:
        """The simulated latency, for a local search: every tensor as large as it is."""
        return simulated_latency(self.problem, self._base, overlap=self.overlap)

    @property
    def conditions(self) -> Conditions:
        """What the search's simulation knows of links and servers."""
        return self._base

    def sizes(self, costs: Costs) -> Floats:
        """Bytes of each tensor that is not in 8 bits, as it crosses; [m]."""
        found = np.array(self.built.flow_bytes, dtype=float)
        for flow, codec in self.codecs(costs).items():
            found[flow] = self.built.tensors.sizes[codec, flow]
        return found

    def _crossing_codecs(self, costs: Costs) -> dict[tuple[int, int, int], Codec]:
        """The codec of each tensor on each link on which it has one."""
        codecs = self.codecs(costs)
        return {
            (flow, source, target): WIRE_CODECS[codecs[flow]]
            for flow, source, target, coded, _ in costs.crossings
            if not coded and flow in codecs
        }

    def codecs(self, costs: Costs) -> dict[int, int]:
        """Tensor -> its codec by position in WIRE_CODECS, as is (0) left out. A tensor that crosses
        several links has a codec only if it is the same on all."""
        seen: dict[int, set[int]] = {}
        for flow, source, target, coded, _ in costs.crossings:
            if not coded:
                codec = int(self.built.transfers.codecs[flow, source, target])
                seen.setdefault(flow, set()).add(codec)
        return {flow: min(found) for flow, found in seen.items() if len(found) == 1 and max(found)}

    def figures(self, placement: Placement) -> PlanFigures:
        """As the report has them."""
        found = self.predict(placement)
        return PlanFigures(
            latency_ms=found.simulated_ms,
            sum_ms=found.costs.latency_ms,
            energy_joule=found.costs.energy_joule,
            cost_usd=self.usd(placement),
            bottleneck_ms=bottleneck_ms(found.costs),
            noise=self.noise(placement),
            quantized_layers=len(self.quantized(placement)),
            components=found.components,
        )

    def usd(self, placement: Placement) -> float | None:
        """What an inference costs; None without prices."""
        costs, built = self.predict(placement).costs, self.built
        return usd_of(built.request, self.problem, costs, self.sizes(costs), built.coded_bytes)

    def quantized(self, placement: Placement) -> list[str]:
        """Names of the layers that are quantized, in the model's order."""
        layers = quantized_layers(self.problem, placement.quantized)
        return [self.problem.layers[layer] for layer in sorted(layers)]

    def noise(self, placement: Placement) -> dict[str, float]:
        """Output -> predicted noise, without a margin; the largest of several noise models."""
        names, coded = self.quantized(placement), self.coded(placement)
        found: dict[str, float] = {}
        for model in self.built.request.noise:
            for output in model.outputs:
                power = output.power
                load = output.predict(names) ** power
                load += wire_load(self._losses, coded, output.output, power)
                noise = load ** (1 / power)
                found[output.output] = max(noise, found.get(output.output, 0.0))
        return found

    def coded(self, placement: Placement) -> dict[str, WireCodec]:
        """Name of each tensor that crosses in a codec that loses -> the codec."""
        codecs = self.codecs(self.predict(placement).costs)
        return {self.problem.flows[t].name: WIRE_CODECS[codec] for t, codec in codecs.items()}

    def wire_load(self, row: int, placement: Placement) -> float:
        """What codecs alone add to a row of noise, as far as it is known."""
        name, power = self.problem.noise.rows[row].output, self.built.output_of_row(row).power
        return wire_load(self._losses, self.coded(placement), name, power)

    def process_bytes(self, server: int) -> int:
        """What a server takes anyway: the user's limit of memory is for that, too, the problem's is
        without."""
        timings = self.built.request.timings
        return timings[self.problem.servers[server]].memory.process_bytes

    def noise_of_load(self, row: int, load: float) -> float:
        """The noise for which a row of the problem has this load, with the margin if it counts:
        the unit of the user's limit."""
        request = self.built.request
        output = self.built.output_of_row(row)
        margin = (output.margin or 1.0) if request.noise_margin else 1.0
        return float(margin * max(load, 0.0) ** (1 / output.power))


def conditions(
    built: BuiltProblem, codecs: Mapping[tuple[int, int, int], Codec] | None = None
) -> Conditions:
    """What the simulator knows of links, servers and borders; `codecs` are those of tensors, by
    (tensor, source, target), where they are known."""
    codecs = codecs or {}
    count = len(built.problem.servers)
    links: list[list[LinkModel | None]] = [[None] * count for _ in range(count)]
    for (k, h), link in built.links.items():
        rate = link.network_ms_per_mib
        links[k][h] = LinkModel(
            1000.0 / rate if rate > 0 else math.inf,
            2 * link.one_way_ms,
            link.call_ms,
            link.copy_ms_per_mib,
        )
    return Conditions(
        links=links,
        float_bytes=built.flow_bytes,
        coded_bytes=built.coded_bytes,
        serving=[ServingCost(x.call_ms, x.tensor_ms, x.copy_ms_per_mib) for x in built.serving],
        parallel=_parallel(built),
        making_ms=built.tensors.making_ms,
        reading_ms=built.tensors.reading_ms,
        crossing_bytes={key: _bytes_in(built, key[0], codec) for key, codec in codecs.items()},
        crossing_codecs=codecs,
        codings=built.tensors.codings,
    )


def _bytes_in(built: BuiltProblem, flow: int, codec: Codec) -> float:
    """Size of a tensor in a codec."""
    if codec == "as_is":
        return float(built.flow_bytes[flow])
    return float(built.coded_bytes[flow]) * np.dtype(WIRE_DTYPES[codec]).itemsize


def _parallel(built: BuiltProblem) -> tuple[int, ...]:
    """How many components may compute at once: cores by threads of a component."""
    timings = built.request.timings
    return tuple(
        max(1, timings[name].host.cores // timings[name].settings.threads)
        for name in built.problem.servers
    )
