"""The chapter that holds predictions against measurements: request, components, wires, memory."""

from __future__ import annotations

from collections.abc import Iterable

from tritier.documents import Duration
from tritier.documents.comparison import Comparison
from tritier.report.commands import compare_command
from tritier.report.material import Material
from tritier.report.parts import (
    Axis,
    Block,
    Chart,
    Evidence,
    Missing,
    Notice,
    Section,
    Series,
    Table,
    number,
    percent,
    size,
    spanned,
    table,
)

_BOTH = "predicted and measured"
_SPREAD = "standard deviation (columns 'std')"


def comparison_section(material: Material) -> Section:
    """Rows of what was predicted, and of what was measured if it was."""
    title = "Predicted against measured"
    command = compare_command(material)
    if material.comparison is None:
        return Section(
            "comparison", title, missing=(Missing("predicted beside measured", command),)
        )
    document = material.comparison.document
    missing: tuple[Missing, ...] = ()
    if document.measured is None:
        missing = (Missing("the measurement of the predicted plan", command),)
    lead = (
        f"Predicted at {document.predicted_at}"
        + (f", measured at {document.measured_at}" if document.measured_at else "")
        + ". An error is (predicted - measured) / measured, with the median as what was measured.",
    )
    return Section("comparison", title, tuple(_blocks(document)), lead, missing)


def _blocks(document: Comparison) -> Iterable[Block]:
    yield from _whole(document)
    yield from _component_chart(document)
    yield _components(document)
    if document.wires:
        yield _wires(document)
    if document.memory:
        yield _memory(document)
    if document.errors:
        yield _errors(document)
    for text in document.predicted.warnings:
        yield Notice(text, "warn")
    for text in document.measured.unmeasured if document.measured else ():
        yield Notice(text, "info")


def _whole(document: Comparison) -> Iterable[Table]:
    if document.measured is None:
        return
    found = document.measured.latency
    yield table(
        "comparison-request",
        "A whole request",
        ("predicted ms", "median ms", "95 % interval of the median ms", "mean ms", "std ms",
         "p90 ms", "p95 ms", "p99 ms", "error"),
        [(number(document.predicted.latency_ms), number(found.median_ms),
          f"{number(found.low_ms)} to {number(found.high_ms)}", number(found.mean_ms),
          number(found.std_ms), number(found.p90_ms), number(found.p95_ms), number(found.p99_ms),
          percent(document.latency_error, signed=True))],
        Evidence("ms per request, one at a time", _BOTH, f"{found.n} requests",
                 "95 % interval of the median, standard deviation"),
    )  # fmt: skip


def _component_chart(document: Comparison) -> Iterable[Chart]:
    rows = [row for row in document.components if row.measured is not None]
    if not rows:
        return
    names = tuple(f"{row.id} on {row.server}" for row in rows)
    measured = [row.measured for row in rows if row.measured is not None]
    yield Chart(
        "components-times",
        "Components: predicted beside measured",
        "Service time of each component on its server, without waiting; bars of measured times "
        "reach one standard deviation to both sides.",
        Axis("component", "category"),
        Axis("service time (ms)", from_zero=True),
        (
            Series("predicted", names, tuple(row.predicted_ms for row in rows), kind="bars",
                   colour=0),
            Series("measured (median)", names, tuple(x.median_ms for x in measured), kind="bars",
                   low=tuple(max(x.median_ms - x.std_ms, 0.0) for x in measured),
                   high=tuple(x.median_ms + x.std_ms for x in measured), colour=1),
        ),
        Evidence("ms per request", _BOTH, _counts([x.n for x in measured]),
                 "standard deviation (bars)"),
    )  # fmt: skip


def _components(document: Comparison) -> Table:
    rows = [
        (row.id, row.server, str(row.layers), number(row.predicted_ms), *_duration(row.measured),
         percent(row.error, signed=True))
        for row in document.components
    ]  # fmt: skip
    known = [row.measured.n for row in document.components if row.measured]
    return table(
        "comparison-components", "Components",
        ("component", "server", "layers", "predicted ms", "median ms", "std ms", "n", "error"),
        rows, _evidence("ms per request", known),
    )  # fmt: skip


def _wires(document: Comparison) -> Table:
    rows = [
        (row.name, row.source, row.target, " ".join(row.tensors), size(row.predicted_bytes),
         size(row.measured_bytes), number(row.predicted_ms), *_duration(row.measured),
         percent(row.error, signed=True))
        for row in document.wires
    ]  # fmt: skip
    known = [row.measured.n for row in document.wires if row.measured]
    return table(
        "comparison-wires", "Messages on links",
        ("message", "from", "to", "tensors", "predicted size", "measured size", "predicted ms",
         "median ms", "std ms", "n", "error"),
        rows, _evidence("ms and bytes per request", known),
        note="A measured size contains what is around the tensors of the message.",
    )  # fmt: skip


def _memory(document: Comparison) -> Table:
    rows = [
        (row.server, size(row.predicted_bytes), size(row.measured_bytes),
         percent(row.error, signed=True))
        for row in document.memory
    ]  # fmt: skip
    known = [1 for row in document.memory if row.measured_bytes is not None]
    source = _BOTH if known else "predicted"
    return table(
        "comparison-memory", "Memory of the servers' processes",
        ("server", "predicted", "measured", "error"), rows,
        Evidence("bytes, resident", source, "1 reading per server" if known else "",
                 "none: a single reading" if known else ""),
    )  # fmt: skip


def _errors(document: Comparison) -> Table:
    return table(
        "comparison-errors", "Sizes of the errors",
        ("of", "n", "mean", "p95", "largest"),
        [(name, str(x.n), percent(x.mean), percent(x.p95), percent(x.max))
         for name, x in document.errors.items()],
        Evidence("per cent of what was measured", _BOTH, "column 'n'", "columns p95 and largest"),
    )  # fmt: skip


def _duration(found: Duration | None) -> tuple[str, str, str]:
    if found is None:
        return "", "", ""
    return number(found.median_ms), number(found.std_ms), str(found.n)


def _evidence(unit: str, counts: list[int]) -> Evidence:
    if not counts:
        return Evidence(unit, "predicted")
    return Evidence(unit, _BOTH, _counts(counts), _SPREAD)


def _counts(counts: list[int]) -> str:
    return spanned(counts, "requests")
