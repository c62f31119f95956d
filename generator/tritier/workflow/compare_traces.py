"""What the spans of traced requests say of messages, and of when things happened.

A call goes from the start of its span to the first span that it brings about on the other server;
its answer from the end of the last one to the end of the call. What Triton counts as input and
output of the component there is taken off: it is part of the component's time, not of a message's.
A put is as long as its span, until its sender knows.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tritier.documents import MeasuredMessage, Plan, TimelineEntry
from tritier.workflow.compare_rounds import NS_PER_MS, duration_of
from tritier.workflow.compare_spans import Span, Trace

_CALL, _RUN, _MAILBOX = "call ", "run ", "__mailbox"


@dataclass(frozen=True)
class Counted:
    """What Triton has counted of a model; ns, and requests."""

    n: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int

    @property
    def service_ns(self) -> int:
        """Input, inference and output."""
        return self.input_ns + self.infer_ns + self.output_ns

    def minus(self, earlier: Counted) -> Counted:
        """What came since."""
        return Counted(
            self.n - earlier.n,
            self.queue_ns - earlier.queue_ns,
            self.input_ns - earlier.input_ns,
            self.infer_ns - earlier.infer_ns,
            self.output_ns - earlier.output_ns,
        )


@dataclass(frozen=True)
class TracedRequest:
    """A request with its trace: when it was sent and answered, ns since 1970, and what Triton
    counted for it by component."""

    trace: Trace
    start_ns: int
    end_ns: int
    counted: Mapping[str, Counted]

    @property
    def spent_ms(self) -> float:
        """Of the whole request."""
        return (self.end_ns - self.start_ns) / NS_PER_MS


@dataclass(frozen=True)
class Sent:
    """A message of one request."""

    kind: str
    component: str
    source: str
    target: str
    start_ns: float
    end_ns: float
    bytes: int

    @property
    def key(self) -> tuple[str, str, str, str]:
        """As of documents."""
        return (self.kind, self.component, self.source, self.target)


Traced = tuple[TracedRequest, Sequence[Span]]


def messages_of(plan: Plan, traced: Sequence[Traced]) -> tuple[MeasuredMessage, ...]:
    """All messages of the plan that are in every traced request."""
    found: dict[tuple[str, str, str, str], list[Sent]] = defaultdict(list)
    for request, spans in traced:
        for item in sent(plan, request, spans):
            found[item.key].append(item)
    return tuple(
        MeasuredMessage.model_validate(
            {
                "kind": items[0].kind,
                "component": items[0].component,
                "from": items[0].source,
                "to": items[0].target,
                "bytes": round(statistics.median(item.bytes for item in items)),
                "time": duration_of([(x.end_ns - x.start_ns) / NS_PER_MS for x in items]),
            }
        )
        for items in found.values()
        if len(items) == len(traced)
    )


def timeline_of(
    plan: Plan, request: TracedRequest, spans: Sequence[Span]
) -> tuple[TimelineEntry, ...]:
    """What happened in one request, from its start, by start."""
    entries = [
        _entry("compute", _component_of(span), (span.server,), span.start_ns, span.end_ns, request)
        for span in spans
        if span.name.startswith(_RUN)
    ]
    entries += [
        _entry(
            "send", f"{x.kind} {x.component}", (x.source, x.target), x.start_ns, x.end_ns, request
        )
        for x in sent(plan, request, spans)
    ]
    return tuple(sorted(entries, key=lambda entry: (entry.start_ms, entry.end_ms)))


def sent(plan: Plan, request: TracedRequest, spans: Sequence[Span]) -> Iterator[Sent]:
    """The messages of one request."""
    servers = {part.id: part.server for part in plan.components}
    entry = plan.entry.name
    for span in spans:
        if not span.name.startswith(_CALL) or span.failed:
            continue
        component = str(span.attributes.get("component", ""))
        target = str(span.attributes.get("server", ""))
        out, back = int(span.attributes["bytes_out"]), int(span.attributes["bytes_in"])
        if not span.name.endswith(_MAILBOX):
            begun, ended = _within(span, spans, request)
            if begun is not None and ended is not None:
                yield Sent("call", component, entry, target, span.start_ns, begun, out)
                yield Sent("answer", component, target, entry, ended, span.end_ns, back)
        elif span.server == servers.get(component, entry) and span.server != target:
            yield Sent("put", component, span.server, target, span.start_ns, span.end_ns, out)


def _within(
    call: Span, spans: Sequence[Span], request: TracedRequest
) -> tuple[float | None, float | None]:
    """When the message of a call was there, and when its answer left, in ns."""
    inside = [span for span in spans if span.parent_id == call.span_id]
    if not inside:
        return None, None
    first = min(inside, key=lambda span: span.start_ns)
    last = max(inside, key=lambda span: span.end_ns)
    begun, ended = float(first.start_ns), float(last.end_ns)
    if first.name.startswith(_RUN):
        counted, around = _around(first, request)
        begun -= counted.input_ns + around
    if last.name.startswith(_RUN):
        counted, around = _around(last, request)
        ended += counted.output_ns + around
    return max(begun, float(call.start_ns)), min(ended, float(call.end_ns))


def _around(run: Span, request: TracedRequest) -> tuple[Counted, float]:
    """What Triton counted for a run, and half of what its inference took besides."""
    counted = request.counted.get(_component_of(run), Counted(0, 0, 0, 0, 0))
    return counted, max(0.0, counted.infer_ns - (run.end_ns - run.start_ns)) / 2


def _component_of(span: Span) -> str:
    return span.name.rpartition("__")[2]


def _entry(
    kind: str, name: str, place: tuple[str, ...], start: float, end: float, request: TracedRequest
) -> TimelineEntry:
    return TimelineEntry.model_validate(
        {
            "kind": kind,
            "name": name,
            "place": place,
            "start_ms": (start - request.start_ns) / NS_PER_MS,
            "end_ms": (end - request.start_ns) / NS_PER_MS,
        }
    )
