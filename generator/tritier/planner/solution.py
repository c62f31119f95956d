"""What a solver answers: a placement, and how far from the optimum it can be at most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from tritier.planner.evaluate import Costs
from tritier.planner.problem import Placement

# Relative gap at which a placement counts as the optimum.
GAP = 1e-6


class Status(Enum):
    """How a search ended."""

    OPTIMAL = "proven optimal"
    FEASIBLE = "the best found; a better one may exist, within the gap"
    INFEASIBLE = "no placement keeps the limits"
    UNKNOWN = "the time was used up before a placement was found"


@dataclass(frozen=True)
class Solution:
    """`value` is the objective of the placement, `bound` a proven lower bound of all placements;
    `placement` and `costs` are None, and `value` is infinite, if there is none. `method` tells how
    it was found."""

    status: Status
    placement: Placement | None
    costs: Costs | None
    value: float
    bound: float
    method: str

    @property
    def gap(self) -> float:
        """(value - bound) / |value|; 0 if it is proven, infinite if nothing is known."""
        if self.value <= self.bound:
            return 0.0
        if not math.isfinite(self.value) or self.value == 0:
            return math.inf
        return (self.value - self.bound) / abs(self.value)


def finished(
    placement: Placement, costs: Costs, value: float, bound: float, method: str
) -> Solution:
    """A found placement: optimal if the bound is close enough."""
    bound = min(bound, value)
    closed = value - bound <= GAP * max(abs(value), abs(bound))
    status = Status.OPTIMAL if closed else Status.FEASIBLE
    return Solution(status, placement, costs, value, bound, method)


def without(bound: float, method: str, status: Status = Status.INFEASIBLE) -> Solution:
    """No placement."""
    return Solution(status, None, None, math.inf, bound, method)
