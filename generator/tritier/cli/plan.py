"""`tritier plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from tritier.documents import Assignment, Plan
from tritier.errors import InputError
from tritier.files import write_document_file
from tritier.graph import TensorInfo, load_model
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

    \b
    Example:
        tritier plan model.onnx --assignment split.yaml --servers servers.yaml -o plan.json
    """
    loaded = load_model(model)
    spec = load_servers(servers)
    try:
        plan = plan_from_assignment(loaded, Assignment.load(assignment), spec, name)
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
        ["tensor", "name in the model", "from", "to", "shape", "size (batch 1)", "codec"],
        [
            (
                wire.tensor,
                plan.tensor(wire.tensor).name,
                wire.source,
                wire.target,
                "x".join(str(d) for d in plan.tensor(wire.tensor).shape),
                size_text(tensor_bytes(plan, wire.tensor)),
                wire.codec,
            )
            for wire in plan.wires
        ],
    )


def tensor_bytes(plan: Plan, tensor_id: str) -> int | None:
    """Bytes of a tensor, with a symbolic leading size taken as 1; None if others are symbolic."""
    tensor = plan.tensor(tensor_id)
    shape = tensor.shape
    if shape and isinstance(shape[0], str):
        shape = (1, *shape[1:])
    return TensorInfo(tensor.name, tensor.dtype, shape).bytes
