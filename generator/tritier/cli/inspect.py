"""`tritier inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import (
    DimOption,
    ForceFlag,
    JsonFlag,
    QuantizableOption,
    QuantizeLayerOption,
    QuantizeTypeOption,
    parse_dims,
)
from tritier.cli.output import say, show_json, show_table, size_text
from tritier.documents import GENERATOR, RECEIVER, ModelProfile, TensorProfile
from tritier.files import write_document_file
from tritier.graph import DEFAULT_QUANTIZABLE, Quantizable, load_model, profile_model

_NAMES_SHOWN = 5


def inspect_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    quantizable: QuantizableOption = DEFAULT_QUANTIZABLE,
    quantize_type: QuantizeTypeOption = None,
    quantize_layer: QuantizeLayerOption = None,
    dim: DimOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write the profile.")
    ] = None,
    force: ForceFlag = False,
    json: JsonFlag = False,
) -> None:
    """Show what each layer of a model computes and holds, and write it as a profile.

    FLOPs count a multiply-add as 2; bytes are of the constants that a layer needs and of the
    tensors that it makes. All are computed from shapes: nothing is run. Symbolic sizes need --dim,
    but the batch is 1 by itself; what hangs on a size that stays unknown is shown as '?'.

    \b
    Examples:
        tritier inspect model.onnx
        tritier inspect model.onnx --dim height=640 --dim width=640 -o profile.json
        tritier inspect model.onnx --quantizable 20 --quantize-type Conv --quantize-type MatMul
        tritier inspect model.onnx --quantize-layer "/model.2*/Conv" --json
    """
    loaded = load_model(model)
    choice = Quantizable(quantizable, tuple(quantize_type or ()) or None,
                         tuple(quantize_layer or ()))  # fmt: skip
    profile = profile_model(loaded, parse_dims(dim), choice)
    if output is not None:
        write_document_file(output, profile.to_json(), force)
        say(f"profile of {profile.model.name} written to {output}")
    if json:
        show_json(profile.model_dump(mode="json", by_alias=True, exclude_none=True))
    else:
        show_profile(profile)
    _say_what_is_unknown(profile)


def show_profile(profile: ModelProfile) -> None:
    """Layers, inputs and outputs, and totals as tables."""
    show_table(
        f"layers of {profile.model.name}{_sizes_text(profile)}",
        ["layer", "type", "FLOPs", "weights", "outputs", "quantizable"],
        [
            (
                layer.name,
                layer.op_type,
                flops_text(layer.flops),
                size_text(layer.weight_bytes),
                size_text(layer.output_bytes),
                "yes" if layer.quantizable else "",
            )
            for layer in profile.layers
        ],
    )
    ends = [("input", t) for t in profile.tensors if t.source == GENERATOR]
    ends += [("output", t) for t in profile.tensors if RECEIVER in t.consumers]
    show_table(
        "inputs and outputs",
        ["", "tensor", "type", "shape", "size"],
        [(end, t.name, t.dtype or "?", _shape_text(t), size_text(t.bytes)) for end, t in ends],
    )
    show_table("totals", ["", "value"], _total_rows(profile))


def flops_text(count: int | None) -> str:
    """FLOPs for people, in units of 1000."""
    if count is None:
        return "?"
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= limit:
            return f"{count / limit:,.2f} {unit}"
    return f"{count}"


def _total_rows(profile: ModelProfile) -> list[tuple[str, str]]:
    totals = profile.totals
    shared = profile.shared_weights
    again = sum(weight.bytes * (len(weight.layers) - 1) for weight in shared)
    least = "" if totals.flops is not None else " at least: those of some layers are unknown"
    return [
        ("layers", f"{totals.layers}"),
        ("constant nodes", f"{totals.constant_nodes}"),
        ("dropped nodes", f"{totals.dropped_nodes}"),
        ("FLOPs", f"{flops_text(totals.known_flops)}{least}"),
        ("weights", size_text(totals.weight_bytes)),
        ("weights that layers share", f"{len(shared)}"),
        ("counted again in the layers above", size_text(again)),
        ("activation peak", size_text(totals.activation_peak_bytes)),
        ("quantizable layers", f"{len(profile.quantizable_layers)}"),
    ]


def _sizes_text(profile: ModelProfile) -> str:
    sizes = ", ".join(f"{name}={size}" for name, size in profile.dims.items())
    return f" for {sizes}" if sizes else ""


def _shape_text(tensor: TensorProfile) -> str:
    if tensor.shape is None:
        return "?"
    return "x".join(str(size) for size in tensor.shape) or "scalar"


def _say_what_is_unknown(profile: ModelProfile) -> None:
    """Why figures are missing, and what to do."""
    shapes = [tensor.shape for tensor in profile.tensors if tensor.shape is not None]
    given = [t.shape for t in profile.tensors if t.source == GENERATOR and t.shape is not None]
    symbols = dict.fromkeys(size for shape in given for size in shape if isinstance(size, str))
    if symbols:
        options = " ".join(f"--dim {name}=N" for name in symbols)
        say(f"sizes of the inputs are symbolic: give {options}")
        return
    open_shapes = sum(1 for shape in shapes if any(isinstance(size, str) for size in shape))
    if open_shapes:
        say(f"{open_shapes} tensors have sizes that depend on the data; what hangs on them is '?'")
    sized = {t.source for t in profile.tensors if t.bytes is None}
    types = dict.fromkeys(
        x.op_type for x in profile.layers if x.flops is None and x.name not in sized
    )
    if types:
        shown = ", ".join(list(types)[:_NAMES_SHOWN])
        say(f"FLOPs are unknown for layers of type {shown}")
