"""`tritier demo`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tritier.cli.common import JsonFlag, workspace
from tritier.cli.output import progress, say, show_json, show_table, size_text
from tritier.cli.plan_show import show_plan
from tritier.cli.verify_show import show_verdicts, verdict_rows
from tritier.errors import CheckFailed

if TYPE_CHECKING:
    from tritier.demo import DemoResult


def demo_command(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the picture.")] = Path(
        "demo_output"
    ),
    requests: Annotated[
        int, typer.Option("--requests", min=1, help="Timed requests to each model.")
    ] = 5,
    json: JsonFlag = False,
) -> None:
    """Split a super-resolution network over three embedded servers and enlarge a photograph.

    Device, edge and cloud are real Tritons on this machine, with emulated links of 5, 20 and
    100 MB/s and 5, 50 and 55 ms. Exit code 1 if the split model differs from the whole one, 2
    without the packages of the extras `embedded` and `demo`.

    \b
    Example:
        tritier demo --output demo_output
    """
    from tritier.demo import run_demo

    with progress("demo") as report:
        result = run_demo(workspace(context).folder / "demo", output, requests, report)
    if json:
        _show_json(result)
    else:
        _show_tables(result)
    _say_end(result.split.median_ms, result.whole_on_entry.median_ms)
    gain = result.psnr_db["split network"] - result.psnr_db["bicubic"]
    say(f"{result.photograph}: {gain:+.2f} dB PSNR over bicubic; see {result.picture}")
    if not all(verdict.ok for verdict in result.verdicts):
        raise CheckFailed("the split model differs from the whole model")


def _show_json(result: DemoResult) -> None:
    show_json(
        {
            "plan_id": result.plan.id,
            "components": [dataclasses.asdict(row) for row in result.components],
            "split": dataclasses.asdict(result.split),
            "whole_on_entry": dataclasses.asdict(result.whole_on_entry),
            "verification": [row for verdict in result.verdicts for row in verdict_rows(verdict)],
            "psnr_db": result.psnr_db,
            "picture": str(result.picture),
        }
    )


def _show_tables(result: DemoResult) -> None:
    show_plan(result.plan)
    show_table(
        "components (measured on their servers: queue and compute, mean)",
        ["component", "server", "layers", "bytes in", "bytes out", "mean ms", "requests"],
        [
            (
                row.component,
                row.server,
                row.layers,
                size_text(row.bytes_in),
                size_text(row.bytes_out),
                f"{row.mean_ms:.1f}",
                row.requests,
            )
            for row in result.components
        ],
    )
    show_table(
        "one request, as an app sees it (measured over gRPC)",
        ["model", "median ms", "min ms", "max ms", "requests"],
        [
            (name, f"{t.median_ms:.1f}", f"{t.min_ms:.1f}", f"{t.max_ms:.1f}", t.requests)
            for name, t in (
                ("split over device, edge and cloud", result.split),
                ("baseline: whole on the device", result.whole_on_entry),
            )
        ],
    )
    rows = [row for verdict in result.verdicts for row in verdict_rows(verdict)]
    show_verdicts(result.plan.id, rows)


def _say_end(split_ms: float, whole_ms: float) -> None:
    """Rule R8: if a baseline wins, say so."""
    if whole_ms < split_ms:
        say(
            f"here the whole model on the device is {split_ms / whole_ms:.1f} x faster: this split "
            "was chosen by hand to show every kind of link, not by the planner"
        )
    else:
        say(f"the split is {whole_ms / split_ms:.1f} x faster than the whole model on the device")
