"""What a plan is to be best at, and how long to search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tritier.documents import Objective

Formulation = Literal["labels", "thesis"]
AUTO = "auto"


@dataclass(frozen=True)
class Goals:
    """The objective and the search.

    - `latency_weight`: of latency against energy in the objective `weighted`, from 0 to 1.
    - `solver`: `auto` (elimination, and an integer program where that is not enough), or an integer
      program by a solver that PuLP knows, in one of two formulations.
    - `max_components`: fewer requests between servers; found by making every crossing dearer, so
      it is not proven to be the best.
    - `search_s`: seconds of local search for the objective `makespan`.
    - `front`: points of the front besides the supported ones; None for no front.
    - `explain`: solve what else could be done, and what changes would bring.
    """

    objective: Objective = "latency"
    latency_weight: float = 0.5
    time_limit_s: float = 60.0
    solver: str = AUTO
    formulation: Formulation = "labels"
    max_components: int | None = None
    search_s: float = 3.0
    seed: int = 0
    front: int | None = None
    explain: bool = True
    concurrency: tuple[int, ...] = (1, 2, 4, 8)
