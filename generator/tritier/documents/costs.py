"""What things cost and how much machines can do: the results of `tritier cost` and `capacity`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.figures import Source
from tritier.documents.prices import Date, Usd
from tritier.documents.servers import ServerName

_Seconds = Annotated[float, Field(ge=0)]
_Ms = Annotated[float, Field(ge=0)]
_Rate = Annotated[float, Field(ge=0)]


class PriceUsed(Document):
    """A price and where it comes from."""

    name: str
    usd: Usd
    unit: Literal["hour", "second", "GB", "kWh"]
    source: str
    date: Date | None = None


class PhaseCost(Document):
    """A phase of a request: its time and its share of the cost."""

    name: str
    mean_s: _Seconds
    usd: Usd


class MachineCost(Document):
    """A request on a machine that is always on and fully loaded."""

    name: str
    machine: str
    usd_per_hour: Usd
    mean_s: _Seconds
    std_s: _Seconds | None = None
    p95_s: _Seconds | None = None
    n: int | None = Field(default=None, ge=1)
    source: Source
    phases: tuple[PhaseCost, ...] = ()
    outside_phases_s: float = Field(description="mean_s less the sum of the phases")
    usd_per_inference: Usd
    infer_per_hour: _Rate = Field(description="at full load")
    usd_per_month: Usd = Field(description="of the machine, always on")


class BreakEven(Document):
    """Serverless beside a machine that is always on."""

    machine: str
    cold_per_hour: _Rate = Field(
        description="requests per hour at which both cost the same, if each starts cold"
    )
    warm_per_hour: _Rate = Field(description="the same if each finds a warm worker")
    per_hour: _Rate | None = Field(
        default=None,
        description="the same if requests come at random; left out if it is above what the machine "
        "can do: serverless then is cheaper up to there",
    )
    infer_per_hour: _Rate = Field(description="what the machine can do")


class ServerlessCost(Document):
    """A request where workers start when they are called for."""

    name: str
    machine: str
    usd_per_second: Usd
    cold_s: _Seconds = Field(description="cold start and run")
    warm_s: _Seconds
    cold_usd: Usd
    warm_usd: Usd
    keep_warm_s: _Seconds
    n: int | None = Field(default=None, ge=1)
    source: Source
    break_even: tuple[BreakEven, ...] = ()


class RateCost(Document):
    """What an hour costs at a rate of requests."""

    name: str
    per_hour: _Rate
    machines: int | None = Field(default=None, description="always on; left out of serverless")
    usd_per_hour: Usd
    usd_per_inference: Usd


class ServerCost(Document):
    """A server's part in an inference of a plan."""

    server: ServerName
    price: PriceUsed | None = Field(default=None, description="left out if it is not paid by time")
    busy_ms: _Ms
    machine_usd: Usd
    energy_joule: float = Field(ge=0)
    energy_usd: Usd = Field(description="0 where the price of the machine contains electricity")


class EgressCost(Document):
    """What a plan sends over a link in an inference."""

    source: ServerName = Field(alias="from")
    target: ServerName = Field(alias="to")
    bytes: int = Field(ge=0)
    usd: Usd


class PlanCost(Document):
    """An inference of a split model."""

    plan_id: str
    model: str
    figures: Source = Field(description="whether times and bytes are predicted or measured")
    servers: tuple[ServerCost, ...]
    links: tuple[EgressCost, ...] = ()
    machine_usd: Usd = Field(description="each server paid while it computes for the request")
    energy_usd: Usd
    egress_usd: Usd
    usd_per_inference: Usd = Field(description="the sum of the three")
    alone_usd: Usd | None = Field(
        default=None,
        description="if the servers serve nothing else: all are paid all the time, at the highest "
        "rate of the plan or at the rate that was given",
    )
    alone_per_hour: _Rate | None = Field(default=None, description="that rate")


class StreamCost(Document):
    """A way to serve streams."""

    name: str
    machine: str
    usd_per_hour: Usd
    sharers: int = Field(ge=1)
    usd_per_stream: Usd = Field(description="a month, with every machine full")
    machines: int = Field(ge=1, description="for all streams")
    usd_per_month: Usd = Field(description="of all streams, in whole machines")
    latency_ms: _Ms | None = None
    broken: tuple[str, ...] = Field(default=(), description="limits that it does not keep")
    best: bool = Field(default=False, description="the cheapest that keeps the limits")


class CostReport(Document):
    """What an inference costs."""

    title: ClassVar[str] = "cost report"

    format: Literal["tritier/cost/1"] = "tritier/cost/1"
    name: str
    hours_per_month: float = Field(gt=0)
    machines: tuple[MachineCost, ...] = ()
    serverless: tuple[ServerlessCost, ...] = ()
    rates: tuple[RateCost, ...] = ()
    plan: PlanCost | None = None
    streams: tuple[StreamCost, ...] = ()
    assumptions: tuple[str, ...] = ()
    prices: tuple[PriceUsed, ...]
    warnings: tuple[str, ...] = ()


class CapacityRow(Document):
    """So many machines of one kind, fully loaded."""

    name: str
    machines: int = Field(ge=1)
    infer_per_hour: _Rate
    usd_per_hour: Usd


class CapacityChoice(Document):
    """A kind of machine under a latency limit and for a rate of requests."""

    name: str
    latency_ms: _Ms
    judged_by: Literal["p95", "mean"]
    keeps_limit: bool
    machines: int | None = Field(default=None, description="for the rate, if one was given")
    usd_per_hour: Usd = Field(description="of these machines, of one without a rate")
    usd_per_inference: Usd = Field(description="at the rate, at full load without one")
    best: bool = False


class BatchUse(Document):
    """What one accelerator does: a first run, then `uses` more, of one mini-batch."""

    accelerator: str
    mini_batch: int = Field(ge=1)
    uses: int = Field(ge=0, description="t, runs after the first")
    images: int = Field(ge=1)
    finished_ms: _Ms


class BatchPlan(Document):
    """Accelerators and mini-batches under a deadline."""

    model: str
    objective: Literal["fewest accelerators", "least price", "most images"]
    deadline_ms: _Ms
    images_wanted: int | None = None
    images: int = Field(ge=0, description="that can be done, at least those wanted")
    finished_ms: _Ms = Field(description="of the last accelerator")
    accelerators: int = Field(ge=0)
    available: int = Field(ge=1)
    usd_per_hour: Usd | None = Field(default=None, description="of those used, if known of each")
    uses: tuple[BatchUse, ...]
    proven: bool = Field(description="no other choice is better")


class CapacityReport(Document):
    """What machines can do."""

    title: ClassVar[str] = "capacity report"

    format: Literal["tritier/capacity/1"] = "tritier/capacity/1"
    name: str
    latency_limit_ms: _Ms | None = None
    per_hour_wanted: _Rate | None = None
    rows: tuple[CapacityRow, ...] = ()
    choices: tuple[CapacityChoice, ...] = ()
    batches: BatchPlan | None = None
    prices: tuple[PriceUsed, ...] = ()
    warnings: tuple[str, ...] = ()
