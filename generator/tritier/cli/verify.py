"""`tritier verify`."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import DimOption, JsonFlag, ReposArgument, parse_dims, workspace
from tritier.cli.output import progress, say, show_json, show_table
from tritier.divider import check_against_model
from tritier.errors import CheckFailed, UsageError
from tritier.files import write_file
from tritier.graph import build_layer_graph, load_model
from tritier.repository import Repositories
from tritier.workflow import Verdict, gather_inputs, verify_chained, verify_live

VERIFICATION_NAME = "verification.json"


def verify_command(
    context: typer.Context,
    repos: ReposArgument,
    model: Annotated[Path, typer.Option("--model", help="The whole ONNX model.")],
    live: Annotated[
        bool, typer.Option("--live", help="Also send the inputs to the deployed entry model.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", help="gRPC address of the entry; the lab's or the plan's if left out."
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("-n", "--count", min=0, help="Number of random inputs.")
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random inputs.")] = 0,
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--input", help="Input file, .npz or .npy; may be repeated."),
    ] = None,
    dim: DimOption = None,
    json: JsonFlag = False,
) -> None:
    """Prove that the split model gives what the whole model gives.

    The generated sub-models are run one after the other in ONNX Runtime, without graph optimisation
    (must be equal bit for bit) and at the level at which they are served (within the tolerance that
    the manifest states). What was measured is written to verification.json beside the manifest.
    Exit code 1 if anything is out of its tolerance.

    \b
    Example:
        tritier verify repos/ --model model.onnx --live
    """
    if count == 0 and not inputs:
        raise UsageError("--count 0 and no --input: nothing to compare with")
    repositories = Repositories.open(repos)
    loaded = load_model(model)
    check_against_model(repositories.plan, loaded.sha256, build_layer_graph(loaded.proto))
    arrays = gather_inputs(repositories.plan, count, seed, inputs or (), parse_dims(dim))
    verdicts = []
    with progress(f"comparing {len(arrays)} inputs") as report:
        for tolerance in repositories.manifest.tolerances:
            report(f"chained sub-models, graph optimisation {tolerance.optimisation}")
            verdicts.append(verify_chained(repositories, loaded, arrays, tolerance))
        if live:
            address = url or _entry_url(context, repositories)
            report(f"live at {address}")
            served = repositories.manifest.tolerances[-1]
            verdicts.append(verify_live(repositories, loaded, arrays, served, address))
    rows = [row for verdict in verdicts for row in verdict_rows(verdict)]
    document = {"plan_id": repositories.plan.id, "seed": seed, "results": rows}
    write_file(repos / VERIFICATION_NAME, jsonlib.dumps(document, indent=2) + "\n")
    if json:
        show_json(document)
    else:
        show_verdicts(repositories.plan.id, rows)
    if not all(verdict.ok for verdict in verdicts):
        raise CheckFailed(
            f"plan {repositories.plan.id} differs from the whole model by more than its tolerance"
        )
    say(f"plan {repositories.plan.id} equals the whole model (rule R4)")


def verdict_rows(verdict: Verdict) -> list[dict[str, object]]:
    """A row per output, as written to verification.json."""
    return [
        {
            "run": verdict.where,
            "optimisation": verdict.tolerance.optimisation,
            "output": difference.output,
            "inputs": difference.samples,
            "max_abs_difference": difference.max_abs,
            "mean_abs_difference": difference.mean_abs,
            "allowed_absolute": verdict.tolerance.absolute,
            "allowed_relative": verdict.tolerance.relative,
            "ok": difference.ok,
        }
        for difference in verdict.differences
    ]


def show_verdicts(plan_id: str, rows: list[dict[str, object]]) -> None:
    """The rows as a table."""
    show_table(
        f"plan {plan_id} against the whole model (measured)",
        ["run", "optimisation", "output", "inputs", "max |diff|", "mean |diff|", "allowed", "ok"],
        [
            (
                row["run"],
                row["optimisation"],
                row["output"],
                row["inputs"],
                f"{row['max_abs_difference']:.3g}",
                f"{row['mean_abs_difference']:.3g}",
                f"{row['allowed_absolute']:g} + {row['allowed_relative']:g} |whole|",
                "yes" if row["ok"] else "NO",
            )
            for row in rows
        ],
    )


def _entry_url(context: typer.Context, repositories: Repositories) -> str:
    entry = repositories.plan.entry
    lab = workspace(context).running_lab()
    url = (lab.urls.get(entry.name) if lab else None) or entry.url
    if url is None:
        raise UsageError(
            f"the address of the entry '{entry.name}' is unknown: pass --url, or start the lab "
            "with `tritier lab up`"
        )
    return url
