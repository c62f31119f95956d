"""What `tritier noise` found, as tables and as a picture."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

from tritier.cli.output import show_table
from tritier.documents import NoiseFigures, NoiseModel, OutputNoise
from tritier.errors import InputError
from tritier.files import write_file
from tritier.workflow.noise_fit import LEAST_VERIFICATION

_SHOWN = 15
_DRAWN = 40
_LARGE_ERROR = 0.1  # mean relative error that is told
_FORMATS = (".png", ".svg")


def ranking(model: NoiseModel, output: OutputNoise) -> list[tuple[str, float, float]]:
    """(layer, its noise alone, its share of the sum of squares of all), the noisiest first."""
    alone = {name: output.predict([name]) for name in model.layers}
    total = sum(value**output.power for value in alone.values()) or 1.0
    rows = [(name, value, value**output.power / total) for name, value in alone.items()]
    return sorted(rows, key=lambda row: -row[1])


def show_noise(model: NoiseModel) -> None:
    """How well noise is predicted, which layers make most of it, and which were excluded."""
    show_table(
        f"{model.model.name}: noise ({model.settings.metric}) of {len(model.layers)} layers, "
        f"{len(model.inputs)} inputs, {len(model.measured)} subsets measured in "
        f"{model.elapsed_s:.0f} s",
        ["output", "all layers", "spread", "margin", "subsets", "R2", "MAPE %", "rank corr.",
         "worst under %", "worst over %"],
        [_row(model, item) for item in model.outputs],
    )  # fmt: skip
    for item in model.outputs:
        rows = ranking(model, item)
        show_table(
            f"'{item.output}': noise of each layer alone"
            + (f", the first {_SHOWN} of {len(rows)}" if len(rows) > _SHOWN else ""),
            ["layer", "noise", "share %"],
            [(name, f"{value:.4g}", f"{share:.1%}".rstrip("%"))
             for name, value, share in rows[:_SHOWN]],
        )  # fmt: skip
    if model.wires:
        show_table(
            "noise of each tensor alone that crosses between servers in fewer bits",
            ["tensor", "codec", "output", "noise"],
            [(item.tensor, item.codec, output, f"{value:.4g}")
             for item in model.wires for output, value in item.noise.items()],
        )  # fmt: skip
    if model.excluded:
        show_table(
            "not to be quantized",
            ["layer", "why"],
            [(item.name, item.reason) for item in model.excluded],
        )


def _row(model: NoiseModel, item: OutputNoise) -> tuple[str, ...]:
    found: NoiseFigures | None = item.held_out
    figures = (
        ("-",) * 6
        if found is None
        else (
            f"{found.subsets}",
            f"{found.r2:.4f}",
            f"{100 * found.mape:.2f}",
            f"{found.spearman:.4f}",
            f"{100 * found.worst_under:.1f}",
            f"{100 * found.worst_over:.1f}",
        )
    )
    return (
        item.output,
        f"{item.predict(model.layers):.4g}",
        "-" if item.signal is None else f"{item.signal.spread:.4g}",
        "none" if item.margin is None else f"{item.margin:.3f}",
        *figures,
    )


def doubts(model: NoiseModel) -> list[str]:
    """What is to be said of a noise model beside its figures."""
    found = [
        f"predictions of '{item.output}' are off by {item.held_out.mape:.0%} on average: measure "
        "more subsets (--subsets), on more inputs (--inputs, --shape-inputs), or another metric"
        for item in model.outputs
        if item.held_out is not None and item.held_out.mape > _LARGE_ERROR
    ]
    found += [
        f"'{item.output}' has no margin: 0 was predicted for choices that make noise, as happens "
        "to what changes in steps"
        for item in model.outputs
        if item.margin is None
    ]
    if model.self_check is not None and model.self_check.max_abs_diff:
        found.append(
            f"the self-check failed by {model.self_check.max_abs_diff:.2g}: whole models were run"
        )
    return [*found, *filter(None, [_doubt_of_margin(model)])]


def _doubt_of_margin(model: NoiseModel) -> str:
    """What is to be said of a margin that covers less than 95 %, or nothing."""
    held = model.outputs[0].held_out
    count = held.subsets if held else 0
    if count >= LEAST_VERIFICATION:
        return ""
    if len({item.layers for item in model.measured}) == 2 ** len(model.layers) - 1:
        return "all subsets of the layers were measured: the margin covers each of them"
    more = f"at least {LEAST_VERIFICATION} random subsets give 95 %: raise --verification"
    if not count:
        return f"no margin: no verification subsets were measured; {more}"
    return (
        f"the margin covers {count / (count + 1):.0%} of all subsets, as only {count} verification "
        f"subsets were measured; {more}"
    )


def require_plotting(path: Path) -> None:
    """Raise InputError unless a picture of that name can be drawn."""
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"--plot {path}: allowed are files that end in {' or '.join(_FORMATS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--plot needs matplotlib: install it with pip install 'tritier[plots]'")


def plot_ranking(model: NoiseModel, path: Path) -> None:
    """Bars of the noisiest layers alone, for each output, and the noise of quantizing layers one
    after the other, the quietest first."""
    from matplotlib.figure import Figure  # only here: it takes long to import

    count = min(len(model.layers), _DRAWN)
    height = max(3.0, 1.5 + 0.22 * count)
    figure = Figure(figsize=(13, height * len(model.outputs)), layout="constrained")
    axes = figure.subplots(len(model.outputs), 2, squeeze=False, width_ratios=[3, 2])
    for (bars, line), item in zip(axes, model.outputs, strict=True):
        rows = ranking(model, item)
        shown = rows[:count][::-1]
        bars.barh([name for name, _, _ in shown], [value for _, value, _ in shown])
        bars.set_xlabel(f"{model.settings.metric} of '{item.output}', the layer alone")
        some = f" ({count} noisiest of {len(rows)})" if count < len(rows) else ""
        bars.set_title(f"{model.model.name}: noise of each layer{some}")
        bars.tick_params(axis="y", labelsize=8)
        quiet = [name for name, _, _ in rows[::-1]]
        steps = range(len(quiet) + 1)
        noise = [item.predict(quiet[:k]) for k in steps]
        line.plot(steps, noise, label="predicted")
        if item.margin is not None:
            safe = [x * item.margin for x in noise]
            line.plot(steps, safe, "--", label="with its margin")
        line.set_xlabel("layers quantized, the quietest first")
        line.set_ylabel(model.settings.metric)
        line.set_ylim(bottom=0)
        line.legend()
        line.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=110)
    write_file(path, picture.getvalue())
