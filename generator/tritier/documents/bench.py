"""`bench.json`: a sweep of loads over a deployed model, level by level."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.environment import Environment

Mode = Literal["concurrency", "request_rate"]
Arrivals = Literal["closed", "constant", "poisson"]
_Ms = Annotated[float, Field(ge=0)]
_PER_MODEL = "per request that the model answered"


class ModelShare(Document):
    """What a server counted for one of its models while a level was measured."""

    model: str
    requests: int = Field(ge=0, description="that it answered")
    executions: int | None = Field(
        default=None, ge=0, description="of its backend: fewer than requests if Triton batched them"
    )
    failures: int = Field(default=0, ge=0)
    queue_ms: _Ms = Field(description=_PER_MODEL)
    compute_input_ms: _Ms = Field(description=_PER_MODEL)
    compute_infer_ms: _Ms = Field(description=_PER_MODEL)
    compute_output_ms: _Ms = Field(description=_PER_MODEL)
    executing_ms: float | None = Field(
        default=None,
        ge=0,
        description="inference of all executions together, each once, however many requests were "
        "in it; left out if the server does not count that",
    )


class OpenLoopCheck(Document):
    """The same load by this tool's own generator, beside what perf_analyzer found."""

    arrivals: Arrivals = Field(
        description="closed: the next request when one is answered; the others: in time, whatever "
        "was answered"
    )
    offered: float = Field(
        gt=0, description="concurrency if it is closed, else requests per second"
    )
    batch: int = Field(default=1, ge=1)
    requests: int = Field(ge=0, description="answered")
    failures: int = Field(default=0, ge=0)
    duration_s: float = Field(ge=0)
    infer_per_s: float = Field(ge=0)
    mean_ms: _Ms
    p50_ms: _Ms
    p95_ms: _Ms
    difference: float = Field(
        description="the larger of the differences of inferences per second and of the median "
        "latency, relative to perf_analyzer's; 0.05 is 5 %. For random arrivals, instead of the "
        "first: seconds by which latency grows per second, 0 where the server keeps up; that alone "
        "where the load is another one than perf_analyzer's"
    )
    agrees: bool | None = Field(
        default=None,
        description="the difference is not over 5 % and nothing failed. Of random arrivals it is "
        "false only if latency surely grows by more (95 % interval); left out where that can't be "
        "told, as of under 100 requests",
    )


class BenchLevel(Document):
    """One offered load. Latencies are of whole requests, seen by the client, from timestamps."""

    batch: int = Field(ge=1)
    offered: float = Field(gt=0, description="concurrency, or requests per second")
    stable: bool
    unstable_because: str | None = Field(default=None, description="left out if it is stable")
    runs: int = Field(ge=1, description="of perf_analyzer, each with larger windows")
    window_requests: int = Field(ge=1, description="least requests of a window of the last run")
    windows: int = Field(ge=1, description="from which the figures are")
    times_from: Literal["timestamps", "perf_analyzer"] = Field(
        default="timestamps",
        description="timestamps: figures are computed from every request's times; perf_analyzer: "
        "it computed them, as with large tensors, all of which would stand beside the times",
    )
    stable_by: Literal["mean", "p50", "p90", "p95", "p99"] = Field(
        default="p95",
        description="latency that, beside throughput, had to be stable; the mean where "
        "perf_analyzer computes the figures",
    )
    requests: int = Field(ge=1, description="answered, from which the figures are")
    failures: int = Field(default=0, ge=0)
    duration_s: float = Field(gt=0)
    infer_per_s: float = Field(ge=0, description="requests x batch per second")
    mean_ms: _Ms
    std_ms: _Ms
    p50_ms: _Ms
    p90_ms: _Ms
    p95_ms: _Ms
    p99_ms: _Ms
    low_ms: _Ms = Field(description="lower end of the 95 % interval of the mean")
    high_ms: _Ms = Field(description="upper end of the 95 % interval of the mean")
    limit_kept: bool | None = Field(
        default=None,
        description="whether the latency limit was kept, if there is one; of request rates only "
        "by a stable level, and of constant ones only if 95 % of the rate was answered",
    )
    composing: tuple[ModelShare, ...] = Field(
        default=(), description="steps on the entry's server, as perf_analyzer tells"
    )
    servers: dict[str, tuple[ModelShare, ...]] = Field(
        default_factory=dict, description="server -> its models, from its own statistics"
    )
    check: OpenLoopCheck | None = None
    check_failed: str | None = Field(
        default=None, description="why there is no check, if it was tried"
    )
    command: str = Field(description="that was run last")
    raw: tuple[str, ...] = Field(
        default=(), description="kept files, relative to the folder of this document"
    )

    @property
    def key(self) -> tuple[int, float]:
        """What tells levels of a sweep apart: batch and load."""
        return self.batch, self.offered

    def quantile_ms(self, percentile: int) -> float:
        """Latency at one of the percentiles that are kept: 50, 90, 95 or 99."""
        return float(getattr(self, f"p{percentile}_ms"))

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """A level that is unstable without a reason, or stable with one."""
        stable, reason = data.get("stable"), data.get("unstable_because")
        if stable is True and reason:
            return ["unstable_because: a stable level has no reason to be unstable"]
        if stable is False and not reason:
            return ["unstable_because: is missing; an unstable level says why"]
        return []


