"""Plans and planning reports on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tritier.cli.output import say, show_table, size_text
from tritier.documents import Plan, PlanFigures, PlanReport

_HEAD = ["latency ms", "sum ms", "energy J", "components", "int8 layers"]


def show_plan(plan: Plan) -> None:
    """Components and wires as tables."""
    show_table(
        f"plan {plan.id} of {plan.model.name}: components",
        ["component", "server", "layers", "first", "last", "inputs", "outputs"],
        [
            (
                c.id,
                c.server,
                len(c.layers),
                c.layers[0],
                c.layers[-1],
                " ".join(c.inputs),
                " ".join(c.outputs),
            )
            for c in plan.components
        ],
    )
    show_table(
        "tensors on links",
        ["tensor", "name in the model", "from", "to", "shape", "codec", "size (batch 1)"],
        [
            (
                wire.tensor,
                plan.tensor(wire.tensor).name,
                wire.source,
                wire.target,
                "x".join(str(d) for d in plan.tensor(wire.tensor).shape),
                wire.codec,
                size_text(plan.wire_bytes(wire)),
            )
            for wire in plan.wires
        ],
    )
    if plan.quantized_layers:
        say(f"quantized layers: {', '.join(plan.quantized_layers)}")


def show_report(report: PlanReport) -> None:
    """What was found, what else there is, and what would help."""
    _show_summary(report)
    _show_shares(report)
    _show_limits(report)
    _show_comparison(report)
    _show_gains(report)
    _show_front(report)
    for warning in report.warnings:
        say(f"warning: {warning}")


def _show_summary(report: PlanReport) -> None:
    figures = report.figures
    chosen = [item.what for item in report.baselines if item.chosen]
    if chosen:
        say(f"the plan is a baseline, nothing else is better: {chosen[0]}")
    say(f"{report.objective}: {report.status} ({report.method}), gap {report.gap:.2g}, "
        f"solved in {report.solve_s:.2f} s")  # fmt: skip
    say(
        f"predicted: {figures.latency_ms:.4g} ms simulated, {figures.sum_ms:.4g} ms if all times "
        f"are added up, {figures.energy_joule:.4g} J"
        + ("" if figures.cost_usd is None else f", {figures.cost_usd:.4g} USD per inference")
    )
    for name, noise in report.measured_noise.items():
        say(
            f"noise of {name}: {noise:.4g}, measured; choices of int8 layers measured for it: "
            f"{report.noise_runs}"
        )
    if not report.measured_noise:
        for name, noise in figures.noise.items():
            say(f"noise of {name}: {noise:.4g}, predicted, without its margin")
    for item in report.throughput:
        say(
            f"predicted for {item.concurrency} at once: {item.infer_per_s:.4g} infer/s, "
            f"{item.latency_ms:.4g} ms"
        )


def _show_shares(report: PlanReport) -> None:
    show_table(
        "where the time goes: servers",
        ["server", "layers", "components", "compute ms", "energy J", "models' memory"],
        [
            (x.server, x.layers, x.components, f"{x.compute_ms:.4g}", f"{x.energy_joule:.4g}",
             size_text(x.memory_bytes))
            for x in report.servers
        ],
    )  # fmt: skip
    if report.links:
        show_table(
            "where the time goes: links",
            ["from", "to", "tensors", "size", "ms"],
            [
                (x.source, x.target, x.tensors, size_text(x.bytes), f"{x.transfer_ms:.4g}")
                for x in report.links
            ],
        )


def _show_limits(report: PlanReport) -> None:
    if report.limits:
        show_table(
            "limits",
            ["limit", "used", "of", "unit", "note"],
            [
                (x.what, f"{x.used:.4g}", f"{x.limit:.4g}", x.unit, "binding" if x.binding else "")
                for x in report.limits
            ],
        )


def _show_comparison(report: PlanReport) -> None:
    rows: list[Sequence[object]] = [("this plan", *_cells(report.figures), "")]
    for item in report.baselines:
        note = "is the plan" if item.chosen else "; ".join(item.broken)
        rows.append((item.what, *_cells(item.figures), note))
    rows += [(item.what, *_cells(item.figures), "") for item in report.alternatives]
    show_table("compared with", ["plan", *_head(report.figures), "note"], rows)


def _show_gains(report: PlanReport) -> None:
    if report.gains:
        show_table(
            "what changes would bring (solved again)",
            ["change", "sum ms", "energy J", *(["USD"] if _priced(report.figures) else [])],
            [
                (
                    x.what,
                    f"{x.sum_ms:+.4g}",
                    f"{x.energy_joule:+.4g}",
                    *([] if x.cost_usd is None else [f"{x.cost_usd:+.4g}"]),
                )
                for x in report.gains
            ],
        )


def _show_front(report: PlanReport) -> None:
    if report.front:
        show_table(
            "best compromises of latency and energy",
            [*_head(report.figures), "note"],
            [
                (*_cells(item.figures), "" if item.supported else "between weights")
                for item in report.front
            ],
        )


def _priced(figures: PlanFigures) -> bool:
    return figures.cost_usd is not None


def _head(figures: PlanFigures) -> list[str]:
    """Of `_cells`: either all figures of a report have a cost, or none."""
    return [*_HEAD[:3], *(["USD"] if _priced(figures) else []), *_HEAD[3:]]


def _cells(figures: PlanFigures) -> tuple[object, ...]:
    return (
        f"{figures.latency_ms:.4g}",
        f"{figures.sum_ms:.4g}",
        f"{figures.energy_joule:.4g}",
        *([] if figures.cost_usd is None else [f"{figures.cost_usd:.4g}"]),
        figures.components,
        figures.quantized_layers,
    )
