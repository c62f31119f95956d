"""`tritier cost`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import ForceFlag, JsonFlag
from tritier.cli.cost_inputs import (
    BenchOption,
    OutputOption,
    PlotOption,
    PricesOption,
    RateOption,
    TimingOption,
    WorkloadArgument,
    load_prices,
    positive_rate,
    read_workload,
    refuse_existing,
)
from tritier.cli.cost_plot import require_plotting, write_report
from tritier.cli.cost_show import show_book, show_costs
from tritier.cli.output import show_json
from tritier.cli.server_prices import EgressOption, PriceOptions, server_prices
from tritier.costs import (
    PlanPrices,
    PlanUse,
    Prices,
    cost_at_rate,
    machine_cost,
    plan_cost,
    serverless_at_rate,
    serverless_cost,
    stream_costs,
    use_of_comparison,
    use_of_report,
)
from tritier.documents import (
    Comparison,
    CostReport,
    Plan,
    PlanCost,
    PlanReport,
    ServersSpec,
    StreamScenario,
    Workload,
)
from tritier.errors import InputError, UsageError


def cost_command(
    workload: WorkloadArgument = None,
    prices: PricesOption = None,
    bench: BenchOption = None,
    timing: TimingOption = None,
    streams: Annotated[
        Path | None, typer.Option("--streams", help="Ways to serve streams (YAML or JSON).")
    ] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="A plan to price.")] = None,
    planning: Annotated[
        Path | None, typer.Option("--planning", help="Its planning report: what was predicted.")
    ] = None,
    comparison: Annotated[
        Path | None, typer.Option("--comparison", help="Its comparison: what was measured.")
    ] = None,
    servers: Annotated[
        Path | None,
        typer.Option("--servers", help="The servers file, for price_per_hour_usd of servers."),
    ] = None,
    machine: Annotated[
        list[str] | None,
        typer.Option(
            "--machine",
            metavar="SERVER=MACHINE",
            help="The machine in the price book that a server of the plan is; may be repeated.",
        ),
    ] = None,
    egress: EgressOption = None,
    energy: Annotated[
        str | None,
        typer.Option(
            "--energy",
            metavar="PRICE",
            help="Electricity of servers without a price per hour: a name or USD per kWh.",
        ),
    ] = None,
    rate: RateOption = None,
    show_prices: Annotated[
        bool, typer.Option("--show-prices", help="Show the price book, and stop.")
    ] = False,
    plot: PlotOption = None,
    output: OutputOption = None,
    force: ForceFlag = False,
    json: JsonFlag = False,
) -> None:
    """Say what an inference costs: on machines, serverless, of a split plan, of streams.

    Costs come from times that were measured or are written by hand, and from a price book with a
    source and a date for each price. The price book that comes along is a start: write your own.

    \b
    Examples:
        tritier cost examples/costs/try_on.yaml --rate 100
        tritier cost --bench runpod-a100-pcie=bench.json --prices my_prices.yaml --json
        tritier cost --plan plan.json --planning report.json --servers servers.yaml \\
            --machine cloud=aws-g5.xlarge --egress cloud=aws-internet --energy us-commercial
        tritier cost --streams examples/costs/cameras.yaml --plot cameras.svg
    """
    found = load_prices(prices)
    if show_prices:
        others = (workload, bench, timing, streams, plan, planning, comparison, servers, machine,
                  egress, energy, rate, plot, output)  # fmt: skip
        if any(x not in (None, []) for x in others):
            raise UsageError("--show-prices goes with --prices and --json only")
        show_json(found.book.model_dump(mode="json", exclude_none=True)) if json else show_book(
            found.book
        )
        return
    rate = positive_rate(rate)
    if plot is not None:
        require_plotting(plot)
    refuse_existing((output, plot), force)
    runs = read_workload(workload, bench, timing)
    if runs is None and streams is None and plan is None:
        raise UsageError(
            "nothing to price: give a workload file, --bench, --timing, --streams or --plan"
        )
    if rate is not None and runs is None and plan is None:
        raise UsageError("--rate is for machines, serverless runs and plans, not for --streams")
    priced: PlanCost | None = None
    notes: tuple[str, ...] = ()
    if plan is not None:
        options = PriceOptions(tuple(machine or ()), tuple(egress or ()), energy)
        place = _Placed(found, servers, options)
        priced, notes = _plan(Plan.load(plan), planning, comparison, place, rate)
    elif planning or comparison or machine or egress or energy or servers:
        raise UsageError(
            "--planning, --comparison, --servers, --machine, --egress and --energy belong to "
            "--plan: give it"
        )
    report = _report(found, runs, None if streams is None else StreamScenario.load(streams), priced,
                     rate, notes)  # fmt: skip
    write_report(report, "costs", output, plot, force)
    if json:
        show_json(report.model_dump(mode="json", by_alias=True, exclude_none=True))
    else:
        show_costs(report)


@dataclass(frozen=True)
class _Placed:
    """What says the prices of a plan's servers."""

    prices: Prices
    servers: Path | None
    options: PriceOptions

    def of(self, plan: Plan) -> PlanPrices:
        """Raises InputError for servers that are not the plan's."""
        spec = None if self.servers is None else ServersSpec.load(self.servers)
        options = replace(self.options, whose=f"the servers of plan {plan.id}")
        return server_prices([x.name for x in plan.servers], self.prices, spec, options)


