"""`tritier import-plan`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tritier.cli.common import DryRunFlag, ForceFlag, JsonFlag, load_servers, workspace
from tritier.cli.output import say, show_json, show_table
from tritier.cli.plan_show import show_plan
from tritier.documents import Plan, Ranges
from tritier.documents.thesis_plan import ThesisPlan
from tritier.errors import InputError, UsageError
from tritier.files import write_document_file
from tritier.graph import LoadedModel, load_model
from tritier.workflow import import_plan, read_recorded_plan, read_recorded_plans, remember


def import_plan_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recorded plans (JSON).")],
    model: Annotated[
        Path | None, typer.Option("--model", help="The ONNX model that was planned.")
    ] = None,
    servers: Annotated[
        Path | None, typer.Option("--servers", help="The servers file (YAML or JSON).")
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            metavar="NUMBER=NAME",
            help="Server that takes a number's place; may be repeated. By default 0 is the entry, "
            "and 1, 2 are the others in the order of the servers file.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="TEXT", help="Key of the plan, or a part that no other has."),
    ] = None,
    list_only: Annotated[
        bool,
        typer.Option(
            "--list",
            envvar="TRITIER_IMPORT_PLAN_LIST",
            help="Show the plans of the file, and import none.",
        ),
    ] = False,
    ranges: Annotated[
        Path | None,
        typer.Option("--ranges", help="Calibrated ranges, to quantize the recorded layers."),
    ] = None,
    as_float: Annotated[
        bool,
        typer.Option(
            "--float",
            envvar="TRITIER_IMPORT_PLAN_FLOAT",
            help="Import without quantization and predictions of it.",
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--name", help="What apps call the model; the file's stem if left out."),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the plan.")] = Path(
        "plan.json"
    ),
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Make a plan from one that the system of the thesis recorded.

    FILE holds one recorded plan or a mapping of keys to such plans. The components are kept as
    they are; their layers are derived from the model.

    \b
    Examples:
        tritier import-plan plans.json --list
        tritier import-plan plans.json --key mn_0.05 --model model.onnx --servers servers.yaml
        tritier import-plan one.json --model model.onnx --servers servers.yaml --float -o plan.json
        tritier import-plan one.json --model model.onnx --servers servers.yaml --server 1=cloud
    """
    if list_only:
        _show_list(read_recorded_plans(file), json)
        return
    model_file, servers_file = _required(model, "--model"), _required(servers, "--servers")
    if as_float and ranges is not None:
        raise UsageError("--float imports without quantization, which needs no --ranges: drop one")
    recorded = read_recorded_plan(file, key)
    loaded = load_model(model_file)
    spec = load_servers(servers_file)
    measured = None if ranges is None else Ranges.load(ranges)
    try:
        plan = import_plan(recorded, loaded, spec, parse_numbers(server), name, measured, as_float)
    except InputError as error:  # what the record asks for and model or servers can't do
        raise InputError(error.faults, error.source or str(file)) from None
    if as_float and recorded.quantized_nodes:
        say(
            f"quantized layers that are imported as float: {len(recorded.quantized_nodes)}; the "
            "predictions, which count on them, are left out"
        )
    _finish(context, plan, loaded, None if dry_run else output, force, json)


def parse_numbers(items: Iterable[str] | None) -> dict[str, str]:
    """`NUMBER=NAME` options as a mapping."""
    found: dict[str, str] = {}
    for item in items or ():
        number, _, name = item.partition("=")
        if not number.isdecimal() or not name:
            raise UsageError(
                f"--server {item}: allowed is NUMBER=NAME with a server number of the recorded plan"
            )
        number = str(int(number))
        if number in found:
            raise UsageError(f"--server {item}: {number} is mapped already, to {found[number]}")
        found[number] = name
    return found


def _required(path: Path | None, option: str) -> Path:
    if path is None:
        raise UsageError(f"{option} is missing; only --list does without it")
    return path


def _finish(
    context: typer.Context,
    plan: Plan,
    model: LoadedModel,
    output: Path | None,
    force: bool,
    json: bool,
) -> None:
    """Write and show the plan; without `output` only show it."""
    if output is not None:
        write_document_file(output, plan.to_json(), force)
        remember(workspace(context).pool, plan, model)
        say(f"plan {plan.id} written to {output}")
    if json:
        show_json(plan.model_dump(mode="json", by_alias=True, exclude_none=True))
    else:
        show_plan(plan)


def _show_list(plans: Mapping[str, ThesisPlan], json: bool) -> None:
    rows = [_row(key, recorded) for key, recorded in plans.items()]
    if json:
        show_json(rows)
        return
    for row in rows:
        row["servers"] = " ".join(row["servers"])
        row["latency_ms"] = _figure(row["latency_ms"])
        row["energy_joule"] = _figure(row["energy_joule"])
    columns = ["key", "components", "servers", "quantized", "ms", "joule"]
    show_table(
        "recorded plans, with predicted latency and energy",
        columns,
        [tuple(row.values()) for row in rows],
    )


def _row(key: str, recorded: ThesisPlan) -> dict[str, Any]:
    seconds = recorded.latency_value
    return {
        "key": key,
        "components": len(recorded.components),
        "servers": recorded.servers,
        "quantized_layers": len(recorded.quantized_nodes),
        "latency_ms": None if seconds is None else seconds * 1000,
        "energy_joule": recorded.energy_value,
    }


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
