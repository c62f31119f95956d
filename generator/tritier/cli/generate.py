"""`tritier generate`."""

from __future__ import annotations

import enum
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import (
    DimOption,
    DryRunFlag,
    ForceFlag,
    JsonFlag,
    parse_dims,
    workspace,
)
from tritier.cli.output import say, show_json, show_table, size_text
from tritier.documents import Plan
from tritier.repository import GenerateOptions, write_files
from tritier.workflow import generate, model_of_plan

_DEFAULTS = GenerateOptions()


class Optimisation(enum.StrEnum):
    """ONNX Runtime's graph optimisation levels."""

    disabled = "disabled"
    basic = "basic"
    extended = "extended"
    all = "all"


def generate_command(
    context: typer.Context,
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="The plan (JSON).")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder to fill, one sub-folder per server.")
    ] = Path("repos"),
    model: Annotated[
        Path | None,
        typer.Option("--model", help="The planned ONNX model; from the pool if left out."),
    ] = None,
    with_whole: Annotated[
        bool,
        typer.Option("--with-whole", help="Add the uncut model on the entry, <model>__whole."),
    ] = False,
    max_batch_size: Annotated[
        int,
        typer.Option("--max-batch-size", min=0, help="Largest batch, if batching is proven right."),
    ] = _DEFAULTS.max_batch_size,
    dim: DimOption = None,
    deadline_ms: Annotated[
        int,
        typer.Option("--deadline-ms", min=1, help="Longest time of a call between servers."),
    ] = _DEFAULTS.deadline_ms,
    mailbox_mib: Annotated[
        int, typer.Option("--mailbox-mib", min=1, help="Tensors that may wait in a mailbox, MiB.")
    ] = _DEFAULTS.mailbox_max_bytes // 1024**2,
    optimisation: Annotated[
        Optimisation,
        typer.Option("--optimisation", help="Graph optimisation level of the served models."),
    ] = Optimisation.all,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Generate one Triton model repository per server from a plan.

    \b
    Example:
        tritier generate plan.json --model model.onnx -o repos/
    """
    plan = Plan.load(plan_file)
    pool = workspace(context).pool
    options = GenerateOptions(
        deadline_ms=deadline_ms,
        mailbox_max_bytes=mailbox_mib * 1024**2,
        max_batch_size=max_batch_size,
        with_whole=with_whole,
        optimisation=optimisation.value,
        dims=parse_dims(dim),
    )
    with tempfile.TemporaryDirectory(prefix="tritier-") as scratch:
        loaded = model_of_plan(plan, model, pool, Path(scratch))
        files, batching = generate(plan, loaded, options, None if dry_run else pool)
    if not dry_run:
        write_files(files, output, force)
        say(f"plan {plan.id}: {len(files)} files written to {output}")
    if json:
        show_json({"plan_id": plan.id, "files": {name: len(data) for name, data in files.items()}})
        return
    _show(files)
    say(f"max_batch_size {batching.max_batch_size}: {batching.reason}")


def _show(files: dict[str, bytes]) -> None:
    rows: dict[tuple[str, str], int] = {}
    for name, data in files.items():
        parts = name.split("/")
        if len(parts) > 2:
            rows[parts[0], parts[1]] = rows.get((parts[0], parts[1]), 0) + len(data)
    show_table(
        "Triton models",
        ["server", "model", "size"],
        [(server, model, size_text(size)) for (server, model), size in sorted(rows.items())],
    )
