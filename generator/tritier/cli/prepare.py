"""`tritier prepare`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from tritier.calibration import load_preprocessing
from tritier.cli.common import DimOption, DryRunFlag, ForceFlag, JsonFlag, parse_dims
from tritier.cli.output import progress, say, show_json, show_table
from tritier.cli.ranges import PreprocessingOption
from tritier.errors import UsageError
from tritier.graph import PrepareOptions, PrepareReport, Tensor, prepare_model
from tritier.graph.prepare_write import refuse_existing


def prepare_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="NAME=1,3,640,640",
            help="All sizes of an input; a word keeps a size symbolic; may be repeated.",
        ),
    ] = None,
    dim: DimOption = None,
    opset: Annotated[
        int | None,
        typer.Option("--opset", metavar="N", min=1, help="Convert upwards to this opset."),
    ] = None,
    input_codec: Annotated[
        Literal["uint8"] | None,
        typer.Option("--input-codec", help="Let images cross the wire as 8-bit pixels."),
    ] = None,
    preprocessing: PreprocessingOption = None,
    no_simplify: Annotated[
        bool, typer.Option("--no-simplify", help="Fold no constants, merge no layers.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Where to write; <MODEL>.prepared.onnx if left out."),
    ] = None,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Make a model ready to be split: sizes fixed, constants folded, every node named.

    Names of inputs, outputs and of all that stays are kept. What comes out is compared with the
    original on random inputs; what would change its results is left out.

    \b
    Examples:
        tritier prepare model.onnx
        tritier prepare model.onnx --shape images=1,3,640,640 -o fixed.onnx
        tritier prepare model.onnx --shape images=N,3,640,640 --opset 17
        tritier prepare model.onnx --input-codec uint8 --preprocessing yolo
    """
    if (input_codec is None) != (preprocessing is None):
        raise UsageError("--input-codec uint8 and --preprocessing NAME-OR-FILE: give both or none")
    target = output or model.with_name(f"{model.stem}.prepared.onnx")
    if not dry_run:
        refuse_existing([target], force)
    options = PrepareOptions(
        shapes=_parse_shapes(shape),
        dims=parse_dims(dim),
        opset=opset,
        preprocessing=load_preprocessing(preprocessing) if preprocessing else None,
        simplify=not no_simplify,
    )
    with progress(f"preparing {model.name} and comparing it with the original"):
        prepared = prepare_model(model, options)
    if json:
        show_json(dataclasses.asdict(prepared.report))
    else:
        _show(prepared.report)
    for message in prepared.report.messages:
        say(message)
    if not dry_run:
        prepared.write(target, force)
        say(f"prepared model written to {target}")


def _show(report: PrepareReport) -> None:
    changed = [
        ("layers", report.layers_before, report.layers_after),
        ("nodes", report.nodes_before, report.nodes_after),
        ("opset", report.opset_before, report.opset_after),
    ]
    show_table("size of the model", ["", "before", "after"], changed)
    show_table(
        "inputs and outputs",
        ["", "tensor", "type", "shape"],
        [("input", t.name, t.dtype, _shape_text(t)) for t in report.inputs]
        + [("output", t.name, t.dtype, _shape_text(t)) for t in report.outputs],
    )
    absolute, relative = report.max_difference, report.max_relative_difference
    difference = "not measured"
    if absolute is not None and relative is not None:
        difference = "none" if absolute == 0 else f"{absolute:.2g} ({relative:.1e} of the maximum)"
    show_table(
        "what was done",
        ["", "value"],
        [
            ("sizes fixed", ", ".join(f"{k}={v}" for k, v in report.dims.items()) or "none"),
            ("Constant nodes made constants", report.constants_converted),
            ("nodes with a new name", report.names_given),
            ("simplified", report.simplified),
            ("runs compared", "none needed" if report.same_computation else report.runs),
            ("largest difference", difference),
        ],
    )


def _shape_text(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _parse_shapes(items: Iterable[str] | None) -> dict[str, tuple[int | str, ...]]:
    """`NAME=1,3,N` options as a mapping. Names may hold '='."""
    shapes: dict[str, tuple[int | str, ...]] = {}
    for item in items or ():
        name, equals, text = item.rpartition("=")
        sizes = [part.strip() for part in text.split(",")]
        good = all(s.isidentifier() or (s.isdecimal() and s.isascii() and int(s)) for s in sizes)
        if not name or not equals or not good:
            raise UsageError(
                f"--shape {item}: allowed is NAME=SIZES, whole numbers from 1 or words, with commas"
            )
        if name in shapes:
            raise UsageError(f"--shape {item}: input '{name}' is given twice")
        shapes[name] = tuple(int(s) if s.isdecimal() else s for s in sizes)
    return shapes
