"""The price book: its rows, their sources, and faults that are named."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tritier.costs import (
    Prices,
    choices,
    cost_at_rate,
    machine_cost,
    machines_for,
    serverless_at_rate,
    serverless_cost,
    starter_book,
    usd_per_request,
)
from tritier.documents import (
    MachineCost,
    MachineRun,
    PriceBook,
    ServerlessCost,
    ServerlessRun,
    Workload,
)
from tritier.errors import InfeasibleError, InputError


def book(**row: Any) -> dict[str, Any]:
    machine = {"name": "m", "provider": "p", "source": "s", "date": "2026-01-31"} | row
    return {"machines": [machine]}


def serverless(
    keep_warm_s: float, step_s: float | None = None, hourly: float = 1.0, run_s: float = 4.0
) -> ServerlessCost:
    data = book(price_per_second_usd=0.001, serverless=True)
    if step_s is not None:
        data["machines"][0]["billing_step_s"] = step_s
    run = ServerlessRun(
        machine="m", cold_start_s=5.7, cold_run_s=2.5, warm_run_s=2.0, keep_warm_s=keep_warm_s
    )
    always = machine_cost(
        MachineRun(machine="on", price_per_hour_usd=hourly, mean_s=run_s), Prices(PriceBook())
    )
    return serverless_cost(run, Prices(PriceBook.from_data(data)), [always])


def on(name: str, hourly: float, mean_s: float, p95_s: float | None = None) -> MachineCost:
    run = MachineRun(machine=name, price_per_hour_usd=hourly, mean_s=mean_s, p95_s=p95_s)
    return machine_cost(run, Prices(PriceBook()))


def test_the_starter_book_names_a_source_of_each_price() -> None:
    found = starter_book()
    sources = [
        *(row.source for row in found.machines),
        *(row.source for row in found.egress),
        *(row.source for row in found.energy),
    ]
    assert len(sources) > 15
    assert all(len(source) > 10 for source in sources)
    assert PriceBook.from_data(found.model_dump(mode="json", exclude_none=True)) == found


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({}, "has 0 prices"),
        ({"price_per_hour_usd": 1.0, "price_per_second_usd": 1.0}, "has 2 prices"),
        ({"price_per_hour_usd": 1.0, "gpu": "T4"}, "gpu and gpus go together"),
        ({"price_per_hour_usd": 1.0, "billing_step_s": 1.0}, "for serverless machines only"),
        ({"price_per_hour_usd": 1.0, "date": "last year"}, "date"),
        ({"price_per_hour_usd": -1.0}, "greater than or equal to 0"),
        ({"price_per_hour_usd": 1.0, "sources": "x"}, "did you mean 'source'?"),
    ],
)
def test_faults_of_a_price_are_named(row: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError, match="machine") as caught:
        PriceBook.from_data(book(**row))
    assert fault in str(caught.value)


def test_names_stand_once() -> None:
    data = book(price_per_hour_usd=1.0)
    data["machines"] *= 2
    with pytest.raises(InputError, match="machines: 'm' stands 2 times"):
        PriceBook.from_data(data)


def test_unknown_names_get_a_suggestion() -> None:
    prices = Prices(starter_book())
    with pytest.raises(InputError, match="did you mean 'runpod-a100-pcie'"):
        prices.usd_per_hour("runpod-a100-pci")
    with pytest.raises(InputError, match="is serverless in the price book"):
        prices.usd_per_hour("try-on-serverless")
    with pytest.raises(InputError, match="is not serverless"):
        prices.usd_per_second("try-on-a100")
    with pytest.raises(InputError, match="allowed are numbers from 0"):
        prices.usd_per_gb("-1", "edge")


def test_hours_and_seconds_are_one_price() -> None:
    (row,) = PriceBook.from_data(book(price_per_second_usd=0.001)).machines
    assert row.usd_per_hour == pytest.approx(3.6)
    assert row.usd_per_second == 0.001


def test_prices_that_were_used_are_told() -> None:
    prices = Prices(starter_book())
    prices.usd_per_hour("aws-g5.xlarge")
    prices.usd_per_hour("mine", 0.5)
    prices.usd_per_gb("0.01", "edge")
    assert [(x.name, x.usd, x.unit, x.date) for x in prices.used] == [
        ("aws-g5.xlarge", 1.006, "hour", "2026-06-17"),
        ("mine", 0.5, "hour", None),
        ("egress of edge", 0.01, "GB", None),
    ]


def test_two_prices_of_one_name_are_both_told() -> None:
    """The same machine, cheaper by contract in one run; two servers with egress by hand."""
    prices = Prices(starter_book())
    prices.usd_per_hour("aws-g5.xlarge")
    prices.usd_per_hour("aws-g5.xlarge", 0.7)
    prices.usd_per_hour("aws-g5.xlarge")
    prices.usd_per_gb("0.01", "edge")
    prices.usd_per_gb("0.02", "cloud")
    assert [(x.name, x.usd) for x in prices.used] == [
        ("aws-g5.xlarge", 0.7), ("aws-g5.xlarge", 1.006),
        ("egress of edge", 0.01), ("egress of cloud", 0.02),
    ]  # fmt: skip
    assert prices.noted("aws-g5.xlarge").usd == 1.006


def test_billed_time_is_rounded_up() -> None:
    # 8.2 s cold and 2 s warm, in steps of 1 s and of 0.1 s
    assert serverless(0).cold_usd == pytest.approx(0.0082)
    assert serverless(0, 1.0).cold_usd == pytest.approx(0.009)
    assert serverless(0, 0.1).cold_usd == pytest.approx(0.0082)
    assert serverless(0, 1.0).warm_usd == pytest.approx(0.002)


def test_break_even_without_waiting_is_all_cold() -> None:
    (even,) = serverless(0.0).break_even
    assert even.cold_per_hour == pytest.approx(1 / 0.0082)
    assert even.warm_per_hour == pytest.approx(1 / 0.002)
    assert even.per_hour == pytest.approx(even.cold_per_hour)
    assert even.infer_per_hour == pytest.approx(900)


def test_at_the_break_even_both_cost_the_same() -> None:
    found = serverless(20.0)
    (even,) = found.break_even
    assert even.per_hour is not None
    assert usd_per_request(found, even.per_hour) * even.per_hour == pytest.approx(1.0)
    assert usd_per_request(found, even.per_hour / 2) * even.per_hour / 2 < 1.0


def test_serverless_may_be_cheaper_up_to_what_the_machine_can_do() -> None:
    (even,) = serverless(0.0, hourly=100.0).break_even
    assert even.per_hour is None


def test_warm_workers_are_paid_while_they_wait() -> None:
    """By numbers: the gap before a request says if it is cold, and how long the worker waited."""
    found, rate, keep = serverless(30.0), 60.0, 30.0
    steps, total = 200_000, 0.0
    for step in range(steps):  # the quantiles of the gap between two requests
        gap = -math.log1p(-(step + 0.5) / steps) * 3600 / rate
        run = found.warm_usd if gap <= keep else found.cold_usd
        total += run + found.usd_per_second * min(gap, keep)
    assert usd_per_request(found, rate) == pytest.approx(total / steps, rel=1e-4)
    at_rate = serverless_at_rate(found, rate)
    assert at_rate.usd_per_hour == pytest.approx(at_rate.usd_per_inference * rate)


def test_rates_take_whole_machines() -> None:
    cost = on("m", 2.0, 3.6)  # 1000 an hour
    assert [machines_for(x, 1000.0) for x in (1, 1000, 1000.5, 3000)] == [1, 1, 2, 3]
    assert cost_at_rate(cost, 1500).usd_per_hour == 4.0
    assert cost_at_rate(cost, 1500).usd_per_inference == pytest.approx(4 / 1500)


def test_the_best_machine_keeps_the_limit() -> None:
    costs = [on("slow", 0.1, 2.0), on("fast", 1.0, 0.5), on("odd", 0.9, 0.5, p95_s=3.0)]
    rows = choices(costs, 1000.0, None)
    assert [(x.name, x.keeps_limit, x.best, x.judged_by) for x in rows] == [
        ("slow", False, False, "mean"),
        ("fast", True, True, "mean"),
        ("odd", False, False, "p95"),
    ]
    assert next(x.name for x in choices(costs, None, None) if x.best) == "slow"


def test_at_a_rate_whole_machines_decide() -> None:
    """Per inference at full load `large` is cheaper, for one request an hour `small` is."""
    costs = [on("small", 1.0, 1.0), on("large", 3.0, 0.1)]
    assert next(x.name for x in choices(costs, None, None) if x.best) == "large"
    assert next(x.name for x in choices(costs, None, 1.0) if x.best) == "small"


def test_an_impossible_limit_says_what_would_do() -> None:
    with pytest.raises(InfeasibleError, match=r"the fastest, 'b', needs 500 ms \(mean\)"):
        choices([on("a", 1.0, 2.0), on("b", 1.0, 0.5)], 100.0, None)


def test_a_run_needs_a_time_and_a_name_of_its_own() -> None:
    run = {"machine": "a"}
    with pytest.raises(InputError, match="run on 'a': has no time"):
        Workload.from_data({"name": "w", "runs": [run]})
    with pytest.raises(InputError, match="run: 'a' stands 2 times"):
        Workload.from_data({"name": "w", "runs": [run | {"mean_s": 1}] * 2})


def test_the_lowest_break_even_is_found() -> None:
    """With a cheap warm run and an hour of waiting, what an hour costs rises, falls and rises: a
    machine of that price is first met far below what it can do."""
    run = ServerlessRun(machine="s", price_per_second_usd=1.0, cold_start_s=2_000.0,
                        cold_run_s=500.0, warm_run_s=0.001, keep_warm_s=600.0)  # fmt: skip
    prices = Prices(starter_book())
    machine = machine_cost(
        MachineRun(machine="m", price_per_hour_usd=5_000.0, mean_s=0.001), prices
    )
    found = serverless_cost(run, prices, [machine])
    (even,) = found.break_even
    per_hour = [x / 1000.0 for x in range(1, 10_000)]
    first = next(x for x in per_hour if usd_per_request(found, x) * x >= 5_000.0)
    assert even.per_hour == pytest.approx(first, abs=0.002)
