"""The cost of a split plan: machine time, electricity, egress, and servers that serve it alone."""

from __future__ import annotations

from typing import Any

import pytest

from tritier.costs import PlanPrices, PlanUse, plan_cost, use_of_comparison, use_of_report
from tritier.documents import (
    Comparison,
    MeasuredFigures,
    PlanCost,
    PlanReport,
    PredictedFigures,
    PriceUsed,
)
from tritier.errors import InputError

USE = PlanUse(
    busy_ms={"device": 10.0, "cloud": 36.0},
    joule={"device": 3.6, "cloud": 7.2},
    link_bytes={("device", "cloud"): 2_000_000, ("cloud", "device"): 500_000},
    bottleneck_ms=36.0,
)


def price(usd: float) -> PriceUsed:
    return PriceUsed(name="m", usd=usd, unit="hour", source="s")


PRICES = PlanPrices(
    machines={"cloud": price(2.0)},
    egress={"cloud": 0.1},
    usd_per_kwh=0.5,
    pays_energy=frozenset({"device"}),
)


def cost(rate: float | None = None, use: PlanUse = USE, prices: PlanPrices = PRICES) -> PlanCost:
    return plan_cost("0123abcd", "m", use, prices, rate)


def test_by_hand() -> None:
    found = cost()
    assert found.machine_usd == pytest.approx(0.036 * 2 / 3600)
    assert found.energy_usd == pytest.approx(
        3.6 / 3.6e6 * 0.5
    )  # the cloud's price contains its own
    assert found.egress_usd == pytest.approx(0.5e6 / 1e9 * 0.1)  # what leaves the device is free
    assert found.usd_per_inference == pytest.approx(
        found.machine_usd + found.energy_usd + found.egress_usd
    )
    assert [x.usd for x in found.links] == [0.0, pytest.approx(5e-5)]


def test_alone_all_servers_are_paid_all_the_time() -> None:
    both = PlanPrices(machines={"device": price(1.0), "cloud": price(2.0)})
    full = cost(prices=both)
    assert full.alone_per_hour == pytest.approx(100_000)
    assert full.alone_usd == pytest.approx(3.0 / 100_000)
    assert (full.alone_usd or 0.0) > full.usd_per_inference
    slow = cost(rate=100.0, prices=both)
    assert slow.alone_usd == pytest.approx(0.03)
    assert slow.usd_per_inference == full.usd_per_inference


def test_a_balanced_plan_on_one_server_costs_the_same_alone() -> None:
    one = PlanUse(busy_ms={"cloud": 36.0}, bottleneck_ms=36.0)
    found = cost(use=one)
    assert found.alone_usd == pytest.approx(found.usd_per_inference)


def test_more_than_the_plan_can_do_is_refused() -> None:
    with pytest.raises(InputError, match="the plan can do 1e\\+05 inferences an hour"):
        cost(rate=100_001.0)


def test_without_a_bottleneck_only_a_given_rate_is_priced() -> None:
    use = PlanUse(busy_ms={"cloud": 36.0})
    assert cost(use=use).alone_usd is None
    assert cost(rate=10.0, use=use).alone_usd == pytest.approx(0.2)


def planning(**changes: Any) -> PlanReport:
    figures = {
        "latency_ms": 50, "sum_ms": 60, "energy_joule": 3, "bottleneck_ms": 36,
        "quantized_layers": 0, "components": 2,
    }  # fmt: skip
    server = {"layers": 1, "components": 1, "memory_bytes": 1}
    return PlanReport.from_data(
        {
            "plan_id": "0123abcd", "objective": "latency", "status": "s", "method": "m",
            "value": 1, "bound": 1, "gap": 0, "solve_s": 0, "figures": figures,
            "servers": [
                server | {"server": "device", "compute_ms": 10, "energy_joule": 1},
                server | {"server": "cloud", "compute_ms": 36, "energy_joule": 2},
            ],
            "links": [
                {"from": "device", "to": "cloud", "tensors": 1, "bytes": 7, "transfer_ms": 1}
            ],
        }
        | changes
    )  # fmt: skip


