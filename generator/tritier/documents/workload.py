"""What costs are computed from, written by hand or by a benchmark: run times on machines, streams
that share accelerators, times over mini-batches."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.environment import Environment
from tritier.documents.figures import Source
from tritier.documents.prices import PriceName, Usd

Seconds = Annotated[float, Field(ge=0)]
_PRICE = Field(default=None, description="instead of the price book's")


class MachineRun(Document):
    """What a request takes on a machine that is always on."""

    machine: PriceName = Field(description="in the price book")
    name: str | None = Field(default=None, description="the machine's if left out")
    price_per_hour_usd: Usd | None = _PRICE
    phases: dict[str, Seconds] = Field(
        default_factory=dict, description="phase -> mean time, in the order in which they run"
    )
    mean_s: float | None = Field(
        default=None, gt=0, description="of the whole request; the phases' sum if left out"
    )
    std_s: Seconds | None = None
    p95_s: Seconds | None = Field(default=None, description="judged by latency limits, if given")
    n: int | None = Field(default=None, ge=1, description="requests that were measured")
    infer_per_s: float | None = Field(
        default=None, gt=0, description="at full load; requests one after the other if left out"
    )
    source: Source = "measured"
    note: str | None = None

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """No time at all."""
        phases = data.get("phases")
        total = sum(x for x in phases.values() if isinstance(x, int | float)) if (
            isinstance(phases, dict)
        ) else 0  # fmt: skip
        if data.get("mean_s") is None and not total:
            return [f"run on '{data.get('machine', '?')}': has no time; give mean_s or phases"]
        return []

    @property
    def label(self) -> str:
        """How tables call it."""
        return self.name or self.machine

    @property
    def whole_s(self) -> float:
        """Mean time of a request."""
        return sum(self.phases.values()) if self.mean_s is None else self.mean_s

    @property
    def per_second(self) -> float:
        """Inferences per second at full load."""
        return 1.0 / self.whole_s if self.infer_per_s is None else self.infer_per_s


class ServerlessRun(Document):
    """What a request takes where workers start when they are called for."""

    machine: PriceName = Field(description="in the price book")
    name: str | None = None
    price_per_second_usd: Usd | None = _PRICE
    cold_start_s: Seconds = Field(description="until a new worker can run the request")
    cold_run_s: float = Field(gt=0, description="of the first request of a worker")
    warm_run_s: float = Field(gt=0, description="of every later one")
    keep_warm_s: Seconds = Field(
        default=0.0, description="how long a worker waits for the next request, and is paid for"
    )
    n: int | None = Field(default=None, ge=1)
    source: Source = "measured"
    note: str | None = None

    @property
    def label(self) -> str:
        """How tables call it."""
        return self.name or self.machine


class Workload(Document):
    """One kind of request on several machines."""

    title: ClassVar[str] = "workload"

    format: Literal["tritier/workload/1"] = "tritier/workload/1"
    name: str = Field(min_length=1)
    note: str | None = None
    runs: tuple[MachineRun, ...] = ()
    serverless: tuple[ServerlessRun, ...] = ()

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Runs of one name, and the faults of runs."""
        runs = [x for x in _rows(data, "runs") if isinstance(x, dict)]
        both = runs + [x for x in _rows(data, "serverless") if isinstance(x, dict)]
        names = Counter(str(x.get("name") or x.get("machine")) for x in both)
        faults = [f"run: '{x}' stands {n} times; give each a name" for x, n in names.items()
                  if n > 1]  # fmt: skip
        return faults + [fault for run in runs for fault in MachineRun.cross_faults(run)]


class SharingOption(Document):
    """A way to serve streams: so many on one accelerator of a machine."""

    name: str = Field(min_length=1)
    machine: PriceName
    price_per_hour_usd: Usd | None = _PRICE
    accelerators: int = Field(default=1, ge=1, description="of the machine, all used")
    sharers: int = Field(default=1, ge=1, description="models at once on each accelerator")
    models_per_stream: int = Field(default=1, ge=1)
    latency_ms: float | None = Field(default=None, gt=0, description="of a request, so shared")
    extra_usd_per_month: Usd = Field(default=0.0, description="of each stream, for other things")
    source: Source = "measured"
    note: str | None = None


