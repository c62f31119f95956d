"""`tritier profile`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import typer

from tritier.cli.common import (
    DimOption,
    DryRunFlag,
    ForceFlag,
    JsonFlag,
    QuantizableOption,
    QuantizeLayerOption,
    ServersOption,
    load_servers,
    named_servers,
    parse_dims,
    workspace,
)
from tritier.cli.output import progress_of_several, say, show_json, show_table, size_text
from tritier.documents import (
    ComponentCheck,
    ModelProfile,
    Ranges,
    TimingProfile,
)
from tritier.errors import InputError, UsageError
from tritier.files import write_document_file
from tritier.graph import (
    DEFAULT_QUANTIZABLE,
    LoadedModel,
    Quantizable,
    load_model,
    profile_model,
)
from tritier.network.registry import server_urls
from tritier.workflow import (
    Method,
    ProfileRequest,
    Runs,
    profile_on_servers,
    without_unquantizable,
)


def profile_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    servers: ServersOption,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the profiles: MODEL/SERVER.json.")
    ] = Path("profiles"),
    method: Annotated[
        str,
        typer.Option("--method", help="profiler, or layers: each cut out and run alone (slow)."),
    ] = "profiler",
    server: Annotated[
        list[str] | None,
        typer.Option("--server", metavar="NAME", help="Only this server; may be repeated."),
    ] = None,
    quantizable: QuantizableOption = DEFAULT_QUANTIZABLE,
    quantize_layer: QuantizeLayerOption = None,
    ranges: Annotated[
        Path | None,
        typer.Option("--ranges", help="Calibration ranges; times do not hang on them."),
    ] = None,
    dim: DimOption = None,
    runs: Annotated[
        int, typer.Option("--runs", min=3, max=10_000, help="Runs that count, of each thing.")
    ] = 30,
    warmup: Annotated[
        int, typer.Option("--warmup", min=0, max=10_000, help="Runs before those.")
    ] = 10,
    pause_ms: Annotated[
        float,
        typer.Option(
            "--pause-ms",
            min=0.0,
            max=60_000.0,
            help="How long a server rests before each run; what rested is slower at first.",
        ),
    ] = 0.0,
    components: Annotated[
        int,
        typer.Option(
            "--components",
            metavar="N",
            min=0,
            max=30,
            help="Random components that are cut out and measured, to check the profile.",
        ),
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Which components these are.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what was measured before.")
    ] = False,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Measure what each layer of a model takes on each server, not quantized and quantized.

    Everything is measured through the Tritons: an agent is loaded for the time through model
    control. Servers on one machine are measured one after another, others side by side. Results
    are kept in the workspace: a run that was cut off goes on from there, and what was measured
    before, on the same kind of host with the same settings, is not measured again.

    \b
    Examples:
        tritier profile model.onnx --servers servers.yaml -o profiles/
        tritier profile model.onnx --servers servers.yaml --method layers --server edge
    """
    if method not in get_args(Method):
        raise UsageError(f"--method {method}: allowed are {', '.join(get_args(Method))}")
    loaded = load_model(model)
    choice = Quantizable(quantizable, None, tuple(quantize_layer or ()))
    request = ProfileRequest(
        loaded,
        _usable(loaded, profile_model(loaded, parse_dims(dim), choice), bool(quantize_layer)),
        workspace(context).folder / "timing",
        None if ranges is None else Ranges.load(ranges),
        "layers" if method == "layers" else "profiler",
        Runs(warmup, runs, pause_ms=pause_ms),
        components,
        seed,
        fresh,
    )
    spec = load_servers(servers)
    chosen = named_servers(spec, server or [])
    urls = server_urls(spec.model_copy(update={"servers": tuple(chosen)}),
                       workspace(context).running_lab())  # fmt: skip
    folder = output / request.profile.model.name
    paths = {item.name: folder / f"{item.name}.json" for item in chosen}
    _refuse_existing(list(paths.values()), force)
    if dry_run:
        for name, path in paths.items():
            say(f"would profile on '{name}' at {urls[name]} and write {path}")
        return
    with progress_of_several("profiling", [item.name for item in chosen]) as report:
        profiles = profile_on_servers(
            request,
            chosen,
            urls,
            report,
            lambda found: write_document_file(paths[found.server], found.to_json(), force=True),
        )
    say(f"{len(profiles)} profiles written to {folder}")
    if json:
        show_json([x.model_dump(mode="json", by_alias=True, exclude_none=True) for x in profiles])
    else:
        show_profiles(profiles)


