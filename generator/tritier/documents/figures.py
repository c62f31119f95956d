"""Figures that say where they come from (rule R9)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tritier.documents.base import Document

Source = Literal["measured", "configured", "predicted"]
# UTC in ISO 8601, to the second.
Timestamp = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]


class Figure(Document):
    """A number, in the unit that the name of its field tells, with its source and, if it was
    measured, the number of measurements and an interval."""

    value: float
    source: Source = "measured"
    low: float | None = Field(default=None, description="lower end of the 95 % interval")
    high: float | None = Field(default=None, description="upper end of the 95 % interval")
    n: int | None = Field(default=None, ge=1, description="measurements behind it")

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """An interval the wrong way round, or half of one."""
        low, high = data.get("low"), data.get("high")
        if (low is None) != (high is None):
            return ["an interval has both ends: give low and high, or neither"]
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            return [f"the interval goes from {low} to {high}; the lower end comes first"]
        return []


class Duration(Document):
    """Times of one thing that was done `n` times, after warming up."""

    median_ms: float = Field(ge=0)
    mean_ms: float = Field(ge=0)
    std_ms: float = Field(ge=0, description="standard deviation")
    n: int = Field(ge=1)


class CalibratedBy(Document):
    """A plan that ran, whose measured times were taken back as corrections."""

    at: Timestamp
    plan_id: str = Field(pattern=r"^[0-9a-f]{8}$")
    n: int = Field(ge=1, description="requests that were measured")
