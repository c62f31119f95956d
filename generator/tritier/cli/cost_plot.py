"""Files of costs and capacities: reports and their pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tritier.cli.noise_show import require_plotting
from tritier.cli.output import say
from tritier.costs import usd_per_request
from tritier.documents import CapacityReport, CostReport, MachineCost, ServerlessCost
from tritier.errors import UsageError
from tritier.files import write_document_file, write_file
from tritier.report.picture_files import drawable, plain_texts, saved

__all__ = ["require_plotting", "write_report"]

_Panel = Callable[[Any], None]
_POINTS = 200


def write_report(
    report: CostReport | CapacityReport,
    what: str,
    output: Path | None,
    plot: Path | None,
    force: bool,
) -> None:
    """Write the report and its picture, where they are asked for, and say so; `what` it is of.

    Costs are drawn as phases, serverless beside always on, a plan's parts, streams; capacities as
    throughput over machines, and images of each accelerator. Raises UsageError, before anything is
    written, if there is nothing to draw.
    """
    panels = _panels(report) if plot is not None else []
    if plot is not None and not panels:
        raise UsageError("--plot: there is nothing to draw of this")
    if output is not None:
        write_document_file(output, report.to_json(), force)
        say(f"{what} written to {output}")
    if plot is not None:
        _draw(panels, plot, report.name)
        say(f"picture written to {plot}")


def _panels(report: CostReport | CapacityReport) -> list[_Panel]:
    panels: list[_Panel] = []
    if isinstance(report, CapacityReport):
        panels += [partial(_draw_capacity, report=report)] if report.rows else []
        panels += [partial(_draw_batches, report=report)] if report.batches else []
        return panels
    panels += [partial(_draw_machines, costs=report.machines)] if report.machines else []
    panels += [
        partial(_draw_serverless, cost=item, machines=report.machines)
        for item in report.serverless
        if item.break_even
    ]
    panels += [partial(_draw_plan, report=report)] if report.plan is not None else []
    panels += [partial(_draw_streams, report=report)] if report.streams else []
    return panels


def _draw(panels: Sequence[_Panel], path: Path, title: str) -> None:
    from matplotlib.figure import Figure  # only here: it takes long to import

    kind = path.suffix[1:].lower()
    with plain_texts():
        figure = Figure(figsize=(7.0 * len(panels), 4.5), layout="constrained")
        figure.suptitle(drawable(title))
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(places, panels, strict=True):
            panel(axes)
        write_file(path, saved(figure, kind, dpi=110))


def _draw_machines(axes: Any, costs: Sequence[MachineCost]) -> None:
    names = [drawable(cost.name) for cost in costs]
    phases = list(dict.fromkeys(phase.name for cost in costs for phase in cost.phases))
    left = [0.0] * len(costs)
    for phase in phases:
        widths = [sum(p.usd for p in cost.phases if p.name == phase) for cost in costs]
        axes.barh(names, widths, left=left, label=drawable(phase))
        left = [a + b for a, b in zip(left, widths, strict=True)]
    rest = [max(0.0, cost.usd_per_inference - done) for cost, done in zip(costs, left, strict=True)]
    axes.barh(names, rest, left=left, label="outside phases" if phases else None, color="0.6")
    axes.set_xlabel("USD per inference, at full load")
    axes.invert_yaxis()
    if phases:
        axes.legend()


def _draw_serverless(axes: Any, cost: ServerlessCost, machines: Sequence[MachineCost]) -> None:
    most = max(item.infer_per_hour for item in cost.break_even)
    rates = [most * (step + 1) / _POINTS for step in range(_POINTS)]
    axes.plot(
        rates, [usd_per_request(cost, rate) * rate for rate in rates], label=drawable(cost.name)
    )
    if cost.keep_warm_s:  # else each request of the line above starts cold
        axes.plot(rates, [cost.cold_usd * rate for rate in rates], ":", label="all cold")
    axes.plot(rates, [cost.warm_usd * rate for rate in rates], "--", label="all warm")
    for machine in machines:
        able = [rate for rate in rates if rate <= machine.infer_per_hour]
        axes.plot(
            able, [machine.usd_per_hour] * len(able), label=drawable(f"{machine.name}, always on")
        )
    axes.set_xlabel("requests per hour")
    axes.set_ylabel("USD per hour")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _draw_plan(axes: Any, report: CostReport) -> None:
    assert report.plan is not None
    plan = report.plan
    rows = [(f"machine {x.server}", x.machine_usd) for x in plan.servers]
    rows += [(f"electricity {x.server}", x.energy_usd) for x in plan.servers if x.energy_usd]
    rows += [(f"egress {x.source} to {x.target}", x.usd) for x in plan.links if x.usd]
    axes.barh([drawable(name) for name, _ in rows], [usd for _, usd in rows])
    axes.set_xlabel(f"USD per inference of plan {plan.plan_id}")
    axes.invert_yaxis()


def _draw_streams(axes: Any, report: CostReport) -> None:
    names = [drawable(f"{x.name}{' (best)' if x.best else ''}") for x in report.streams]
    bars = axes.barh(names, [x.usd_per_stream for x in report.streams])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlabel("USD per stream and month")
    axes.margins(x=0.15)
    axes.invert_yaxis()


def _draw_capacity(axes: Any, report: CapacityReport) -> None:
    for name in dict.fromkeys(row.name for row in report.rows):
        rows = [row for row in report.rows if row.name == name]
        axes.plot(
            [row.machines for row in rows],
            [row.infer_per_hour for row in rows],
            "o-",
            label=drawable(name),
        )
    if report.per_hour_wanted is not None:
        axes.axhline(report.per_hour_wanted, linestyle="--", color="0.4", label="wanted")
    axes.set_xlabel("machines")
    axes.set_ylabel("inferences per hour, at full load")
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.grid(alpha=0.3)


def _draw_batches(axes: Any, report: CapacityReport) -> None:
    assert report.batches is not None
    uses = report.batches.uses
    names = [drawable(f"{x.accelerator}, mini-batch {x.mini_batch}") for x in uses]
    bars = axes.barh(names, [x.finished_ms for x in uses])
    axes.bar_label(bars, [f"{x.images} images" for x in uses], label_type="center", color="white")
    axes.axvline(report.batches.deadline_ms, linestyle="--", color="0.4")
    axes.set_xlabel("ms (dashed: the deadline)")
    axes.invert_yaxis()
