"""Chapters from the planning report: compromises, baselines and alternatives, limits and gains."""

from __future__ import annotations

from collections.abc import Iterable

from tritier.documents import PlanFigures, PlanReport
from tritier.report.commands import plan_command
from tritier.report.material import Material
from tritier.report.parts import (
    Axis,
    Block,
    Chart,
    Evidence,
    Missing,
    Section,
    Series,
    Table,
    number,
    size,
    table,
)

_HEAD = ("latency ms", "sum of times ms", "busiest ms", "energy J", "components", "int8 layers")
# Compromises between the best ones that are asked for.
_FRONT = 8
_UNITS = "ms and J per request"
_COST = "USD per million"


def front_section(material: Material) -> Section:
    """Latency against energy, with the plan and its baselines."""
    title = "Compromises of latency and energy"
    read = material.planning
    if read is None or not read.document.front:
        command = plan_command(material, pareto=_FRONT)
        return Section("front", title, missing=(Missing("the Pareto front", command),))
    report = read.document
    return Section(
        "front",
        title,
        (_front_chart(report),),
        (
            "Nothing is predicted to beat a plan on the front in both latency and energy. "
            "Baselines that break a limit are left out.",
        ),
    )


def _front_chart(report: PlanReport) -> Chart:
    front = sorted(report.front, key=lambda item: (item.figures.latency_ms, item.figures.sum_ms))
    series = [
        Series(
            "front",
            tuple(item.figures.latency_ms for item in front),
            tuple(item.figures.energy_joule for item in front),
            kind="line",
            notes=tuple(_note(item.figures) for item in front),
            hollow=tuple(not item.supported for item in front),
            colour=0,
        )
    ]
    kept = [item for item in report.baselines if not item.broken]
    if kept:
        series.append(
            Series(
                "baselines",
                tuple(item.figures.latency_ms for item in kept),
                tuple(item.figures.energy_joule for item in kept),
                kind="points",
                notes=tuple(item.what for item in kept),
                colour=1,
                symbol="square",
            )
        )
    series.append(
        Series(
            "this plan",
            (report.figures.latency_ms,),
            (report.figures.energy_joule,),
            kind="points",
            notes=(_note(report.figures),),
            colour=2,
            symbol="star",
        )
    )
    return Chart(
        "pareto-front",
        "Pareto front: energy against latency",
        f"{len(front)} compromises that nothing beats in both, the plan ({report.objective}) and "
        f"{len(kept)} baselines.",
        Axis("latency, simulated (ms)"),
        Axis("energy (J)"),
        tuple(series),
        Evidence(_UNITS, f"predicted ({report.method})"),
        hollow_means="between weights: no weight of latency and energy prefers it",
    )


def _note(figures: PlanFigures) -> str:
    return f"{figures.components} components, {figures.quantized_layers} int8 layers"


def baselines_section(material: Material) -> Section:
    """The plan beside what would be done without a planner (rule R8)."""
    title = "Baselines and alternatives"
    if material.planning is None:
        what = "baselines, alternatives and what better links bring"
        missing = Missing(what, plan_command(material, report=True))
        return Section("baselines", title, missing=(missing,))
    report = material.planning.document
    blocks: list[Block] = [_bars(report), _comparison(report)]
    blocks += _more_tables(report)
    lead = (
        "What all on one server, or one cut, would take, and the plans nearest to this one "
        "(rule R8). Latency is simulated, with overlap; the planner minimises the sum.",
    )
    return Section("baselines", title, tuple(blocks), lead)


