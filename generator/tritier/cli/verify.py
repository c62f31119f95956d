"""`tritier verify`."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from tritier.calibration import ImageInputs, find_images, load_preprocessing
from tritier.cli.common import DimOption, JsonFlag, ReposArgument, parse_dims, workspace
from tritier.cli.output import progress, say, show_json, show_table
from tritier.cli.ranges import ImagesOption, PreprocessingOption
from tritier.divider import Difference, check_against_model
from tritier.errors import CheckFailed, UsageError
from tritier.files import write_file
from tritier.graph import build_layer_graph, load_model
from tritier.repository import Repositories
from tritier.workflow import Verdict, gather_inputs, verify_chained, verify_live

VERIFICATION_NAME = "verification.json"
_COLUMNS = ["run", "optimisation", "output", "inputs", "max |diff|", "mean |diff|"]


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
    images: ImagesOption = None,
    preprocessing: PreprocessingOption = None,
    dim: DimOption = None,
    json: JsonFlag = False,
) -> None:
    """Prove that the split model gives what the whole model gives.

    The generated sub-models are run one after the other in ONNX Runtime, without graph optimisation
    (must be equal bit for bit) and at the level at which they are served (within the tolerance that
    the manifest states). What was measured is written to verification.json beside the manifest.
    Exit code 1 if anything is out of its tolerance.

    A plan with quantized layers or coded wires is compared with the uncut model that is quantized
    and coded in the same way; how far both are from the original model, the noise, is shown too.
    Noise on random inputs says little: give photographs with --images.

    \b
    Example:
        tritier verify repos/ --model model.onnx --live
        tritier verify repos/ --model model.onnx -n 0 --images photos/ --preprocessing yolo
    """
    if count == 0 and not inputs and not images:
        raise UsageError("--count 0, no --input and no --images: nothing to compare with")
    if bool(images) != (preprocessing is not None):
        raise UsageError("--images and --preprocessing go together")
    repositories = Repositories.open(repos)
    loaded = load_model(model)
    check_against_model(repositories.plan, loaded.sha256, build_layer_graph(loaded.proto))
    arrays = gather_inputs(repositories.plan, count, seed, inputs or (), parse_dims(dim))
    if images and preprocessing:
        steps = load_preprocessing(preprocessing)
        arrays += ImageInputs.of(loaded, find_images(images), steps)
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
    noise = [row for verdict in verdicts for row in noise_rows(verdict)]
    document = {"plan_id": repositories.plan.id, "seed": seed, "results": rows}
    if not repositories.plan.is_exact:
        document["noise"] = noise
    write_file(repos / VERIFICATION_NAME, jsonlib.dumps(document, indent=2) + "\n")
    if json:
        show_json(document)
    else:
        show_verdicts(repositories.plan.id, rows)
        if noise:
            show_noise(repositories.plan.id, noise)
    if not all(verdict.ok for verdict in verdicts):
        raise CheckFailed(
            f"plan {repositories.plan.id} differs from the whole model by more than its tolerance"
        )
    whole = "whole model" if repositories.plan.is_exact else "whole model as the plan quantizes it"
    say(f"plan {repositories.plan.id} equals the {whole} (rule R4)")


def verdict_rows(verdict: Verdict) -> list[dict[str, object]]:
    """A row per output, as written to verification.json."""
    return [
        _row(verdict, difference)
        | {
            "allowed_absolute": verdict.tolerance.absolute,
            "allowed_relative": verdict.tolerance.relative,
            "allowed_noise": difference.slack,
            "ok": difference.ok,
        }
        for difference in verdict.differences
    ]


def noise_rows(verdict: Verdict) -> list[dict[str, object]]:
    """A row per output: how far quantized layers and coded wires take it from the original."""
    return [_row(verdict, difference) for difference in verdict.noise]


def _row(verdict: Verdict, difference: Difference) -> dict[str, object]:
    return {
        "run": verdict.where,
        "optimisation": verdict.tolerance.optimisation,
        "output": difference.output,
        "inputs": difference.samples,
        "max_abs_difference": difference.max_abs,
        "mean_abs_difference": difference.mean_abs,
    }


def show_verdicts(plan_id: str, rows: list[dict[str, object]]) -> None:
    """The rows as a table."""
    show_table(
        f"plan {plan_id} against the whole model (measured)",
        [*_COLUMNS, "allowed", "ok"],
        [(*_cells(row), _allowed_text(row), "yes" if row["ok"] else "NO") for row in rows],
    )


def show_noise(plan_id: str, rows: list[dict[str, object]]) -> None:
    """The noise rows as a table."""
    show_table(
        f"noise of plan {plan_id}: against the original model (measured)",
        _COLUMNS,
        [_cells(row) for row in rows],
    )


def _cells(row: dict[str, object]) -> tuple[object, ...]:
    return (
        row["run"],
        row["optimisation"],
        row["output"],
        row["inputs"],
        f"{row['max_abs_difference']:.3g}",
        f"{row['mean_abs_difference']:.3g}",
    )


def _allowed_text(row: dict[str, object]) -> str:
    noise = f" + {row['allowed_noise']:.2g} (noise)" if row["allowed_noise"] else ""
    return f"{row['allowed_absolute']:g} + {row['allowed_relative']:g} |whole|{noise}"


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
