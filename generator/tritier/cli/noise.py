"""`tritier noise`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tritier.calibration import Inputs
from tritier.cli.common import (
    DimOption,
    DryRunFlag,
    ForceFlag,
    JsonFlag,
    QuantizableOption,
    QuantizeLayerOption,
    QuantizeTypeOption,
    parse_dims,
    refuse_files,
    workspace,
)
from tritier.cli.inputs import divided, find_inputs
from tritier.cli.noise_inputs import chosen_format, chosen_layers, chosen_where, parse_wires
from tritier.cli.noise_show import doubts, plot_ranking, require_plotting, show_noise
from tritier.cli.output import progress, say, show_json
from tritier.cli.ranges import DataOption, ImagesOption, PreprocessingOption
from tritier.documents import NoiseModel, Ranges
from tritier.errors import InputError, UsageError
from tritier.files import write_document_file
from tritier.graph import (
    DEFAULT_QUANTIZABLE,
    LoadedModel,
    Quantizable,
    build_layer_graph,
    load_model,
)
from tritier.noise import Metric, load_metric
from tritier.workflow import (
    DEFAULT_INPUTS,
    DEFAULT_VERIFICATION,
    NoiseFit,
    NoiseRequest,
    learn_noise,
)
from tritier.workflow.noise import check_choice
from tritier.workflow.noise_dask import check_scheduler
from tritier.workflow.noise_measure import stored_ranges
from tritier.workflow.noise_wires import coded_tensors, wire_noise

_DEFAULT_CALIBRATION = 100
_SHAPE_INPUTS = 12


def noise_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    images: ImagesOption = None,
    preprocessing: PreprocessingOption = None,
    data: DataOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write the noise model.")
    ] = None,
    inputs: Annotated[
        int,
        typer.Option(
            "--inputs",
            metavar="N",
            min=2,
            help="Noise is measured on N inputs, on half of them all without --ranges if there "
            "are fewer than twice as many.",
        ),
    ] = DEFAULT_INPUTS,
    shape_inputs: Annotated[
        int | None,
        typer.Option(
            "--shape-inputs",
            metavar="N",
            min=1,
            help="Fitted subsets are measured on N of them, and scaled to all: 12, or all for a "
            "polynomial and a metric of yours.",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, help="Which inputs, for what; and which random subsets."),
    ] = 0,
    ranges: Annotated[
        Path | None,
        typer.Option(
            "--ranges",
            help="Calibration ranges; inputs behind them are left out. Without, ranges are "
            "calibrated on other inputs.",
        ),
    ] = None,
    calibration: Annotated[
        int,
        typer.Option(
            "--calibration", metavar="N", min=1, help="Without --ranges: on at most N others."
        ),
    ] = _DEFAULT_CALIBRATION,
    quantizable: QuantizableOption = DEFAULT_QUANTIZABLE,
    quantize_type: QuantizeTypeOption = None,
    quantize_layer: QuantizeLayerOption = None,
    all_convs: Annotated[
        bool, typer.Option("--all-convs", help="All Conv layers, not the 12.")
    ] = False,
    keep_sensitive: Annotated[
        bool, typer.Option("--keep-sensitive", help="Exclude no layer that destroys an output.")
    ] = False,
    activation_type: Annotated[
        str | None, typer.Option("--activation-type", help="Format: int8 (default) or uint8.")
    ] = None,
    weight_type: Annotated[
        str | None, typer.Option("--weight-type", help="Format: int8 (default) or uint8.")
    ] = None,
    per_channel: Annotated[
        bool, typer.Option("--per-channel", help="Format: a scale per channel of the weights.")
    ] = False,
    reduce_range: Annotated[
        bool, typer.Option("--reduce-range", help="Format: 7-bit weights.")
    ] = False,
    servers: Annotated[
        Path | None, typer.Option("--servers", help="Take the format from this servers file.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="NAME", help="Which server's format, with --servers."),
    ] = None,
    real_kernels: Annotated[
        bool,
        typer.Option("--real-kernels", help="Use the int8 kernels of this machine's processor."),
    ] = False,
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            metavar="NAME-OR-FILE.py:NAME",
            help="mean_abs, max_abs, snr, cosine, or a function of yours.",
        ),
    ] = "mean_abs",
    model_output: Annotated[
        list[str] | None,
        typer.Option(
            "--model-output", metavar="NAME", help="Only this output; all if left out; repeatable."
        ),
    ] = None,
    subsets: Annotated[
        int,
        typer.Option(
            "--subsets", metavar="N", min=0, help="Fit to N random subsets besides the design."
        ),
    ] = 0,
    fit: Annotated[
        str,
        typer.Option(
            "--model",
            envvar="TRITIER_NOISE_MODEL",
            help="squared, or polynomial: the published regression.",
        ),
    ] = "squared",
    degree: Annotated[int, typer.Option("--degree", min=1, max=4, help="Of the polynomial.")] = 3,
    samples: Annotated[
        int,
        typer.Option("--samples", metavar="N", min=2, help="Random subsets for the polynomial."),
    ] = 1000,
    verification: Annotated[
        int,
        typer.Option(
            "--verification",
            metavar="N",
            min=0,
            help="Random subsets for the margin and the held-out figures; 0 for none.",
        ),
    ] = DEFAULT_VERIFICATION,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Measure every subset (few layers only).")
    ] = False,
    wire: Annotated[
        list[str] | None,
        typer.Option(
            "--wire",
            metavar="TENSOR[=CODEC]",
            help="Measure also what this tensor (name or pattern) loses where it crosses between "
            "servers in fp16 (default) or int8; repeatable.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", metavar="N", min=0, help="Side by side; 0: all cores.")
    ] = 0,
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            help="Inputs side by side in threads (threading), in processes (loky), or on the "
            "workers of a dask cluster (dask).",
        ),
    ] = "threading",
    scheduler: Annotated[
        str,
        typer.Option(
            "--scheduler", metavar="ADDRESS", help="Of dask, such as tcp://10.0.0.7:8786."
        ),
    ] = "",
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Write a picture (PNG or SVG) of the ranking of layers."),
    ] = None,
    dim: DimOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what was measured before.")
    ] = False,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Learn how far int8 layers move the outputs of a model, for any choice of layers.

    A few dozen choices are really measured; of the others the noise is predicted, with a margin
    that random choices confirm. Results are kept in the workspace: a run that was cut off goes on
    from there. Ranges that are not given are calibrated on inputs on which noise is not measured,
    and written beside the noise model, as noise_ranges.json.

    \b
    Examples:
        tritier noise yolo11n.onnx --images photos/ --preprocessing yolo -o noise.json
        tritier noise model.onnx --data a.npz --data b.npz --ranges ranges.json --all-convs
        tritier noise model.onnx --images photos/ --preprocessing imagenet --metric top1.py:lost \\
            --servers servers.yaml --server edge --real-kernels
    """
    if fit not in ("squared", "polynomial"):
        raise UsageError(f"--model {fit}: allowed are squared, polynomial")
    settings = chosen_format(
        activation_type, weight_type, per_channel, reduce_range, servers, server
    )
    _refuse_idle(context, fit, exhaustive, all_convs, ranges, backend)
    where = chosen_where(backend, jobs, scheduler)
    paths = _paths(output, ranges, plot, force)
    if plot is not None:
        require_plotting(plot)
    loaded = load_model(model)
    chosen_metric = load_metric(metric)
    given = None if ranges is None else _given(ranges, loaded)
    files, _ = find_inputs(loaded, images, preprocessing, data, None, seed)
    measured, others = divided(files, inputs, calibration, seed, given)
    choice = Quantizable(
        quantizable, tuple(quantize_type or ()) or None, tuple(quantize_layer or ())
    )
    layers = chosen_layers(loaded, choice, parse_dims(dim), all_convs, measured)
    how = NoiseFit(
        "polynomial" if fit == "polynomial" else "squared", degree, samples, verification,
        exhaustive, subsets,
    )  # fmt: skip
    outputs = check_choice(build_layer_graph(loaded.proto), layers, model_output or (), how)
    wires = parse_wires(wire or ())
    coded_tensors(loaded, wires, given)  # before long measurements
    if where.backend == "dask":
        check_scheduler(where.scheduler)
    if dry_run:
        _say_what_would_be(len(layers), len(wires), measured, None if given else others)
        return
    store = workspace(context).folder / "noise"
    with progress(f"noise of {loaded.default_name}") as report:
        text = f"{len(others)} inputs that `tritier noise` chose, seed {seed}"
        known = given or stored_ranges(loaded, others, text, store, fresh, report)
        request = NoiseRequest(
            loaded, layers, measured, known, store, settings, chosen_metric,
            tuple(model_output or ()), how, real_kernels,
            shape_inputs or _usual(chosen_metric, fit), keep_sensitive, seed,
            where, fresh,
        )  # fmt: skip
        found = learn_noise(request, report)
        tensors = coded_tensors(loaded, wires, known)
        found = found.with_wires(
            wire_noise(loaded, tensors, measured, known, chosen_metric, outputs, report)
        )
    _write(found, None if given else known, paths, plot, force)
    if json:
        show_json(found.model_dump(mode="json", by_alias=True, exclude_none=True))
    else:
        show_noise(found)
    for doubt in doubts(found):
        say(doubt)


