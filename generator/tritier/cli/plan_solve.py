"""What `tritier plan` solves: the request and the goals that its options name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, get_args

from tritier.calibration import Inputs, input_files
from tritier.cli.inputs import find_inputs
from tritier.documents import (
    NetworkState,
    NoiseModel,
    Objective,
    Ranges,
    ServersSpec,
    TimingProfile,
)
from tritier.errors import InputError, UsageError, did_you_mean
from tritier.graph import LoadedModel, Quantizable, build_layer_graph, profile_model
from tritier.noise import load_metric
from tritier.workflow.noise import NoiseRequest, measurer_of
from tritier.workflow.planning import NoiseCheck, Planned, Report, make_plan
from tritier.workflow.planning_goals import AUTO, Formulation, Goals
from tritier.workflow.problem_request import WIRE_CODECS, PlanningRequest, WireCodec

T = TypeVar("T")


@dataclass(frozen=True)
class SolveOptions:
    """The options of `tritier plan` that are for solving, as they were given."""

    timing: Sequence[Path] = ()
    network: Path | None = None
    noise: Sequence[Path] = ()
    max_noise: Sequence[str] = ()
    unlimited_noise: bool = False
    objective: str = "latency"
    latency_weight: float = 0.5
    device_energy: float | None = None
    server_energy: Sequence[str] = ()
    energy: float | None = None
    max_latency: float | None = None
    memory: Sequence[str] = ()
    pin: Sequence[str] = ()
    forbid: Sequence[str] = ()
    keep_local: Sequence[str] = ()
    close_link: Sequence[str] = ()
    allow_wire: Sequence[str] = ()
    int8_tensor: Sequence[str] = ()
    int8_everywhere: bool = False
    max_components: int | None = None
    pareto: int | None = None
    solver: str = AUTO
    formulation: str = "labels"
    time_limit: float = 60.0
    explain: bool = True
    images: Sequence[Path] = ()
    preprocessing: str | None = None
    data: Sequence[Path] = ()
    noise_runs: int = 6
    dims: Mapping[str, int] = field(default_factory=dict)


def solve_plan(
    model: LoadedModel,
    servers: ServersSpec,
    ranges: Ranges | None,
    name: str | None,
    options: SolveOptions,
    store: Path,
    report: Report,
) -> Planned:
    """The plan that the options ask for. Raises UsageError for options that say nothing."""
    timings = _timings(options.timing)
    noise = [NoiseModel.load(path) for path in options.noise]
    request = _request(model, servers, ranges, timings, noise, options)
    check = _noise_check(model, ranges, noise, options, store)
    return make_plan(request, _goals(options), name, check, report)


def _goals(options: SolveOptions) -> Goals:
    for what, value, allowed in (
        ("--objective", options.objective, get_args(Objective)),
        ("--formulation", options.formulation, get_args(Formulation)),
    ):
        if value not in allowed:
            raise UsageError(
                f"{what} {value}: allowed are {', '.join(allowed)}{did_you_mean(value, allowed)}"
            )
    return Goals(
        objective=options.objective,  # type: ignore[arg-type]
        latency_weight=options.latency_weight,
        time_limit_s=options.time_limit,
        solver=options.solver,
        formulation=options.formulation,  # type: ignore[arg-type]
        max_components=options.max_components,
        front=options.pareto,
        explain=options.explain,
    )


def _request(
    model: LoadedModel,
    servers: ServersSpec,
    ranges: Ranges | None,
    timings: Mapping[str, TimingProfile],
    noise: Sequence[NoiseModel],
    options: SolveOptions,
) -> PlanningRequest:
    dims = dict(options.dims)
    for timing in timings.values():
        dims = {**timing.dims, **dims}
    energies = _pairs("--server-energy", options.server_energy, _number)
    if options.device_energy is not None:
        energies[servers.entry.name] = options.device_energy
    forbidden: dict[str, list[str]] = {}
    for layer, server in (_split("--forbid", item) for item in options.forbid):
        forbidden.setdefault(layer, []).append(server)
    return PlanningRequest(
        model=model,
        graph=build_layer_graph(model.proto),
        profile=profile_model(model, dims, Quantizable()),
        servers=servers,
        timings=timings,
        network=None if options.network is None else NetworkState.load(options.network),
        noise=noise,
        noise_limits=_noise_limits(options.max_noise, noise),
        unlimited_noise=options.unlimited_noise,
        pins=dict(_split("--pin", item) for item in options.pin),
        forbidden=forbidden,
        local_tensors=tuple(options.keep_local),
        closed_links=[_link("--close-link", item, servers) for item in options.close_link],
        wire_codecs=_wires(options.allow_wire, servers),
        int8_tensors=tuple(options.int8_tensor),
        ranges=ranges,
        energy_joule=math.inf if options.energy is None else options.energy,
        server_energy_joule=energies,
        latency_ms=math.inf if options.max_latency is None else options.max_latency,
        memory_mib=_pairs("--memory", options.memory, _number),
        int8_everywhere=options.int8_everywhere,
        uses_energy=options.objective in ("energy", "weighted") or options.pareto is not None,
    )


def _timings(paths: Sequence[Path]) -> dict[str, TimingProfile]:
    """By server; a folder stands for the files in it."""
    found: dict[str, TimingProfile] = {}
    for path in paths:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise InputError("has no timing profiles (*.json): make some with `tritier profile`",
                             str(path))  # fmt: skip
        for file in files:
            profile = TimingProfile.load(file)
            if profile.server in found:
                raise InputError(
                    f"is a second timing profile of server '{profile.server}'; give one", str(file)
                )
            found[profile.server] = profile
    return found


def _noise_limits(items: Sequence[str], noise: Sequence[NoiseModel]) -> dict[str, float]:
    """Output -> limit; a number without an output is for all outputs that are not named."""
    outputs = [output.output for model in noise for output in model.outputs]
    found: dict[str, float] = {}
    for item in sorted(items, key=lambda item: "=" in item):
        name, equals, text = item.rpartition("=")
        value = _number("--max-noise", item, text)
        found.update({name: value} if equals else dict.fromkeys(outputs, value))
    return found


def _wires(
    items: Sequence[str], servers: ServersSpec
) -> dict[tuple[str, str], tuple[WireCodec, ...]]:
    """Link -> codecs that tensors may have there besides as_is; of all links without a link."""
    names = servers.names
    every = [(a, b) for a in names for b in names if a != b]
    found: dict[tuple[str, str], set[WireCodec]] = {}
    for item in items:
        where, equals, codec = item.rpartition("=")
        if codec not in WIRE_CODECS:
            raise UsageError(f"--allow-wire {item}: allowed are {', '.join(WIRE_CODECS)}")
        for link in [_link("--allow-wire", where, servers)] if equals else every:
            found.setdefault(link, {"as_is"}).add(codec)
    return {link: tuple(x for x in WIRE_CODECS if x in codecs) for link, codecs in found.items()}


def _link(option: str, text: str, servers: ServersSpec) -> tuple[str, str]:
    source, colon, target = text.partition(":")
    for name in (source, target):
        if not colon or name not in servers.names:
            raise UsageError(
                f"{option} {text}: give a link as FROM:TO, two of {', '.join(servers.names)}"
            )
    return source, target


def _pairs(
    option: str, items: Sequence[str], convert: Callable[[str, str, str], T]
) -> dict[str, T]:
    found = {}
    for item in items:
        name, value = _split(option, item)
        found[name] = convert(option, item, value)
    return found


def _split(option: str, item: str) -> tuple[str, str]:
    name, equals, value = item.rpartition("=")
    if not equals or not name or not value:
        raise UsageError(f"{option} {item}: allowed is NAME=VALUE")
    return name, value


def _number(option: str, item: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value >= 0 and math.isfinite(value)):
        raise UsageError(f"{option} {item}: '{text}' is no number from 0")
    return value


def _noise_check(
    model: LoadedModel,
    ranges: Ranges | None,
    noise: Sequence[NoiseModel],
    options: SolveOptions,
    store: Path,
) -> NoiseCheck | None:
    """Measures on the inputs of the noise model, which are found among those given."""
    if not options.images and not options.data:
        if options.preprocessing:
            raise UsageError("--preprocessing is for --images, on which noise is measured")
        return None
    if len(noise) != 1 or ranges is None:
        raise UsageError(
            "--images and --data are to measure the noise of the plan: give one --noise model and "
            "its --ranges with them"
        )
    inputs, _ = find_inputs(
        model, list(options.images) or None, options.preprocessing, list(options.data) or None,
        None, 0,
    )  # fmt: skip
    chosen = _inputs_of(noise[0], inputs)
    request = NoiseRequest(
        model, noise[0].layers, chosen, ranges, store,
        settings=noise[0].settings.quantization, metric=load_metric(noise[0].settings.metric),
    )  # fmt: skip
    measurer = measurer_of(noise[0], request)

    def measure(layers: Collection[str]) -> Mapping[str, float]:
        mask = sum(1 << bit for bit, name in enumerate(noise[0].layers) if name in set(layers))
        return measurer.mean(mask)

    return NoiseCheck(measure, len(chosen), options.noise_runs)


def _inputs_of(noise: NoiseModel, inputs: Inputs) -> Inputs:
    """The given inputs on which the noise model was learned."""
    wanted = {item.sha256 for item in noise.inputs}
    found = {
        item.sha256: path for path, item in zip(inputs.paths, input_files(inputs), strict=True)
    }
    if missing := [item.name for item in noise.inputs if item.sha256 not in found]:
        raise InputError(
            f"{len(missing)} of the {len(wanted)} inputs of the noise model are not among those "
            f"given, the first is '{missing[0]}': give the files with which `tritier noise` "
            "learned it"
        )
    return dataclasses.replace(inputs, paths=tuple(found[item.sha256] for item in noise.inputs))
