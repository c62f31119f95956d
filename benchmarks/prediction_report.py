"""The tables and the picture of `prediction`."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.kept import Errors, errors_of, markdown
from tritier.workflow.compare_rounds import interval_text

Row = Mapping[str, Any]
# Mean, 95th percentile and largest error in %, that were promised.
GOALS = (3.0, 8.0, 12.0)
_COLOURS = {1: "#0072B2", 2: "#E69F00", 3: "#009E73"}


def pairs(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """(predicted, measured) of one kind of prediction."""
    return [(row[key], row["measured"]["median_ms"]) for row in rows]


def groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """All, and by model, tiers and kind, as far as there are several."""
    yield "all plans", list(rows)
    for what, text in (("model", "{}"), ("tiers", "{} servers"), ("kind", "{} plans")):
        values = sorted({row[what] for row in rows})
        for value in values if len(values) > 1 else ():
            yield text.format(value), [row for row in rows if row[what] == value]


def summary(rows: Sequence[Row]) -> str:
    """Errors, then a line for each plan."""
    lines = []
    for name, some in groups(rows):
        for key, kind in (
            ("predicted_ms", "raw"),
            ("checked_ms", "speed checked"),
            ("simulated_ms", "simulated only"),
            ("without_drift_ms", "drift out"),
        ):
            found = errors_of(pairs(some, key))
            lines.append((name, kind, *_cells(found)))
    columns = ("plans", "prediction", "n", "mean %", "p95 %", "max %", "bias %")
    raw, checked = (errors_of(pairs(rows, key)) for key in ("predicted_ms", "checked_ms"))
    return "\n".join(
        [
            markdown(columns, lines, left=2),
            f"Goals: mean {GOALS[0]:g} %, p95 {GOALS[1]:g} %, max {GOALS[2]:g} %: "
            f"{judged(raw)} by the raw predictions, {judged(checked)} by those for which the speed "
            "of servers was checked right before.\n",
            *ranking(rows),
            _each(rows),
        ]
    )


LEAST_PLANS = 30  # of fewer, a 95th percentile is next to the largest


def judged(found: Errors) -> str:
    """Whether the goals are kept; they are about many plans."""
    if found.n < LEAST_PLANS:
        return f"undecided (of {found.n} plans, {LEAST_PLANS} are needed)"
    return "kept" if keeps(found) else "missed"


def ranking(rows: Sequence[Row]) -> Iterator[str]:
    """How well predictions order the plans of each model, and whether plans that were chosen for
    their prediction are predicted too fast."""
    for model in sorted({row["model"] for row in rows}):
        some = [row for row in rows if row["model"] == model]
        both = pairs(some, "predicted_ms")
        right = sum((p < q) == (m < n) for (p, m), (q, n) in itertools.combinations(both, 2))
        count = len(both) * (len(both) - 1) // 2
        biases = {
            kind: errors_of(pairs(of_kind, "predicted_ms")).bias
            for kind in ("optimal", "random")
            if (of_kind := [row for row in some if row["kind"] == kind])
        }
        told = ", ".join(f"{kind} plans {bias:+.2f} %" for kind, bias in biases.items())
        if count:
            yield (
                f"{model}: of {count} pairs of plans, {100 * right / count:.0f} % are in the "
                f"predicted order. Bias: {told}.\n"
            )


def keeps(found: Errors) -> bool:
    """Whether errors are within the goals."""
    sizes = (found.mean, found.p95, found.largest)
    return all(size <= goal for size, goal in zip(sizes, GOALS, strict=True))


def _cells(found: Errors) -> tuple[str, ...]:
    return (
        str(found.n),
        f"{found.mean:.2f}",
        f"{found.p95:.2f}",
        f"{found.largest:.2f}",
        f"{found.bias:+.2f}",
    )


def _each(rows: Sequence[Row]) -> str:
    lines = []
    for row in sorted(rows, key=lambda row: (row["model"], row["tiers"], row["kind"])):
        measured = row["measured"]
        error = 100 * (row["predicted_ms"] / measured["median_ms"] - 1)
        checked = 100 * (row["checked_ms"] / measured["median_ms"] - 1)
        without = 100 * (row["without_drift_ms"] / measured["median_ms"] - 1)
        drift = statistics.fmean(row["drift"].values())
        lines.append(
            (
                row["model"],
                row["plan_id"],
                f"{row['kind']}: {row['aim']}",
                row["tiers"],
                row["components"],
                row["int8_layers"],
                f"{row['predicted_ms']:.1f}",
                f"{measured['median_ms']:.1f}",
                interval_text(measured["n"], measured["low_ms"], measured["high_ms"], 1),
                measured["n"],
                f"{error:+.1f}",
                f"{checked:+.1f}",
                f"{drift:.3f}",
                f"{without:+.1f}",
            )
        )
    columns = ("model", "plan", "made as", "servers", "components", "int8 layers", "predicted ms",
               "measured ms", "95 % interval", "n", "raw %", "checked %", "drift",
               "drift out %")  # fmt: skip
    return markdown(columns, lines, left=3)


def write_plot(rows: Sequence[Row], path: Path) -> None:
    """Measured against predicted."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    for tiers in sorted({row["tiers"] for row in rows}):
        some = pairs([row for row in rows if row["tiers"] == tiers], "predicted_ms")
        axes.scatter(
            [p for p, _ in some], [m for _, m in some], s=24, color=_COLOURS.get(tiers),
            label=f"{tiers} server{'s' * (tiers > 1)}",
        )  # fmt: skip
    every = [x for pair in pairs(rows, "predicted_ms") for x in pair]
    ends = [0.9 * min(every), 1.1 * max(every)]
    axes.plot(ends, ends, color="grey", linewidth=1)
    axes.fill_between(
        ends, [0.9 * x for x in ends], [1.1 * x for x in ends], color="grey", alpha=0.15,
        label="within 10 %",
    )  # fmt: skip
    axes.set(
        xscale="log", yscale="log", xlabel="predicted ms", ylabel="measured ms (median)",
        title="Latency of plans, predicted before it was measured",
    )  # fmt: skip
    axes.legend()
    figure.savefig(path, dpi=120)
