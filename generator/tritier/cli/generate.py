"""`tritier generate`."""

from __future__ import annotations

import dataclasses
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
from tritier.documents import Batching, Family, Plan, read_data
from tritier.errors import UsageError
from tritier.graph import LoadedModel
from tritier.pool import Pool
from tritier.repository import GenerateOptions, without_whole, write_files
from tritier.workflow import generate, model_of_plan
from tritier.workflow.family_generate import family_of_one, generate_family, read_family

_DEFAULTS = GenerateOptions()


class Optimisation(enum.StrEnum):
    """ONNX Runtime's graph optimisation levels."""

    disabled = "disabled"
    basic = "basic"
    extended = "extended"
    all = "all"


def generate_command(
    context: typer.Context,
    plan_file: Annotated[
        Path,
        typer.Argument(
            metavar="PLAN-OR-FAMILY", help="A plan (JSON), or a family of plans: file or folder."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder to fill, one sub-folder per server.")
    ] = Path("repos"),
    model: Annotated[
        Path | None,
        typer.Option("--model", help="The planned ONNX model; from the pool if left out."),
    ] = None,
    with_whole: Annotated[
        bool | None,
        typer.Option(
            "--with-whole/--without-whole",
            help="The uncut model on the entry, <model>__whole; with a router it is there unless "
            "you say --without-whole.",
        ),
    ] = None,
    router: Annotated[
        bool,
        typer.Option(
            "--router", help="A router before one plan: another can take its place under load."
        ),
    ] = False,
    max_batch_size: Annotated[
        int,
        typer.Option("--max-batch-size", min=0, help="Largest batch, if batching is proven right."),
    ] = _DEFAULTS.max_batch_size,
    dim: DimOption = None,
    deadline_ms: Annotated[
        int | None,
        typer.Option(
            "--deadline-ms",
            min=1,
            help="Longest time of a call between servers; 10000, for a family the longest deadline "
            "of its classes.",
        ),
    ] = None,
    mailbox_mib: Annotated[
        int, typer.Option("--mailbox-mib", min=1, help="Tensors that may wait in a mailbox, MiB.")
    ] = _DEFAULTS.mailbox_max_bytes // 1024**2,
    max_in_flight: Annotated[
        int,
        typer.Option(
            "--max-in-flight", min=1, help="Requests that the router lets in; more are refused."
        ),
    ] = _DEFAULTS.max_in_flight,
    max_queue_size: Annotated[
        int,
        typer.Option(
            "--max-queue-size",
            min=0,
            help="Requests that may wait for a component, by Triton's queue policy; 0: no policy, "
            "as Triton's batcher stalls with one.",
        ),
    ] = _DEFAULTS.max_queue_size,
    optimisation: Annotated[
        Optimisation,
        typer.Option("--optimisation", help="Graph optimisation level of the served models."),
    ] = Optimisation.all,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Generate one Triton model repository per server from a plan, or from a family of plans.

    Plans of a family stand side by side, each with a model `<model>__<plan id>` on the entry, and
    apps call the router `<model>`. With --router a single plan stands there in the same way.

    \b
    Example:
        tritier generate plan.json --model model.onnx -o repos/
        tritier generate family/ --model model.onnx -o repos/
    """
    source = _read(plan_file, router, deadline_ms, with_whole is not False)
    pool = workspace(context).pool
    options = GenerateOptions(
        deadline_ms=deadline_ms or source.deadline_ms,
        mailbox_max_bytes=mailbox_mib * 1024**2,
        max_batch_size=max_batch_size,
        max_queue_size=max_queue_size,
        max_in_flight=max_in_flight,
        with_whole=bool(with_whole),
        optimisation=optimisation.value,
        dims=parse_dims(dim),
    )
    if source.family is None and max_in_flight != _DEFAULTS.max_in_flight:
        raise UsageError("--max-in-flight is of the router: give --router, or a family")
    with tempfile.TemporaryDirectory(prefix="tritier-") as scratch:
        loaded = model_of_plan(source.plans[0], model, pool, Path(scratch))
        files, batchings = source.generate(loaded, options, None if dry_run else pool)
    if not dry_run:
        write_files(files, output, force)
        say(f"{source.title}: {len(files)} files written to {output}")
    if json:
        sizes = {name: len(data) for name, data in files.items()}
        ids = [plan.id for plan in source.plans]
        show_json({"plan_ids" if source.family else "plan_id": ids if source.family else ids[0],
                   "files": sizes})  # fmt: skip
        return
    _show(files)
    for plan_id, batching in batchings.items():
        where = f"plan {plan_id}: " if source.family else ""
        say(f"{where}max_batch_size {batching.max_batch_size}: {batching.reason}")


@dataclasses.dataclass(frozen=True)
class _Source:
    """What is generated from: one plan, or a family of plans."""

    plans: list[Plan]
    family: Family | None
    deadline_ms: int

    @property
    def title(self) -> str:
        ids = ", ".join(plan.id for plan in self.plans)
        return f"family of {len(self.plans)} ({ids})" if self.family else f"plan {ids}"

    def generate(
        self, model: LoadedModel, options: GenerateOptions, pool: Pool | None
    ) -> tuple[dict[str, bytes], dict[str, Batching]]:
        if self.family is not None:
            return generate_family(self.family, self.plans, model, options, pool)
        files, batching = generate(self.plans[0], model, options, pool)
        return files, {self.plans[0].id: batching}


def _read(path: Path, router: bool, deadline_ms: int | None, with_whole: bool) -> _Source:
    """The plan or the family that the path names."""
    data = None if path.is_dir() else read_data(path)
    is_family = path.is_dir() or (
        isinstance(data, dict) and str(data.get("format", "")).startswith("tritier/family/")
    )
    if is_family:
        if router:
            raise UsageError(f"--router is for one plan; {path} is a family and has a router")
        family, plans = read_family(path)
        family = family if with_whole else without_whole(family)
        return _Source(plans, family, family.longest_deadline_ms)
    plan = Plan.load(path)
    deadline_ms = deadline_ms or _DEFAULTS.deadline_ms
    made = family_of_one(plan, deadline_ms, with_whole) if router else None
    return _Source([plan], made, deadline_ms)


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
