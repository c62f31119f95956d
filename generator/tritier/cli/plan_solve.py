"""What `tritier plan` solves: the request and the goals that its options name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast, get_args

from tritier.calibration import Inputs, input_files
from tritier.cli.cost_inputs import load_prices
from tritier.cli.inputs import find_inputs
from tritier.cli.server_prices import PriceOptions, server_prices
from tritier.costs import PlanPrices
from tritier.documents import (
    Classes,
    NetworkState,
    NoiseModel,
    Objective,
    Plan,
    Ranges,
    ServersSpec,
    TimingProfile,
)
from tritier.errors import InputError, UsageError, did_you_mean
from tritier.graph import LoadedModel, Quantizable, build_layer_graph, profile_model
from tritier.noise import load_metric, subset_of
from tritier.workflow.family_plan import PlannedFamily, plan_family
from tritier.workflow.noise import NoiseRequest, measurer_of
from tritier.workflow.plan_noise import plan_noise
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
    prices: Path | None = None
    machine: Sequence[str] = ()
    egress: Sequence[str] = ()
    energy_price: str | None = None
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
    _check_effects(options)
    request, check = _prepared(model, servers, ranges, options, store)
    return make_plan(request, _goals(options), name, check, report)


def solve_family(
    model: LoadedModel,
    servers: ServersSpec,
    ranges: Ranges | None,
    name: str | None,
    options: SolveOptions,
    classes: Classes,
    with_whole: bool,
    store: Path,
    report: Report,
) -> PlannedFamily:
    """The plans of classes of requests; what a class does not say is as the options say."""
    own = classes.classes.values()
    _check_effects(options, by_class=any(x.noise is not None for x in own))
    counts = any(x.objective == "cost" for x in own)
    request, check = _prepared(model, servers, ranges, options, store, counts)
    return plan_family(request, _goals(options), classes, name, check, with_whole, report)


def _prepared(
    model: LoadedModel,
    servers: ServersSpec,
    ranges: Ranges | None,
    options: SolveOptions,
    store: Path,
    money_counts: bool = False,
) -> tuple[PlanningRequest, NoiseCheck | None]:
    timings = load_timings(options.timing)
    noise = [NoiseModel.load(path) for path in options.noise]
    request = _request(model, servers, ranges, timings, noise, options)
    if money_counts or _asks_for_prices(options):
        request = dataclasses.replace(request, prices=_prices(servers, timings, options))
    return request, _noise_check(model, ranges, noise, options, store)


def planning_of(
    model: LoadedModel, servers: ServersSpec, ranges: Ranges | None, options: SolveOptions
) -> tuple[PlanningRequest, Goals]:
    """What the options ask to be planned, and for what, without planning it."""
    _check_effects(options, by_class=True)
    noise = [NoiseModel.load(path) for path in options.noise]
    timings = load_timings(options.timing)
    request = _request(model, servers, ranges, timings, noise, options)
    priced = all(servers.server(x).price_per_hour_usd is not None for x in request.planned_servers)
    if priced or _asks_for_prices(options):  # a class may be for cost
        request = dataclasses.replace(request, prices=_prices(servers, timings, options))
    return request, _goals(options)


def _asks_for_prices(options: SolveOptions) -> bool:
    given = (options.prices, options.machine, options.egress, options.energy_price)
    return options.objective == "cost" or any(x not in (None, ()) for x in given)


def _prices(
    servers: ServersSpec, timings: Mapping[str, TimingProfile], options: SolveOptions
) -> PlanPrices:
    """Of the servers that are planned with."""
    names = [name for name in servers.names if name in timings]
    given = PriceOptions(
        options.machine, options.egress, options.energy_price,
        "the servers with a timing profile",
    )  # fmt: skip
    return server_prices(names, load_prices(options.prices), servers, given)


def _check_effects(options: SolveOptions, by_class: bool = False) -> None:
    """Options that would be silently without effect. `by_class`: noise is limited there."""
    default = SolveOptions()
    int8_wires = any(item.rpartition("=")[2] == "int8" for item in options.allow_wire)
    for is_wrong, message in (
        (options.max_noise and not options.noise,
         "--max-noise limits what a noise model predicts: give one with --noise, from "
         "`tritier noise`"),
        (options.max_noise and options.unlimited_noise,
         "--max-noise and --unlimited-noise contradict each other: give one"),
        (options.noise and not (options.max_noise or options.unlimited_noise or by_class),
         "--noise alone says nothing: give --max-noise, the most that is allowed, or "
         "--unlimited-noise"),
        ((options.images or options.data) and options.unlimited_noise,
         "--images and --data are to keep the measured noise within --max-noise, which "
         "--unlimited-noise lifts"),
        (options.noise_runs != default.noise_runs and not (options.images or options.data),
         "--noise-runs is for measuring: give the inputs of the noise model with --images or "
         "--data"),
        (options.int8_everywhere and not options.noise and not options.unlimited_noise,
         "--int8-everywhere is for layers that may be quantized: give --noise, or "
         "--unlimited-noise"),
        (options.int8_tensor and not int8_wires,
         "--int8-tensor needs links that allow it: give --allow-wire int8, or FROM:TO=int8"),
        (int8_wires and not options.int8_tensor,
         "--allow-wire int8 is for tensors that you name, as the noise of that is not known: give "
         "--int8-tensor"),
        (options.latency_weight != default.latency_weight and options.objective != "weighted",
         f"--latency-weight {options.latency_weight:g} is for --objective weighted, not for "
         f"{options.objective}"),
    ):  # fmt: skip
        if is_wrong:
            raise UsageError(message)


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
        objective=cast(Objective, options.objective),
        latency_weight=options.latency_weight,
        time_limit_s=options.time_limit,
        solver=options.solver,
        formulation=cast(Formulation, options.formulation),
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
        entry = servers.entry.name
        if entry in energies:
            raise UsageError(
                f"--device-energy and --server-energy {entry}=... both limit the entry '{entry}': "
                "give one"
            )
        energies[entry] = options.device_energy
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
        pins=_pairs("--pin", options.pin, lambda _option, _item, server: server),
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
        uses_money=options.objective == "cost",
        uses_energy=options.objective in ("energy", "weighted") or options.pareto is not None,
    )


def load_timings(paths: Sequence[Path]) -> dict[str, TimingProfile]:
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
    named = _pairs("--max-noise", [item for item in items if "=" in item], _number)
    plain = [_number("--max-noise", item, item) for item in items if "=" not in item]
    if len(plain) > 1:
        raise UsageError(
            "--max-noise without an output is given twice: give one, and OUTPUT=X for others"
        )
    outputs = [output.output for model in noise for output in model.outputs]
    return {**{output: value for value in plain for output in outputs}, **named}


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
    found: dict[str, T] = {}
    for item in items:
        name, value = _split(option, item)
        if name in found:
            raise UsageError(f"{option} {item}: '{name}' is named twice; give one value for it")
        found[name] = convert(option, item, value)
    return found


def _split(option: str, item: str) -> tuple[str, str]:
    name, equals, value = item.rpartition("=")
    if not equals or not name or not value:
        raise UsageError(f"{option} {item}: {option} takes NAME=VALUE, both not empty")
    return name, value


def _number(option: str, item: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value >= 0 and math.isfinite(value)):
        raise UsageError(f"{option} {item}: '{text}' is not allowed; give a number, 0 or more")
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
        return measurer.mean(subset_of(noise[0].layers, layers))

    def measure_plan(plan: Plan) -> Mapping[str, float]:
        return plan_noise(plan, model, chosen, request.metric)

    return NoiseCheck(measure, len(chosen), options.noise_runs, measure_plan)


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
