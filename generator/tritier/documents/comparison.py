"""A plan predicted and measured: written before it is measured, completed after."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.environment import Environment
from tritier.documents.figures import Duration, Timestamp
from tritier.documents.plan import Plan
from tritier.documents.servers import ServerName

Ms = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]
Kind = Literal["call", "put", "answer", "fetch"]
PlanId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]


class TimelineEntry(Document):
    """Something that one request makes happen, in ms from its start."""

    kind: Literal["compute", "send"]
    name: str = Field(description="component, or kind of message and its component")
    place: tuple[ServerName, ...] = Field(
        min_length=1, max_length=2, description="the server, or the ends of the link"
    )
    start_ms: float
    end_ms: float


class PredictedComponent(Document):
    """A component, served: its layers, what cutting it costs, and what serving takes."""

    id: str
    server: ServerName
    layers: int = Field(ge=0)
    layers_ms: Ms
    ms: Ms


class Message(Document):
    """A message: `call` of a component, its `answer`, `put` into a mailbox, or `fetch` from one.

    `component` is called, answers, or has made what is put ("in": the inputs of the model).
    """

    kind: Kind
    component: str
    source: ServerName = Field(alias="from")
    target: ServerName = Field(alias="to")

    @property
    def name(self) -> str:
        """For tables and timelines."""
        return f"{self.kind} {self.component}"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells the messages of a plan apart."""
        return (self.kind, self.component, self.source, self.target)


class PredictedMessage(Message):
    """A message that has its link for itself, until it is there; a put, until its sender knows."""

    tensors: tuple[str, ...] = Field(default=(), description="ids in the plan")
    bytes: Bytes
    ms: Ms
    link_ms: Ms = Field(description="of it: how long it takes the link")


class PredictedFigures(Document):
    """What profiles and links say of a plan."""

    latency_ms: Ms = Field(description="simulated, and the app's own connection if it is known")
    app_ms: Ms | None = Field(
        default=None,
        description="of it: what the app's own connection to the entry takes, measured before this "
        "was predicted; left out if it was not",
    )
    energy_joule: Ms | None = Field(default=None, description="left out if no power is known")
    components: tuple[PredictedComponent, ...]
    messages: tuple[PredictedMessage, ...] = ()
    memory_bytes: dict[ServerName, Bytes] = Field(
        default={}, description="of the processes of its components"
    )
    timeline: tuple[TimelineEntry, ...] = ()
    warnings: tuple[str, ...] = ()


class Latency(Document):
    """Whole requests as an app sees them. `low_ms` to `high_ms` is the 95 % interval of the
    median."""

    n: int = Field(ge=1)
    mean_ms: Ms
    std_ms: Ms
    median_ms: Ms
    p90_ms: Ms
    p95_ms: Ms
    p99_ms: Ms
    low_ms: Ms
    high_ms: Ms


class MeasuredComponent(Document):
    """A component as Triton counts it: input, inference and output; `queue_ms` is the mean wait
    before."""

    id: str
    server: ServerName
    service: Duration
    queue_ms: Ms


class MeasuredMessage(Message):
    """A message in traces: from the start of the call to what it starts, and back. `bytes` is the
    message with all that is around its tensors."""

    bytes: Bytes | None = None
    time: Duration | None = None


class MeasuredFigures(Document):
    """What a deployed plan did. `unmeasured` says what could not be measured, and why."""

    latency: Latency
    components: tuple[MeasuredComponent, ...] = ()
    messages: tuple[MeasuredMessage, ...] = ()
    memory_bytes: dict[ServerName, Bytes] = Field(default={})
    timeline: tuple[TimelineEntry, ...] = Field(
        default=(), description="of the traced request nearest to the median"
    )
    unmeasured: tuple[str, ...] = ()


class ComponentComparison(Document):
    """A row: `error` is (predicted - measured) / measured."""

    id: str
    server: ServerName
    layers: int = Field(ge=0)
    predicted_ms: Ms
    measured: Duration | None = None
    error: float | None = None