class StreamScenario(Document):
    """Streams (cameras) that run all month, and ways to serve them."""

    title: ClassVar[str] = "stream scenario"

    format: Literal["tritier/streams/1"] = "tritier/streams/1"
    name: str = Field(min_length=1)
    assumptions: tuple[str, ...] = ()
    streams: int = Field(ge=1)
    latency_limit_ms: float | None = Field(default=None, gt=0)
    cost_limit_usd: float | None = Field(default=None, gt=0, description="of a stream and month")
    options: tuple[SharingOption, ...] = Field(min_length=1)

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Names that stand twice."""
        names = Counter(str(x.get("name")) for x in _rows(data, "options") if isinstance(x, dict))
        return [f"options: '{x}' stands {n} times" for x, n in names.items() if n > 1]


class BatchTiming(Document):
    """Times of one thing that was done `n` times. By hand the median is enough."""

    median_ms: float = Field(gt=0)
    mean_ms: float | None = Field(default=None, gt=0)
    std_ms: float | None = Field(default=None, ge=0, description="standard deviation")
    p95_ms: float | None = Field(default=None, gt=0)
    max_ms: float | None = Field(default=None, gt=0)
    n: int | None = Field(default=None, ge=1)


class BatchRow(Document):
    """A mini-batch."""

    mini_batch: int = Field(ge=1)
    warmup: BatchTiming = Field(
        description="W: from a loaded model to the end of its first run, or from its start"
    )
    latency: BatchTiming = Field(description="L: of each later run")


class BatchTable(Document):
    """What a model takes on an accelerator over mini-batches."""

    title: ClassVar[str] = "batch table"

    format: Literal["tritier/batch_table/1"] = "tritier/batch_table/1"
    model: str = Field(min_length=1)
    accelerator: str = Field(min_length=1, description="what was measured, in words")
    model_bytes: int = Field(default=0, ge=0, description="memory whatever the mini-batch")
    image_bytes: int | None = Field(
        default=None, gt=0, description="memory of each image: inputs, activations, outputs"
    )
    memory_note: str | None = None
    environment: Environment | None = None
    rows: tuple[BatchRow, ...] = Field(min_length=1)

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Mini-batches that stand twice."""
        sizes = Counter(x.get("mini_batch") for x in _rows(data, "rows") if isinstance(x, dict))
        return [f"rows: mini-batch {x} stands {n} times" for x, n in sizes.items() if n > 1]


class AcceleratorKind(Document):
    """Accelerators of one kind that may be used."""

    name: str = Field(min_length=1)
    table: str = Field(min_length=1, description="batch table; relative to the scenario's file")
    count: int = Field(default=1, ge=1, le=256)
    memory_mib: float | None = Field(
        default=None, gt=0, description="of each; no limit if left out"
    )
    max_uses: int = Field(default=100_000, ge=0, description="M: runs after the first one at most")
    machine: PriceName | None = Field(default=None, description="in the price book")
    price_per_hour_usd: Usd | None = _PRICE


class BatchScenario(Document):
    """Images that must be done by a deadline, or as many as possible."""

    title: ClassVar[str] = "batch scenario"

    format: Literal["tritier/batches/1"] = "tritier/batches/1"
    name: str = Field(min_length=1)
    deadline_ms: float | None = Field(default=None, gt=0)
    images: int | None = Field(
        default=None, ge=1, description="to be done; as many as possible if left out"
    )
    times: Literal["median", "p95", "max"] = Field(
        default="p95", description="which times of the tables count"
    )
    accelerators: tuple[AcceleratorKind, ...] = Field(min_length=1)

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Names that stand twice."""
        rows = [x for x in _rows(data, "accelerators") if isinstance(x, dict)]
        names = Counter(str(x.get("name")) for x in rows)
        return [f"accelerators: '{x}' stands {n} times" for x, n in names.items() if n > 1]


def _rows(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []
