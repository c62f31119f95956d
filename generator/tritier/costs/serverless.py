"""Serverless beside always on: cold and warm requests, and the rate at which both cost the same
(docs/costs.md, section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tritier.costs.book import Prices
from tritier.costs.inference import HOUR_S
from tritier.documents.costs import BreakEven, MachineCost, RateCost, ServerlessCost
from tritier.documents.workload import ServerlessRun

_STEPS = 200
# Rounding of a sum must not start another step: 33.3 s in steps of 0.1 s are 333.
_EPS = 1e-9


def serverless_cost(
    run: ServerlessRun, prices: Prices, machines: Sequence[MachineCost] = ()
) -> ServerlessCost:
    """Cold and warm requests, and the break-even with each machine that is always on."""
    price = prices.usd_per_second(run.machine, run.price_per_second_usd)
    step = None if run.price_per_second_usd is not None else prices.billing_step_s(run.machine)
    cold_s = run.cold_start_s + run.cold_run_s
    found = ServerlessCost(
        name=run.label,
        machine=run.machine,
        usd_per_second=price,
        cold_s=cold_s,
        warm_s=run.warm_run_s,
        cold_usd=price * _billed_s(cold_s, step),
        warm_usd=price * _billed_s(run.warm_run_s, step),
        keep_warm_s=run.keep_warm_s,
        n=run.n,
        source=run.source,
    )
    return found.model_copy(
        update={"break_even": tuple(_break_even(found, machine) for machine in machines)}
    )


def usd_per_request(cost: ServerlessCost, per_hour: float) -> float:
    """Expected cost of a request of one worker when requests come at random (Poisson).

    The next one comes within the time that a worker is kept with probability 1 - exp(-r k), and
    else starts cold; meanwhile the worker waits (1 - exp(-r k)) / r on average, and is paid.
    """
    rate = per_hour / HOUR_S
    missed = math.exp(-rate * cost.keep_warm_s)
    waits_s = -math.expm1(-rate * cost.keep_warm_s) / rate
    run = missed * cost.cold_usd + (1.0 - missed) * cost.warm_usd
    return run + cost.usd_per_second * waits_s


def serverless_at_rate(cost: ServerlessCost, per_hour: float) -> RateCost:
    """What an hour costs at a rate of requests."""
    usd = usd_per_request(cost, per_hour)
    return RateCost(
        name=cost.name, per_hour=per_hour, usd_per_hour=usd * per_hour, usd_per_inference=usd
    )


def _break_even(cost: ServerlessCost, machine: MachineCost) -> BreakEven:
    hourly = machine.usd_per_hour
    return BreakEven(
        machine=machine.name,
        cold_per_hour=_rate(hourly, cost.cold_usd),
        warm_per_hour=_rate(hourly, cost.warm_usd),
        per_hour=_crossing(cost, hourly, machine.infer_per_hour),
        infer_per_hour=machine.infer_per_hour,
    )


def _rate(hourly: float, usd: float) -> float:
    """Requests per hour at which a machine and requests cost the same; 0 of those that are free,
    as are requests that cost nothing at any rate."""
    return hourly / usd if usd > 0 else 0.0


def _crossing(cost: ServerlessCost, hourly: float, most: float) -> float | None:
    """The rate up to which serverless is cheaper than one machine, by bisection: what it costs per
    hour may rise and fall again as fewer requests start cold, so that the first crossing is looked
    for on a fine grid first. That happens where a worker is kept about as long as requests are
    apart, which may be far below what the machine can do: the grid is even on a logarithmic scale.
    """
    least = min(most, HOUR_S / cost.keep_warm_s) / 100.0 if cost.keep_warm_s else most / _STEPS
    rates = [float(x) for x in np.geomspace(least, most, _STEPS)]
    low = 0.0
    for high in rates:
        if usd_per_request(cost, high) * high >= hourly:
            return _bisect(cost, hourly, low, high)
        low = high
    return None


def _bisect(cost: ServerlessCost, hourly: float, low: float, high: float) -> float:
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if usd_per_request(cost, middle) * middle >= hourly:
            high = middle
        else:
            low = middle
    return high


def _billed_s(time_s: float, step_s: float | None) -> float:
    return time_s if step_s is None else math.ceil(time_s / step_s - _EPS) * step_s
