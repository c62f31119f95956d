"""Measures deployed plans: whole requests, components, messages, memory and one timeline.

Requests that are timed carry no trace. In some rounds another one follows that does: messages are
measured with it.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tritier.deployment.access import connect
from tritier.deployment.client import TritonServer
from tritier.divider import Arrays
from tritier.documents import (
    LabState,
    Latency,
    MeasuredComponent,
    MeasuredFigures,
    Plan,
    wire_up,
)
from tritier.errors import InputError, ServerError
from tritier.workflow.compare_memory import memory_of
from tritier.workflow.compare_rounds import NS_PER_MS, Rounds, duration_of, latency_of
from tritier.workflow.compare_spans import Span, SpanCollector, Trace, local_port
from tritier.workflow.compare_traces import Counted, TracedRequest, messages_of, timeline_of

_TIMEOUT_S = 60.0
_COUNTED_S = 2.0
_NO_SPANS = (
    "times of messages, and the timeline: they come from traces, and no server sends any; start "
    "the lab with TRITIER_OTLP=http://127.0.0.1:4318 in the environment (any free port)"
)
_LOST = "times of messages, and the timeline: no trace of a request came (see --traces)"
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Deployed:
    """A plan on running servers. `entry_model` is what is asked on the entry, by default the
    model's own name; `urls` by server."""

    plan: Plan
    urls: Mapping[str, str]
    entry_model: str = ""
    lab: LabState | None = None

    @property
    def asked(self) -> str:
        """The Triton model that is asked."""
        return self.entry_model or self.plan.model.name

    @property
    def entry_url(self) -> str:
        """Where it is."""
        return self.urls[self.plan.entry.name]

    def model_of(self, component: str) -> str:
        """The Triton model of a component."""
        return f"{self.plan.model.name}__{self.plan.id}__{component}"


@dataclass(frozen=True)
class Counts:
    """How often: rounds that count, rounds before, rounds in which a traced request follows."""

    rounds: int = 30
    warmup: int = 5
    traces: int = 10


def measure_plan(
    deployed: Deployed,
    inputs: Sequence[Arrays],
    counts: Counts | None = None,
    report: Report = lambda _step, _share: None,
) -> MeasuredFigures:
    """One plan; see `measure_plans`."""
    return measure_plans([deployed], inputs, counts, report)[0]


def measure_plans(
    deployed: Sequence[Deployed],
    inputs: Sequence[Arrays],
    counts: Counts | None = None,
    report: Report = lambda _step, _share: None,
) -> list[MeasuredFigures]:
    """Several plans that are deployed at once, asked in turn.

    All get the same inputs, one after another. Raises ServerError if a request fails, or if
    somebody else asks the same models meanwhile, InputError if there is no input.
    """
    counts = counts or Counts()
    if not inputs:
        raise InputError("there is no input to measure with: ask for at least one")
    with ExitStack() as stack:
        collector, why = stack.enter_context(_collector([item.lab for item in deployed]))
        probes = [stack.enter_context(_Probe(item, inputs, collector, why)) for item in deployed]
        names = {f"{index} {probe.deployed.asked}": probe for index, probe in enumerate(probes)}
        traced = _spread(counts.traces if collector else 0, counts.rounds)

        def after(name: str, number: int) -> None:
            names[name].count()
            if number in traced:
                names[name].trace()

        rounds = Rounds({name: probe.ask for name, probe in names.items()}, after)
        for probe in probes:
            probe.begin(counts.warmup)
        times = rounds.run(counts.rounds, 0, report)
        return [probe.figures(times[name]) for name, probe in names.items()]


