"""What any formulation must say of a placement, so that limits and objectives fit all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tritier.planner.evaluate import TOLERANCE
from tritier.planner.problem import MIB, Placement, Problem, Weights
from tritier.planner.pulp_rows import Rows, Sum, safe


@dataclass(frozen=True)
class Model:
    """A program and what its variables mean.

    `stands[i][k]`: layer i on server k, servers where it can't be left out. `quantized[b]`: the
    layer of bit b is quantized. `busy_ms[k]`: time of the layers on server k. `links_ms[k, h]`:
    time of all tensors from k to h. `held_mib[k]`: weights on server k. `crossing_usd`: what all
    tensors are paid for, where that is known.
    """

    problem: Problem
    rows: Rows
    stands: Sequence[dict[int, Sum]]
    quantized: Sequence[Sum]
    busy_ms: Sequence[Sum]
    links_ms: dict[tuple[int, int], Sum] = field(default_factory=dict)
    held_mib: Sequence[Sum] = ()
    crossing_usd: Sum = field(default_factory=Sum)

    def latency_ms(self) -> Sum:
        """All times."""
        return Sum.of([*self.busy_ms, *self.links_ms.values()])

    def server_energy_joule(self, server: int) -> Sum:
        """Of computing on a server, and of sending from it."""
        energy = self.busy_ms[server].times(float(self.problem.compute_watt[server]) / 1000.0)
        for (source, _), time in self.links_ms.items():
            if source == server:
                energy.add(time, float(self.problem.send_watt[server]) / 1000.0)
        return energy

    def energy_joule(self) -> Sum:
        """Of all servers."""
        return Sum.of(self.server_energy_joule(k) for k in range(len(self.problem.servers)))

    def memory_mib(self, server: int) -> Sum:
        """Weights, and the largest need of a layer while it runs, as a new variable with rows."""
        name = f"working_{server}_{safe(self.problem.servers[server])}"
        needs = [
            (float(self.problem.working_bytes[layer, server]) / MIB, stands[server])
            for layer, stands in enumerate(self.stands)
            if server in stands
        ]
        return Sum.of([self.held_mib[server], largest_need(self.rows, name, needs)])

    def usd(self) -> Sum:
        """Machine time, electricity and crossings."""
        money = self.problem.money
        assert money is not None, "the problem has no prices"
        total = self.crossing_usd.times(1.0)
        for k, busy in enumerate(self.busy_ms):
            total.add(busy, float(money.per_ms[k]))
            if money.per_joule[k]:
                total.add(self.server_energy_joule(k), float(money.per_joule[k]))
        return total

    def objective(self, weights: Weights) -> Sum:
        """What a millisecond, a joule and a USD are worth."""
        total = self.latency_ms().times(weights.per_ms)
        total.add(self.energy_joule(), weights.per_joule)
        if weights.per_usd:
            total.add(self.usd(), weights.per_usd)
        return total

    def placement(self) -> Placement:
        """By the values that a solver has left."""
        values = [{k: here.value() for k, here in stands.items()} for stands in self.stands]
        servers = tuple(max(own, key=own.__getitem__) for own in values)
        mask = sum(1 << bit for bit, layer in enumerate(self.quantized) if layer.value() > 0.5)
        return Placement(servers, mask)

    def forbid(self, placement: Placement, name: str) -> None:
        """Cut off one placement, and nothing else."""
        kept = Sum.of(self.stands[layer][server] for layer, server in enumerate(placement.servers))
        count = len(placement.servers) + len(self.quantized)
        for bit, layer in enumerate(self.quantized):
            if placement.quantized >> bit & 1:
                kept.add(layer)
            else:
                kept.constant += 1.0
                kept.add(layer, -1.0)
        self.rows.at_most(name, kept, count - 1.0)


def largest_need(rows: Rows, name: str, needs: Sequence[tuple[float, Sum]]) -> Sum:
    """The largest of the needs of what holds (from 0 to 1), with new variables and rows.

    A variable for each step from one need to the next larger one: it is at least all that needs so
    much, and no more than the step below it. Fractions then add up, where one variable that is at
    least each need times its fraction would be only as large as the largest product.
    """
    largest, below, step = Sum(), 0.0, Sum(1.0)
    for number, need in enumerate(sorted({need for need, _ in needs if need > 0})):
        reached = rows.variable(f"{name}_{number}")
        rows.at_most(f"{name}_{number}_step", reached, step)
        for index, (other, holds) in enumerate(needs):
            if other == need and (holds.terms or holds.constant):
                rows.at_least(f"{name}_{number}_{index}", reached, holds)
        largest.add(reached, need - below)
        below, step = need, reached
    return largest


def add_limits(model: Model) -> None:
    """Rows for what is limited of time, energy and memory."""
    problem, rows, limits = model.problem, model.rows, model.problem.limits
    names = [f"{k}_{safe(server)}" for k, server in enumerate(problem.servers)]
    if math.isfinite(limits.latency_ms):
        rows.limit("latency_ms", model.latency_ms(), _padded(limits.latency_ms))
    if math.isfinite(limits.energy_joule):
        rows.limit("energy_joule", model.energy_joule(), _padded(limits.energy_joule))
    for k, most in enumerate(limits.server_energy_joule):
        if math.isfinite(most):
            rows.limit(f"energy_joule_{names[k]}", model.server_energy_joule(k), _padded(most))
    for k, most in enumerate(limits.memory_bytes):
        if math.isfinite(most):
            rows.limit(f"memory_mib_{names[k]}", model.memory_mib(k), _padded(most / MIB))


def _padded(most: float) -> float:
    """With the slack that `violations` leaves."""
    return most * (1 + TOLERANCE)
