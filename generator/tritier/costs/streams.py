"""What a stream costs a month, from the price of machines and the number of models that share an
accelerator (docs/costs.md, section 4). How many may share is not decided here."""

from __future__ import annotations

import math

from tritier.costs.book import Prices
from tritier.costs.inference import machines_for
from tritier.documents.costs import StreamCost
from tritier.documents.workload import SharingOption, StreamScenario

# So little below a whole number is the rounding of a division.
_EPS = 1e-9


def stream_costs(scenario: StreamScenario, prices: Prices) -> tuple[StreamCost, ...]:
    """Each way to serve the streams; the cheapest that keeps the limits is marked."""
    rows = [_cost(option, scenario, prices) for option in scenario.options]
    able = [row for row in rows if not row.broken]
    best = min(able, key=lambda row: row.usd_per_month) if able else None
    return tuple(row.model_copy(update={"best": row is best}) for row in rows)


def usd_per_stream(option: SharingOption, usd_per_hour: float, hours: float) -> float:
    """A stream's share of a machine that is full, for a month of so many hours."""
    places = option.sharers * option.accelerators
    return usd_per_hour * hours * option.models_per_stream / places + option.extra_usd_per_month


def least_sharers(
    option: SharingOption, usd_per_hour: float, hours: float, cost_limit_usd: float
) -> int | None:
    """How many must share each accelerator for a stream to cost no more than the limit; None if
    what else it costs is above the limit."""
    left = cost_limit_usd - option.extra_usd_per_month
    if left <= 0:
        return None
    monthly = usd_per_hour * hours * option.models_per_stream / option.accelerators
    return machines_for(monthly, left)


def _cost(option: SharingOption, scenario: StreamScenario, prices: Prices) -> StreamCost:
    hourly = prices.usd_per_hour(option.machine, option.price_per_hour_usd)
    hours = prices.book.hours_per_month
    each = usd_per_stream(option, hourly, hours)
    places = option.sharers * option.accelerators
    machines = machines_for(scenario.streams * option.models_per_stream, places)
    total = machines * hourly * hours + scenario.streams * option.extra_usd_per_month
    return StreamCost(
        name=option.name,
        machine=option.machine,
        usd_per_hour=hourly,
        sharers=option.sharers,
        usd_per_stream=each,
        machines=machines,
        usd_per_month=total,
        latency_ms=option.latency_ms,
        broken=_broken(option, scenario, hourly, hours, total / scenario.streams),
    )


def _least_in_whole_machines(
    option: SharingOption, scenario: StreamScenario, monthly: float
) -> int | None:
    """As `least_sharers`, where the last machine may be partly empty, and is paid."""
    assert scenario.cost_limit_usd is not None
    left = (scenario.cost_limit_usd - option.extra_usd_per_month) * scenario.streams
    machines = math.floor(left / monthly * (1 + _EPS)) if monthly else 0
    if machines < 1:
        return None
    models = scenario.streams * option.models_per_stream
    return machines_for(models, machines * option.accelerators)


def _broken(
    option: SharingOption, scenario: StreamScenario, hourly: float, hours: float, each: float
) -> tuple[str, ...]:
    found = []
    latency, limit = option.latency_ms, scenario.latency_limit_ms
    if limit is not None and latency is None:
        found.append("its latency is not known")
    elif limit is not None and latency is not None and latency > limit:
        found.append(f"{latency:g} ms are above {limit:g} ms")
    if scenario.cost_limit_usd is not None and each > scenario.cost_limit_usd:
        least = _least_in_whole_machines(option, scenario, hourly * hours)
        found.append(
            f"{each:.2f} USD a stream are above {scenario.cost_limit_usd:.2f}: "
            + (f"at least {least} must share" if least else "no number of sharers keeps that")
        )
    return tuple(found)
