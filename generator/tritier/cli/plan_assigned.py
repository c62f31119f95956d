"""`tritier plan --assignment`: a plan that is placed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from tritier.documents import Assignment, Codec, Plan, Ranges, ServersSpec
from tritier.errors import InputError, UsageError
from tritier.graph import LoadedModel
from tritier.workflow import plan_from_assignment


def assigned_plan(
    model: LoadedModel,
    assignment: Path,
    servers: ServersSpec,
    name: str | None,
    ranges: Ranges | None,
    quantize: list[str] | None,
    wire_codec: str | None,
) -> Plan:
    """The plan of an assignment, with what the command line says instead."""
    try:
        wanted = _with_options(Assignment.load(assignment), quantize, wire_codec)
        return plan_from_assignment(model, wanted, servers, name, ranges)
    except InputError as error:  # what the assignment asks for and the model can't do
        raise InputError(error.faults, error.source or str(assignment)) from None


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
