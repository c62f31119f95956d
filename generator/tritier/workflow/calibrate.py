"""Takes what a plan took back as corrections of what predictions are made from.

Times of components correct the layers that they hold; all other layers of a server are corrected
by what its components took together. Times of messages correct the bandwidth of their link, or
what a call costs there. What was measured no more exactly than it differs from the prediction
corrects nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tritier.documents import (
    CalibratedBy,
    Comparison,
    Duration,
    Figure,
    LinkState,
    NetworkState,
    PredictedComponent,
    PredictedMessage,
    TimelineEntry,
    TimingProfile,
)
from tritier.timing.durations import MIB
from tritier.workflow.compare import Known, PlanPredictor

# A median is known to this many standard errors: 1.96 for 95 %, times 1.25 as it is no mean.
_WIDTH = 1.96 * 1.2533
# Corrections beyond this say that something else is wrong.
_MOST = 5.0
# A component of which the layers are less than this share says little of them.
_OF_LAYERS = 0.1
# Two messages follow each other if this share of the shorter one, or less, is between them.
_BEHIND = 0.1
# A message of which the link takes less than this share says little of its bandwidth.
_OF_BANDWIDTH = 0.5


@dataclass(frozen=True)
class Corrected:
    """Documents with corrections, and what they are or could not be, for people."""

    timings: Mapping[str, TimingProfile]
    network: NetworkState | None
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether there is any."""
        return bool(self.notes)


@dataclass
class _Factors:
    """Of one server: of the layers of components that tell, of all others, ms for each call."""

    layers: dict[str, float] = field(default_factory=dict)
    others: float = 1.0
    call_ms: float = 0.0

    @property
    def corrects_layers(self) -> bool:
        """Whether some ran longer, or shorter, than is predicted."""
        return any(factor != 1.0 for factor in self.layers.values())


def corrected(known: Known, comparison: Comparison) -> Corrected:
    """The documents of `known`, corrected by a comparison that was measured."""
    assert comparison.measured is not None
    predictor = PlanPredictor(comparison.plan, known)
    found = predictor.figures()
    mark = CalibratedBy(
        at=comparison.measured_at or comparison.predicted_at,
        plan_id=comparison.plan_id,
        n=comparison.measured.latency.n,
    )
    notes: list[str] = []
    services = {x.id: x.service for x in comparison.measured.components}
    layers_of = {part.id: part.layers for part in comparison.plan.components}
    timings = dict(known.timings)
    for server in dict.fromkeys(part.server for part in found.components):
        parts = [
            part
            for part in found.components
            if part.server == server and part.layers and part.id in services
        ]
        factors = _factors_of(parts, services, layers_of)
        if told := _told(server, factors):
            timings[server] = _scaled(timings[server], factors, mark)
            notes.append(told)
    network = known.network
    if network is not None:
        shared = sharing(predictor.sends(), comparison.measured.timeline)
        times = {
            x.key: x.time
            for x in comparison.measured.messages
            if x.time is not None and x.key not in shared
        }
        network, told_links = _corrected_links(network, found.messages, times, mark)
        notes += told_links
    return Corrected(timings, network, tuple(notes))


def _factors_of(
    parts: Iterable[PredictedComponent],
    services: Mapping[str, Duration],
    layers_of: Mapping[str, tuple[str, ...]],
) -> _Factors:
    found = _Factors()
    wanted_ms = layers_ms = 0.0
    small: list[float] = []
    for part in parts:
        service = services[part.id]
        besides = part.ms - part.layers_ms
        wanted_ms += max(service.median_ms - besides, 0.0)
        layers_ms += part.layers_ms
        if is_within(part.ms, service):
            found.layers |= dict.fromkeys(layers_of[part.id], 1.0)
            continue
        if part.layers_ms < _OF_LAYERS * part.ms:
            small.append(service.median_ms - part.ms)
            continue
        factor = _bounded((service.median_ms - besides) / part.layers_ms)
        found.layers |= dict.fromkeys(layers_of[part.id], factor)
    if found.corrects_layers and layers_ms > 0:
        found.others = _bounded(wanted_ms / layers_ms)
    if small:
        found.call_ms = math.fsum(small) / len(small)
    return found


def is_within(predicted_ms: float, measured: Duration) -> bool:
    """Whether a prediction differs from a median by no more than that is sure to."""
    if measured.n < 2:
        return predicted_ms == measured.median_ms
    width = _WIDTH * measured.std_ms / math.sqrt(measured.n)
    return abs(predicted_ms - measured.median_ms) <= width


def _bounded(factor: float) -> float:
    return min(max(factor, 1 / _MOST), _MOST)


def _told(server: str, factors: _Factors) -> str:
    parts = []
    if factors.corrects_layers:
        values = sorted(set(factors.layers.values()))
        span = f"{values[0]:.3f}" if len(values) == 1 else f"{values[0]:.3f} to {values[-1]:.3f}"
        parts.append(
            f"{len(factors.layers)} layers that ran x {span}, all others x {factors.others:.3f}"
        )
    if factors.call_ms:
        parts.append(f"serving a component {factors.call_ms:+.2f} ms")
    return f"{server}: {', '.join(parts)}" if parts else ""


