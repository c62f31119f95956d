"""Costs and capacities on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tritier.cli.output import say, show_table, size_text
from tritier.documents import (
    BatchPlan,
    CapacityReport,
    CostReport,
    MachineCost,
    PlanCost,
    PriceBook,
    PriceUsed,
    ServerlessCost,
    StreamCost,
)


def show_costs(report: CostReport) -> None:
    """What an inference costs, part by part."""
    if report.machines:
        _show_machines(report)
    if report.serverless:
        _show_serverless(report.serverless)
    if report.rates:
        _show_rates(report)
    if report.plan is not None:
        _show_plan(report.plan)
    if report.streams:
        show_streams(report.streams)
    for line in report.assumptions:
        say(f"assumed: {line}")
    show_prices(report.prices)
    for warning in report.warnings:
        say(f"warning: {warning}")


def show_capacity(report: CapacityReport) -> None:
    """What machines can do, part by part."""
    if report.rows:
        kinds = list(dict.fromkeys(row.name for row in report.rows))
        counts = sorted({row.machines for row in report.rows})
        cells = {(row.name, row.machines): f"{row.infer_per_hour:,.2f}" for row in report.rows}
        show_table(
            f"{report.name}: inferences per hour at full load",
            ["machines", *kinds],
            [(count, *(cells[kind, count] for kind in kinds)) for count in counts],
        )
    if report.choices:
        limit = report.latency_limit_ms
        show_table(
            "best machine" + ("" if limit is None else f" within {limit:g} ms"),
            ["machine", "latency ms", "by", "in time", "machines", "USD/h", "USD/inference", ""],
            [
                (x.name, f"{x.latency_ms:,.4g}", x.judged_by, "yes" if x.keeps_limit else "no",
                 "-" if x.machines is None else x.machines, f"{x.usd_per_hour:,.4g}",
                 f"{x.usd_per_inference:.5g}", "best" if x.best else "")
                for x in report.choices
            ],
        )  # fmt: skip
    if report.batches is not None:
        _show_batches(report.batches)
    show_prices(report.prices)
    for warning in report.warnings:
        say(f"warning: {warning}")


def show_book(book: PriceBook) -> None:
    """All prices."""
    show_table(
        "machines (USD, without taxes)",
        ["name", "provider", "machine or GPU", "memory GB", "price", "source", "date"],
        [
            (x.name, x.provider, _what(x.machine, x.gpu, x.gpus),
             "-" if x.gpu_memory_gb is None else f"{x.gpu_memory_gb:g}",
             f"{x.price_per_hour_usd:g} an hour" if x.price_per_hour_usd is not None
             else f"{x.price_per_second_usd:g} a second", x.source, x.date)
            for x in book.machines
        ],
    )  # fmt: skip
    show_table(
        "egress and electricity",
        ["name", "price", "source", "date"],
        [
            *((x.name, f"{x.price_per_gb_usd:g} a GB", x.source, x.date) for x in book.egress),
            *((x.name, f"{x.price_per_kwh_usd:g} a kWh", x.source, x.date) for x in book.energy),
        ],
    )


def _what(machine: str | None, gpu: str | None, gpus: int) -> str:
    return ", ".join(filter(None, [machine, f"{gpus} x {gpu}" if gpu else None])) or "-"


def _show_machines(report: CostReport) -> None:
    show_table(
        f"{report.name}: always on, at full load",
        ["machine", "USD/h", "mean s", "std s", "n", "USD/inference", "inferences/h", "USD/month"],
        [
            (x.name, f"{x.usd_per_hour:g}", f"{x.mean_s:.4f}",
             "-" if x.std_s is None else f"{x.std_s:.2g}", "-" if x.n is None else x.n,
             f"{x.usd_per_inference:.4g}", f"{x.infer_per_hour:,.2f}", f"{x.usd_per_month:,.2f}")
            for x in report.machines
        ],
    )  # fmt: skip
    phases = list(dict.fromkeys(p.name for x in report.machines for p in x.phases))
    if phases:
        show_table(
            "phases: s (USD)",
            ["machine", *phases, "outside phases s"],
            [_phases(x, phases) for x in report.machines if x.phases],
        )
    best = min(report.machines, key=lambda x: x.usd_per_inference)
    if len(report.machines) > 1:
        say(f"cheapest per inference: {best.name}")


def _phases(cost: MachineCost, names: Sequence[str]) -> tuple[str, ...]:
    known = {item.name: f"{item.mean_s:.2f} ({item.usd:.3g})" for item in cost.phases}
    return (cost.name, *(known.get(x, "-") for x in names), f"{cost.outside_phases_s:.3f}")


def _show_serverless(costs: Sequence[ServerlessCost]) -> None:
    show_table(
        "serverless",
        ["machine", "USD/s", "cold s", "cold USD", "warm s", "warm USD", "kept warm s"],
        [
            (x.name, f"{x.usd_per_second:g}", f"{x.cold_s:.2f}", f"{x.cold_usd:.6g}",
             f"{x.warm_s:.2f}", f"{x.warm_usd:.6g}", f"{x.keep_warm_s:g}")
            for x in costs
        ],
    )  # fmt: skip
    rows = [
        (x.name, y.machine, f"{y.cold_per_hour:.4g}", f"{y.warm_per_hour:.4g}",
         "never" if y.per_hour is None else f"{y.per_hour:.4g}", f"{y.infer_per_hour:.4g}")
        for x in costs for y in x.break_even
    ]  # fmt: skip
    if rows:
        show_table(
            "break-even: requests per hour below which serverless is cheaper",
            ["serverless", "always on", "all cold", "all warm", "at random", "machine can do"],
            rows,
        )


def _show_rates(report: CostReport) -> None:
    show_table(
        f"at {report.rates[0].per_hour:g} inferences per hour",
        ["machine", "machines", "USD/h", "USD/inference"],
        [
            (x.name, "-" if x.machines is None else x.machines, f"{x.usd_per_hour:.4g}",
             f"{x.usd_per_inference:.4g}")
            for x in report.rates
        ],
    )  # fmt: skip


def _show_plan(cost: PlanCost) -> None:
    show_table(
        f"plan {cost.plan_id} of {cost.model}: one inference ({cost.figures})",
        ["server", "machine", "USD/h", "busy ms", "machine USD", "energy J", "energy USD"],
        [
            (x.server, x.price.name if x.price else "-", f"{x.price.usd:g}" if x.price else "-",
             f"{x.busy_ms:.4g}", f"{x.machine_usd:.4g}", f"{x.energy_joule:.4g}",
             f"{x.energy_usd:.4g}")
            for x in cost.servers
        ],
    )  # fmt: skip
    if cost.links:
        show_table(
            "egress",
            ["from", "to", "size", "USD"],
            [(x.source, x.target, size_text(x.bytes), f"{x.usd:.4g}") for x in cost.links],
        )
    say(
        f"{cost.usd_per_inference:.5g} USD an inference: machines {cost.machine_usd:.4g}, "
        f"electricity {cost.energy_usd:.4g}, egress {cost.egress_usd:.4g}"
    )
    if cost.alone_usd is not None:
        say(
            f"{cost.alone_usd:.5g} USD if the servers serve nothing else, at "
            f"{cost.alone_per_hour:.4g} inferences per hour"
        )


def show_streams(costs: Sequence[StreamCost]) -> None:
    """Ways to serve streams."""
    show_table(
        "streams",
        ["way", "machine", "USD/h", "sharers", "USD/stream, month", "machines", "USD/month",
         "latency ms", "note"],
        [
            (x.name, x.machine, f"{x.usd_per_hour:g}", x.sharers, f"{x.usd_per_stream:.2f}",
             x.machines, f"{x.usd_per_month:,.2f}",
             "-" if x.latency_ms is None else f"{x.latency_ms:g}",
             "best" if x.best else "; ".join(x.broken))
            for x in costs
        ],
    )  # fmt: skip


def _show_batches(plan: BatchPlan) -> None:
    wanted = "as many as possible" if plan.images_wanted is None else f"{plan.images_wanted:,}"
    show_table(
        f"{plan.model}: {wanted} images in {plan.deadline_ms:g} ms ({plan.objective})",
        ["accelerator", "mini-batch", "runs after the first", "images", "done at ms"],
        [
            (x.accelerator, x.mini_batch, x.uses, x.images, f"{x.finished_ms:,.1f}")
            for x in plan.uses
        ],
    )
    price = "" if plan.usd_per_hour is None else f", {plan.usd_per_hour:g} USD an hour"
    proven = "proven" if plan.proven else "the best found, not proven"
    say(
        f"{plan.images:,} images by {plan.finished_ms:,.1f} ms on {plan.accelerators} of "
        f"{plan.available} accelerators{price} ({proven})"
    )


def show_prices(prices: Sequence[PriceUsed]) -> None:
    """The prices that were used, each with its source."""
    for x in prices:
        date = {None: "", "unknown": ", date unknown"}.get(x.date, f", {x.date}")
        say(f"price: {x.name} {x.usd:g} USD per {x.unit} ({x.source}{date})")
