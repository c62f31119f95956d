"""`tritier ranges`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tritier.calibration import calibrate, choose_tensors
from tritier.cli.common import DryRunFlag, ForceFlag, JsonFlag
from tritier.cli.inputs import find_inputs
from tritier.cli.output import progress, say, show_json, show_table
from tritier.documents import Ranges
from tritier.errors import InputError
from tritier.files import write_document_file
from tritier.graph import load_model

_WIDEST_SHOWN = 8
_STEPS_SHOWN = 20

ImagesOption = Annotated[
    list[Path] | None,
    typer.Option("--images", help="Image, or folder of images; may be repeated."),
]
PreprocessingOption = Annotated[
    str | None,
    typer.Option(
        "--preprocessing",
        metavar="NAME-OR-FILE",
        help="How images become inputs: a preset (yolo, imagenet, ppocr-det, ppocr-rec) or a file "
        "(YAML or JSON).",
    ),
]
DataOption = Annotated[
    list[Path] | None,
    typer.Option("--data", help="Input file instead of images, .npz or .npy; may be repeated."),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="At most N inputs.")
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Which N, if there are more than the limit.")
]
TensorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tensor", metavar="NAME-OR-PATTERN", help="Only these tensors; may be repeated."
    ),
]
OutputOption = Annotated[
    Path | None, typer.Option("-o", "--output", help="Where to write the ranges.")
]
MethodOption = Annotated[
    Literal["minmax", "entropy", "percentile"],
    typer.Option("--method", help="minmax covers all values, the others cut off rare ones."),
]


def ranges_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    images: ImagesOption = None,
    preprocessing: PreprocessingOption = None,
    data: DataOption = None,
    method: MethodOption = "minmax",
    limit: LimitOption = None,
    seed: SeedOption = 0,
    tensor: TensorOption = None,
    output: OutputOption = None,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Run a model on photographs and write the least and greatest value of each tensor.

    The ranges are computed once for a model. They serve any choice of quantized layers and of int8
    on the wire. Use at least some dozen inputs like those that the model will meet.

    \b
    Examples:
        tritier ranges yolo11n.onnx --images photos/ --preprocessing yolo -o ranges.json
        tritier ranges model.onnx --images photos/ --preprocessing my.yaml --limit 100 --seed 1
        tritier ranges model.onnx --data a.npz --data b.npz --method percentile --tensor "/conv*"
    """
    if output is not None and output.exists() and not force:
        raise InputError(f"{output} exists: choose another name or pass --force to replace it")
    loaded = load_model(model)
    inputs, source = find_inputs(loaded, images, preprocessing, data, limit, seed)
    tensors = choose_tensors(loaded, tensor) if tensor else None
    if dry_run:
        for _ in inputs:  # reads every file, and so finds all that is wrong with them
            pass
        say(f"{len(inputs)} inputs are as {loaded.default_name} needs them; nothing was written")
        return
    with progress(f"{method} ranges over {len(inputs)} inputs") as report:
        every = -(-len(inputs) // _STEPS_SHOWN)
        ranges = calibrate(
            loaded, inputs, method, tensors, source,
            lambda what, number: report(f"{what} {number}") if number % every == 0 else None,
        )  # fmt: skip
    if output is not None:
        write_document_file(output, ranges.to_json(), force)
        say(f"ranges of {loaded.default_name} written to {output}")
    if json:
        show_json(ranges.model_dump(mode="json", by_alias=True, exclude_none=True))
    else:
        show_ranges(ranges)


def show_ranges(ranges: Ranges) -> None:
    """What was measured, and the tensors whose ranges are the widest."""
    show_table(
        "ranges (measured)",
        ["", "value"],
        [
            ("tensors", f"{len(ranges.ranges)}"),
            ("samples", f"{ranges.samples}"),
            ("method", ranges.method),
            ("inputs", ranges.source),
        ],
    )
    widest = sorted(ranges.ranges.items(), key=lambda item: item[1][0] - item[1][1])
    show_table(
        "widest ranges",
        ["tensor", "least", "greatest"],
        [(name, f"{low:.6g}", f"{high:.6g}") for name, (low, high) in widest[:_WIDEST_SHOWN]],
    )
