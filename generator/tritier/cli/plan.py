"""`tritier plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from tritier.cli.common import (
    DryRunFlag,
    ForceFlag,
    JsonFlag,
    ServersOption,
    load_servers,
    workspace,
)
from tritier.cli.output import say, show_json, show_table, size_text
from tritier.documents import Assignment, Codec, Plan, Ranges
from tritier.errors import InputError, UsageError
from tritier.files import write_document_file
from tritier.graph import load_model
from tritier.workflow import plan_from_assignment, remember


def plan_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    servers: ServersOption,
    assignment: Annotated[
        Path, typer.Option("--assignment", help="Layers and their servers (YAML or JSON).")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the plan.")] = Path(
        "plan.json"
    ),
    name: Annotated[
        str | None,
        typer.Option("--name", help="What apps call the model; the file's stem if left out."),
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option("--ranges", help="Calibration ranges, from `tritier ranges`."),
    ] = None,
    quantize: Annotated[
        list[str] | None,
        typer.Option("--quantize", help="Layer to quantize, name or pattern; may be repeated."),
    ] = None,
    wire_codec: Annotated[
        str | None,
        typer.Option("--wire-codec", help="How floats cross links: as_is, fp16, int8 or uint8."),
    ] = None,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Make a plan from a model and an assignment of its layers to servers.

    The assignment maps layer names or patterns to servers:

    \b
        default: device
        layers:
          "conv1": device
          "block2.*": edge
        quantized_layers: ["block2.*"]
        wire_codec: fp16

    \b
    Example:
        tritier plan model.onnx --assignment split.yaml --servers servers.yaml -o plan.json
    """
    loaded = load_model(model)
    spec = load_servers(servers)
    try:
        wanted = _with_options(Assignment.load(assignment), quantize, wire_codec)
        measured = None if ranges is None else Ranges.load(ranges)
        plan = plan_from_assignment(loaded, wanted, spec, name, measured)
    except InputError as error:  # what the assignment asks for and the model can't do
        raise InputError(error.faults, error.source or str(assignment)) from None
    if not dry_run:
        write_document_file(output, plan.to_json(), force)
        remember(workspace(context).pool, plan, loaded)
        say(f"plan {plan.id} written to {output}")
    if json:
        show_json(plan.model_dump(mode="json", by_alias=True, exclude_none=True))
    else:
        show_plan(plan)


def _with_options(
    assignment: Assignment, quantize: list[str] | None, wire_codec: str | None
) -> Assignment:
    """The assignment with what the command line says instead."""
    if wire_codec is not None and wire_codec not in get_args(Codec):
        raise UsageError(f"--wire-codec {wire_codec}: allowed are {', '.join(get_args(Codec))}")
    changes: dict[str, object] = {}
    if quantize:
        changes["quantized_layers"] = tuple(quantize)
    if wire_codec is not None:
        changes["wire_codec"] = wire_codec
    return assignment.model_copy(update=changes)


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
