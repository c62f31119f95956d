"""`tritier verify`."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tritier.calibration import ImageInputs, find_images, load_preprocessing
from tritier.cli.common import (
    DimOption,
    EntryUrlOption,
    JsonFlag,
    ReposArgument,
    load_servers,
    parse_dims,
    workspace,
)
from tritier.cli.output import progress, say, show_json
from tritier.cli.ranges import ImagesOption, PreprocessingOption
from tritier.cli.verify_family import family_rows, show_family, verify_family
from tritier.cli.verify_show import noise_rows, show_noise, show_verdicts, verdict_rows
from tritier.deployment.access import Address, lab_addresses, spec_address
from tritier.divider import Arrays, check_against_model
from tritier.errors import CheckFailed, UsageError
from tritier.files import write_file
from tritier.graph import LoadedModel, build_layer_graph, load_model
from tritier.repository import Repositories
from tritier.workflow import Verdict, gather_inputs, verify_chained, verify_live

VERIFICATION_NAME = "verification.json"
_AS_QUANTIZED = " as the plan quantizes it"


def verify_command(
    context: typer.Context,
    repos: ReposArgument,
    model: Annotated[Path, typer.Option("--model", help="The whole ONNX model.")],
    live: Annotated[
        bool, typer.Option("--live", help="Also send the inputs to the deployed entry model.")
    ] = False,
    url: EntryUrlOption = None,
    servers: Annotated[
        Path | None,
        typer.Option("--servers", help="The servers file, for --live: address and certificates."),
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

    Of a family, every plan is proven and, live, asked by its own name; then the router is asked as
    each class of requests, and its answers compared with those of the plan that answered.

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
    address = _entry_address(context, repositories, servers, url) if live else None
    if repositories.family is not None:
        found = verify_family(repositories, loaded, arrays, address)
        verdicts = [item.verdict for item in found]
        rows = [row for item in found for row in family_rows(item, verdict_rows)]
        noise = [row for item in found for row in family_rows(item, noise_rows)]
    else:
        verdicts = _verify_plan(repositories, loaded, arrays, address)
        rows = [row for verdict in verdicts for row in verdict_rows(verdict)]
        noise = [row for verdict in verdicts for row in noise_rows(verdict)]
    own_id = "plan_id" if repositories.family is None else "family_id"
    document = {own_id: repositories.id, "seed": seed, "results": rows}
    if noise:
        document["noise"] = noise
    write_file(repos / VERIFICATION_NAME, jsonlib.dumps(document, indent=2) + "\n")
    if json:
        show_json(document)
    else:
        _show(repositories, rows, noise)
    if not all(verdict.ok for verdict in verdicts):
        raise CheckFailed(
            f"{repositories.title} differs from the whole model by more than its tolerance"
        )
    exact = all(plan.is_exact for plan in repositories.plans)
    say(f"{repositories.title} equals the whole model{'' if exact else _AS_QUANTIZED} (rule R4)")


def _verify_plan(
    repositories: Repositories, model: LoadedModel, inputs: Sequence[Arrays], url: str | None
) -> list[Verdict]:
    verdicts = []
    with progress(f"comparing {len(inputs)} inputs") as report:
        for tolerance in repositories.manifest.tolerances:
            report(f"chained sub-models, graph optimisation {tolerance.optimisation}")
            verdicts.append(verify_chained(repositories, model, inputs, tolerance))
        if url is not None:
            report(f"live at {url}")
            served = repositories.manifest.tolerances[-1]
            verdicts.append(verify_live(repositories, model, inputs, served, url))
    return verdicts


def _show(
    repositories: Repositories,
    rows: list[dict[str, object]],
    noise: list[dict[str, object]],
) -> None:
    if repositories.family is not None:
        show_family(repositories.title, rows)
    else:
        show_verdicts(repositories.id, rows)
    if noise:
        show_noise(repositories.title, noise)


def _entry_address(
    context: typer.Context, repositories: Repositories, servers: Path | None, url: str | None
) -> str:
    """Where the entry is, and how it is spoken to: by the lab, the servers file, or the plan."""
    entry = repositories.plan.entry
    known = lab_addresses(workspace(context).running_lab()).get(entry.name)
    if servers is not None:
        spec = load_servers(servers)
        if entry.name not in spec.names:
            raise UsageError(
                f"--servers {servers}: has no server '{entry.name}', the entry of the plan; it has "
                f"{', '.join(spec.names)}"
            )
        known = known or spec_address(spec, entry.name)
    if url is not None:
        return Address(url, known.access) if known is not None else url
    if known is None and entry.url is None:
        raise UsageError(
            f"the address of the entry '{entry.name}' is unknown: pass --url or --servers, or "
            "start the lab with `tritier lab up`"
        )
    return known or entry.url or ""