class SloFound(Document):
    """The highest load under the limit, of one batch."""

    batch: int = Field(ge=1)
    offered: float | None = Field(default=None, description="left out if no load keeps the limit")
    infer_per_s: float | None = None
    stable: bool | None = Field(default=None, description="whether the level of that load is")
    latency_ms: float | None = Field(default=None, description="at that load and the percentile")
    bounded_by: Literal["limit", "range"] = Field(
        description="limit: a higher load was tried and broke it; range: none was asked for"
    )


class SloSearch(Document):
    """A binary search for the highest load under a latency limit. What was tried is in levels."""

    limit_ms: float = Field(gt=0)
    percentile: int
    lowest: float = Field(gt=0, description="load from which was searched")
    highest: float = Field(gt=0)
    step: float = Field(gt=0, description="how near the search comes to the highest load")
    found: tuple[SloFound, ...] = Field(description="one per batch")


class BenchSettings(Document):
    """How it was measured."""

    protocol: Literal["grpc"] = "grpc"
    percentile: Literal[50, 90, 95, 99] = Field(
        default=95, description="that has to keep the limit, and to be stable (see stable_by)"
    )
    window_requests: int = Field(ge=1, description="least requests of a window of the first run")
    max_window_requests: int = Field(ge=1, description="least requests of a window at most")
    max_windows: int = Field(ge=3, description="of one run of perf_analyzer")
    stability_percent: float = Field(gt=0)
    arrivals: Arrivals = Field(description="closed for concurrency")
    input: str = Field(description="zero, random or the name of a file")
    input_sha256: str | None = Field(default=None, description="of that file")
    shapes: dict[str, tuple[int, ...]] = Field(
        description="input -> shape that is sent at batch 1, with the batch dimension if any"
    )
    batching: Literal["max_batch_size", "first_dimension", "none"] = Field(
        description="how a batch is sent: by Triton's batch dimension, as the first dimension of "
        "the model's own shapes, or only single"
    )
    latency_limit_ms: float | None = Field(default=None, gt=0)


class BenchResult(Document):
    """A sweep: one model at one address, levels by batch and load."""

    title: ClassVar[str] = "bench result"

    format: Literal["tritier/bench/1"] = "tritier/bench/1"
    model: str = Field(description="Triton model that was called")
    url: str
    plan_id: str | None = Field(default=None, description="of its config, if it names one")
    mode: Mode
    settings: BenchSettings
    environment: Environment
    levels: tuple[BenchLevel, ...] = ()
    search: SloSearch | None = None
    sustained: tuple[OpenLoopCheck, ...] = Field(
        default=(),
        description="per batch: Poisson arrivals at 70 % of the highest throughput; concurrency "
        "only",
    )
    warnings: tuple[str, ...] = ()

    def level(self, batch: int, offered: float) -> BenchLevel | None:
        """The level of that batch and load; None if it was not measured."""
        return next((item for item in self.levels if item.key == (batch, offered)), None)

    def best(self, batch: int | None = None) -> BenchLevel:
        """The level with the highest throughput, of a batch or of all; unstable ones count only if
        there are no others. Raises ValueError if there is none at all."""
        levels = [item for item in self.levels if batch is None or item.batch == batch]
        return max(levels, key=lambda item: (item.stable, item.infer_per_s))

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """A level that stands twice."""
        levels = data.get("levels")
        keys = [
            (item.get("batch"), item.get("offered"))
            for item in (levels if isinstance(levels, list) else ())
            if isinstance(item, dict)
        ]
        twice = [key for index, key in enumerate(keys) if key in keys[:index]]
        return [f"levels: batch {batch} at load {load} stands twice" for batch, load in twice]