def _usable(model: LoadedModel, profile: ModelProfile, named: bool) -> ModelProfile:
    """Without the layers that can't be quantized; an error if the user named them."""
    found, reasons = without_unquantizable(model, profile)
    if reasons and named:
        raise InputError(reasons, "--quantize-layer")
    for reason in reasons:
        say(f"not quantized: {reason}")
    return found


def _refuse_existing(paths: Sequence[Path], force: bool) -> None:
    existing = [str(path) for path in paths if path.exists()]
    if existing and not force:
        raise InputError(
            f"{', '.join(existing)} exist: choose another folder with -o or pass --force to "
            "replace them"
        )


def show_profiles(profiles: Sequence[TimingProfile]) -> None:
    """A row per server, and how well components are predicted."""
    show_table(
        f"{profiles[0].model.name}: times per inference (measured; medians)",
        ["server", "method", "whole ms", "all int8 ms", "layers / whole", "layers that gain",
         "unmapped ms", "J per inference", "memory", "profiling s"],
        [_row(profile) for profile in profiles],
    )  # fmt: skip
    codings = [
        (profile.server, item.codec, f"{item.encoding_ms:.3f}", f"{item.encoding_ms_per_mib:.3f}",
         f"{item.decoding_ms:.3f}", f"{item.decoding_ms_per_mib:.3f}")
        for profile in profiles
        for item in profile.codings or ()
    ]  # fmt: skip
    if codings:
        show_table(
            "codecs of wires: what they cost a tensor (measured); MiB are those of it as float32",
            ["server", "codec", "coding ms", "and per MiB", "decoding ms", "and per MiB"],
            codings,
        )
    rows = [
        (profile.server, "int8" if quantized else "float", *_errors(checks))
        for profile in profiles
        for quantized in (False, True)
        if (checks := [c for c in profile.components if c.quantized == quantized])
    ]
    if rows:
        show_table(
            "components that were cut out: predicted against measured",
            ["server", "precision", "n", "mean |error| %", "p95 %", "max %", "memory: mean %"],
            rows,
        )


def _row(profile: TimingProfile) -> tuple[object, ...]:
    energy = profile.energy.whole_joule
    return (
        profile.server,
        profile.settings.method,
        f"{profile.whole.median_ms:.2f} ± {profile.whole.std_ms:.2f}",
        f"{profile.mixed.median_ms:.2f}" if profile.mixed else "-",
        f"{profile.sum_over_whole:.3f}",
        f"{len(profile.gaining_layers)} of "
        f"{sum(layer.int8_ms is not None for layer in profile.layers)}",
        f"{profile.unmapped_float_ms:.2f}",
        f"{energy.value:.3g} ({energy.source})" if energy else "-",
        size_text(profile.memory.measured_bytes),
        f"{profile.profiling_s:.1f}",
    )


def _errors(checks: Sequence[ComponentCheck]) -> tuple[str, ...]:
    errors = sorted(abs(check.error) * 100 for check in checks)
    memory = [
        abs(c.predicted_bytes / c.measured_bytes - 1) * 100
        for c in checks
        if c.predicted_bytes is not None and c.measured_bytes
    ]
    return (
        f"{len(errors)}",
        f"{sum(errors) / len(errors):.1f}",
        f"{_quantile(errors, 0.95):.1f}",
        f"{errors[-1]:.1f}",
        f"{sum(memory) / len(memory):.0f}" if memory else "-",
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """By linear interpolation between neighbours."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