class WireComparison(Message):
    """A row per message; see ComponentComparison."""

    tensors: tuple[str, ...] = ()
    predicted_bytes: Bytes
    measured_bytes: Bytes | None = None
    predicted_ms: Ms
    measured: Duration | None = None
    error: float | None = None


class MemoryComparison(Document):
    """A row per server; see ComponentComparison."""

    server: ServerName
    predicted_bytes: Bytes
    measured_bytes: Bytes | None = None
    error: float | None = None


class Errors(Document):
    """Sizes of `n` relative errors."""

    n: int = Field(ge=1)
    mean: float
    p95: float
    max: float


class Comparison(Document):
    """A plan predicted and, unless `measured` is left out, measured. Tables are made of both."""

    title: ClassVar[str] = "comparison"

    format: Literal["tritier/comparison/1"] = "tritier/comparison/1"
    plan_id: PlanId
    model: str
    plan: Plan
    predicted_at: Timestamp
    predicted: PredictedFigures
    measured_at: Timestamp | None = None
    measured: MeasuredFigures | None = None
    environment: Environment | None = None

    @property
    def latency_error(self) -> float | None:
        """(predicted - median) / median of whole requests."""
        if self.measured is None:
            return None
        return _error(self.predicted.latency_ms, self.measured.latency.median_ms)

    @property
    def components(self) -> tuple[ComponentComparison, ...]:
        """A row for each component."""
        known = {x.id: x.service for x in self.measured.components} if self.measured else {}
        return tuple(
            ComponentComparison(
                id=x.id, server=x.server, layers=x.layers, predicted_ms=x.ms,
                measured=known.get(x.id), error=_duration_error(x.ms, known.get(x.id)),
            )
            for x in self.predicted.components
        )  # fmt: skip

    @property
    def wires(self) -> tuple[WireComparison, ...]:
        """A row for each message."""
        known = {x.key: x for x in self.measured.messages} if self.measured else {}
        rows = []
        for item in self.predicted.messages:
            found = known.get(item.key)
            time = found.time if found else None
            rows.append(
                WireComparison.model_validate({
                    "kind": item.kind, "component": item.component,
                    "from": item.source, "to": item.target, "tensors": item.tensors,
                    "predicted_bytes": item.bytes, "predicted_ms": item.ms,
                    "measured_bytes": found.bytes if found else None,
                    "measured": time, "error": _duration_error(item.ms, time),
                })
            )  # fmt: skip
        return tuple(rows)

    @property
    def memory(self) -> tuple[MemoryComparison, ...]:
        """A row for each server with components."""
        known = self.measured.memory_bytes if self.measured else {}
        return tuple(
            MemoryComparison(
                server=name, predicted_bytes=value, measured_bytes=known.get(name),
                error=_error(value, known[name]) if known.get(name) else None,
            )
            for name, value in self.predicted.memory_bytes.items()
        )  # fmt: skip

    @property
    def timeline_predicted(self) -> tuple[TimelineEntry, ...]:
        """Of one request."""
        return self.predicted.timeline

    @property
    def timeline_measured(self) -> tuple[TimelineEntry, ...]:
        """Of one request; empty if there were no traces."""
        return self.measured.timeline if self.measured else ()

    @property
    def errors(self) -> dict[str, Errors]:
        """`latency`, `components`, `wires`, `memory` -> errors, of what was measured."""
        latency = [] if self.latency_error is None else [self.latency_error]
        found = {
            "latency": latency,
            "components": [x.error for x in self.components if x.error is not None],
            "wires": [x.error for x in self.wires if x.error is not None],
            "memory": [x.error for x in self.memory if x.error is not None],
        }
        return {name: errors_of(values) for name, values in found.items() if values}


def errors_of(values: list[float]) -> Errors:
    """The sizes of relative errors, of which there is at least one."""
    sizes = np.abs(np.array(values))
    return Errors(
        n=len(sizes),
        mean=float(sizes.mean()),
        p95=float(np.percentile(sizes, 95)),
        max=float(sizes.max()),
    )


def _error(predicted: float, measured: float) -> float | None:
    return (predicted - measured) / measured if measured > 0 else None


def _duration_error(predicted: float, measured: Duration | None) -> float | None:
    return None if measured is None else _error(predicted, measured.median_ms)