def _scaled(timing: TimingProfile, factors: _Factors, mark: CalibratedBy) -> TimingProfile:
    layers = []
    for layer in timing.layers:
        factor = factors.layers.get(layer.name, factors.others)
        int8 = None if layer.int8_ms is None else layer.int8_ms * factor
        layers.append(
            layer.model_copy(update={"float_ms": layer.float_ms * factor, "int8_ms": int8})
        )
    call_ms = max(0.0, timing.serving.call_ms + factors.call_ms)
    return timing.model_copy(
        update={
            "layers": tuple(layers),
            "serving": timing.serving.model_copy(update={"call_ms": call_ms}),
            "calibrated_by": (*(timing.calibrated_by or ()), mark),
        }
    )


def _corrected_links(
    network: NetworkState,
    messages: Iterable[PredictedMessage],
    times: Mapping[tuple[str, str, str, str], Duration],
    mark: CalibratedBy,
) -> tuple[NetworkState, list[str]]:
    by_link: dict[tuple[str, str], list[tuple[PredictedMessage, Duration]]] = {}
    for item in messages:
        if item.key in times:
            by_link.setdefault((item.source, item.target), []).append((item, times[item.key]))
    links, notes = [], []
    for link in network.links:
        pairs = by_link.get((link.source, link.target), [])
        fixed, told = _corrected_link(link, pairs)
        if told:
            notes.append(f"{link.source} -> {link.target}: {told}")
            fixed = fixed.model_copy(update={"calibrated_by": (*(link.calibrated_by or ()), mark)})
        links.append(fixed)
    return network.model_copy(update={"links": tuple(links)}), notes


def sharing(
    sends: Sequence[tuple[PredictedMessage, float, float]], measured: Iterable[TimelineEntry] = ()
) -> set[tuple[str, str, str, str]]:
    """Messages that have their link with another at once: when one is sent right behind another,
    or in the measured timeline. Their times say nothing of the link: predictions are of each alone.
    """
    begun = {(x.name, x.place): (x.start_ms, x.end_ms) for x in measured if x.kind == "send"}
    spans: dict[tuple[str, str], list[tuple[float, float, bool, PredictedMessage]]] = {}
    for item, start_ms, end_ms in sends:
        place = (item.source, item.target)
        spans.setdefault(place, []).append((start_ms, end_ms, False, item))
        if found := begun.get((item.name, place)):
            # What is still under way has left its link.
            left_ms = max(found[0], found[1] - (item.ms - item.link_ms))
            spans[place].append((found[0], left_ms, True, item))
    shared = set()
    for one, other in itertools.chain.from_iterable(
        itertools.combinations(items, 2) for items in spans.values()
    ):
        # One message waits for another in simulations; on a link they share it.
        slack_ms = _BEHIND * min(one[1] - one[0], other[1] - other[0])
        together = max(one[0], other[0]) <= min(one[1], other[1]) + slack_ms
        if one[2] == other[2] and one[3].key != other[3].key and together:
            shared |= {one[3].key, other[3].key}
    return shared


def _corrected_link(
    link: LinkState, pairs: Iterable[tuple[PredictedMessage, Duration]]
) -> tuple[LinkState, str]:
    """Large messages correct the bandwidth, then the small ones what a call costs."""
    wrong = [(item, time) for item, time in pairs if not is_within(item.ms, time)]
    large = [(i, t) for i, t in wrong if i.link_ms >= _OF_BANDWIDTH * i.ms and i.bytes > 0]
    small = [(i, t) for i, t in wrong if (i, t) not in large and i.kind != "answer"]
    told, update = [], {}
    if large:
        mib = math.fsum(item.bytes / MIB for item, _ in large)
        link_ms = math.fsum(t.median_ms - (i.ms - i.link_ms) for i, t in large)
        factor = _bounded(link_ms / math.fsum(i.link_ms for i, _ in large))
        mib_s = link.bandwidth_mib_s.value / factor
        update["bandwidth_mib_s"] = _moved(link.bandwidth_mib_s, mib_s, large)
        told.append(f"{link.bandwidth_mib_s.value:.4g} -> {mib_s:.4g} MiB/s, by {mib:.3g} MiB")
    if small:
        more_ms = math.fsum(t.median_ms - i.ms for i, t in small) / len(small)
        call_ms = max(0.0, link.call_ms.value + more_ms)
        update["call_ms"] = _moved(link.call_ms, call_ms, small)
        told.append(f"a call {link.call_ms.value:.2f} -> {call_ms:.2f} ms")
    return link.model_copy(update=update), ", ".join(told)


def _moved(figure: Figure, value: float, by: Sequence[tuple[PredictedMessage, Duration]]) -> Figure:
    """The figure with another value; its interval keeps its width, in shares of the value."""
    share = value / figure.value if figure.value else None
    ends = {
        name: None if end is None or share is None else end * share
        for name, end in (("low", figure.low), ("high", figure.high))
    }
    return figure.model_copy(update={"value": value, "n": sum(t.n for _, t in by), **ends})


def with_documents(known: Known, found: Corrected) -> Known:
    """The same with corrected documents."""
    return replace(known, timings=found.timings, network=found.network)
