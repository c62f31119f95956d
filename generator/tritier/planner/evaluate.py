"""What a placement costs: plain loops, independent of any solver, which all are checked against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tritier.planner.problem import Placement, Problem, Weights

# Relative slack of limits: sums in another order differ in the last digits.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Costs:
    """Of one inference. What is per server follows their order; `weight_bytes` is part of
    `memory_bytes`; `crossings` are (tensor, source, target, in 8 bits, milliseconds); `usd` is None
    where the problem knows no prices."""

    compute_ms: float
    transfer_ms: float
    server_ms: tuple[float, ...]
    server_energy_joule: tuple[float, ...]
    memory_bytes: tuple[float, ...]
    weight_bytes: tuple[float, ...]
    crossings: tuple[tuple[int, int, int, bool, float], ...]
    usd: float | None = None

    @property
    def latency_ms(self) -> float:
        """The sum of all times, as if nothing ran beside anything else."""
        return self.compute_ms + self.transfer_ms

    @property
    def energy_joule(self) -> float:
        """Of all servers."""
        return math.fsum(self.server_energy_joule)

    def value(self, weights: Weights) -> float:
        """The objective; a weight of 0 leaves its part out."""
        value = weights.per_ms and weights.per_ms * self.latency_ms
        value += weights.per_joule and weights.per_joule * self.energy_joule
        if weights.per_usd:
            assert self.usd is not None, "the problem has no prices"
            value += weights.per_usd * self.usd
        return value


def evaluate(problem: Problem, placement: Placement) -> Costs:
    """Costs of a placement, whether it is allowed or not; infinite where something can't be."""
    servers, count = placement.servers, len(problem.servers)
    quantized = quantized_layers(problem, placement.quantized)
    server_ms, weights, working = [0.0] * count, [0.0] * count, [0.0] * count
    for layer, server in enumerate(servers):
        int8 = layer in quantized
        server_ms[server] += float((problem.int8_ms if int8 else problem.float_ms)[layer, server])
        held = problem.int8_bytes if int8 else problem.float_bytes
        weights[server] += float(held[layer, server])
        working[server] = max(working[server], float(problem.working_bytes[layer, server]))
    crossings = _crossings(problem, servers, quantized)
    sending = [0.0] * count
    for _, source, _, _, milliseconds in crossings:
        sending[source] += milliseconds
    energy = tuple(
        (float(problem.compute_watt[k]) * server_ms[k] + float(problem.send_watt[k]) * sending[k])
        / 1000.0
        for k in range(count)
    )
    return Costs(
        compute_ms=math.fsum(server_ms),
        transfer_ms=math.fsum(sending),
        server_ms=tuple(server_ms),
        server_energy_joule=energy,
        memory_bytes=tuple(a + b for a, b in zip(weights, working, strict=True)),
        weight_bytes=tuple(weights),
        crossings=crossings,
        usd=_usd(problem, server_ms, energy, crossings),
    )


def _usd(
    problem: Problem,
    server_ms: Sequence[float],
    energy: Sequence[float],
    crossings: Sequence[tuple[int, int, int, bool, float]],
) -> float | None:
    money = problem.money
    if money is None:
        return None
    if not all(map(math.isfinite, (*server_ms, *(item[-1] for item in crossings)))):
        return math.inf  # prices alone are finite where nothing can be
    parts = [float(money.per_ms[k]) * ms for k, ms in enumerate(server_ms)]
    parts += [float(money.per_joule[k]) * joule for k, joule in enumerate(energy)]
    for flow, source, target, coded, _ in crossings:
        paid = money.coded_crossing if coded else money.crossing
        parts.append(float(paid[flow, source, target]))
    return math.fsum(parts)


def quantized_layers(problem: Problem, mask: int) -> frozenset[int]:
    """Positions of the layers of a mask."""
    return frozenset(layer for layer, bit in problem.bit_of.items() if mask >> bit & 1)


def _crossings(
    problem: Problem, servers: tuple[int, ...], quantized: frozenset[int]
) -> tuple[tuple[int, int, int, bool, float], ...]:
    found = []
    for index, flow in enumerate(problem.flows):
        source = servers[flow.source]
        coded = not quantized.isdisjoint(flow.coded_by)
        times = (problem.coded_ms if coded else problem.transfer_ms)[index, source]
        for target in sorted({servers[layer] for layer in flow.consumers} - {source}):
            found.append((index, source, target, coded, float(times[target])))
    return tuple(found)


@dataclass(frozen=True)
class Violation:
    """A limit that a placement breaks: `kind` is 'allowed', 'noise', 'latency', 'energy',
    'server energy' or 'memory', `server` a position or None."""

    kind: str
    server: int | None
    value: float
    limit: float


def violations(problem: Problem, placement: Placement, costs: Costs) -> list[Violation]:
    """All limits that a placement breaks; none if it is feasible."""
    found = []
    wrong = sum(not problem.allowed[i, k] for i, k in enumerate(placement.servers))
    if wrong or not math.isfinite(costs.latency_ms):
        found.append(Violation("allowed", None, float(wrong), 0.0))
    if not problem.noise.allows(placement.quantized):
        share = problem.noise.share(placement.quantized)
        found.append(Violation("noise", None, share, 1.0))
    limits = problem.limits
    rows: list[tuple[str, int | None, float, float]] = [
        ("latency", None, costs.latency_ms, limits.latency_ms),
        ("energy", None, costs.energy_joule, limits.energy_joule),
    ]
    rows += [
        ("server energy", k, costs.server_energy_joule[k], limit)
        for k, limit in enumerate(limits.server_energy_joule)
    ]
    rows += [
        ("memory", k, costs.memory_bytes[k], limit) for k, limit in enumerate(limits.memory_bytes)
    ]
    found += [
        Violation(kind, server, value, limit)
        for kind, server, value, limit in rows
        if value > limit * (1 + TOLERANCE)
    ]
    return found
