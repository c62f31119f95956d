"""Tables of a comparison."""

from __future__ import annotations

from tritier.cli.output import say, show_table, size_text
from tritier.documents import Comparison, Duration
from tritier.workflow.compare_rounds import interval_text


def show_comparison(found: Comparison) -> None:
    """All tables, with '-' for what was not measured, and then why."""
    _show_latency(found)
    _show_components(found)
    if found.wires:
        _show_wires(found)
    if found.memory:
        _show_memory(found)
    if found.errors:
        show_table(
            "sizes of errors, |predicted - measured| / measured",
            ["of", "n", "mean %", "p95 %", "max %"],
            [
                (name, x.n, *(f"{100 * value:.1f}" for value in (x.mean, x.p95, x.max)))
                for name, x in found.errors.items()
            ],
        )
    for text in found.predicted.warnings:
        say(f"warning: {text}")
    for text in found.measured.unmeasured if found.measured else ():
        say(f"not measured: {text}")


def _show_latency(found: Comparison) -> None:
    app_ms = found.predicted.app_ms
    row = [f"{found.predicted.latency_ms:.2f}", "-" if app_ms is None else f"{app_ms:.2f}"]
    row += "-------"
    if found.measured is not None:
        x = found.measured.latency
        row[2:] = [
            f"{x.median_ms:.2f} ({interval_text(x.n, x.low_ms, x.high_ms)})",
            _percent(found.latency_error),
            f"{x.mean_ms:.2f} ± {x.std_ms:.2f}",
            *(f"{value:.2f}" for value in (x.p90_ms, x.p95_ms, x.p99_ms)),
            f"{x.n}",
        ]
    columns = ["predicted ms", "of it the app", "measured ms: median (95 % interval)", "error %",
               "mean ± deviation", "p90", "p95", "p99", "n"]  # fmt: skip
    title = f"{found.model}, plan {found.plan_id}: whole requests"
    show_table(title, columns, [row])


def _show_components(found: Comparison) -> None:
    queues = {x.id: x.queue_ms for x in found.measured.components} if found.measured else {}
    show_table(
        "components, as Triton counts them",
        ["component", "server", "layers", "predicted ms", "measured ms", "error %", "queued ms"],
        [
            (x.id, x.server, x.layers, f"{x.predicted_ms:.2f}", _duration(x.measured),
             _percent(x.error), f"{queues[x.id]:.2f}" if x.id in queues else "-")
            for x in found.components
        ],
    )  # fmt: skip


def _show_wires(found: Comparison) -> None:
    show_table(
        "messages",
        ["message", "from", "to", "tensors", "predicted", "measured", "predicted ms",
         "measured ms", "error %"],
        [
            (x.name, x.source, x.target, " ".join(x.tensors) or "-",
             size_text(x.predicted_bytes),
             "-" if x.measured_bytes is None else size_text(x.measured_bytes),
             f"{x.predicted_ms:.2f}", _duration(x.measured), _percent(x.error))
            for x in found.wires
        ],
    )  # fmt: skip


def _show_memory(found: Comparison) -> None:
    show_table(
        "memory of the processes of components",
        ["server", "predicted", "measured", "error %"],
        [
            (x.server, size_text(x.predicted_bytes),
             "-" if x.measured_bytes is None else size_text(x.measured_bytes), _percent(x.error))
            for x in found.memory
        ],
    )  # fmt: skip


def _duration(found: Duration | None) -> str:
    return "-" if found is None else f"{found.median_ms:.2f} ± {found.std_ms:.2f}"


def _percent(error: float | None) -> str:
    return "-" if error is None else f"{100 * error:+.1f}"
