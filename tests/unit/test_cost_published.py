"""The published figures of a virtual try-on pipeline, to the printed digits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tritier.costs import (
    Prices,
    capacity_rows,
    machine_cost,
    serverless_cost,
    starter_book,
)
from tritier.documents import MachineCost, MachineRun, ServerlessRun, Workload

EXAMPLE = Path(__file__).parents[2] / "examples" / "costs" / "try_on.yaml"
# GPU -> mean s, cost in USD, requests per hour, as printed
PRINTED = {
    "try-on-a100": ("23.24", "0.0122", "154.92"),
    "try-on-h100-pcie": ("11.09", "0.011987", "324.51"),
    "try-on-rtx-4090": ("10.13", "0.002083", "355.30"),
}
PHASES = {
    "try-on-a100": ("0.05", "14.35", "1.08", "7.73"),
    "try-on-h100-pcie": ("0.05", "3.48", "1.03", "6.51"),
    "try-on-rtx-4090": ("0.16", "3.35", "0.70", "5.91"),
}
# What the printed, rounded times alone would give.
FROM_ROUNDED = {
    "try-on-a100": (True, False),
    "try-on-h100-pcie": (False, False),
    "try-on-rtx-4090": (False, False),
}


def printed(value: float, like: str) -> str:
    """With as many digits as in print."""
    return f"{value:.{len(like.partition('.')[2])}f}"


def cost_of(name: str, mean_s: float | None = None) -> MachineCost:
    run = next(run for run in Workload.load(EXAMPLE).runs if run.machine == name)
    if mean_s is not None:
        run = run.model_copy(update={"mean_s": mean_s})
    return machine_cost(run, Prices(starter_book()))


@pytest.mark.parametrize("name", PRINTED)
def test_printed_figures_are_met(name: str) -> None:
    mean, usd, per_hour = PRINTED[name]
    found = cost_of(name)
    assert printed(found.mean_s, mean) == mean
    assert printed(found.usd_per_inference, usd) == usd
    assert printed(found.infer_per_hour, per_hour) == per_hour
    assert tuple(printed(phase.mean_s, "0.00") for phase in found.phases) == PHASES[name]


@pytest.mark.parametrize("name", PRINTED)
def test_which_digits_need_the_time_that_is_not_rounded(name: str) -> None:
    mean, usd, per_hour = PRINTED[name]
    found = cost_of(name, float(mean))
    met = (
        printed(found.usd_per_inference, usd) == usd,
        printed(found.infer_per_hour, per_hour) == per_hour,
    )
    assert met == FROM_ROUNDED[name]


@pytest.mark.parametrize("name", PRINTED)
def test_phases_lack_no_more_than_the_docs_say(name: str) -> None:
    found = cost_of(name)
    assert 0.01 < found.outside_phases_s < 0.03
    assert sum(phase.usd for phase in found.phases) < found.usd_per_inference


def test_capacity_is_linear_to_ten() -> None:
    costs = [cost_of(name) for name in PRINTED]
    rows = capacity_rows(costs, 10)
    assert len(rows) == 30
    for row in rows:
        one = float(PRINTED[row.name][2])
        assert row.infer_per_hour == pytest.approx(row.machines * one, abs=0.005 * row.machines)
    assert [f"{row.infer_per_hour:.1f}" for row in rows if row.machines == 10] == [
        "1549.2",
        "3245.1",
        "3553.0",
    ]


def test_serverless_cold_and_warm() -> None:
    (run,) = Workload.load(EXAMPLE).serverless
    found = serverless_cost(run, Prices(starter_book()))
    assert found.usd_per_second == 0.00044
    assert f"{found.cold_s:.2f}" == "33.30"
    assert f"{found.cold_usd:.6f}" == "0.014652"
    assert f"{found.warm_usd:.7f}" == "0.0048092"


def test_the_other_printed_total_contradicts_its_own_cost() -> None:
    """133.30 s is printed where 24.45 + 8.85 s are 33.30 s."""
    odd = ServerlessRun(
        machine="try-on-serverless", cold_start_s=124.45, cold_run_s=8.85, warm_run_s=10.93
    )
    found = serverless_cost(odd, Prices(starter_book()))
    assert f"{found.cold_s:.2f}" == "133.30"
    assert f"{found.cold_usd:.6f}" == "0.058652"


def test_the_docs_hold_these_figures() -> None:
    text = (EXAMPLE.parents[2] / "docs" / "costs.md").read_text(encoding="utf-8")
    for figures in PRINTED.values():
        for figure in figures:
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", text), figure
    assert "133.30" in text


def test_a_run_without_a_mean_is_the_sum_of_its_phases() -> None:
    run = MachineRun(machine="try-on-a100", phases={"a": 1.5, "b": 0.5}, n=3)
    found = machine_cost(run, Prices(starter_book()))
    assert (found.mean_s, found.outside_phases_s, found.infer_per_hour) == (2.0, 0.0, 1800.0)
    assert found.usd_per_month == pytest.approx(1.89 * 730)