def _say_what_would_be(layers: int, wires: int, measured: Inputs, others: Inputs | None) -> None:
    """For a dry run; `others` are those on which ranges would be calibrated. All inputs are read,
    which finds what is wrong with the files."""
    for _ in (*measured, *(others or ())):
        pass
    say(
        f"would measure the noise of {layers} layers"
        + (f" and of {wires} kinds of wires" if wires else "")
        + f" on {len(measured)} inputs"
        + ("" if others is None else f", with ranges calibrated on {len(others)} others")
        + "; nothing was written"
    )


def _write(
    noise: NoiseModel,
    ranges: Ranges | None,
    paths: tuple[Path, Path] | None,
    plot: Path | None,
    force: bool,
) -> None:
    """Noise model, ranges that were calibrated for it, and picture, as far as they are wanted."""
    if paths is not None:
        if ranges is not None:
            write_document_file(paths[1], ranges.to_json(), force)
            say(f"ranges written to {paths[1]}")
        write_document_file(paths[0], noise.to_json(), force)
        say(f"noise model written to {paths[0]}")
    if plot is not None:
        plot_ranking(noise, plot)
        say(f"ranking drawn in {plot}")


def _usual(metric: Metric, fit: str) -> int | None:
    """How many inputs the fitted subsets are measured on, None for all. Scaling is for noise that
    hardly differs between inputs."""
    return _SHAPE_INPUTS if metric.by_output and fit == "squared" else None


