"""Which tensors cross in fewer bits, where what that loses counts against the limits of noise.

A solver chooses the quickest codec of each tensor and knows nothing of what codecs lose: without
them counting, its answer is a bound. Where the answer then breaks a limit, the codec that loses
most of it is decided: it counts, whether or not the tensor crosses, or the tensor is barred from
it, or, where it has a codec that loses more on another link, that counts. Together these hold all
placements, so the search, the least bound first, ends at the optimum (branch and bound; A. Land and
A. Doig, Econometrica 28, 1960).
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from tritier.planner.noise_sets import NoiseRow, padded
from tritier.planner.solution import GAP, Solution, Status, finished, without

# Of a tensor, by position, the position of a codec: 0 is as it is, later ones lose more.
Coded = Mapping[int, int]


@dataclass(frozen=True)
class Codings:
    """What is decided. `most`: the last codec that a tensor may cross in; any codec if it is left
    out and `rest` is true, else as it is. `counted`: the codec whose noise counts."""

    most: Coded = field(default_factory=dict)
    counted: Coded = field(default_factory=dict)
    rest: bool = True


@dataclass(frozen=True)
class Trial:
    """The answer of a solver to what is decided, and what then crosses in a codec that loses.
    `reached`: the last codec of a tensor on any link, if that is a later one."""

    solution: Solution
    coded: Coded
    reached: Coded = field(default_factory=dict)


@dataclass(frozen=True)
class Weighed:
    """The best answer that keeps the limits of noise with its codecs, which are settled; its bound
    is one of all codecs. Without a placement, `codings` bars all."""

    solution: Solution
    codings: Codings
    trials: int


@dataclass(frozen=True)
class Losses:
    """What codecs add to rows of noise: for each row, (tensor, codec) -> load, 0 if left out."""

    rows: Sequence[NoiseRow]
    loads: Sequence[Mapping[tuple[int, int], float]]

    @property
    def count(self) -> bool:
        """Whether there is anything to weigh."""
        return any(load > 0 for loads in self.loads for load in loads.values())

    def of(self, row: int, coded: Coded) -> float:
        """Load of codecs on a row."""
        return math.fsum(self.loads[row].get(item, 0.0) for item in coded.items())

    def share(self, item: tuple[int, int]) -> float:
        """The largest part of a budget that one tensor takes."""
        return max(
            (
                load / row.budget if row.budget > 0 else math.inf
                for row, loads in zip(self.rows, self.loads, strict=True)
                if (load := loads.get(item, 0.0)) > 0
            ),
            default=0.0,
        )

    def grow(self, tensor: int, codec: int, later: int) -> bool:
        """Whether a later codec loses at least as much of a tensor, in every row."""
        return all(
            loads.get((tensor, codec), 0.0) <= loads.get((tensor, later), 0.0)
            for loads in self.loads
        )

    def allow(self, mask: int, coded: Coded) -> bool:
        """Whether these quantized layers and codecs keep all budgets together."""
        return all(
            row.load(mask) + self.of(index, coded) <= padded(row.budget)
            for index, row in enumerate(self.rows)
            if mask or self.of(index, coded) > 0
        )

    def counting(self, counted: Coded) -> tuple[NoiseRow, ...]:
        """The rows for quantized layers beside these codecs."""
        return tuple(
            replace(row, constant=row.constant + self.of(index, counted))
            for index, row in enumerate(self.rows)
        )


def weigh(attempt: Callable[[Codings], Trial], losses: Losses, deadline: float) -> Weighed:
    """The best answer of `attempt`, which solves with the codecs of its argument and the rows of
    `losses.counting`, such that the codecs of the answer are within the rows too.

    After the `deadline` (of time.monotonic) no codec is taken that is not within them already; the
    bound then tells how much that may have cost.
    """
    search = _Branches(attempt, losses)
    search.add(Codings())
    while search.open:
        if time.monotonic() > deadline and search.trials > 1:
            break
        search.step()
    return search.best()


class _Branches:
    """Decisions that are still to be looked at, and the best answer so far."""

    def __init__(self, attempt: Callable[[Codings], Trial], losses: Losses) -> None:
        self._attempt, self._losses = attempt, losses
        self._heap: list[tuple[float, int, Codings, Trial]] = []
        self._order = count()
        self._best: Trial | None = None
        self._left = math.inf  # the least bound of what was left without being settled
        self._unknown = False
        self.trials = 0

    @property
    def open(self) -> bool:
        """Whether something may be better than the best."""
        if self._best is None or not self._heap:
            return bool(self._heap)
        value = self._best.solution.value
        return self._heap[0][0] < value - GAP * abs(value)

    def add(self, codings: Codings) -> None:
        """Solve what is decided."""
        self.trials += 1
        trial = self._attempt(codings)
        if trial.solution.placement is None:
            if trial.solution.status is Status.UNKNOWN:
                self._unknown, self._left = True, min(self._left, trial.solution.bound)
            return
        heapq.heappush(self._heap, (trial.solution.bound, next(self._order), codings, trial))

    def step(self) -> None:
        """Look at the answer of the least bound: it is within the limits, or a codec is decided."""
        bound, _, codings, trial = heapq.heappop(self._heap)
        assert trial.solution.placement is not None
        undecided = [
            item
            for item in trial.coded.items()
            if item[0] not in codings.counted and self._losses.share(item) > 0
        ]
        allowed = self._losses.allow(trial.solution.placement.quantized, trial.coded)
        if allowed or not undecided:  # without any, sums in another order differ
            if self._best is None or trial.solution.value < self._best.solution.value:
                self._best = trial
            if trial.solution.status is not Status.OPTIMAL:
                self._left = min(self._left, bound)
            return
        tensor, codec = max(undecided, key=self._losses.share)
        most = dict(codings.most)
        last = max(codec, trial.reached.get(tensor, codec))
        for counts in range(codec, last + 1):
            counted = {**codings.counted, tensor: counts}
            # What the answer has must not count for less than it loses.
            loses_more = self._losses.grow(tensor, codec, counts)
            if loses_more and self._losses.allow(0, counted):
                self.add(Codings({**most, tensor: counts}, counted))
        self.add(Codings({**most, tensor: codec - 1}, codings.counted))

    def best(self) -> Weighed:
        """The best answer; if none was found in time, that without any codec."""
        if self._best is None and (self._heap or self._unknown):
            bare = self._attempt(Codings(rest=False))
            self._best = None if bare.solution.placement is None else bare
        bound = min([self._left, *(item[0] for item in self._heap)])
        method = f"{self.trials} choices of codecs"
        if self._best is None:
            status = Status.UNKNOWN if math.isfinite(bound) or self._unknown else Status.INFEASIBLE
            return Weighed(without(bound, method, status), Codings(rest=False), self.trials)
        found = self._best.solution
        assert found.placement is not None
        assert found.costs is not None
        coded = dict(self._best.coded)
        bound = min(found.value, bound)
        solution = finished(
            found.placement, found.costs, found.value, bound, f"{found.method}, {method}"
        )
        return Weighed(solution, Codings(coded, coded, rest=False), self.trials)
