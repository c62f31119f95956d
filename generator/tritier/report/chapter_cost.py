"""The chapter of costs and capacity."""

from __future__ import annotations

from collections.abc import Iterable

from tritier.documents.costs import CapacityReport, CostReport, PlanCost
from tritier.report.chapter_sharing import sharing_blocks
from tritier.report.cost_charts import capacity_chart, machines_chart, plan_chart, streams_chart
from tritier.report.cost_commands import cost_command
from tritier.report.cost_tables import break_even_table, prices_table, streams_table
from tritier.report.material import Material
from tritier.report.parts import (
    Block,
    Evidence,
    Missing,
    Notice,
    Section,
    Table,
    number,
    size,
    spanned,
    table,
)


def cost_section(material: Material) -> Section:
    """Of all reports of costs, capacity and sharing that were given."""
    title = "Cost"
    if not (material.cost or material.capacity or material.sharing):
        missing = Missing("what an inference costs", cost_command(material))
        return Section("cost", title, missing=(missing,))
    blocks: list[Block] = []
    for index, read in enumerate(material.cost):
        blocks += _cost_blocks(read.document, f"cost-{index}")
    for index, capacity in enumerate(material.capacity):
        blocks += _capacity_blocks(capacity.document, f"capacity-{index}")
    for index, sharing in enumerate(material.sharing):
        blocks += sharing_blocks(sharing.document, f"sharing-{index}")
    return Section("cost", title, tuple(blocks))


def _cost_blocks(report: CostReport, key: str) -> Iterable[Block]:
    if report.plan is not None:
        chart = plan_chart(report.plan, key)
        yield from [chart] if chart is not None else []
        yield from _plan_tables(report, report.plan, key)
    if report.machines:
        yield machines_chart(report, key)
        yield _machines(report, key)
    if report.serverless:
        yield _serverless(report, key)
    if any(item.break_even for item in report.serverless):
        yield break_even_table(report.name, report.serverless, key)
    if report.rates:
        yield table(
            f"{key}-rates", f"{report.name}: cost at a rate of requests",
            ("way", "requests/h", "machines", "USD/h", "USD per inference"),
            [(x.name, number(x.per_hour), "" if x.machines is None else str(x.machines),
              number(x.usd_per_hour), number(x.usd_per_inference)) for x in report.rates],
            Evidence("USD", "predicted from configured prices"),
        )  # fmt: skip
    if report.streams:
        yield streams_chart(report, key)
        yield streams_table(f"{report.name}: ways to serve streams", report.streams, key)
    yield prices_table(report.name, report.prices, key)
    for text in report.assumptions:
        yield Notice(f"Assumed: {text}")
    for text in report.warnings:
        yield Notice(text, "warn")


def _plan_tables(report: CostReport, plan: PlanCost, key: str) -> Iterable[Table]:
    source = f"prices configured; times and bytes {plan.figures}"
    evidence = Evidence("USD per million inferences", source, *_unsaid(plan.figures))
    rows = [
        (f"{x.server}: machine", f"{number(x.busy_ms)} ms", _million(x.machine_usd))
        for x in plan.servers
    ]
    rows += [
        (f"{x.server}: energy", f"{number(x.energy_joule)} J", _million(x.energy_usd))
        for x in plan.servers
        if x.energy_joule
    ]
    rows += [(f"{x.source} -> {x.target}: traffic", size(x.bytes), _million(x.usd))
             for x in plan.links]  # fmt: skip
    rows.append(("sum", "", _million(plan.usd_per_inference)))
    if plan.alone_usd is not None:
        rows.append(("if the servers serve nothing else", f"{number(plan.alone_per_hour)} per hour",
                     _million(plan.alone_usd)))  # fmt: skip
    yield table(
        f"{key}-plan", f"{report.name}: an inference of plan {plan.plan_id}",
        ("what", "used per inference", "USD per million"), rows, evidence,
    )  # fmt: skip


def _million(usd: float) -> str:
    return number(usd * 1e6)


def _unsaid(source: str) -> tuple[str, str]:
    """N and spread where the cost report only keeps means."""
    if source != "measured":
        return "", ""
    return "as in the measurement that was given", "not kept in the cost report"


def _machines(report: CostReport, key: str) -> Table:
    counts = [x.n for x in report.machines if x.n is not None]
    sources = " and ".join(dict.fromkeys(x.source for x in report.machines))
    return table(
        f"{key}-machines", f"{report.name}: machines that are always on",
        ("run", "machine", "USD/h", "mean s", "std s", "p95 s", "n", "inferences/h",
         "USD per inference", "USD per month"),
        [(x.name, x.machine, number(x.usd_per_hour), number(x.mean_s), number(x.std_s),
          number(x.p95_s), "" if x.n is None else str(x.n), number(x.infer_per_hour),
          number(x.usd_per_inference), number(x.usd_per_month)) for x in report.machines],
        Evidence("USD, s", f"times {sources}, prices configured",
                 spanned(counts, "requests") if counts else "not given",
                 "column std where it was given"),
    )  # fmt: skip


def _serverless(report: CostReport, key: str) -> Table:
    counts = [x.n for x in report.serverless if x.n is not None]
    sources = " and ".join(dict.fromkeys(x.source for x in report.serverless))
    return table(
        f"{key}-serverless", f"{report.name}: serverless",
        ("run", "machine", "USD/s", "cold s", "warm s", "cold USD", "warm USD"),
        [(x.name, x.machine, number(x.usd_per_second), number(x.cold_s), number(x.warm_s),
          number(x.cold_usd), number(x.warm_usd)) for x in report.serverless],
        Evidence("USD, s", f"times {sources}, prices configured",
                 spanned(counts, "requests") if counts else "not given",
                 "not kept in the cost report"),
    )  # fmt: skip


def _capacity_blocks(report: CapacityReport, key: str) -> Iterable[Block]:
    predicted = Evidence("as said in the head", "predicted from given times and prices")
    if report.rows:
        yield capacity_chart(report, key)
        yield table(
            f"{key}-rows", f"{report.name}: capacity at full load",
            ("name", "machines", "inferences/h", "USD/h"),
            [(x.name, str(x.machines), number(x.infer_per_hour), number(x.usd_per_hour))
             for x in report.rows],
            predicted,
        )  # fmt: skip
    if report.choices:
        yield table(
            f"{key}-choices", f"{report.name}: machines within the latency limit",
            ("name", "latency ms", "judged by", "keeps the limit", "machines", "USD/h",
             "USD per inference", "note"),
            [(x.name, number(x.latency_ms), x.judged_by, "yes" if x.keeps_limit else "no",
              "" if x.machines is None else str(x.machines), number(x.usd_per_hour),
              number(x.usd_per_inference), "best" if x.best else "") for x in report.choices],
            predicted,
        )  # fmt: skip
    if report.batches is not None:
        plan = report.batches
        yield table(
            f"{key}-batches",
            f"{report.name}: {plan.images} images by {number(plan.finished_ms)} ms "
            f"({plan.objective}, limit {number(plan.deadline_ms)} ms)",
            ("accelerator", "mini-batch", "runs after the first", "images", "finished ms"),
            [(x.accelerator, str(x.mini_batch), str(x.uses), str(x.images), number(x.finished_ms))
             for x in plan.uses],
            predicted,
        )  # fmt: skip
    if report.prices:
        yield prices_table(report.name, report.prices, key)
    for text in report.warnings:
        yield Notice(text, "warn")
