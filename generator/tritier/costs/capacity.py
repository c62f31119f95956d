"""How much machines can do, and the best one under a latency limit (docs/costs.md, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

from tritier.costs.inference import machines_for
from tritier.documents.costs import CapacityChoice, CapacityRow, MachineCost
from tritier.errors import InfeasibleError


def capacity_rows(costs: Sequence[MachineCost], most: int) -> tuple[CapacityRow, ...]:
    """1 to `most` machines of each kind, each with requests of its own: throughput is linear."""
    return tuple(
        CapacityRow(
            name=cost.name,
            machines=count,
            infer_per_hour=count * cost.infer_per_hour,
            usd_per_hour=count * cost.usd_per_hour,
        )
        for cost in costs
        for count in range(1, most + 1)
    )


def choices(
    costs: Sequence[MachineCost], latency_limit_ms: float | None, per_hour: float | None
) -> tuple[CapacityChoice, ...]:
    """Each kind of machine, and which is best: the least cost per inference among those that keep
    the limit, at the rate if one is given; of equals the faster.

    Raises InfeasibleError if none keeps the limit.
    """
    rows = [_choice(cost, latency_limit_ms, per_hour) for cost in costs]
    able = [row for row in rows if row.keeps_limit]
    if not able:
        fastest = min(rows, key=lambda row: row.latency_ms)
        raise InfeasibleError(
            f"no machine answers within {latency_limit_ms:g} ms: the fastest, '{fastest.name}', "
            f"needs {fastest.latency_ms:.4g} ms ({fastest.judged_by}); raise --latency-ms to that, "
            "or measure faster machines"
        )
    best = min(able, key=lambda row: (row.usd_per_inference, row.latency_ms))
    return tuple(row.model_copy(update={"best": row is best}) for row in rows)


def _choice(
    cost: MachineCost, latency_limit_ms: float | None, per_hour: float | None
) -> CapacityChoice:
    latency_s = cost.mean_s if cost.p95_s is None else cost.p95_s
    count = None if per_hour is None else machines_for(per_hour, cost.infer_per_hour)
    hourly = cost.usd_per_hour * (count or 1)
    return CapacityChoice(
        name=cost.name,
        latency_ms=latency_s * 1000.0,
        judged_by="mean" if cost.p95_s is None else "p95",
        keeps_limit=latency_limit_ms is None or latency_s * 1000.0 <= latency_limit_ms,
        machines=count,
        usd_per_hour=hourly,
        usd_per_inference=cost.usd_per_inference if per_hour is None else hourly / per_hour,
    )
