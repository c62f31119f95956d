"""Streams that share accelerators: what is asked, and how many may share (`tritier share`)."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.costs import PriceUsed, StreamCost
from tritier.documents.figures import Source
from tritier.documents.prices import PriceName, Usd

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$")]
_Ms = Annotated[float, Field(ge=0)]


class ServiceTime(Document):
    """How long a request of a model holds the accelerator, when nothing else runs there."""

    median_ms: float | None = Field(default=None, gt=0, description="if there are no samples")
    p95_ms: float | None = Field(
        default=None, gt=0, description="with the median, of a log-normal distribution"
    )
    samples_ms: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(), description="measured times, instead of these two"
    )
    outside_ms: _Ms = Field(
        default=0.0, description="the rest of the latency: network, client; not shared"
    )
    n: int | None = Field(default=None, ge=1, description="measurements behind it")
    source: Source = "measured"

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Two ways to give a time, or none."""
        median, p95, samples = data.get("median_ms"), data.get("p95_ms"), data.get("samples_ms")
        if (median is None) == (not samples):
            return ["a service time has median_ms or samples_ms; give one of them"]
        if p95 is not None and samples:
            return ["p95_ms goes with median_ms, not with samples_ms; remove it"]
        if not isinstance(median, int | float) or not isinstance(p95, int | float):
            return []
        wrong = f"p95_ms {p95} is below median_ms {median}; exchange them"
        return [wrong] if p95 < median else []


class SharedModel(Document):
    """A model that every sharer (a camera, an app) uses, and how its requests come."""

    name: Name = Field(description="of the Triton model")
    arrivals: Literal["periodic", "poisson", "closed"] = Field(
        default="periodic",
        description="at even distances, as a camera does; at random; one after the other",
    )
    per_s: float | None = Field(
        default=None, gt=0, description="requests of a sharer per second; not for closed"
    )
    pause_ms: _Ms = Field(default=0.0, description="closed: from an answer to the next request")
    priority: int = Field(default=1, ge=1, description="of Triton's rate limiter; 2 is half of 1")
    memory_mib: _Ms = Field(default=0.0, description="of the accelerator, for each loaded copy")
    host_memory_mib: _Ms = Field(default=0.0, description="of the host, for each loaded copy")
    memory_source: Source = "measured"

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """A rate where there is none, or none where it is needed."""
        name, closed = data.get("name", "?"), data.get("arrivals") == "closed"
        if closed and data.get("per_s") is not None:
            return [f"model '{name}': closed arrivals have no per_s; remove it"]
        if not closed and data.get("per_s") is None:
            return [f"model '{name}': needs per_s, the requests of a sharer per second"]
        return []


class SharingMachine(Document):
    """A machine on whose accelerators models may share."""

    machine: PriceName = Field(description="in the price book")
    name: str | None = Field(default=None, description="the machine's if left out")
    price_per_hour_usd: Usd | None = Field(default=None, description="instead of the price book's")
    accelerators: int = Field(default=1, ge=1)
    kind: Literal["KIND_GPU", "KIND_CPU"] = Field(
        default="KIND_GPU", description="of Triton's instances: a GPU, or cores"
    )
    memory_mib: float | None = Field(
        default=None, gt=0, description="of each accelerator; no limit if left out"
    )
    host_memory_mib: float | None = Field(default=None, gt=0, description="of the machine")
    at_once: int = Field(
        default=1, ge=1, description="requests that run at once, each as fast as alone"
    )
    slice_ms: float = Field(default=2.0, gt=0, description="of time slicing")
    switch_ms: _Ms = Field(default=0.0, description="lost after each slice, with several sharers")
    service: dict[Name, ServiceTime] = Field(description="of every model")

    @property
    def label(self) -> str:
        """How tables call it."""
        return self.name or self.machine


