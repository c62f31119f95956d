"""Charts of costs, of capacity and of sharing."""

from __future__ import annotations

from collections.abc import Iterable

from tritier.documents.costs import CapacityReport, CostReport, PlanCost
from tritier.documents.sharing import SharingReport
from tritier.report.parts import Axis, Chart, Evidence, Mark, Series, number, spanned

_MILLION = 1e6
_BROKEN = "does not keep the limits"


def plan_chart(plan: PlanCost, key: str) -> Chart | None:
    """What an inference of the plan pays for; None if all is free."""
    groups = (
        ("machine time", [(x.server, x.machine_usd) for x in plan.servers]),
        ("electricity", [(x.server, x.energy_usd) for x in plan.servers]),
        ("egress", [(f"{x.source} to {x.target}", x.usd) for x in plan.links]),
    )
    series = [
        Series(
            what,
            tuple(f"{what}, {where}" for where, usd in rows if usd),
            tuple(usd * _MILLION for _, usd in rows if usd),
            kind="bars",
            colour=colour,
        )
        for colour, (what, rows) in enumerate(groups)
        if any(usd for _, usd in rows)
    ]
    if not series:
        return None
    figures = plan.figures == "measured"
    return Chart(
        f"{key}-parts",
        f"Cost of an inference of plan {plan.plan_id}",
        f"{number(plan.usd_per_inference * _MILLION)} USD for a million inferences, by what is "
        "paid for.",
        Axis("what is paid", "category"),
        Axis("USD per million inferences", from_zero=True),
        tuple(series),
        Evidence(
            "USD per million inferences",
            f"prices configured; times and bytes {plan.figures}",
            "as in the measurement that was given" if figures else "",
            "not kept in the cost report" if figures else "",
        ),
    )


def machines_chart(report: CostReport, key: str) -> Chart:
    """Machines that are always on, at full load."""
    counts = [x.n for x in report.machines if x.n is not None]
    sources = " and ".join(dict.fromkeys(x.source for x in report.machines))
    return Chart(
        f"{key}-per-inference",
        f"{report.name}: cost per inference",
        "Machines that are always on and fully loaded.",
        Axis("machine", "category"),
        Axis("USD per million inferences", from_zero=True),
        (Series("at full load", tuple(x.name for x in report.machines),
                tuple(x.usd_per_inference * _MILLION for x in report.machines), kind="bars"),),
        Evidence("USD per million inferences", f"times {sources}, prices configured",
                 spanned(counts, "requests") if counts else "not given",
                 "in the table of machines, where it was given"),
    )  # fmt: skip


def streams_chart(report: CostReport, key: str) -> Chart:
    """Ways to serve streams."""
    return Chart(
        f"{key}-per-stream",
        f"{report.name}: cost of a stream",
        "A month of a stream, with every machine full.",
        Axis("way", "category"),
        Axis("USD per stream and month", from_zero=True),
        (Series("ways", tuple(x.name for x in report.streams),
                tuple(x.usd_per_stream for x in report.streams), kind="bars",
                notes=tuple("; ".join(x.broken) for x in report.streams),
                hollow=tuple(bool(x.broken) for x in report.streams)),),
        Evidence("USD", "predicted from configured prices"),
        hollow_means=_BROKEN,
    )  # fmt: skip


def capacity_chart(report: CapacityReport, key: str) -> Chart:
    """Throughput against the number of machines."""
    names = dict.fromkeys(row.name for row in report.rows)
    series = []
    for colour, name in enumerate(names):
        rows = [row for row in report.rows if row.name == name]
        counts = tuple(row.machines for row in rows)
        series.append(
            Series(name, counts, tuple(row.infer_per_hour for row in rows), colour=colour)
        )
    wanted = report.per_hour_wanted
    return Chart(
        f"{key}-throughput",
        f"{report.name}: capacity of machines",
        "At full load; N machines do N times what one does.",
        Axis("machines", from_zero=True),
        Axis("inferences per hour", from_zero=True),
        tuple(series),
        Evidence("inferences per hour", "predicted from given times"),
        () if wanted is None else (Mark(wanted, f"wanted: {number(wanted)} an hour"),),
    )


def sharing_chart(report: SharingReport, key: str) -> Chart | None:
    """Latency against the number of sharers; None if no latency was computed."""
    series = []
    for colour, machine in enumerate(report.machines):
        levels = [item for item in machine.levels if item.judged_ms is not None]
        if levels:
            series.append(
                Series(
                    machine.name,
                    tuple(item.sharers for item in levels),
                    tuple(item.judged_ms or 0.0 for item in levels),
                    notes=tuple("; ".join(item.broken) for item in levels),
                    hollow=tuple(bool(item.broken) for item in levels),
                    colour=colour,
                )
            )
    if not series:
        return None
    limit = report.latency_limit_ms
    return Chart(
        f"{key}-latency",
        f"{report.name}: latency against sharers",
        _caption(report),
        Axis("sharers of an accelerator", from_zero=True),
        Axis(f"p{report.percentile:g} of the slowest model (ms)", from_zero=True),
        tuple(series),
        Evidence("ms", f"predicted ({report.discipline}, formula or simulation, seed "
                 f"{report.seed}) from given service times"),
        (Mark(limit, f"limit {number(limit)} ms"),),
        hollow_means=_BROKEN,
    )  # fmt: skip


def _caption(report: SharingReport) -> str:
    return " ".join(_safe(report)) + " Levels that were looked at are drawn."


def _safe(report: SharingReport) -> Iterable[str]:
    for machine in report.machines:
        yield f"{machine.safe_sharers} may share '{machine.name}'."
