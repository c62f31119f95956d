"""Shorten the makespan: what a request takes when branches and transfers overlap.

No exact method here: annealing over groups of layers, from placements that are good by the sum of
all times. `makespan_bound` says how much can be left at most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tritier.errors import InfeasibleError
from tritier.planner.evaluate import evaluate, violations
from tritier.planner.makespan_bound import makespan_bound
from tritier.planner.makespan_groups import contract
from tritier.planner.makespan_moves import Moves
from tritier.planner.problem import Placement, Problem
from tritier.planner.simulate import latency_ms
from tritier.planner.simulation_build import PipelineBuilder
from tritier.planner.simulation_graph import Conditions
from tritier.planner.simulation_groups import Overlapping

__all__ = ["MakespanResult", "improve", "makespan_bound", "simulated_latency"]

# A worse placement by this share of the best start is accepted in one of e cases, at first.
_HEAT = 0.02
# So often the search goes back to the best that it found.
_RETURNS = 5
# So many moves in a row to placements that are known already end the search.
_PATIENCE = 500
# Latencies of so many placements are remembered.
_REMEMBERED = 20_000


@dataclass(frozen=True)
class MakespanResult:
    """The best placement found. `history`: each better one, as (evaluations until then, ms);
    `groups` is how many groups of layers were moved."""

    placement: Placement
    makespan_ms: float
    evaluations: int
    history: tuple[tuple[int, float], ...]
    groups: int


def simulated_latency(
    problem: Problem, conditions: Conditions | None = None, *, overlap: bool = False
) -> Callable[[Placement], float]:
    """The simulated latency in ms, as a function of the placement: with the usual components, or,
    with `overlap`, with those that let servers work beside each other where that is shorter."""
    builder, overlapping = PipelineBuilder(problem, conditions), Overlapping(problem)

    def latency(placement: Placement) -> float:
        usual = latency_ms(builder.build(placement))
        if not overlap:
            return usual
        groups = overlapping.groups(placement.servers)
        return min(usual, latency_ms(builder.build(placement, groups)))

    return latency


def improve(
    problem: Problem,
    starts: Sequence[Placement],
    latency_of: Callable[[Placement], float],
    *,
    time_limit_s: float | None = None,
    max_evaluations: int | None = None,
    seed: int = 0,
) -> MakespanResult:
    """The best placement found from some that keep the limits; never worse than those.

    Ends after `max_evaluations` calls of `latency_of` (at least one for each start) or after
    `time_limit_s`, whichever is first; without the second the result depends on the seed only.
    Raises InfeasibleError if no start keeps the limits.
    """
    assert time_limit_s is not None or max_evaluations is not None, "give a limit"
    budget = _Budget(time_limit_s, max_evaluations)
    feasible = [start for start in dict.fromkeys(starts) if _is_feasible(problem, start)]
    if not feasible:
        raise InfeasibleError(
            f"none of the {len(starts)} placements to shorten keeps all limits; "
            "start from one that does, or loosen a limit"
        )
    search = _Search(problem, feasible, latency_of, budget, np.random.default_rng(seed))
    return search.run()


def _is_feasible(problem: Problem, placement: Placement) -> bool:
    return not violations(problem, placement, evaluate(problem, placement))


class _Budget:
    """What may still be spent."""

    def __init__(self, time_limit_s: float | None, max_evaluations: int | None) -> None:
        self._started = time.monotonic()
        self._seconds = math.inf if time_limit_s is None else time_limit_s
        self._most = math.inf if max_evaluations is None else max_evaluations
        self.evaluations = 0

    @property
    def spent(self) -> float:
        """The share that is spent, by time or evaluations; 1 or more at the end."""
        if self.evaluations >= self._most:
            return 1.0
        share = self.evaluations / self._most
        if math.isfinite(self._seconds):
            elapsed = time.monotonic() - self._started
            share = max(share, elapsed / self._seconds if self._seconds > 0 else 1.0)
        return share


class _Search:
    def __init__(
        self,
        problem: Problem,
        starts: Sequence[Placement],
        latency_of: Callable[[Placement], float],
        budget: _Budget,
        rng: np.random.Generator,
    ) -> None:
        self._problem = problem
        self._budget = budget
        self._rng = rng
        self._latency_of = latency_of
        self._moves = Moves(problem, contract(problem, starts), rng)
        # Then moves keep all limits that there are.
        away = ~np.eye(len(problem.servers), dtype=bool)
        times = (problem.transfer_ms[:, away], problem.coded_ms[:, away])
        reachable = all(np.isfinite(x).all() for x in times)
        self._surely_feasible = reachable and not problem.has_rows
        self._feasible = set(starts)
        self._known: dict[Placement, float] = {}
        timed = [(self._measure(start), position) for position, start in enumerate(starts)]
        value, position = min(timed)
        self._best = (value, starts[position])
        self._history = [(budget.evaluations, value)]

    def run(self) -> MakespanResult:
        current = self._best
        heat = max(_HEAT * current[0], 1e-12)
        repeated, returns = 0, 1
        while (spent := self._budget.spent) < 1 and repeated < _PATIENCE:
            if spent * _RETURNS >= returns:
                current, returns = self._best, returns + 1
            candidate = self._moves.draw(current[1])
            if candidate is None:
                repeated += 1
                continue
            repeated = repeated + 1 if candidate in self._known else 0
            value = self._measure(candidate)
            worse = value - current[0]
            accepted = worse <= 0 or self._rng.random() < math.exp(-worse / (heat * (1 - spent)))
            # Limits last: most candidates are refused before.
            if accepted and self._keeps_limits(candidate):
                current = (value, candidate)
                if value < self._best[0]:
                    self._best = current
                    self._history.append((self._budget.evaluations, value))
        return MakespanResult(
            placement=self._best[1],
            makespan_ms=self._best[0],
            evaluations=self._budget.evaluations,
            history=tuple(self._history),
            groups=self._moves.count,
        )

    def _keeps_limits(self, placement: Placement) -> bool:
        """Whether it does; one that does not is never looked at again."""
        if self._surely_feasible or placement in self._feasible:
            return True
        if _is_feasible(self._problem, placement):
            self._feasible.add(placement)
            return True
        self._known[placement] = math.inf
        return False

    def _measure(self, placement: Placement) -> float:
        """The latency; what is known already costs nothing."""
        value = self._known.get(placement)
        if value is None:
            self._budget.evaluations += 1
            value = self._latency_of(placement)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
                self._feasible.clear()
            self._known[placement] = value
        return value
