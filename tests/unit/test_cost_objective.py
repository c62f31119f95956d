"""The objective cost: what it chooses, and that it counts as `tritier cost --plan` does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.helpers.models import load
from tests.helpers.planned import asked, mixed, noisy, servers_of
from tests.helpers.planning import CHAIN, faults, servers
from tests.helpers.problems import brute_force
from tritier.costs import PlanPrices, plan_cost, use_of_report
from tritier.documents import PlanReport, PriceUsed
from tritier.errors import UsageError
from tritier.graph import LoadedModel
from tritier.planner.objective import Aim
from tritier.workflow.planning import Planned, make_plan
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem import build_problem, replan
from tritier.workflow.problem_request import PlanningRequest

COST = Goals(objective="cost")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


def prices(
    hourly: Mapping[str, float], egress: Mapping[str, float] | None = None, kwh: float = 0.0
) -> PlanPrices:
    """Of the servers a and b; who has no price per hour pays electricity."""
    machines = {
        name: PriceUsed(name=name, usd=usd, unit="hour", source="s") for name, usd in hourly.items()
    }
    return PlanPrices(machines, egress or {}, kwh, frozenset("ab") - set(hourly))


def paid(made: PlanningRequest, of: PlanPrices) -> PlanningRequest:
    return replace(made, prices=of, uses_money=True)


def usd(found: Planned) -> float:
    cost = found.report.figures.cost_usd
    assert cost is not None
    return float(cost)


def said_by_the_cost_model(found: Planned, of: PlanPrices) -> float:
    """By `tritier cost --plan`, of the report that is written."""
    report = PlanReport.from_data(json.loads(found.report.to_json()))
    use = use_of_report(report, found.plan.entry.name)
    return plan_cost(found.plan.id, "m", use, of).usd_per_inference


CASES: list[PlanPrices] = [
    prices({"a": 0.5, "b": 3.0}),
    prices({"a": 0.5, "b": 3.0}, {"a": 0.02, "b": 0.09}),
    prices({"b": 0.4}, {"b": 0.09}, kwh=900.0),
    prices({}, {}, kwh=0.3),
    prices({"a": 0.0, "b": 0.0}),
]


@pytest.mark.parametrize("given", CASES)
@pytest.mark.parametrize("goals", [COST, Goals(objective="cost", solver="HiGHS"), Goals()])
def test_the_planner_counts_as_the_cost_model(
    chain: LoadedModel, given: PlanPrices, goals: Goals
) -> None:
    found = make_plan(paid(mixed(chain), given), goals)
    said = said_by_the_cost_model(found, given)
    report = found.report
    assert report.figures.cost_usd == pytest.approx(said, rel=1e-12, abs=1e-18)
    if goals.objective == "cost":
        best, _ = brute_force(found.built.problem, Aim.COST.value)
        assert report.value == pytest.approx(said, rel=1e-6, abs=1e-18)
        assert report.value == pytest.approx(best / 1e6, rel=1e-6, abs=1e-18)
        assert report.bound <= report.value
    others = [item.figures.cost_usd for item in report.baselines if not item.broken]
    others += [item.figures.cost_usd for item in report.alternatives]
    assert others
    assert None not in others
    if goals.objective == "cost":
        assert min(cost or 0.0 for cost in others) >= said * (1 - 1e-6)


def test_the_cheapest_plan_is_not_the_fastest(chain: LoadedModel) -> None:
    """b is a hundred times as fast as a, and four hundred times as dear."""
    given = prices({"a": 0.1, "b": 40.0})
    quick, cheap = (make_plan(paid(asked(chain), given), goals) for goals in (Goals(), COST))
    assert set(servers_of(quick.plan).values()) == {"b"}
    assert set(servers_of(cheap.plan).values()) == {"a"}
    assert cheap.report.figures.sum_ms > quick.report.figures.sum_ms
    assert usd(cheap) == pytest.approx(310 / 3.6e6 * 0.1)
    assert usd(cheap) < usd(quick)
    within = asked(chain, latency_ms=200.0)
    kept = make_plan(paid(within, given), COST)
    assert kept.report.figures.sum_ms <= 200.0
    assert usd(cheap) < usd(kept) <= usd(quick)


def test_egress_keeps_data_where_it_is(chain: LoadedModel) -> None:
    free, dear = prices({"a": 1.0, "b": 1.0}), prices({"a": 1.0, "b": 1.0}, {"a": 1e3})
    assert "b" in servers_of(make_plan(paid(asked(chain), free), COST).plan).values()
    stays = make_plan(paid(asked(chain), dear), COST)
    assert set(servers_of(stays.plan).values()) == {"a"}


def test_codecs_that_save_egress(chain: LoadedModel) -> None:
    """Over links without limit all codecs take as long; then those of fewer bytes are cheaper."""
    given = prices({"a": 9.0, "b": 0.0}, {"a": 0.1, "b": 0.1})
    codecs = {("a", "b"): ("as_is", "fp16"), ("b", "a"): ("as_is", "fp16")}
    made = asked(chain, wire_codecs=codecs)
    bare = {name: x.model_copy(update={"serving": x.serving.model_copy(
        update={"copy_ms_per_mib": 0.0})}) for name, x in made.timings.items()}  # fmt: skip
    made = replace(made, timings=bare, network=None)
    found = make_plan(paid(made, given), COST)
    assert {wire.codec for wire in found.plan.wires} == {"fp16"}
    assert found.report.value == pytest.approx(said_by_the_cost_model(found, given))
    quick = make_plan(made, Goals())
    assert {wire.codec for wire in quick.plan.wires} == {"as_is"}


def test_noise_and_8_bits(chain: LoadedModel) -> None:
    given = prices({"a": 2.0, "b": 3.0}, {"a": 0.05, "b": 0.09})
    found = make_plan(paid(noisy(chain), given), COST)
    assert found.plan.quantized_layers
    assert found.report.value == pytest.approx(said_by_the_cost_model(found, given))
    best, _ = brute_force(found.built.problem, Aim.COST.value)
    assert found.report.value == pytest.approx(best / 1e6, rel=1e-6)


def test_few_components_cost_more(chain: LoadedModel) -> None:
    for given in (prices({"a": 1.0, "b": 1.0}), prices({}, kwh=0.5)):
        free = make_plan(paid(mixed(chain), given), COST)
        one = make_plan(paid(mixed(chain), given), replace(COST, max_components=1))
        assert len(free.plan.components) > len(one.plan.components) == 1
        assert usd(one) > usd(free)


def test_gains_are_told_in_money(chain: LoadedModel) -> None:
    given = prices({"a": 0.1, "b": 40.0})
    report = make_plan(paid(asked(chain, latency_ms=200.0), given), COST).report
    assert report.gains
    costs = [gain.cost_usd or 0.0 for gain in report.gains]
    assert costs == sorted(costs)
    assert costs[0] < 0


def test_another_network_keeps_the_prices(chain: LoadedModel) -> None:
    given = prices({"a": 1.0, "b": 1.0}, {"a": 0.1})
    built = build_problem(paid(asked(chain), given))
    again = replan(built, None).problem.money
    assert again is not None
    assert built.problem.money is not None
    assert (again.crossing == built.problem.money.crossing).all()
    assert (again.per_ms == built.problem.money.per_ms).all()


def test_a_server_without_a_price_is_named(chain: LoadedModel) -> None:
    only_a = PlanPrices({"a": prices({"a": 1.0}).machines["a"]})
    said = faults(paid(asked(chain), only_a))
    assert "the price of 'b' is unknown" in said
    assert "price_per_hour_usd" in said
    assert "--machine b=MACHINE" in said
    assert "'a'" not in said


def test_electricity_needs_powers(chain: LoadedModel) -> None:
    unknown: dict[str, Any] = {"b": {"compute_power_watt": None}}
    made = replace(asked(chain), servers=servers("ab", **unknown))
    said = faults(paid(made, prices({"a": 1.0}, kwh=0.3)))
    assert "the power of 'b' while computing is unknown" in said
    rented = build_problem(paid(made, prices({"a": 1.0, "b": 1.0}, kwh=0.3)))
    assert any("power of 'b'" in text for text in rented.warnings)
    assert not any("machine time of" in text for text in rented.warnings)


def test_own_machines_are_told(chain: LoadedModel) -> None:
    built = build_problem(paid(asked(chain), prices({"b": 1.0}, kwh=0.3)))
    assert any("machine time of 'a' is free" in text for text in built.warnings)


def test_without_prices(chain: LoadedModel) -> None:
    with pytest.raises(UsageError, match="needs prices of all servers"):
        make_plan(asked(chain), COST)
    report = make_plan(asked(chain), Goals()).report
    assert report.figures.cost_usd is None
    assert "cost_usd" not in report.to_json()
