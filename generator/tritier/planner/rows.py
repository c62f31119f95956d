"""Limits that couple all layers, as rows: a load that must stay within a limit.

A row can be priced: its price x load / limit joins the objective, and what a placement costs then
is a lower bound once the price x 1 is taken off again (Lagrange).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tritier.planner.evaluate import Costs
from tritier.planner.factors import Worth
from tritier.planner.problem import Floats, Placement, Problem, Weights


@dataclass(frozen=True, eq=False)
class Row:
    """A limit. `kind` is 'latency', 'energy', 'server energy', 'memory' or 'noise'.

    Of memory, only weights count here, against what activations surely leave; of noise, a linear
    function below it (`fees`, [bits]). Both are looser than the true limit, so bounds stay valid.
    """

    kind: str
    server: int | None
    limit: float
    fees: Floats | None = None

    @property
    def scale(self) -> float:
        """What loads are divided by; a limit of 0 has no scale of its own."""
        return abs(self.limit) or 1.0

    def excess(self, placement: Placement, costs: Costs) -> float:
        """(load - limit) / scale: above 0 where the limit is broken."""
        return (self._load(placement, costs) - self.limit) / self.scale

    def _load(self, placement: Placement, costs: Costs) -> float:
        if self.kind == "latency":
            return costs.latency_ms
        if self.kind == "energy":
            return costs.energy_joule
        if self.kind == "noise":
            assert self.fees is not None
            mask = placement.quantized
            return float(sum(fee for bit, fee in enumerate(self.fees) if mask >> bit & 1))
        assert self.server is not None
        per_server = costs.server_energy_joule if self.kind == "server energy" else (
            costs.weight_bytes
        )  # fmt: skip
        return per_server[self.server]


def rows_of(problem: Problem) -> list[Row]:
    """The limits of a problem that are no sets of masks; those that can't bind are left out."""
    limits = problem.limits
    found = [Row("latency", None, limits.latency_ms), Row("energy", None, limits.energy_joule)]
    found += [Row("server energy", k, x) for k, x in enumerate(limits.server_energy_joule)]
    for server, limit in enumerate(limits.memory_bytes):
        stays = problem.allowed.sum(axis=1) == 1
        pinned = stays & problem.allowed[:, server]
        working = float(problem.working_bytes[pinned, server].max(initial=0.0))
        found.append(Row("memory", server, limit - working))
    if not problem.noise.is_tabulated:
        found += [_noise_row(problem, index) for index in range(len(problem.noise.rows))]
    return [row for row in found if math.isfinite(row.limit)]


def _noise_row(problem: Problem, index: int) -> Row:
    """Below the true load: a term above 0 is left out unless it is of one layer; one below 0 is
    shared out, as a product of n choices is at most their mean."""
    row = problem.noise.rows[index]
    fees = np.zeros(problem.noise.count)
    for term, value in row.terms.items():
        bits = [bit for bit in range(problem.noise.count) if term >> bit & 1]
        if len(bits) == 1 or value < 0:
            fees[bits] += value / len(bits)
    return Row("noise", None, row.budget - min(row.constant, 0.0), fees)


def worth_of(
    problem: Problem, weights: Weights, rows: Sequence[Row] = (), prices: Sequence[float] = ()
) -> Worth:
    """What a millisecond on each server, a byte there and a quantized layer are worth, with the
    prices of rows."""
    count = len(problem.servers)
    per_ms = weights.per_ms
    per_joule = np.full(count, float(weights.per_joule))
    machine = np.zeros(count)
    if weights.per_usd:
        assert problem.money is not None, "the problem has no prices"
        per_joule += weights.per_usd * problem.money.per_joule
        machine = weights.per_usd * problem.money.per_ms
    held = np.zeros(count)
    fees = np.zeros(len(problem.quantizable))
    for row, price in zip(rows, prices, strict=True):
        worth = price / row.scale
        if row.kind == "latency":
            per_ms += worth
        elif row.kind == "energy":
            per_joule += worth
        elif row.kind == "server energy":
            per_joule[row.server] += worth
        elif row.kind == "memory":
            held[row.server] += worth
        elif row.fees is not None:
            fees += worth * row.fees
    return Worth(
        compute=per_ms + machine + per_joule * problem.compute_watt / 1000.0,
        send=per_ms + per_joule * problem.send_watt / 1000.0,
        held=held,
        fees=fees,
        per_usd=weights.per_usd,
    )
