"""How many sharers an accelerator bears, and what each then costs (docs/sharing.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tritier.costs.book import Prices
from tritier.costs.sharing_formulas import quantile_periodic
from tritier.costs.sharing_load import (
    Arrivals,
    Floats,
    Station,
    Stream,
    samples_of,
    served_share,
    utilisation,
)
from tritier.costs.sharing_simulate import FULL, default_effort, simulate
from tritier.costs.streams import stream_costs
from tritier.documents.costs import StreamCost
from tritier.documents.sharing import (
    MachineSharing,
    ServiceTime,
    SharedModel,
    SharingLevel,
    SharingMachine,
    SharingReport,
    SharingScenario,
)
from tritier.documents.workload import SharingOption, StreamScenario

_MOST = 256
_ALONE = "an accelerator per model"


def share(scenario: SharingScenario, prices: Prices, seed: int = 1) -> SharingReport:
    """The safe number of sharers on every machine, and the cheapest way that keeps the limits."""
    machines = tuple(most_sharers(scenario, machine, seed) for machine in scenario.machines)
    costs = _costs(scenario, machines, prices, seed)
    best = next((row.name for row in costs if row.best), None)
    warnings = [
        f"{row.name}: not even one sharer keeps the limits ({row.limited_by})"
        for row in machines if not row.safe_sharers
    ]  # fmt: skip
    warnings += [
        f"{machine.label}: {name} has no spread: its times are taken as constant, and the "
        "percentiles are too good"
        for machine in scenario.machines for name, time in machine.service.items()
        if time.p95_ms is None and len(time.samples_ms) < 2
    ]  # fmt: skip
    return SharingReport(
        name=scenario.name,
        discipline=scenario.discipline,
        percentile=scenario.percentile,
        latency_limit_ms=scenario.latency_limit_ms,
        cost_limit_usd=scenario.cost_limit_usd,
        seed=seed,
        machines=machines,
        costs=costs,
        best=best,
        assumptions=scenario.assumptions,
        prices=prices.used,
        warnings=tuple(warnings),
    )


def most_sharers(
    scenario: SharingScenario, machine: SharingMachine, seed: int = 1
) -> MachineSharing:
    """The largest number that keeps latency, load and memory: doubled until it does not, then
    halved in between, since no limit is kept again by more sharers."""
    levels: dict[int, SharingLevel] = {}

    def keeps(sharers: int) -> bool:
        levels[sharers] = level(scenario, machine, sharers, seed)
        return not levels[sharers].broken

    low, high = 0, 1
    while high <= _MOST and keeps(high):
        low, high = high, high * 2
    while high - low > 1 and low < _MOST:
        middle = (low + high) // 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    above = levels.get(low + 1)
    return MachineSharing(
        name=machine.label,
        machine=machine.machine,
        safe_sharers=low,
        limited_by="; ".join(above.broken) if above else f"no more than {_MOST} are tried",
        levels=tuple(levels[number] for number in sorted(levels)),
    )


def level(
    scenario: SharingScenario, machine: SharingMachine, sharers: int, seed: int = 1
) -> SharingLevel:
    """So many sharers on one accelerator. Memory is looked at first: what does not fit is not
    simulated."""
    copies = copies_of(scenario, machine, sharers)
    memory = sum(model.memory_mib for model in scenario.models) * copies
    streams = _streams(scenario, machine, sharers)
    limited = scenario.discipline == "turns"
    station = station_of(scenario, machine, copies if limited else 1)
    closed = any(item.arrivals.kind == "closed" for item in streams)
    load = utilisation(streams, station)
    base = SharingLevel(
        sharers=sharers, utilisation=1.0 if closed and load < FULL else load, memory_mib=memory
    )
    host = sum(model.host_memory_mib for model in scenario.models) * copies * machine.accelerators
    sizes = [("", memory, machine.memory_mib), ("host ", host, machine.host_memory_mib)]
    reasons = [f"{what}memory: {size:g} MiB are above {limit:g} MiB"
               for what, size, limit in sizes if limit is not None and size > limit]  # fmt: skip
    if reasons:
        return base.model_copy(update={"broken": tuple(reasons)})
    if load >= FULL:
        reason = f"{load:.0%} of the accelerator's time is asked for"
        return base.model_copy(update={"broken": (reason,)})
    found = _slowest(scenario, streams, station, seed)
    judged = found.judged_ms
    broken: tuple[str, ...] = ()
    if judged > scenario.latency_limit_ms:
        broken = (
            f"p{scenario.percentile:g} of {found.name}, {judged:.4g} ms, is above "
            f"{scenario.latency_limit_ms:g} ms",
        )
    return base.model_copy(update={**found.figures(), "broken": broken})


def copies_of(scenario: SharingScenario, machine: SharingMachine, sharers: int) -> int:
    """How often each model is loaded on an accelerator: what is predicted, and what
    `sharing_config.settings_of` writes. One queue for all (fifo) has an instance for each request
    that runs at once."""
    if scenario.discipline == "fifo":
        return machine.at_once
    return sharers if scenario.copies == "per_sharer" else 1


def station_of(
    scenario: SharingScenario, machine: SharingMachine, model_instances: int = 1
) -> Station:
    """The accelerator as the simulation sees it, with so many instances of each Triton model."""
    return Station(
        instances=machine.at_once,
        model_instances=model_instances,
        discipline=scenario.discipline,
        slice_ms=machine.slice_ms,
        switch_ms=machine.switch_ms,
    )


@dataclass(frozen=True)
class _Latencies:
    name: str
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    judged_ms: float
    method: str
    utilisation: float | None = None

    def figures(self) -> dict[str, object]:
        found = {} if self.utilisation is None else {"utilisation": self.utilisation}
        return {
            **found,
            "mean_ms": self.mean_ms,
            "p50_ms": self.p50_ms,
            "p95_ms": self.p95_ms,
            "p99_ms": self.p99_ms,
            "judged_ms": self.judged_ms,
            "slowest": self.name,
            "method": self.method,
        }


def _slowest(
    scenario: SharingScenario, streams: Sequence[Stream], station: Station, seed: int
) -> _Latencies:
    """Of the model with the largest latency at the percentile that is judged. With random phases
    all sharers are alike; in the worst case each is looked at for itself."""
    exact = _by_formula(scenario, streams, station)
    if exact is not None:
        return exact
    found = simulate(streams, station, default_effort(streams, station, seed))
    groups: dict[str, list[Floats]] = {}
    for item, times in zip(streams, found, strict=True):
        alone = scenario.phases == "worst"
        groups.setdefault(item.name if alone else item.name.partition("#")[0], []).append(times)
    rows = [_figures(name.partition("#")[0], np.concatenate(parts), scenario.percentile)
            for name, parts in groups.items()]  # fmt: skip
    slowest = max(rows, key=lambda row: row.judged_ms)
    if all(item.arrivals.kind != "closed" for item in streams):
        return slowest
    return replace(slowest, utilisation=served_share(streams, station, found))


def _figures(name: str, times: Floats, percentile: float) -> _Latencies:
    places = [50.0, 95.0, 99.0, percentile]
    p50, p95, p99, judged = (float(x) for x in np.percentile(times, places))
    return _Latencies(name, float(times.mean()), p50, p95, p99, judged, "simulation")


def _by_formula(
    scenario: SharingScenario, streams: Sequence[Stream], station: Station
) -> _Latencies | None:
    """Periodic streams of one kind, of constant service times, in order of arrival."""
    first = streams[0]
    alike = len(scenario.models) == 1 and first.arrivals.kind == "periodic"
    plain = station.discipline == "fifo" and station.instances == 1
    if not (alike and plain and first.service_ms.size == 1 and scenario.phases == "random"):
        return None
    period, service = first.arrivals.interval_ms, first.mean_ms

    def at(percent: float) -> float:
        return quantile_periodic(percent / 100.0, len(streams), period, service, first.outside_ms)

    # The mean is the area above the distribution: of its quantiles, at even places.
    mean = float(np.mean([at(x) for x in np.arange(0.25, 100.0, 0.5)]))
    judged = at(scenario.percentile)
    name = first.name.partition("#")[0]
    return _Latencies(name, mean, at(50), at(95), at(99), judged, "formula (periodic streams)")


def _streams(scenario: SharingScenario, machine: SharingMachine, sharers: int) -> list[Stream]:
    return [
        _stream(scenario, model, machine.service[model.name], source)
        for source in range(sharers)
        for model in scenario.models
    ]


def _stream(
    scenario: SharingScenario, model: SharedModel, time: ServiceTime, source: int
) -> Stream:
    closed = model.arrivals == "closed"
    interval = model.pause_ms if closed else 1000.0 / (model.per_s or 1.0)
    return Stream(
        name=f"{model.name}#{source}",
        service_ms=service_samples(time),
        arrivals=Arrivals(model.arrivals, interval, scenario.phases),
        outside_ms=time.outside_ms,
        priority=model.priority,
        source=source,
        model=model.name,
    )


def service_samples(time: ServiceTime) -> Floats:
    """Samples of a service time as it stands in a document, in ms."""
    if time.samples_ms:
        return np.array(time.samples_ms, float)
    assert time.median_ms is not None
    return samples_of(time.median_ms, time.p95_ms)


def _costs(
    scenario: SharingScenario, machines: Sequence[MachineSharing], prices: Prices, seed: int
) -> tuple[StreamCost, ...]:
    """An accelerator for each model of each sharer, and the safe number of sharers, per machine."""
    options = []
    count = len(scenario.models)
    for machine, found in zip(scenario.machines, machines, strict=True):
        alone = SharingOption(
            name=f"{machine.label}: {_ALONE}",
            machine=machine.machine,
            price_per_hour_usd=machine.price_per_hour_usd,
            accelerators=machine.accelerators,
            models_per_stream=count,
            latency_ms=_alone_ms(scenario, machine, seed),
            source="predicted",
        )
        options.append(alone)
        if found.safe_sharers:
            safe = next(x for x in found.levels if x.sharers == found.safe_sharers)
            name = f"{machine.label}: {found.safe_sharers} share"
            new = {"name": name, "sharers": found.safe_sharers, "models_per_stream": 1}
            options.append(alone.model_copy(update={**new, "latency_ms": safe.judged_ms}))
    streams = StreamScenario(
        name=scenario.name,
        streams=scenario.sharers,
        latency_limit_ms=scenario.latency_limit_ms,
        cost_limit_usd=scenario.cost_limit_usd,
        options=tuple(options),
    )
    return stream_costs(streams, prices)


def _alone_ms(scenario: SharingScenario, machine: SharingMachine, seed: int) -> float | None:
    """The slowest model where each has an accelerator; None if one can't do its requests."""
    worst = 0.0
    for model in scenario.models:
        only = scenario.model_copy(update={"models": (model,)})
        found = level(only, machine, 1, seed).judged_ms
        if found is None:
            return None
        worst = max(worst, found)
    return worst
