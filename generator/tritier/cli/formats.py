"""`tritier formats`."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import onnxruntime
import typer

from tritier.calibration import calibrate
from tritier.cli.common import (
    DimOption,
    DryRunFlag,
    ForceFlag,
    JsonFlag,
    QuantizableOption,
    QuantizeLayerOption,
    QuantizeTypeOption,
    load_servers,
    named_servers,
    parse_dims,
    workspace,
)
from tritier.cli.inputs import divided, find_inputs, sizes_of_first
from tritier.cli.output import progress, say, show_json, show_table
from tritier.cli.ranges import (
    DataOption,
    ImagesOption,
    LimitOption,
    PreprocessingOption,
    SeedOption,
)
from tritier.documents import ModelProfile, Ranges, Server
from tritier.errors import InputError, UsageError
from tritier.files import write_document_file
from tritier.graph import (
    DEFAULT_QUANTIZABLE,
    LoadedModel,
    Quantizable,
    build_layer_graph,
    load_model,
    profile_model,
)
from tritier.network.registry import server_urls
from tritier.workflow import Runs, without_unquantizable
from tritier.workflow.formats import FormatsRequest, formats_here, formats_on_server
from tritier.workflow.formats_layers import averages_of, with_layers
from tritier.workflow.formats_report import FormatRow, FormatsReport
from tritier.workflow.processor import processor_facts

_ALL = 1_000_000
# At most, of those that are given.
_INPUTS, _CALIBRATION = 20, 100
_SATURATED = 1.25  # real noise over simulated


def formats_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    images: ImagesOption = None,
    preprocessing: PreprocessingOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    seed: SeedOption = 0,
    ranges: Annotated[
        Path | None,
        typer.Option(
            "--ranges", help="Calibration ranges; else of other inputs than those of noise."
        ),
    ] = None,
    servers: Annotated[
        Path | None,
        typer.Option("--servers", help="Measure on these servers; else on this machine."),
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option("--server", metavar="NAME", help="Only this server; may be repeated."),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=1024, help="Threads on this machine.")
    ] = 1,
    quantizable: QuantizableOption = DEFAULT_QUANTIZABLE,
    quantize_type: QuantizeTypeOption = None,
    quantize_layer: QuantizeLayerOption = None,
    all_convs: Annotated[bool, typer.Option("--all-convs", help="Quantize every Conv.")] = False,
    dim: DimOption = None,
    runs: Annotated[
        int, typer.Option("--runs", min=3, max=10_000, help="Runs that count, of each format.")
    ] = 30,
    warmup: Annotated[
        int, typer.Option("--warmup", min=0, max=10_000, help="Runs before those.")
    ] = 5,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write the result (JSON).")
    ] = None,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Compare int8 formats on real inputs: which is fastest, which has the least noise.

    The whole model is quantized in every format and run in turn with the float one, on this machine
    or through the Triton of each server. The two best formats are also tried on the layers around
    the Convs. Says which settings to write into servers.yaml, or that none gains.

    \b
    Examples:
        tritier formats model.onnx --images photos/ --preprocessing yolo
        tritier formats model.onnx --images photos/ --preprocessing yolo --all-convs --threads 4
        tritier formats model.onnx --data a.npz --ranges ranges.json --servers servers.yaml --json
    """
    if server and servers is None:
        raise UsageError("--server needs --servers, the file that names it")
    if all_convs and (quantize_type or quantize_layer):
        raise UsageError("--all-convs chooses the layers: leave out the other options that do")
    if output is not None and output.exists() and not force:
        raise InputError(f"{output} exists: choose another name or pass --force to replace it")
    loaded = load_model(model)
    files, _ = find_inputs(loaded, images, preprocessing, data, limit, seed)
    known = None if ranges is None else Ranges.load(ranges)
    measured, calibrated = divided(files, _INPUTS, _CALIBRATION, seed, known, least=1)
    feeds = list(measured)
    count = _ALL if all_convs else quantizable
    types = ("Conv",) if all_convs else tuple(quantize_type or ()) or None
    choice = Quantizable(count, types, tuple(quantize_layer or ()))
    profile = profile_model(loaded, sizes_of_first(measured) | parse_dims(dim), choice)
    profile = _usable(loaded, profile, bool(quantize_layer))
    places = _servers(context, servers, server or [])
    if dry_run:
        names = ", ".join(f"'{item.name}' at {url}" for item, url in places) or "this machine"
        say(
            f"would compare formats of {len(profile.quantizable_layers)} layers on {names}, noise "
            f"on {_count(len(feeds), 'input')}"
        )
        return
    reports = []
    with progress("comparing formats") as report:
        if known is None:
            report(f"ranges over {len(calibrated)} inputs")
            known = calibrate(loaded, calibrated, source=f"{len(calibrated)} inputs")
        request = FormatsRequest(
            loaded, profile, known, feeds, workspace(context).folder / "timing", Runs(warmup, runs)
        )
        for item, url in places:
            tell = _teller(item.name, report)
            reports.append(formats_on_server(request, item, url, tell))
        if not places:
            version = str(onnxruntime.__version__)
            reports.append(formats_here(request, threads, processor_facts(), version, report))
    rows = [found.to_data() for found in reports]
    if output is not None:
        write_document_file(output, json_module.dumps(rows, indent=2) + "\n", force)
        say(f"formats of {profile.model.name} written to {output}")
    if json:
        show_json(rows)
        return
    for found in reports:
        show_formats(found)


