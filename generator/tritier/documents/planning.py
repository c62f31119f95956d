"""The planning report: why a plan is as it is, next to what else could be done."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.servers import ServerName

Ms = Annotated[float, Field(ge=0)]
Joule = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]
Usd = Annotated[float, Field(ge=0)]
Objective = Literal["latency", "energy", "weighted", "throughput", "makespan", "cost"]


class PlanFigures(Document):
    """What is predicted of a placement."""

    latency_ms: Ms = Field(description="simulated: branches and transfers overlap")
    sum_ms: Ms = Field(description="all times added up, which is what the planner minimises")
    energy_joule: Joule
    cost_usd: Usd | None = Field(
        default=None, description="of an inference, as `tritier cost --plan` has it; with prices"
    )
    bottleneck_ms: Ms = Field(description="of the busiest server or link, per request")
    noise: dict[str, float] = Field(
        default={}, description="output -> predicted noise, without a margin"
    )
    quantized_layers: int = Field(ge=0)
    components: int = Field(ge=1)


class ServerShare(Document):
    """What a plan does on a server."""

    server: ServerName
    layers: int = Field(ge=0)
    components: int = Field(ge=0)
    compute_ms: Ms
    energy_joule: Joule = Field(description="of computing and of sending from there")
    memory_bytes: Bytes


class LinkShare(Document):
    """What a plan sends over a link."""

    source: ServerName = Field(alias="from")
    target: ServerName = Field(alias="to")
    tensors: int = Field(ge=1)
    bytes: Bytes
    transfer_ms: Ms = Field(description="each tensor by itself, added up")


class LimitUse(Document):
    """A limit, and how much of it the plan uses."""

    what: str
    unit: str
    used: float
    limit: float
    binding: bool = Field(description="more than 99 % of it are used")


class Baseline(Document):
    """What would be done without a planner (rule R8)."""

    what: str
    figures: PlanFigures
    broken: tuple[str, ...] = Field(default=(), description="limits that it does not keep")
    chosen: bool = Field(default=False, description="it is the plan, as nothing was better")


class Alternative(Document):
    """Another plan: the best with fewer servers, or the nearest other placement."""

    what: str
    figures: PlanFigures


class Gain(Document):
    """What a change would bring, solved again: negative is less."""

    what: str
    sum_ms: float
    energy_joule: float
    cost_usd: float | None = Field(default=None, description="with prices")


class FrontEntry(Document):
    """A compromise of latency and energy that nothing beats in both."""

    figures: PlanFigures
    supported: bool = Field(description="some weight of latency and energy prefers it")


class ThroughputEntry(Document):
    """Predicted by simulation, for so many users at once."""

    concurrency: int = Field(ge=1)
    infer_per_s: float = Field(ge=0)
    latency_ms: Ms = Field(description="mean")


class PlanReport(Document):
    """How a plan was found and how it compares."""

    title: ClassVar[str] = "planning report"

    format: Literal["tritier/planning/1"] = "tritier/planning/1"
    plan_id: str = Field(pattern=r"^[0-9a-f]{8}$")
    objective: Objective
    latency_weight: float | None = Field(default=None, ge=0, le=1)
    status: str
    method: str
    value: float = Field(description="of the objective, in the planner's additive model")
    bound: float = Field(description="no placement has less")
    gap: float = Field(ge=0, description="(value - bound) / value")
    solve_s: float = Field(ge=0)
    figures: PlanFigures
    measured_noise: dict[str, float] = Field(
        default={}, description="output -> noise of int8 layers and coded wires, really measured"
    )
    noise_runs: int = Field(default=0, ge=0, description="choices that were measured for it")
    servers: tuple[ServerShare, ...]
    links: tuple[LinkShare, ...] = ()
    limits: tuple[LimitUse, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    gains: tuple[Gain, ...] = ()
    front: tuple[FrontEntry, ...] = ()
    throughput: tuple[ThroughputEntry, ...] = ()
    sources: dict[str, str] = Field(default={}, description="where figures come from")
    warnings: tuple[str, ...] = ()