def _refuse_idle(
    context: typer.Context,
    fit: str,
    exhaustive: bool,
    all_convs: bool,
    ranges: Path | None,
    backend: str,
) -> None:
    """Raise UsageError for options that have nothing to say beside others."""
    rules = (
        (fit != "polynomial", "degree samples", "is of --model polynomial"),
        (fit == "polynomial", "subsets", "is for --model squared: give --samples"),
        (exhaustive, "verification subsets shape_inputs",
         "says nothing: --exhaustive measures every subset on all inputs"),
        (ranges is not None, "calibration", "says nothing beside --ranges"),
        (all_convs, "quantizable quantize_type quantize_layer",
         "says nothing beside --all-convs, which takes every Conv"),
        (backend == "dask", "jobs", "says nothing: all threads of the workers are used"),
        (backend != "dask", "scheduler", "is of --backend dask"),
    )  # fmt: skip
    for applies, names, text in rules:
        for name in names.split():
            source = context.get_parameter_source(name)
            if applies and source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
                raise UsageError(f"--{name.replace('_', '-')} {text}")


def _given(path: Path, model: LoadedModel) -> Ranges:
    """Ranges that the user calibrated before."""
    found = Ranges.load(path)
    if found.model_sha256 != model.sha256:
        raise InputError(
            f"is for another model ({found.model_sha256[:12]}...), not for '{model.default_name}' "
            f"({model.sha256[:12]}...): calibrate it with `tritier ranges`, or leave --ranges out",
            str(path),
        )
    return found


def _paths(
    output: Path | None, ranges: Path | None, plot: Path | None, force: bool
) -> tuple[Path, Path] | None:
    """Where noise model and ranges go; what exists is not replaced."""
    paths = None if output is None else (output, output.with_name(f"{output.stem}_ranges.json"))
    written = [*(paths or ())[: 1 if ranges else 2], *([plot] if plot else [])]
    refuse_files(written, force)
    return paths
