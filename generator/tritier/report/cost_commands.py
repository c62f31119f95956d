"""The commands that make reports of costs, of capacity and of sharing (see `commands`)."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from tritier.documents.costs import BatchPlan, CapacityReport, CostReport, PlanCost, PriceUsed
from tritier.documents.sharing import SharingReport
from tritier.report.commands import PRICES, SERVERS
from tritier.report.material import Material, Read

_BY_HAND = "given by hand"
_GB = 1e9


def cost_command(material: Material) -> str:
    """Prices the plan."""
    words = ["--plan", str(material.plan_file), *_times(material, "predicted")]
    return _shell("cost", *words, "--servers", SERVERS, "--prices", PRICES, "-o", "cost.json")


def made_costs(material: Material) -> Iterable[str]:
    """Those of the reports that were given."""
    for read in material.cost:
        yield _costs(material, read)
    for capacity in material.capacity:
        yield _capacity(capacity.document, capacity.path)
    for sharing in material.sharing:
        yield _sharing(sharing.document, sharing.path)


def _costs(material: Material, read: Read[CostReport]) -> str:
    report = read.document
    words: list[str] = []
    if report.machines or report.serverless:
        words.append("WORKLOAD.yaml")
    words += _prices(report.prices)
    if report.streams:
        words += ["--streams", "STREAMS.yaml"]
    if report.plan is not None:
        words += ["--plan", str(material.plan_file), *_times(material, report.plan.figures)]
        words += _plan_prices(report.plan, report.prices)
    if report.rates:
        words += ["--rate", f"{report.rates[0].per_hour:.10g}"]
    elif report.plan and report.plan.figures == "measured" and report.plan.alone_per_hour:
        words += ["--rate", f"{report.plan.alone_per_hour:.10g}"]
    return _shell("cost", *words, "-o", read.path)


def _times(material: Material, figures: str) -> list[str]:
    """Where the times of a plan come from."""
    if figures == "measured":
        return ["--comparison", str(material.paths.comparison or "COMPARISON.json")]
    return ["--planning", str(material.paths.planning or "PLANNING.json")]


def _prices(used: Iterable[PriceUsed]) -> list[str]:
    return ["--prices", PRICES] if any(x.source != _BY_HAND for x in used) else []


def _plan_prices(plan: PlanCost, prices: Iterable[PriceUsed]) -> Iterable[str]:
    """Of machines by name, or in the servers file; egress and electricity as they were paid."""
    yield from ("--servers", SERVERS)
    for item in plan.servers:
        if item.price is not None and item.price.source != _BY_HAND:
            yield from ("--machine", f"{item.server}={item.price.name}")
    paid = {x.source: x.usd * _GB / x.bytes for x in plan.links if x.bytes and x.usd}
    for server, usd in paid.items():
        yield from ("--egress", f"{server}={usd:.6g}")
    energy = [x.usd for x in prices if x.unit == "kWh"]
    if energy:
        yield from ("--energy", f"{energy[-1]:.6g}")


def _capacity(report: CapacityReport, path: Path) -> str:
    words: list[str] = []
    if report.rows:
        words += ["WORKLOAD.yaml", "--machines", str(max(x.machines for x in report.rows))]
    if report.latency_limit_ms is not None:
        words += ["--latency-ms", f"{report.latency_limit_ms:g}"]
    if report.per_hour_wanted is not None:
        words += ["--rate", f"{report.per_hour_wanted:.10g}"]
    words += _prices(report.prices)
    if report.batches is not None:
        words += _batches(report.batches)
    return _shell("capacity", *words, "-o", path)


def _batches(plan: BatchPlan) -> Iterable[str]:
    yield from ("--batches", "BATCHES.yaml", "--deadline-ms", f"{plan.deadline_ms:.10g}")
    if plan.images_wanted is None:
        yield "--most-images"
        return
    yield from ("--images", str(plan.images_wanted))
    if plan.objective == "least price":
        yield "--least-price"


def _sharing(report: SharingReport, path: Path) -> str:
    return _shell(
        "share", "SCENARIO.yaml", "--latency-ms", f"{report.latency_limit_ms:g}", "--discipline",
        report.discipline, "--seed", report.seed, *_prices(report.prices), "-o", path,
    )  # fmt: skip


def _shell(command: str, *words: object) -> str:
    return shlex.join(["tritier", command, *map(str, words)])
