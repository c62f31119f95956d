"""Streams that share accelerators: the published case of cameras, whole machines, limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tritier.costs import Prices, least_sharers, stream_costs, usd_per_stream
from tritier.documents import PriceBook, SharingOption, StreamCost, StreamScenario
from tritier.errors import InputError

CAMERAS = Path(__file__).parents[2] / "examples" / "costs" / "cameras.yaml"


def option(name: str = "o", **changes: Any) -> dict[str, Any]:
    return {"name": name, "machine": "m", "price_per_hour_usd": 1.0, "latency_ms": 10} | changes


def costs(*options: dict[str, Any], **changes: Any) -> tuple[StreamCost, ...]:
    data = {"name": "s", "streams": 10, "options": list(options)} | changes
    return stream_costs(StreamScenario.from_data(data), Prices(PriceBook(hours_per_month=100)))


def test_the_published_figures_follow_from_the_stated_assumptions() -> None:
    scenario = StreamScenario.load(CAMERAS)
    alone, shared = stream_costs(scenario, Prices(PriceBook()))
    assert f"{alone.usd_per_stream:.2f}" == "353.03"
    assert f"{shared.usd_per_stream:.2f}" == "27.81"
    assert (shared.machines, shared.best, shared.broken) == (1, True, ())
    assert alone.broken == ("353.03 USD a stream are above 30.00: at least 14 must share",)
    assert len(scenario.assumptions) >= 3


def test_whole_machines_are_paid() -> None:
    (row,) = costs(option(sharers=4))
    assert row.usd_per_stream == pytest.approx(25.0)
    assert row.machines == 3
    assert row.usd_per_month == pytest.approx(300.0)


def test_several_models_accelerators_and_other_costs() -> None:
    (row,) = costs(option(sharers=4, models_per_stream=2, accelerators=3, extra_usd_per_month=5.0))
    assert row.usd_per_stream == pytest.approx(100 * 2 / 12 + 5)
    assert row.machines == 2  # 20 models, 12 places
    assert row.usd_per_month == pytest.approx(250.0)


def test_the_cheapest_in_time_is_best() -> None:
    rows = costs(
        option("slow", sharers=10, latency_ms=600),
        option("unknown", sharers=10, latency_ms=None),
        option("good", sharers=5, latency_ms=500),
        option("dear", sharers=1, latency_ms=1),
        latency_limit_ms=500,
    )
    assert [row.name for row in rows if row.best] == ["good"]
    assert [row.broken for row in rows[:2]] == [
        ("600 ms are above 500 ms",),
        ("its latency is not known",),
    ]


def test_no_way_within_the_limits_is_none() -> None:
    assert not any(row.best for row in costs(option(), cost_limit_usd=1.0))


@pytest.mark.parametrize(("limit", "least"), [(100.0, 1), (50.0, 2), (33.0, 4), (5.0, None)])
def test_how_many_must_share(limit: float, least: int | None) -> None:
    one = SharingOption(name="o", machine="m", extra_usd_per_month=5.0 if least is None else 0.0)
    assert least_sharers(one, 1.0, 100.0, limit) == least
    if least is not None:
        shared = one.model_copy(update={"sharers": least})
        assert usd_per_stream(shared, 1.0, 100.0) <= limit


def test_names_stand_once() -> None:
    with pytest.raises(InputError, match="options: 'o' stands 2 times"):
        costs(option(), option())


def test_the_sharers_that_are_said_to_be_needed_are_enough() -> None:
    """Also where the last machine is partly empty."""
    for limit in (15.0, 20.0, 34.0, 99.0):
        (row,) = costs(option(sharers=1), cost_limit_usd=limit)
        least = int(row.broken[0].rpartition("at least ")[2].split()[0])
        (enough,) = costs(option(sharers=least), cost_limit_usd=limit)
        (less,) = costs(option(sharers=least - 1), cost_limit_usd=limit)
        assert not enough.broken
        assert less.broken
    (row,) = costs(option(sharers=1), cost_limit_usd=9.0)
    assert "no number of sharers" in row.broken[0]