def _bars(report: PlanReport) -> Chart:
    rows = [("this plan", report.figures, "")]
    rows += [(item.what, item.figures, "; ".join(item.broken)) for item in report.baselines]
    rows += [(item.what, item.figures, "") for item in report.alternatives]
    groups = (
        ("this plan", rows[:1], 2),
        ("baselines", rows[1 : 1 + len(report.baselines)], 1),
        ("alternatives", rows[1 + len(report.baselines) :], 0),
    )
    series = [
        Series(
            name,
            tuple(what for what, _, _ in items),
            tuple(figures.latency_ms for _, figures, _ in items),
            kind="bars",
            notes=tuple(note and f"breaks a limit: {note}" for _, _, note in items),
            hollow=tuple(bool(note) for _, _, note in items),
            colour=colour,
        )
        for name, items, colour in groups
        if items
    ]
    return Chart(
        "baselines-latency",
        "Latency of the plan, baselines and alternatives",
        "One request at a time; shorter is better.",
        Axis("placement", "category"),
        Axis("latency, simulated (ms)", from_zero=True),
        tuple(series),
        Evidence("ms per request", "predicted (simulator of the data plane)"),
        hollow_means="breaks a limit, so it may not be used",
    )


def _comparison(report: PlanReport) -> Table:
    priced = report.figures.cost_usd is not None
    rows = [("this plan", *_cells(report.figures, priced), "")]
    for item in report.baselines:
        note = "is the plan" if item.chosen else "; ".join(item.broken)
        rows.append((item.what, *_cells(item.figures, priced), note))
    rows += [
        (item.what, *_cells(item.figures, priced), "alternative") for item in report.alternatives
    ]
    head = (*_HEAD, _COST) if priced else _HEAD
    units = f"{_UNITS}; {_COST}" if priced else _UNITS
    return table(
        "baselines-table", "All figures", ("placement", *head, "note"), rows,
        Evidence(units, f"predicted ({report.method})"),
    )  # fmt: skip


def _cells(figures: PlanFigures, priced: bool) -> tuple[str, ...]:
    return (
        number(figures.latency_ms),
        number(figures.sum_ms),
        number(figures.bottleneck_ms),
        number(figures.energy_joule),
        str(figures.components),
        str(figures.quantized_layers),
        *([_million(figures.cost_usd)] if priced else []),
    )


def _million(usd: float | None) -> str:
    return number(None if usd is None else usd * 1e6)


def _more_tables(report: PlanReport) -> Iterable[Table]:
    predicted = "predicted"
    yield table(
        "shares-servers",
        "Where the time goes: servers",
        ("server", "layers", "components", "compute ms", "energy J", "memory"),
        [
            (x.server, str(x.layers), str(x.components), number(x.compute_ms),
             number(x.energy_joule), size(x.memory_bytes))
            for x in report.servers
        ],
        Evidence("ms, J and bytes per request", predicted),
    )  # fmt: skip
    if report.links:
        yield table(
            "shares-links",
            "Where the time goes: links",
            ("from", "to", "tensors", "size", "ms"),
            [
                (x.source, x.target, str(x.tensors), size(x.bytes), number(x.transfer_ms))
                for x in report.links
            ],
            Evidence("ms and bytes per request, each tensor by itself", predicted),
        )
    if report.limits:
        yield table(
            "limits",
            "Limits",
            ("limit", "used", "of", "unit", "note"),
            [
                (x.what, number(x.used), number(x.limit), x.unit, "binding" if x.binding else "")
                for x in report.limits
            ],
            _limit_evidence(report),
        )
    if report.gains:
        priced = any(x.cost_usd is not None for x in report.gains)
        yield table(
            "gains",
            "What changes would bring, each solved again",
            ("change", "sum of times ms", "energy J", *([_COST] if priced else [])),
            [
                (x.what, _signed(x.sum_ms), _signed(x.energy_joule),
                 *([_signed(x.cost_usd and x.cost_usd * 1e6)] if priced else []))
                for x in report.gains
            ],
            Evidence("ms and J per request, negative is less", predicted),
        )  # fmt: skip


def _limit_evidence(report: PlanReport) -> Evidence:
    unit = "as said in the table"
    if not report.measured_noise:
        return Evidence(unit, "configured limits, predicted use")
    return Evidence(
        unit,
        "configured limits; use is predicted, or measured where it says so",
        f"{report.noise_runs} choices of int8 layers were measured",
        "not stored: a mean over the inputs of the noise model",
    )


def _signed(value: float | None) -> str:
    if value is None:
        return ""
    return f"{'+' if value > 0 else ''}{number(value)}"
