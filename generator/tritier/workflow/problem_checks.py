"""Whether the documents of a planning request belong together; all faults are found at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from tritier.documents import NetworkState, TimingProfile
from tritier.documents.plan import PlanModel
from tritier.errors import did_you_mean
from tritier.workflow.problem_request import (
    WIRE_CODECS,
    Findings,
    PlanningRequest,
    listed,
    matched,
    matching,
    settings_text,
)


def check_request(request: PlanningRequest, findings: Findings) -> None:
    """Add the faults of documents, names and numbers, and what is to be warned of."""
    findings.faults += [
        *_model_faults(request),
        *_server_faults(request),
        *_timing_faults(request),
        *_pattern_faults(request),
        *_link_faults(request),
        *_number_faults(request),
        *_range_faults(request),
    ]
    findings.warnings += [*_left_out(request), *_other_execution(request)]


def _model_faults(request: PlanningRequest) -> Iterator[str]:
    """Documents of another model."""
    documents: list[tuple[str, PlanModel, str]] = [
        ("the model profile", request.profile.model, "`tritier inspect`"),
        *(
            (f"the timing profile of '{name}'", timing.model, "`tritier profile`")
            for name, timing in request.timings.items()
        ),
        *(
            (
                f"the noise model with {settings_text(item.settings.quantization)}",
                item.model,
                "`tritier noise`",
            )
            for item in request.noise
        ),
    ]
    own = request.model.sha256
    for what, model, command in documents:
        if model.sha256 != own:
            yield (
                f"{what} is of another model, '{model.name}' ({model.sha256[:12]}...); this is "
                f"{own[:12]}...: make it again with {command}"
            )
    if request.ranges is not None and request.ranges.model_sha256 != own:
        yield (
            f"the ranges are of another model ({request.ranges.model_sha256[:12]}...); this is "
            f"{own[:12]}...: calibrate it with `tritier ranges`"
        )


def _server_faults(request: PlanningRequest) -> Iterator[str]:
    known = request.servers.names
    stated = [
        *((f"the timing profile of '{name}'", name) for name in request.timings),
        *((f"the pin of '{layer}'", name) for layer, name in request.pins.items()),
        *(
            (f"forbidden servers of '{layer}'", name)
            for layer, names in request.forbidden.items()
            for name in names
        ),
        *(("an energy limit", name) for name in request.server_energy_joule),
        *(("a memory limit", name) for name in request.memory_mib),
        *(("closed links", name) for link in request.closed_links for name in link),
        *(("wire codecs of links", name) for link in request.wire_codecs for name in link),
    ]
    for what, name in dict.fromkeys(stated):
        if name not in known:
            yield (
                f"{what}: '{name}' is no server{did_you_mean(name, known)}; known are "
                f"{', '.join(known)}"
            )
    entry = request.servers.entry.name
    if entry not in request.timings:
        yield (
            f"the entry '{entry}' has no timing profile: measure it with `tritier profile --server "
            f"{entry}`"
        )
    for layer, name in request.pins.items():
        if name in known and name not in request.timings:
            yield f"the pin of '{layer}': '{name}' has no timing profile, so nothing can run there"


def _timing_faults(request: PlanningRequest) -> Iterator[str]:
    """Timing profiles of other servers, sizes or settings. Those of another model are told
    elsewhere."""
    for name, timing in request.timings.items():
        if name not in request.servers.names or timing.model.sha256 != request.model.sha256:
            continue
        what = f"the timing profile of '{name}'"
        again = f"measure it again with `tritier profile --server {name}`"
        if timing.server != name:
            yield f"{what} was measured on '{timing.server}': {again}"
        if timing.dims != request.profile.dims:
            yield (
                f"{what} is for the sizes {_dims(timing.dims)}, the model profile for "
                f"{_dims(request.profile.dims)}: give both the same --dim"
            )
        wanted = request.servers.server(name).quantization
        if timing.settings.quantization != wanted:
            yield (
                f"{what} was measured with {settings_text(timing.settings.quantization)}, the "
                f"servers file has {settings_text(wanted)}: {again}"
            )
        yield from (f"{what} {fault}: {again}" for fault in _layer_faults(request, timing))


def _layer_faults(request: PlanningRequest, timing: TimingProfile) -> Iterator[str]:
    known = {layer.name: None for layer in request.profile.layers}
    timed = {layer.name: None for layer in timing.layers}
    if missing := [name for name in known if name not in timed]:
        yield f"lacks {listed(missing)}"
    if unknown := [name for name in timed if name not in known]:
        yield f"has {listed(unknown)}, which the model does not have"


def _dims(dims: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in dims.items()) or "of the model itself"


def _pattern_faults(request: PlanningRequest) -> Iterator[str]:
    layers = request.layer_names[1:-1]
    tensors = [tensor.name for tensor in request.profile.tensors]
    stated: list[tuple[str, Iterable[str], str, Iterable[str]]] = [
        ("pins", request.pins, "layer", layers),
        ("forbidden", request.forbidden, "layer", layers),
        ("local_tensors", request.local_tensors, "tensor", tensors),
        ("int8_tensors", request.int8_tensors, "tensor", tensors),
    ]
    for what, patterns, kind, names in stated:
        names = list(names)
        for pattern in patterns:
            if not matching(pattern, names):
                hint = did_you_mean(pattern, names)
                yield f"{what}: '{pattern}' is no {kind} and matches none{hint}"


def _link_faults(request: PlanningRequest) -> Iterator[str]:
    for source, target in (*request.closed_links, *request.wire_codecs):
        if source == target:
            yield f"a link from '{source}' to itself: a link has two servers"
    for (source, target), codecs in request.wire_codecs.items():
        unknown = [codec for codec in codecs if codec not in WIRE_CODECS]
        if unknown or not codecs:
            yield (
                f"wire codecs of {source} -> {target}: {listed(unknown) or 'none'}; allowed are "
                f"{', '.join(WIRE_CODECS)}, one of them at least"
            )
    yield from network_faults(request.network)


def network_faults(network: NetworkState | None) -> Iterator[str]:
    """Links over which nothing would ever arrive."""
    for link in network.links if network else ():
        if not link.bandwidth_mib_s.value > 0:
            yield (
                f"the network state has {link.bandwidth_mib_s.value} MiB/s for {link.source} -> "
                f"{link.target}: more than 0 is needed; measure it again with `tritier monitor`"
            )


def _number_faults(request: PlanningRequest) -> Iterator[str]:
    numbers = [
        ("the energy limit (J)", request.energy_joule),
        ("the latency limit (ms)", request.latency_ms),
        *((f"the energy limit of '{k}' (J)", x) for k, x in request.server_energy_joule.items()),
        *((f"the memory limit of '{k}' (MiB)", x) for k, x in request.memory_mib.items()),
    ]
    for what, value in numbers:
        if math.isnan(value) or value < 0:
            yield f"{what} is {value}: allowed is 0 or more"


def _range_faults(request: PlanningRequest) -> Iterator[str]:
    names = [tensor.name for tensor in request.profile.tensors]
    known = request.ranges.ranges if request.ranges else {}
    chosen = matched(request.int8_tensors, names)
    if missing := [name for name in names if name in chosen and name not in known]:
        yield (
            f"int8_tensors: {listed(missing)} can't cross in 8 bits without a range: calibrate the "
            "model with `tritier ranges` and pass the file with --ranges"
        )


def _left_out(request: PlanningRequest) -> Iterator[str]:
    for name in request.servers.names:
        if name not in request.timings and name != request.servers.entry.name:
            yield (
                f"server '{name}' has no timing profile and is left out: measure it with "
                f"`tritier profile --server {name}`"
            )


def _other_execution(request: PlanningRequest) -> Iterator[str]:
    """Figures of other threads or another provider may still be near; they are told."""
    for name in request.planned_servers:
        server, settings = request.servers.server(name), request.timings[name].settings
        found = (settings.execution_provider, settings.threads)
        if found != (server.execution_provider, server.threads):
            yield (
                f"the timing profile of '{name}' was measured with {found[0]} and {found[1]} "
                f"threads, the servers file has {server.execution_provider} and {server.threads}: "
                f"measure it again with `tritier profile --server {name}`"
            )