class SharingScenario(Document):
    """Sharers, limits and machines."""

    title: ClassVar[str] = "sharing scenario"

    format: Literal["tritier/sharing_scenario/1"] = "tritier/sharing_scenario/1"
    name: str = Field(min_length=1)
    assumptions: tuple[str, ...] = ()
    sharers: int = Field(default=1, ge=1, description="to be served in all")
    discipline: Literal["fifo", "turns", "sliced"] = Field(
        default="sliced",
        description="who is next: who came first (one Triton, one model), who had the fewest turns "
        "(Triton's rate limiter), all in slices (processes on a GPU)",
    )
    phases: Literal["random", "worst"] = Field(
        default="random", description="of periodic requests; worst: all at the same moment"
    )
    percentile: float = Field(default=95.0, ge=50, lt=100, description="that keeps the limit")
    latency_limit_ms: float = Field(gt=0)
    cost_limit_usd: float | None = Field(default=None, gt=0, description="of a sharer and month")
    copies: Literal["per_sharer", "one"] = Field(
        default="per_sharer",
        description="models in memory: each sharer's own, or one for all of them; in order of "
        "arrival (fifo) always one for each request that runs at once",
    )
    models: tuple[SharedModel, ...] = Field(min_length=1)
    machines: tuple[SharingMachine, ...] = Field(min_length=1)

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Names that stand twice, models without a time, rows' own faults."""
        models, machines = _rows(data, "models"), _rows(data, "machines")
        faults = [fault for row in models for fault in SharedModel.cross_faults(row)]
        names = [str(row.get("name")) for row in models]
        faults += [f"models: '{x}' stands {n} times" for x, n in Counter(names).items() if n > 1]
        if data.get("discipline") == "fifo" and len(models) > 1:
            faults.append(f"discipline fifo: {len(models)} models have no common queue; give one "
                          "model, or discipline turns or sliced")  # fmt: skip
        if data.get("discipline", "sliced") == "sliced" and data.get("copies") == "one":
            faults.append("copies one: processes in slices (sliced) each load the model; leave "
                          "copies out, or give discipline fifo or turns")  # fmt: skip
        labels = Counter(str(row.get("name") or row.get("machine")) for row in machines)
        faults += [f"machines: '{x}' stands {n} times" for x, n in labels.items() if n > 1]
        for row in machines:
            label, times = row.get("name") or row.get("machine"), row.get("service")
            times = times if isinstance(times, dict) else {}
            faults += [f"machine '{label}': has no service time of '{x}'" for x in names
                       if x not in times]  # fmt: skip
            faults += [f"machine '{label}': service time of '{x}', which is no model" for x in times
                       if x not in names]  # fmt: skip
            for time in times.values():
                if isinstance(time, dict):
                    faults += ServiceTime.cross_faults(time)
        return faults


class SharingLevel(Document):
    """So many sharers on one accelerator. Latencies are of the slowest model; they are left out
    where requests come faster than they can be served, or were not computed for want of memory."""

    sharers: int = Field(ge=1)
    utilisation: float = Field(
        ge=0, description="share of the accelerator's time that serves, or is asked for"
    )
    memory_mib: _Ms
    mean_ms: _Ms | None = None
    p50_ms: _Ms | None = None
    p95_ms: _Ms | None = None
    p99_ms: _Ms | None = None
    judged_ms: _Ms | None = Field(default=None, description="the percentile that is judged")
    slowest: str | None = Field(default=None, description="the model with these latencies")
    method: str | None = Field(default=None, description="formula or simulation")
    broken: tuple[str, ...] = Field(default=(), description="limits that it does not keep")


class MachineSharing(Document):
    """How many may share an accelerator of a machine."""

    name: str
    machine: str
    safe_sharers: int = Field(ge=0, description="the most that keep all limits")
    limited_by: str = Field(description="what one more would break")
    levels: tuple[SharingLevel, ...] = Field(description="that were computed")


class SharingReport(Document):
    """How many may share, and what that costs."""

    title: ClassVar[str] = "sharing report"

    format: Literal["tritier/sharing/1"] = "tritier/sharing/1"
    name: str
    discipline: str
    percentile: float
    latency_limit_ms: _Ms
    cost_limit_usd: Usd | None = None
    seed: int
    machines: tuple[MachineSharing, ...]
    costs: tuple[StreamCost, ...] = Field(
        default=(), description="an accelerator per model, and shared, on each machine"
    )
    best: str | None = Field(default=None, description="the cheapest way that keeps all limits")
    assumptions: tuple[str, ...] = ()
    prices: tuple[PriceUsed, ...] = ()
    warnings: tuple[str, ...] = ()


def _rows(data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = data.get(key)
    return [x for x in value if isinstance(x, dict)] if isinstance(value, list) else []
