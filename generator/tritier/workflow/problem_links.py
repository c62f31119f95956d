"""What tensors take from server to server, and how they may be coded there.

In the additive model all that a crossing costs is part of the time of the tensor: the link, what
its maker and its readers do besides because it is cut there, codecs at both ends, and what Triton
does for one more output and input. What a component costs by itself (`ServingTiming.call_ms`) hangs
on how layers become components: only the simulator knows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tritier.documents import (
    FLOAT_CODECS,
    GENERATOR,
    RECEIVER,
    NetworkState,
    TensorProfile,
    suits,
)
from tritier.planner.problem import INFINITE, Bools, Floats
from tritier.planner.simulation_graph import CodingCost
from tritier.timing.durations import MIB
from tritier.workflow.problem_costs import crosses
from tritier.workflow.problem_request import (
    WIRE_CODECS,
    Findings,
    Origin,
    PlanningRequest,
    WireCodec,
    matched,
)

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class LinkTimes:
    """A message over a link: what the network takes one way, and what software at both ends adds
    per message and per MiB."""

    source: str
    target: str
    one_way_ms: float
    network_ms_per_mib: float
    call_ms: float
    copy_ms_per_mib: float
    origin: Origin

    @property
    def fixed_ms(self) -> float:
        """Whatever the size."""
        return self.one_way_ms + self.call_ms

    @property
    def ms_per_mib(self) -> float:
        """Of network and software."""
        return self.network_ms_per_mib + self.copy_ms_per_mib

    def message_ms(self, size_bytes: float) -> float:
        """A message of that many bytes."""
        return self.fixed_ms + self.ms_per_mib * size_bytes / MIB


@dataclass(frozen=True, eq=False)
class TensorCosts:
    """What does not hang on links, for `m` tensors; n is the number of servers.

    - `sizes` [3, m]: bytes by codec in the order of WIRE_CODECS; infinite where it doesn't suit.
    - `coded_bytes` [m]: in 8 bits; `paired` [m]: whether quantized layers may have it so.
    - `fixed_ms`, `ms_per_mib` [m, n, n]: of the software of components at both ends.
    - `making_ms`, `reading_ms` [m, n]: of it, layout changes and lost fusions at either end.
    - `codings`: what codecs cost besides; the 8 bits of quantized layers cost nothing.
    - `closed` [m, n, n]: where it may not go. `codecs` [3, n, n]: what is allowed on links.
    - `saves_bytes`: of codecs that take as long, the one of the fewest bytes.
    """

    sizes: Floats
    coded_bytes: Floats
    paired: Bools
    fixed_ms: Floats
    ms_per_mib: Floats
    closed: Bools
    codecs: Bools
    making_ms: Floats
    reading_ms: Floats
    codings: Mapping[str, CodingCost]
    saves_bytes: bool = False


@dataclass(frozen=True, eq=False)
class Transfers:
    """Times of a Problem [m, n, n], and which of WIRE_CODECS a tensor has where it is not in 8 bits
    anyway, by position [m, n, n]."""

    transfer_ms: Floats
    coded_ms: Floats
    codecs: npt.NDArray[np.intp]


def link_times(
    request: PlanningRequest, network: NetworkState | None, findings: Findings
) -> dict[tuple[int, int], LinkTimes]:
    """All links between the planned servers, by their positions: measured before configured."""
    configured = {(link.source, link.target): link for link in request.servers.links}
    names = request.planned_servers
    found = {}
    for k, source in enumerate(names):
        for h, target in enumerate(names):
            if k == h:
                continue
            measured = network.link(source, target) if network else None
            link = configured.get((source, target))
            if measured is not None:
                found[k, h] = LinkTimes(
                    source,
                    target,
                    max(measured.round_trip_ms.value, 0.0) / 2,
                    1000.0 / measured.bandwidth_mib_s.value,
                    max(measured.call_ms.value, 0.0),
                    max(measured.copy_ms_per_mib.value, 0.0),
                    "measured",
                )
                continue
            mib_s = link.bandwidth_mib_s if link else None
            found[k, h] = LinkTimes(
                source, target, link.latency_ms if link else 0.0,
                1000.0 / mib_s if mib_s else 0.0, 0.0, 0.0, "configured",
            )  # fmt: skip
            if (source, target) not in request.closed_links:
                findings.warnings += _unmeasured(source, target, network, link is not None)
    return found


def _unmeasured(
    source: str, target: str, network: NetworkState | None, described: bool
) -> Iterator[str]:
    measure = f"measure it with `tritier monitor --link {source}:{target}`"
    if not described:
        yield (
            f"the link {source} -> {target} is not measured, nor is it in the servers file: it "
            f"counts as if it took no time; {measure}"
        )
    elif network is not None:
        yield (
            f"the link {source} -> {target} is not measured: the figures of the servers file "
            f"count; {measure}"
        )


def tensor_costs(
    request: PlanningRequest, tensors: Sequence[TensorProfile], paired: Sequence[bool]
) -> TensorCosts:
    """For these tensors, whose sizes are known; `paired` are those that quantized layers may have
    in 8 bits."""
    names = request.planned_servers
    count = len(tensors)
    making, reading = _border_ms(request, tensors)
    serving = [request.timings[name].serving for name in names]
    tensor_ms = np.array([item.tensor_ms for item in serving])
    copy = np.array([item.copy_ms_per_mib for item in serving])
    # No component makes what comes from the generator, none reads what only the receiver gets.
    made = np.array([x.source != GENERATOR for x in tensors], dtype=float)[:, None]
    read = np.array([any(c != RECEIVER for c in x.consumers) for x in tensors], dtype=float)
    read = read[:, None]
    out_ms, in_ms = made * (making + tensor_ms), read * (reading + tensor_ms)
    local = matched(request.local_tensors, [tensor.name for tensor in request.profile.tensors])
    closed = np.zeros((count, len(names), len(names)), dtype=bool)
    for k, source in enumerate(names):
        for h, target in enumerate(names):
            closed[:, k, h] = (source, target) in request.closed_links
    closed[[t for t, x in enumerate(tensors) if x.name in local or not crosses(x)]] = True
    return TensorCosts(
        sizes=_sizes(request, tensors),
        coded_bytes=np.array([_elements(x) for x in tensors], dtype=float),
        paired=np.array(paired, dtype=bool),
        fixed_ms=out_ms[:, :, None] + in_ms[:, None, :],
        ms_per_mib=(made * copy)[:, :, None] + (read * copy)[:, None, :],
        closed=closed,
        codecs=_allowed_codecs(request),
        making_ms=making,
        reading_ms=reading,
        codings=_codings(request, tensors),
        saves_bytes=request.uses_money and request.pays_egress,
    )


def _border_ms(request: PlanningRequest, tensors: Sequence[TensorProfile]) -> tuple[Floats, Floats]:
    """What makers and readers of a tensor do besides where it crosses a border; [m, n] each."""
    names = request.planned_servers
    making, reading = np.zeros((len(tensors), len(names))), np.zeros((len(tensors), len(names)))
    at = {tensor.name: index for index, tensor in enumerate(tensors)}
    for k, name in enumerate(names):
        for border in request.timings[name].borders:
            if border.tensor in at:
                making[at[border.tensor], k] = border.making_ms
                reading[at[border.tensor], k] = border.reading_ms
    return making, reading


def _codings(request: PlanningRequest, tensors: Sequence[TensorProfile]) -> dict[str, CodingCost]:
    """What codecs cost all tensors at either end; nothing on servers where it was not measured."""
    timings = [request.timings[name] for name in request.planned_servers]
    mib = np.array([_elements(x) * _FLOAT_BYTES / MIB for x in tensors])[:, None]
    found: dict[str, CodingCost] = {}
    for codec in FLOAT_CODECS:
        costs = [timing.coding(codec) for timing in timings]
        rows = [(x.encoding_ms, x.encoding_ms_per_mib, x.decoding_ms, x.decoding_ms_per_mib)
                if x else (0.0,) * 4 for x in costs]  # fmt: skip
        encoding, encoding_per_mib, decoding, decoding_per_mib = np.array(rows).T
        found[codec] = CodingCost(
            encoding + encoding_per_mib * mib, decoding + decoding_per_mib * mib
        )
    return found


def _sizes(request: PlanningRequest, tensors: Sequence[TensorProfile]) -> Floats:
    granted = matched(request.int8_tensors, [tensor.name for tensor in request.profile.tensors])
    sizes = np.full((len(WIRE_CODECS), len(tensors)), INFINITE)
    for t, tensor in enumerate(tensors):
        sizes[0, t] = tensor.bytes or 0
        for c, codec in enumerate(WIRE_CODECS[1:], 1):
            if crosses(tensor) and suits(codec, tensor.dtype or ""):
                if codec == "int8" and tensor.name not in granted:
                    continue
                sizes[c, t] = _elements(tensor) * (2 if codec == "fp16" else 1)
    return sizes


def _elements(tensor: TensorProfile) -> int:
    """Number of values of a tensor that may cross."""
    if not crosses(tensor):
        return 0
    return (tensor.bytes or 0) // np.dtype(tensor.dtype or "").itemsize


def _allowed_codecs(request: PlanningRequest) -> Bools:
    names = request.planned_servers
    allowed = np.zeros((len(WIRE_CODECS), len(names), len(names)), dtype=bool)
    default: tuple[WireCodec, ...] = ("as_is",)
    for k, source in enumerate(names):
        for h, target in enumerate(names):
            for codec in request.wire_codecs.get((source, target), default):
                allowed[WIRE_CODECS.index(codec), k, h] = True
    return allowed


def transfers(costs: TensorCosts, links: Mapping[tuple[int, int], LinkTimes]) -> Transfers:
    """Times of all tensors over all links. Of the codecs that are allowed the quickest is taken,
    the earlier one of WIRE_CODECS if there is no difference, unless bytes are to be saved."""
    count = costs.codecs.shape[-1]
    link_ms, link_per_mib = np.zeros((count, count)), np.zeros((count, count))
    for (k, h), link in links.items():
        link_ms[k, h], link_per_mib[k, h] = link.fixed_ms, link.ms_per_mib
    fixed = costs.fixed_ms + link_ms
    per_mib = costs.ms_per_mib + link_per_mib
    here = np.eye(count, dtype=bool)
    times = []
    for codec, size, allowed in zip(WIRE_CODECS, costs.sizes, costs.codecs, strict=True):
        usable = np.isfinite(size)[:, None, None] & allowed
        finite = np.where(np.isfinite(size), size, 0.0)[:, None, None]
        crossing = fixed + per_mib * finite / MIB
        if codec in costs.codings:
            crossing = crossing + costs.codings[codec].crossing_ms
        times.append(np.where(usable, crossing, INFINITE))
    every = np.stack(times)
    chosen = every.argmin(axis=0)
    if costs.saves_bytes:
        quickest = every == every.min(axis=0)
        chosen = np.where(quickest, costs.sizes[:, :, None, None], INFINITE).argmin(axis=0)
    coded = fixed + per_mib * costs.coded_bytes[:, None, None] / MIB
    plain = _within(every.min(axis=0), costs.closed, here)
    eight = _within(coded, costs.closed, here)
    return Transfers(plain, np.where(costs.paired[:, None, None], eight, plain), chosen)


def _within(times: Floats, closed: Bools, here: Bools) -> Floats:
    """Infinite where a tensor may not go, 0 where it stays."""
    found: Floats = np.where(here, 0.0, np.where(closed, INFINITE, times))
    return found