def test_use_of_a_planning_report() -> None:
    report = planning()
    use = use_of_report(report, "device")
    assert use.busy_ms == {"device": 10.0, "cloud": 36.0}
    assert use.joule == {"device": 1.0, "cloud": 2.0}
    assert use.link_bytes == {("device", "cloud"): 7}
    assert (use.bottleneck_ms, use.figures) == (36.0, "predicted")


def test_servers_that_take_no_part_are_not_paid() -> None:
    """The entry is, as apps call it, even if it has no layers."""
    idle = {"components": 0, "memory_bytes": 0, "compute_ms": 0, "energy_joule": 0, "layers": 0}
    busy = idle | {"layers": 3, "components": 1, "compute_ms": 36.0}
    servers = [idle | {"server": "device"}, idle | {"server": "edge"}, busy | {"server": "cloud"}]
    use = use_of_report(planning(servers=servers, links=[]), "device")
    assert use.busy_ms == {"device": 0.0, "cloud": 36.0}
    all_paid = PlanPrices(machines={"device": price(1.0), "edge": price(9.0), "cloud": price(2.0)})
    assert cost(use=use, prices=all_paid).alone_usd == pytest.approx(3.0 / 100_000)


def test_servers_with_several_cores_do_more_than_one_request_at_once() -> None:
    entries = [{"concurrency": n, "infer_per_s": n * 25.0, "latency_ms": 40} for n in (1, 4)]
    use = use_of_report(planning(throughput=entries), "device")
    assert use.most_per_hour == pytest.approx(360_000)
    assert cost(rate=300_000.0, use=use).alone_per_hour == 300_000.0
    with pytest.raises(InputError, match=r"the plan can do 3\.6e\+05 inferences an hour"):
        cost(rate=361_000.0, use=use)


def comparison(measured: bool) -> Comparison:
    """Without the plan and what else is not looked at here."""
    wire = {"kind": "call", "component": "c1", "from": "device", "to": "cloud"}
    part = {"server": "cloud", "layers": 1, "layers_ms": 4, "ms": 5}
    predicted = PredictedFigures.from_data(
        {
            "latency_ms": 50,
            "components": [part | {"id": "c0"}, part | {"id": "c1"}],
            "messages": [
                wire | {"bytes": 100, "ms": 3, "link_ms": 2},
                wire | {"component": "c0", "bytes": 50, "ms": 3, "link_ms": 2},
            ],
        }
    )
    keys = ("mean_ms", "std_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms", "low_ms", "high_ms")
    took = {"median_ms": 7, "mean_ms": 8, "std_ms": 1, "n": 10}
    found = MeasuredFigures.from_data(
        {
            "latency": {"n": 10} | dict.fromkeys(keys, 1),
            "components": [{"id": "c1", "server": "cloud", "service": took, "queue_ms": 0}],
            "messages": [wire | {"bytes": 120}],
        }
    )
    return Comparison.model_construct(predicted=predicted, measured=found if measured else None)


def test_use_of_a_comparison_is_measured_where_it_was() -> None:
    use = use_of_comparison(comparison(measured=True), "device")
    assert use.busy_ms == {"cloud": 13.0, "device": 0.0}  # 8 measured, 5 predicted
    assert use.assumed == ("component 'c0'", "bytes from 'device' to 'cloud'")
    assert use.link_bytes == {("device", "cloud"): 170}
    assert use.figures == "measured"
    use = use_of_comparison(comparison(measured=False), "device")
    assert (use.busy_ms, use.figures) == ({"cloud": 10.0, "device": 0.0}, "predicted")
    assert use.assumed == ()
    assert use.link_bytes == {("device", "cloud"): 150}