def _plan(
    plan: Plan, planning: Path | None, comparison: Path | None, place: _Placed, rate: float | None
) -> tuple[PlanCost, tuple[str, ...]]:
    """The cost, and what is to be said of its figures."""
    if (planning is None) == (comparison is None):
        raise UsageError(
            "--plan needs its times: either --planning, the report that `tritier plan --report` "
            "wrote, or --comparison"
        )
    use: PlanUse
    if planning is not None:
        report = PlanReport.load(planning)
        _same(plan, report.plan_id, planning)
        use = use_of_report(report, plan.entry.name)
    else:
        assert comparison is not None
        measured = Comparison.load(comparison)
        _same(plan, measured.plan_id, comparison)
        use = use_of_comparison(measured, plan.entry.name)
    cost = plan_cost(plan.id, plan.model.name, use, place.of(plan), rate)
    if not use.assumed:
        return cost, ()
    return cost, (f"not measured, but predicted: {', '.join(use.assumed)}",)


def _same(plan: Plan, found: str, path: Path) -> None:
    if plan.id != found:
        raise InputError(f"is of plan {found}, not of {plan.id}: give the one of this plan",
                         str(path))  # fmt: skip


def _report(
    prices: Prices,
    runs: Workload | None,
    streams: StreamScenario | None,
    plan: PlanCost | None,
    rate: float | None,
    notes: tuple[str, ...],
) -> CostReport:
    machines = tuple(machine_cost(run, prices) for run in (runs.runs if runs else ()))
    serverless = tuple(
        serverless_cost(run, prices, machines) for run in (runs.serverless if runs else ())
    )
    rates = (
        ()
        if rate is None
        else (
            *(cost_at_rate(item, rate) for item in machines),
            *(serverless_at_rate(item, rate) for item in serverless),
        )
    )
    names = [x for x in (runs and runs.name, streams and streams.name, plan and plan.model) if x]
    costs = () if streams is None else stream_costs(streams, prices)
    return CostReport(
        name=", ".join(names),
        hours_per_month=prices.book.hours_per_month,
        machines=machines,
        serverless=serverless,
        rates=rates,
        plan=plan,
        streams=costs,
        assumptions=() if streams is None else streams.assumptions,
        prices=prices.used,
        warnings=(*_warnings(prices, plan), *notes),
    )


def _warnings(prices: Prices, plan: PlanCost | None) -> tuple[str, ...]:
    found = [
        f"the date of the price of '{item.name}' is not known: look it up"
        for item in prices.used
        if item.date == "unknown"
    ]
    if plan is not None:
        free = [item.server for item in plan.servers if item.price is None]
        if free:
            found.append(
                f"machine time of {', '.join(free)} is free: give --machine, or price_per_hour_usd "
                "in --servers, unless it is your own"
            )
        if plan.figures == "measured":
            found.append("energy of each server is not measured there: it is left out")
    return tuple(found)
