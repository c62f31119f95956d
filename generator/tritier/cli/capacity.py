"""`tritier capacity`."""

from __future__ import annotations

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
from tritier.cli.cost_show import show_capacity
from tritier.cli.output import show_json
from tritier.costs import (
    Kind,
    Prices,
    Task,
    capacity_rows,
    choices,
    kind_of,
    machine_cost,
    plan_batches,
    without_spread,
)
from tritier.costs.batch_program import Objective
from tritier.documents import BatchPlan, BatchScenario, BatchTable, CapacityReport, Workload
from tritier.errors import InputError, UsageError
from tritier.planner.pulp_solvers import DEFAULT_SOLVER

_MOST = 10
_TIME_LIMIT_S = 30.0


def capacity_command(
    workload: WorkloadArgument = None,
    prices: PricesOption = None,
    bench: BenchOption = None,
    timing: TimingOption = None,
    machines: Annotated[
        int | None,
        typer.Option(
            "--machines", metavar="N", min=1, max=1000, help="From 1 to so many; 10 if left out."
        ),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option("--latency-ms", min=0.001, help="Latency limit: 95th percentile, else mean."),
    ] = None,
    rate: RateOption = None,
    batches: Annotated[
        Path | None,
        typer.Option("--batches", help="Accelerators and their batch tables (YAML or JSON)."),
    ] = None,
    deadline_ms: Annotated[
        float | None, typer.Option("--deadline-ms", min=0.001, help="Instead of the scenario's.")
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, help="Instead of the scenario's.")
    ] = None,
    most_images: Annotated[
        bool, typer.Option("--most-images", help="Not so many images, but most until the deadline.")
    ] = False,
    least_price: Annotated[
        bool, typer.Option("--least-price", help="The cheapest accelerators, not the fewest.")
    ] = False,
    solver: Annotated[
        str | None,
        typer.Option(
            "--solver",
            help=f"Solver for batches, by its name in PuLP; {DEFAULT_SOLVER} if left out.",
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option("--time-limit", min=0.1, help="Of the solver, in seconds; 30 if left out."),
    ] = None,
    plot: PlotOption = None,
    output: OutputOption = None,
    force: ForceFlag = False,
    json: JsonFlag = False,
) -> None:
    """Say what machines can do: requests per hour, the best machine, batches by a deadline.

    The best machine costs least per inference among those that keep the latency limit. With
    --batches, the fewest accelerators are chosen, and the mini-batch of each, that do all images by
    the deadline. Exit code 5, and what would be needed, if that can't be done.

    \b
    Examples:
        tritier capacity examples/costs/try_on.yaml --latency-ms 12000 --rate 1000
        tritier capacity --bench runpod-a100-pcie=bench.json --machines 4 --plot capacity.svg
        tritier capacity --batches examples/costs/batches.yaml --deadline-ms 2000 --images 300
    """
    found = load_prices(prices)
    rate = positive_rate(rate)
    if plot is not None:
        require_plotting(plot)
    refuse_existing((output, plot), force)
    runs = read_workload(workload, bench, timing)
    if (runs is None or not runs.runs) and batches is None:
        raise UsageError("nothing to compute: give a workload file, --bench, --timing or --batches")
    of_batches = (deadline_ms, images, solver, time_limit, most_images or None,
                  least_price or None)  # fmt: skip
    if batches is None and any(x is not None for x in of_batches):
        raise UsageError(
            "--deadline-ms, --images, --most-images, --least-price, --solver and --time-limit "
            "belong to --batches: give it"
        )
    of_runs = (latency_ms, rate, machines)
    if (runs is None or not runs.runs) and any(x is not None for x in of_runs):
        raise UsageError(
            "--latency-ms, --rate and --machines are for run times, not for --batches: give a "
            "workload file, --bench or --timing"
        )
    if most_images and (images or least_price):
        raise UsageError("--most-images goes without --images and --least-price")
    planned: BatchPlan | None = None
    warnings: list[str] = []
    if batches is not None:
        task = _Wanted(deadline_ms, images, most_images, least_price)
        scenario = BatchScenario.load(batches)
        kinds, warnings = _kinds(scenario, batches, found)
        planned = _plan(scenario, task, kinds, str(batches), solver or DEFAULT_SOLVER,
                        time_limit or _TIME_LIMIT_S)  # fmt: skip
    report = _report(found, runs, machines or _MOST, latency_ms, rate, planned, warnings)
    write_report(report, "capacity", output, plot, force)
    if json:
        show_json(report.model_dump(mode="json", by_alias=True, exclude_none=True))
    else:
        show_capacity(report)


class _Wanted:
    """What the options ask of batches, over what the scenario says."""

    def __init__(
        self, deadline_ms: float | None, images: int | None, most: bool, cheap: bool
    ) -> None:
        self.deadline_ms = deadline_ms
        self.images = images
        self.most = most
        self.objective: Objective = "least price" if cheap else "fewest accelerators"


def _kinds(scenario: BatchScenario, path: Path, prices: Prices) -> tuple[list[Kind], list[str]]:
    """The accelerators with their tables, and what is to be said of these."""
    kinds: list[Kind] = []
    warnings: list[str] = []
    for item in scenario.accelerators:
        table = BatchTable.load(path.parent / item.table)
        if without_spread(table, scenario.times):
            warnings.append(
                f"the batch table '{item.table}' has no {scenario.times} of some times: medians "
                "stand in"
            )
        price = item.price_per_hour_usd
        if item.machine is not None or price is not None:
            price = prices.usd_per_hour(item.machine or item.name, price)
        kinds.append(kind_of(item, table, scenario.times, price))
    return kinds, warnings


def _plan(
    scenario: BatchScenario,
    wanted: _Wanted,
    kinds: list[Kind],
    source: str,
    solver: str,
    time_limit_s: float,
) -> BatchPlan:
    deadline = scenario.deadline_ms if wanted.deadline_ms is None else wanted.deadline_ms
    if deadline is None:
        raise InputError("has no deadline: give deadline_ms there, or --deadline-ms", source)
    images = None if wanted.most else wanted.images or scenario.images
    task = Task(scenario.name, deadline, images, wanted.objective)
    return plan_batches(task, kinds, solver=solver, time_limit_s=time_limit_s)


def _report(
    prices: Prices,
    runs: Workload | None,
    machines: int,
    latency_ms: float | None,
    rate: float | None,
    planned: BatchPlan | None,
    warnings: list[str],
) -> CapacityReport:
    costs = [machine_cost(run, prices) for run in (runs.runs if runs else ())]
    names = [x for x in (runs and runs.name, planned and planned.model) if x]
    return CapacityReport(
        name=", ".join(names),
        latency_limit_ms=latency_ms,
        per_hour_wanted=rate,
        rows=capacity_rows(costs, machines),
        choices=choices(costs, latency_ms, rate) if costs else (),
        batches=planned,
        prices=prices.used,
        warnings=tuple(warnings),
    )
