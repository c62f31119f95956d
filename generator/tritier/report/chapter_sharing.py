"""The part of the chapter of costs that says how many may share an accelerator."""

from __future__ import annotations

from collections.abc import Iterable

from tritier.documents.sharing import SharingLevel, SharingReport
from tritier.report.cost_charts import sharing_chart
from tritier.report.cost_tables import prices_table, streams_table
from tritier.report.parts import Block, Evidence, Notice, number, percent, table

_HEAD = ("sharers", "load", "memory MiB", "mean ms", "p50 ms", "p95 ms", "p99 ms", "slowest model",
         "by", "note")  # fmt: skip


def sharing_blocks(report: SharingReport, key: str) -> Iterable[Block]:
    """Chart, levels of every machine, costs, prices."""
    chart = sharing_chart(report, key)
    if chart is not None:
        yield chart
    for index, machine in enumerate(report.machines):
        yield table(
            f"{key}-machine-{index}",
            f"{report.name}, {machine.name}: {machine.safe_sharers} may share "
            f"({report.discipline})",
            _HEAD,
            [_row(item) for item in machine.levels],
            Evidence("as said in the head", "predicted from given service times"),
            note=f"one more: {machine.limited_by}",
        )
    if report.costs:
        yield streams_table(f"{report.name}: what sharers cost", report.costs, key)
    yield prices_table(report.name, report.prices, key)
    for text in report.assumptions:
        yield Notice(f"Assumed: {text}")
    for text in report.warnings:
        yield Notice(text, "warn")


def _row(item: SharingLevel) -> tuple[str, ...]:
    times = (item.mean_ms, item.p50_ms, item.p95_ms, item.p99_ms)
    return (
        str(item.sharers), percent(item.utilisation), number(item.memory_mib),
        *(number(x) for x in times), item.slowest or "", item.method or "",
        "; ".join(item.broken) or "keeps the limits",
    )  # fmt: skip
