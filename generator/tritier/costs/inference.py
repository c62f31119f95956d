"""Cost per inference: time x price, phase by phase (docs/costs.md, section 1)."""

from __future__ import annotations

import math

from tritier.costs.book import Prices
from tritier.documents.costs import MachineCost, PhaseCost, RateCost
from tritier.documents.workload import MachineRun

HOUR_S = 3600.0
# So little above a whole number is the rounding of a division.
_EPS = 1e-9


def machine_cost(run: MachineRun, prices: Prices) -> MachineCost:
    """A request on a machine that is always on and fully loaded.

    Where requests run at once (`infer_per_s`), a phase has its share of the cost by time.
    """
    hourly = prices.usd_per_hour(run.machine, run.price_per_hour_usd)
    whole_s = run.whole_s
    usd = hourly / HOUR_S / run.per_second
    return MachineCost(
        name=run.label,
        machine=run.machine,
        usd_per_hour=hourly,
        mean_s=whole_s,
        std_s=run.std_s,
        p95_s=run.p95_s,
        n=run.n,
        source=run.source,
        phases=tuple(
            PhaseCost(name=name, mean_s=time_s, usd=usd * time_s / whole_s)
            for name, time_s in run.phases.items()
        ),
        outside_phases_s=whole_s - sum(run.phases.values()) if run.phases else 0.0,
        usd_per_inference=usd,
        infer_per_hour=run.per_second * HOUR_S,
        usd_per_month=hourly * prices.book.hours_per_month,
    )


def machines_for(per_hour: float, infer_per_hour: float) -> int:
    """The least number of machines that do a rate of requests, at least one."""
    return max(1, math.ceil(per_hour / infer_per_hour - _EPS))


def cost_at_rate(cost: MachineCost, per_hour: float) -> RateCost:
    """Whole machines, paid all the time, for a rate of requests."""
    count = machines_for(per_hour, cost.infer_per_hour)
    usd = count * cost.usd_per_hour
    return RateCost(
        name=cost.name,
        per_hour=per_hour,
        machines=count,
        usd_per_hour=usd,
        usd_per_inference=usd / per_hour,
    )
