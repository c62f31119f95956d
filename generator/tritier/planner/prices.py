"""The prices of limits at which the cutting planes found so far allow the highest bound."""

from __future__ import annotations

from collections.abc import Sequence

from tritier.planner.pulp_rows import Rows, Sum
from tritier.planner.pulp_solvers import run


def highest_prices(
    cuts: Sequence[tuple[float, Sequence[float]]], most: float
) -> tuple[list[float], float]:
    """(prices, bound): the highest bound with bound <= cost + sum of price x excess for each cut,
    prices from 0 to `most`. The first cut is the optimum without prices: no bound is lower."""
    rows = Rows("prices")
    base = cuts[0][0]
    rise = rows.variable("rise", high=None)
    prices = [rows.variable(f"price_{i}", high=most) for i in range(len(cuts[0][1]))]
    for number, (cost, excess) in enumerate(cuts):
        limit = Sum(cost - base)
        for price, factor in zip(prices, excess, strict=True):
            limit.add(price, factor)
        rows.at_most(f"cut_{number}", rise, limit)
    rows.minimise(rise.times(-1.0))
    run(rows.program)
    return [min(max(price.value(), 0.0), most) for price in prices], base + rise.value()