def show_formats(report: FormatsReport) -> None:
    """A row per format, and what follows."""
    show_table(
        f"{report.model}: int8 formats on {report.place}, {report.processor}, ONNX Runtime "
        f"{report.onnxruntime}, {_count(report.threads, 'thread')} (measured; "
        f"n = {report.rows[0].time.n} runs in turn, noise on {_count(report.inputs, 'input')})",
        ["format", "layers", "as int8", "median ms", "times as fast (95 %)", "real noise",
         "simulated", "real / signal %"],
        [_row(row) for row in report.rows],
    )  # fmt: skip
    for line in verdict(report):
        say(line)


def verdict(report: FormatsReport) -> list[str]:
    """In words: what is fastest, what has the least noise, what to write into servers.yaml."""
    fastest, quiet, advised = report.fastest, report.least_noise, report.advised
    lines = [
        f"{row.name}: real noise is {_ratio_of(row):.1f} times what floats simulate, its integers "
        "overflow: reduce_range, or weight_type uint8, prevents that"
        for row in report.rows
        if row.quantization is not None and _ratio_of(row) > _SATURATED
    ]
    lines.append(
        f"least noise: {quiet.name} ({100 * quiet.relative_noise:.2g} % of the signal, "
        f"{quiet.speedup.value:.2f} times as fast as float)"
    )
    if advised is None:
        return [*lines, "none gains: float is fastest"]
    lines.append(f"fastest: {fastest.name} ({fastest.speedup.value:.2f} times as fast as float)")
    near = "" if advised is fastest else ", as fast with less noise"
    return [*lines, f"for servers.yaml: {advised.settings}  # {advised.name}{near}"]


def _row(row: FormatRow) -> tuple[str, ...]:
    speed = f"{row.speedup.value:.2f} ({row.speedup.low:.2f}..{row.speedup.high:.2f})"
    head = (row.name, f"{len(row.layers)}" if row.quantization else "-")
    if row.quantization is None:
        return (*head, "-", f"{row.time.median_ms:.2f}", "1", "-", "-", "-")
    return (
        *head,
        "?" if row.int8_layers is None else f"{len(row.int8_layers)}",
        f"{row.time.median_ms:.2f}",
        speed,
        ", ".join(f"{item.real.value:.3g}" for item in row.noise),
        ", ".join(f"{item.simulated.value:.3g}" for item in row.noise),
        f"{100 * row.relative_noise:.2g}",
    )


def _ratio_of(row: FormatRow) -> float:
    """Real noise over simulated, of the output where it is largest."""
    shares = [x.real.value / x.simulated.value for x in row.noise if x.simulated.value > 0]
    return max(shares, default=1.0)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _usable(model: LoadedModel, profile: ModelProfile, named: bool) -> ModelProfile:
    """Without the layers that can't or shouldn't be quantized; what the user named only must be
    possible."""
    found, reasons = without_unquantizable(model, profile)
    if reasons and named:
        raise InputError(reasons, "--quantize-layer")
    ends = set() if named else averages_of(build_layer_graph(model.proto))
    for name in ends & set(found.quantizable_layers):
        reasons = (*reasons, f"layer '{name}' averages a distribution, too finely for 8 bits")
    for reason in reasons:
        say(f"not quantized: {reason}")
    return with_layers(found, set(found.quantizable_layers) - ends)


def _servers(
    context: typer.Context, path: Path | None, names: Sequence[str]
) -> list[tuple[Server, str]]:
    """The servers to measure on, with their addresses; none without a file."""
    if path is None:
        return []
    spec = load_servers(path)
    chosen = named_servers(spec, names)
    kept = spec.model_copy(update={"servers": tuple(chosen)})
    urls = server_urls(kept, workspace(context).running_lab())
    return [(item, urls[item.name]) for item in chosen]


def _teller(name: str, report: Callable[[str], None]) -> Callable[[str], None]:
    """Steps on a server, each told once."""
    last = [""]

    def tell(step: str) -> None:
        if step != last[0]:
            last[0] = step
            report(f"{name}: {step}")

    return tell
