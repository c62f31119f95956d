"""`tritier rescale`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import onnx
import typer

from tritier.calibration import Arrays
from tritier.cli.common import DryRunFlag, ForceFlag, JsonFlag
from tritier.cli.inputs import find_inputs
from tritier.cli.output import progress, say, show_json, show_table
from tritier.cli.ranges import DataOption, ImagesOption, PreprocessingOption
from tritier.errors import InputError
from tritier.files import write_file
from tritier.graph import LoadedModel, build_layer_graph, load_model
from tritier.graph.prepare_write import refuse_existing
from tritier.noise import LEAST_VARIATION
from tritier.noise.random_layers import LeftLayer, find_random_layers
from tritier.noise.rescale import Step, output_variation, rescale_statistics

# Outputs that vary less with the input carry no signal: random exports are below 1e-6.
_STEPS_SHOWN = 10

Variation = Mapping[str, float | None]


def rescale_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    images: ImagesOption = None,
    preprocessing: PreprocessingOption = None,
    data: DataOption = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=2, help="At most N inputs.")
    ] = 3,
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, help="Which N; and each channel's mean and spread."),
    ] = 0,
    live: Annotated[
        bool,
        typer.Option("--live", help="Also a model whose outputs depend on its inputs already."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Where to write; <MODEL>.rescaled.onnx if left out."),
    ] = None,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Make signals pass through a model with random weights, for benchmarks only.

    The outputs of an export with random weights hardly depend on its inputs. Here each layer's
    output channels get a mean and a spread over a few inputs. What the model finds in a picture
    still means nothing.

    \b
    Examples:
        tritier rescale yolo11n.onnx --images photos/ --preprocessing yolo -o yolo11n_live.onnx
        tritier rescale model.onnx --data a.npz --data b.npz --seed 1 --json
        tritier rescale model.onnx --images photos/ --preprocessing imagenet --dry-run
    """
    target = output or model.with_name(f"{model.stem}.rescaled.onnx")
    if not dry_run:
        refuse_existing([target], force)
    loaded = load_model(model)
    source, text = find_inputs(loaded, images, preprocessing, data, limit, seed)
    inputs = list(source)
    found, left = find_random_layers(loaded.proto, build_layer_graph(loaded.proto))
    before = output_variation(loaded.proto, inputs)
    if not live:
        _refuse_live(before)
    if dry_run:
        _show([], left, before, {}, json, None)
        say(f"{len(found)} layers can be rescaled on {text}; nothing was written")
        return
    started = time.monotonic()
    with progress(f"rescaling {len(found)} layers on {text}") as tell:
        rescaled, steps = _rescale(loaded, inputs, seed, tell)
    elapsed_s = time.monotonic() - started
    after = output_variation(rescaled, inputs)
    write_file(target, rescaled.SerializeToString(deterministic=True))
    _show(steps, left, before, after, json, elapsed_s)
    say(f"model written to {target}. Its weights are random, with rescaled statistics: use it for "
        "benchmarks only, what it computes means nothing")  # fmt: skip


def _rescale(
    model: LoadedModel, inputs: Sequence[Arrays], seed: int, tell: Callable[[str], None]
) -> tuple[onnx.ModelProto, list[Step]]:
    steps: list[Step] = []

    def report(step: Step) -> None:
        steps.append(step)
        if step.number % -(-step.of // _STEPS_SHOWN) == 0:
            tell(f"layer {step.number} of {step.of}")

    return rescale_statistics(model, inputs, seed, report=report), steps


def _refuse_live(before: Variation) -> None:
    """Raise InputError for a model that has a signal, since it may be trained."""
    if all(value is None for value in before.values()):
        raise InputError(
            "no output is made of floats, so nothing tells whether the model has a signal: pass "
            "--live if its weights are random"
        )
    for name, value in before.items():
        if value is not None and value >= LEAST_VARIATION:
            raise InputError(
                f"output '{name}' depends on the inputs already: {value:.3g} of its spread (a "
                f"random export has less than {LEAST_VARIATION:g}). Use the model as it is; --live "
                "rescales it nevertheless, and what it has learned is lost"
            )


def _show(
    steps: Sequence[Step],
    left: Sequence[LeftLayer],
    before: Variation,
    after: Variation,
    json: bool,
    elapsed_s: float | None,
) -> None:
    if json:
        outputs = {name: {"before": before[name], "after": after.get(name)} for name in before}
        show_json(
            {
                "rescaled": [
                    {"layer": s.layer, "channels": s.channels, "still": s.still} for s in steps
                ],
                "left": [asdict(layer) for layer in left],
                "variation": outputs,
                "elapsed_s": elapsed_s,
            }
        )
        return
    if left:
        rows = [(layer.name, layer.reason) for layer in left]
        show_table("layers that stay as they are", ["layer", "reason"], rows)
    still = [(s.layer, s.still, s.channels) for s in steps if s.still]
    if still:
        show_table("channels that no input moves", ["layer", "channels", "of"], still)
    show_table(
        "share of an output's spread that hangs on the input",
        ["output", "before", "after"],
        [(name, _text(before[name]), _text(after.get(name))) for name in before],
    )


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
