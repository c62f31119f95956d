"""Prices on limits: the dearer a limit is made, the less of it the cheapest placement uses.

For any prices, the cheapest placement minus what the limits are worth is a lower bound of all
that keep them; the highest bound is found by cutting planes (Kelley). Placements met on the way
that keep the limits are candidates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from tritier.planner.elimination import Choice, Elimination
from tritier.planner.evaluate import Costs, evaluate, violations
from tritier.planner.factors import Label
from tritier.planner.marginals import min_marginals
from tritier.planner.prices import highest_prices
from tritier.planner.problem import Placement, Problem, Weights
from tritier.planner.rows import Row, worth_of
from tritier.planner.solution import GAP, Solution, Status, finished, without

ROUNDS = 60
# Prices above the best: what breaks a limit at the best prices may keep it at higher ones.
HIGHER = (1.02, 1.1, 1.3, 2.0, 5.0)
METHOD = "elimination with prices"
# Sets of quantized layers whose best placement is a candidate, for each prices.
_TRIED = 3


class Priced:
    """The search for prices, with the best bound and the best placement so far."""

    def __init__(
        self,
        problem: Problem,
        elimination: Elimination,
        weights: Weights,
        rows: Sequence[Row],
        roots: Sequence[Choice],
    ) -> None:
        self._problem, self._elimination, self._weights = problem, elimination, weights
        self._rows, self._roots = list(rows), list(roots)
        self._cuts: list[tuple[float, list[float]]] = []
        self._prices = [0.0] * len(self._rows)
        self._infeasible = False
        self.bound = -math.inf
        self._best: tuple[float, Placement, Costs] | None = None
        self._seen: dict[Placement, int] = {}

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be better than the best, or nothing at all is possible."""
        if self._infeasible:
            return True
        return self._best is not None and self.solution().status is Status.OPTIMAL

    def solution(self) -> Solution:
        """The best so far."""
        if self._best is None:
            status = Status.INFEASIBLE if self._infeasible else Status.UNKNOWN
            return without(self.bound, METHOD, status)
        value, placement, costs = self._best
        return finished(placement, costs, value, self.bound, METHOD)

    def raise_prices(self, deadline: float) -> None:
        """Until the bound is the highest, or a placement reaches it."""
        prices = self._prices
        for _ in range(ROUNDS):
            if not self._look(prices) or self.is_closed or time.monotonic() > deadline:
                break
            # a price beyond all sense means that a limit can't be kept: the program will prove it
            most = 1e4 * max(abs(self._cuts[0][0]), 1e-6)
            prices, expected = highest_prices(self._cuts, most)
            if expected - self.bound <= GAP * max(abs(expected), 1e-9):
                break
        if not self.is_closed:
            for factor in HIGHER:
                if time.monotonic() < deadline:
                    self._look([factor * price for price in self._prices], tried=_TRIED)

    def left(self) -> tuple[list[tuple[Label, ...]], list[Choice]]:
        """The labels of each layer, and the sets of layers, that something better may use."""
        worth = worth_of(self._problem, self._weights, self._rows, self._prices)
        offset = self._worth_of_limits(self._prices)
        most = math.inf if self._best is None else self._best[0]
        most += 1e-9 * abs(most) if math.isfinite(most) else 0.0
        values = self._elimination.values([worth], self._roots)[0] - offset
        choices = [
            c for c, value in zip(self._roots, values.tolist(), strict=True) if value <= most
        ]
        labels = list(self._problem.labels)
        for layer, costs in min_marginals(self._elimination, worth, choices).items():
            kept = np.flatnonzero(costs - offset <= most)
            labels[layer] = tuple(labels[layer][int(i)] for i in kept)
        return labels, choices

    def _look(self, prices: list[float], tried: int = 0) -> bool:
        """Solve for prices; False if no placement is possible at all. The best placement is a
        candidate, and those of the next best sets of quantized layers."""
        worth = worth_of(self._problem, self._weights, self._rows, prices)
        done = self._elimination.kept([worth], self._roots)
        values = done.values[0]
        first = int(values.argmin())
        if not math.isfinite(values[first]):
            self._infeasible, self.bound = True, math.inf
            return False
        bound = float(values[first]) - self._worth_of_limits(prices)
        if bound > self.bound:
            self.bound, self._prices = bound, list(prices)
        for choice in dict.fromkeys((first, *np.argsort(values)[:tried].tolist())):
            placement = self._elimination.best(done, [worth], self._roots, 0, choice)
            self._seen[placement] = self._roots[choice].allowed
            costs = self.offer(placement)
            if choice == first:
                excess = [row.excess(placement, costs) for row in self._rows]
                self._cuts.append((costs.value(self._weights), excess))
        return True

    def seen(self) -> tuple[list[tuple[Label, ...]], list[int]]:
        """The labels of each layer, and the sets of layers, of the placements met on the way: good
        placements are often made of parts of these."""
        found: list[dict[Label, None]] = [{} for _ in self._problem.layers]
        for placement in self._seen:
            for layer, server in enumerate(placement.servers):
                bit = self._problem.bit_of.get(layer)
                mode = bit is not None and bool(placement.quantized >> bit & 1)
                found[layer][server, mode] = None
        return [tuple(labels) for labels in found], sorted(set(self._seen.values()))

    def offer(self, placement: Placement) -> Costs:
        """Take a placement if it keeps all limits and is better than the best; its costs."""
        costs = evaluate(self._problem, placement)
        value = costs.value(self._weights)
        better = self._best is None or value < self._best[0]
        if better and not violations(self._problem, placement, costs):
            self._best = (value, placement, costs)
        return costs

    def _worth_of_limits(self, prices: Sequence[float]) -> float:
        return math.fsum(
            price * row.limit / row.scale for price, row in zip(prices, self._rows, strict=True)
        )
