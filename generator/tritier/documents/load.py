"""`load.json`: what a model answered to users who ask one request after the other."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.environment import Environment

LoadShape = Literal["constant", "steps", "spike", "ramp"]
# Who answered, where neither the answers nor the router's metrics say it.
UNKNOWN_PLAN = "unknown"
_Ms = Annotated[float | None, Field(ge=0)]
_OF_RIGHT = "of right answers, from sending to the answer; left out if there were none"


class LoadTimes(Document):
    """Requests, and how long those took that were answered right. A percentile is the time of one
    request: that share of them took as long or less."""

    requests: int = Field(ge=0, description="sent and ended, well or not")
    failures: int = Field(ge=0, description="without an answer")
    wrong: int = Field(ge=0, description="answered, and not as the whole model answers")
    mean_ms: _Ms = Field(default=None, description=_OF_RIGHT)
    std_ms: _Ms = Field(default=None, description="standard deviation; left out below 2 answers")
    p50_ms: _Ms = Field(default=None, description=_OF_RIGHT)
    p90_ms: _Ms = None
    p95_ms: _Ms = None
    p99_ms: _Ms = None
    max_ms: _Ms = None

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """More failed or wrong requests than requests."""
        counts = [data.get(key) for key in ("requests", "failures", "wrong")]
        known = [count for count in counts if isinstance(count, int)]
        if len(known) < 3 or known[0] >= known[1] + known[2]:
            return []
        return [f"requests: {known[0]} are fewer than failures {known[1]} and wrong {known[2]}"]

    @property
    def right(self) -> int:
        """Right answers."""
        return self.requests - self.failures - self.wrong


class LoadPoint(LoadTimes):
    """One level of load. Its requests are those that were sent in its time."""

    t_s: float = Field(ge=0, description="when it began, after the start and the level's settling")
    length_s: float = Field(gt=0)
    users: int = Field(ge=0)
    per_s: float = Field(ge=0, description="right answers that came in its time, per second")
    tags: dict[str, str] = Field(
        default_factory=dict,
        description="only requests of that `class` or answered by that `plan`; empty: all of them",
    )


class LoadSettings(Document):
    """How it was asked."""

    classes: dict[str, int] = Field(
        default_factory=dict, description="request class -> weight; empty: none was named"
    )
    inputs: str = Field(description="in words: how many different ones, and from where")
    inputs_sha256: str
    batch: int = Field(ge=1, description="inferences in one request")
    seed: int = Field(ge=0)
    timeout_ms: int = Field(gt=0, description="a request without an answer until then has failed")
    pause_ms: float = Field(ge=0, description="of a user between an answer and the next request")
    tls: bool
    workers: int = Field(ge=1, description="processes that sent requests")
    locust: str = Field(description="version")


class LoadResult(LoadTimes):
    """A load test: the whole run, and each level of load."""

    title: ClassVar[str] = "load result"

    format: Literal["tritier/load/1"] = "tritier/load/1"
    model: str = Field(description="Triton model that was called")
    url: str
    plan_id: str | None = Field(
        default=None, description="plan that the model is, or 'whole'; left out for a router"
    )
    shape: LoadShape | None = Field(default=None, description="left out if a person led the test")
    users: tuple[int, ...] = Field(description="of each level, in the order of time")
    duration_s: float = Field(ge=0, description="until the last request was sent")
    interrupted: bool = Field(default=False, description="ended before its time")
    infer_per_s: float = Field(ge=0, description="right answers x batch per second, in that time")
    messages: tuple[str, ...] = Field(default=(), description="of failures and wrong answers")
    warnings: tuple[str, ...] = ()
    points: tuple[LoadPoint, ...] = ()
    answered_by: dict[str, int] = Field(
        default_factory=dict, description="plan -> answers; 'unknown': nobody said who it was"
    )
    settings: LoadSettings
    environment: Environment | None = Field(
        default=None, description="left out if Locust was started by hand"
    )

    @property
    def failure_share(self) -> float:
        """Of all requests; 0 without any."""
        return self.failures / self.requests if self.requests else 0.0