def _spread(count: int, rounds: int) -> frozenset[int]:
    """`count` of the rounds, evenly."""
    count = min(count, rounds)
    return frozenset(index * rounds // count for index in range(count))


@contextlib.contextmanager
def _collector(labs: Sequence[LabState | None]) -> Iterator[tuple[SpanCollector | None, str]]:
    """Where the servers of the lab send their spans, if that is an address that is free here, or
    why there is none."""
    urls = {server.environment.get("TRITIER_OTLP") for lab in labs if lab for server in lab.servers}
    ports = {local_port(url) for url in urls}
    port = ports.pop() if len(ports) == 1 else None
    if port is None:
        yield None, _NO_SPANS
        return
    try:
        collector = SpanCollector(port)
    except OSError as error:  # a collector of the user's own
        yield (
            None,
            (
                "times of messages, and the timeline: traces go to port "
                f"{port}, and something else listens there ({error.strerror}): end it while this "
                "measures, or start the lab with another free port in TRITIER_OTLP"
            ),
        )
        return
    with collector:
        yield collector, _LOST


class _Probe:
    """One deployed plan: asks it, and reads what its servers count."""

    def __init__(
        self, deployed: Deployed, inputs: Sequence[Arrays], collector: SpanCollector | None,
        why_no_spans: str,
    ) -> None:  # fmt: skip
        self.deployed = deployed
        self._why_no_spans = why_no_spans
        self._collector = collector
        self._stack = ExitStack()
        self._requests = itertools.cycle([_request(arrays) for arrays in inputs])
        self._components = wire_up(deployed.plan).components
        self._before: dict[str, Counted] = {}
        self._service_ms: dict[str, list[float]] = {x.id: [] for x in self._components}
        self._queue_ms: dict[str, list[float]] = {x.id: [] for x in self._components}
        self._traced: list[TracedRequest] = []

    def __enter__(self) -> _Probe:
        self._client = connect(self.deployed.entry_url)
        self._stack.callback(self._client.close)
        names = {part.server for part in self._components}
        self._servers = {
            name: self._stack.enter_context(TritonServer(name, self.deployed.urls[name]))
            for name in names
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, trace: Trace | None = None) -> None:
        """One request, as an app would make it."""
        more: dict[str, Any] = {}
        if trace is not None:
            more["parameters"] = {"traceparent": trace.traceparent}
        try:
            self._client.infer(
                self.deployed.asked, next(self._requests), client_timeout=_TIMEOUT_S, **more
            )
        except InferenceServerException as error:
            raise ServerError(f"model '{self.deployed.asked}': {error}") from None

    def begin(self, warmup: int) -> None:
        """Warm up; then what is counted so far."""
        for _ in range(warmup):
            self.ask()
        if warmup and self._collector is not None:
            self.ask(Trace.new())  # the first span of a model opens its connection
        deadline = time.monotonic() + _COUNTED_S
        self._before = self._statistics()
        # What was just answered may be counted a moment later.
        while (now := self._statistics()) != self._before and time.monotonic() < deadline:
            self._before = now

    def count(self) -> None:
        """What Triton counted for the request that was just answered."""
        for name, item in self._new().items():
            self._service_ms[name].append(item.service_ns / NS_PER_MS)
            self._queue_ms[name].append(item.queue_ns / NS_PER_MS)

    def trace(self) -> None:
        """One more request, whose spans are kept."""
        trace = Trace.new()
        start_ns, clock_ns = time.time_ns(), time.perf_counter_ns()
        self.ask(trace)
        end_ns = start_ns + time.perf_counter_ns() - clock_ns
        self._traced.append(TracedRequest(trace, start_ns, end_ns, self._new()))

    def _new(self) -> dict[str, Counted]:
        """What was counted for one request, by component; it may be counted after its answer."""
        deadline = time.monotonic() + _COUNTED_S
        while True:
            now = self._statistics()
            new = {name: now[name].minus(self._before[name]) for name in now}
            wrong = [(name, item.n) for name, item in new.items() if item.n != 1]
            if not wrong:
                self._before = now
                return new
            if time.monotonic() > deadline or any(count > 1 for _, count in wrong):
                name, count = wrong[0]
                raise ServerError(
                    f"component {name} of plan {self.deployed.plan.id} was asked {count} times "
                    "where one request was sent: somebody else uses it, or answers come from a "
                    "cache; measure when nobody does"
                )

    def figures(self, times_ms: Sequence[float]) -> MeasuredFigures:
        """All that was measured."""
        latency = latency_of(times_ms)
        spans = self._spans()
        memory, why = memory_of(self.deployed.plan, self.deployed.lab)
        unmeasured = [] if spans else [self._why_no_spans]
        return MeasuredFigures(
            latency=latency,
            components=tuple(
                MeasuredComponent(
                    id=part.id,
                    server=part.server,
                    service=duration_of(self._service_ms[part.id]),
                    queue_ms=float(np.mean(self._queue_ms[part.id])),
                )
                for part in self._components
            ),
            messages=messages_of(self.deployed.plan, spans),
            memory_bytes=memory,
            timeline=self._timeline(latency, spans),
            unmeasured=(*unmeasured, *why),
        )

    def _spans(self) -> list[tuple[TracedRequest, list[Span]]]:
        """The traced requests whose spans all came."""
        if self._collector is None:
            return []
        found = [(item, self._collector.settled(item.trace.trace_id)) for item in self._traced]
        usual = usual_count([len(spans) for _, spans in found if spans])
        return [(item, spans) for item, spans in found if spans and len(spans) == usual]

    def _timeline(self, latency: Latency, spans: Sequence[tuple[TracedRequest, list[Span]]]) -> Any:
        if not spans:
            return ()
        nearest = min(spans, key=lambda item: abs(item[0].spent_ms - latency.median_ms))
        return timeline_of(self.deployed.plan, *nearest)

    def _statistics(self) -> dict[str, Counted]:
        return {
            part.id: _counted(
                self._servers[part.server].statistics(self.deployed.model_of(part.id))
            )
            for part in self._components
        }


def usual_count(counts: Sequence[int]) -> int:
    """How many spans a request has: as most have, the larger of equals. One that has lost some, or
    has more as something was tried again, is none to measure by. 0 if there is none."""
    found = Counter(counts)
    return max(found, key=lambda count: (found[count], count), default=0)


def _counted(found: Any) -> Counted:
    return Counted(
        int(found.success.count),
        int(found.queue.ns),
        int(found.compute_input.ns),
        int(found.compute_infer.ns),
        int(found.compute_output.ns),
    )


def _request(arrays: Arrays) -> list[triton.InferInput]:
    """The inputs of a request, made once."""
    found = []
    for name, array in arrays.items():
        content = np.ascontiguousarray(array)  # a scalar becomes one element, as in the configs
        item = triton.InferInput(name, list(content.shape), np_to_triton_dtype(content.dtype))
        item.set_data_from_numpy(content)
        found.append(item)
    return found
