"""The proven optimum: by elimination alone where only noise is limited, else with prices on the
other limits (Lagrange), bounds that rule out labels, and an integer program for what is left.

Noise: a choice of quantized layers must lie in one of the largest sets that keep the limits. Each
is solved as a relaxation; where the optimum takes a subset of it that is not allowed itself (noise
may fall when a layer is added), the set is branched on, without that subset.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from tritier.planner.elimination import Choice, Elimination, Pass
from tritier.planner.evaluate import evaluate
from tritier.planner.factors import Label, TooWide, Worth
from tritier.planner.lagrange import Priced
from tritier.planner.problem import Placement, Problem, Weights
from tritier.planner.pulp_core import has_costly_limits, solve_folded
from tritier.planner.pulp_model import solve_pulp
from tritier.planner.pulp_noise import useful_masks
from tritier.planner.rows import rows_of, worth_of
from tritier.planner.solution import GAP, Solution, Status, finished, without

TIME_LIMIT_S = 60.0
# For a first placement: seconds at most, share of the time at most, and a gap that is good enough.
_COMBINING_S, _COMBINING_SHARE, _COMBINING_GAP = 5.0, 0.3, 1e-3


def solve(problem: Problem, weights: Weights, *, time_limit_s: float = TIME_LIMIT_S) -> Solution:
    """The cheapest placement within all limits, proven unless the time limit comes first."""
    return Search(problem).solve(weights, time_limit_s=time_limit_s)


class Search:
    """A problem, ready to be solved for any weights. `order` is that of an earlier search on a
    problem with the same layers, tensors and labels."""

    def __init__(self, problem: Problem, order: Sequence[int] | None = None) -> None:
        self.problem = problem
        self.rows = rows_of(problem)
        self.elimination: Elimination | None = None
        if all(problem.labels):
            with suppress(TooWide):  # the integer program needs no tables
                self.elimination = Elimination(problem, order)

    def solve(self, weights: Weights, *, time_limit_s: float = TIME_LIMIT_S) -> Solution:
        """The cheapest placement within all limits, proven unless the time limit comes first."""
        if not all(self.problem.labels):
            return without(math.inf, "a layer is allowed on no server")
        deadline = time.monotonic() + time_limit_s
        if self.elimination is None:
            return solve_pulp(self.problem, weights, time_limit_s=time_limit_s)
        if self._is_coupled:
            return self._with_rows(self.elimination, weights, deadline)
        return self.solve_many([weights], time_limit_s=time_limit_s)[0]

    @property
    def _is_coupled(self) -> bool:
        """Whether limits hang on many layers at once, so that sets of masks don't tell them."""
        noise = self.problem.noise
        return bool(self.rows) or (noise.limits and not noise.is_tabulated)

    @property
    def order(self) -> tuple[int, ...] | None:
        """For a search on a problem that differs in figures only."""
        return self.elimination.order if self.elimination else None

    def solve_many(
        self, weights: Sequence[Weights], *, time_limit_s: float = TIME_LIMIT_S
    ) -> list[Solution]:
        """Of each of many weights, each within the time limit; much faster together where nothing
        but noise is limited."""
        if self.elimination is None or self._is_coupled or not all(self.problem.labels):
            return [self.solve(each, time_limit_s=time_limit_s) for each in weights]
        deadline = time.monotonic() + time_limit_s
        roots = self.roots()
        worths = [worth_of(self.problem, each) for each in weights]
        done = self.elimination.kept(worths, roots)
        return [
            self._branched(self.elimination, each, _Roots(roots, worths, done, number), deadline)
            for number, each in enumerate(weights)
        ]

    def roots(self) -> list[Choice]:
        """Sets that hold every choice of quantized layers that is allowed."""
        noise = self.problem.noise
        if noise.limits and noise.is_tabulated:
            return [Choice(mask) for mask in noise.largest]
        return [Choice((1 << len(self.problem.quantizable)) - 1)]

    def _branched(
        self, elimination: Elimination, weights: Weights, roots: _Roots, deadline: float
    ) -> Solution:
        """The best of what the sets hold; the least value first, so the first allowed is best."""
        worth = roots.worths[roots.number]
        order = count()  # the roots come first, so that their numbers are their places
        values = roots.done.values[roots.number].tolist()
        heap = [(value, next(order), x) for value, x in zip(values, roots.choices, strict=True)]
        heapq.heapify(heap)
        while heap:
            value, number, node = heapq.heappop(heap)
            if not math.isfinite(value):
                break
            placement = (
                elimination.best(roots.done, roots.worths, roots.choices, roots.number, number)
                if number < len(roots.choices)
                else elimination.labels(elimination.run([worth], [node]))
            )
            if self.problem.noise.allows(placement.quantized):
                return self._proven(placement, weights, value)
            if time.monotonic() > deadline:
                return without(value, "elimination", Status.UNKNOWN)
            children = list(self._children(node, placement.quantized))
            if children:
                values = elimination.values([worth], children)[0].tolist()
                for each, child in zip(values, children, strict=True):
                    heapq.heappush(heap, (each, next(order), child))
        return without(math.inf, "elimination")

    def _children(self, node: Choice, taken: int) -> Iterator[Choice]:
        """What a node holds without the set that was taken, in parts that don't overlap."""
        noise, forced = self.problem.noise, node.forced
        for bit in range(len(self.problem.quantizable)):
            if taken & ~node.forced & 1 << bit:
                child = Choice(node.allowed & ~(1 << bit), forced)
                if noise.between(child.forced, child.allowed):
                    yield child
                forced |= 1 << bit
        barred = 0
        for bit in range(len(self.problem.quantizable)):
            if node.allowed & ~taken & 1 << bit:
                child = Choice(node.allowed & ~barred, forced | 1 << bit)
                if noise.between(child.forced, child.allowed):
                    yield child
                barred |= 1 << bit

    def _proven(self, placement: Placement, weights: Weights, value: float) -> Solution:
        costs = evaluate(self.problem, placement)
        found = costs.value(weights)
        parts = (costs.latency_ms, weights.per_ms), (costs.energy_joule, weights.per_joule)
        size = max(abs(x) * worth for x, worth in (*parts, (costs.usd or 0.0, weights.per_usd)))
        assert abs(found - value) <= 1e-7 * size, (found, value)
        return finished(placement, costs, found, found, "elimination")

    def _with_rows(self, elimination: Elimination, weights: Weights, deadline: float) -> Solution:
        priced = Priced(self.problem, elimination, weights, self.rows, self.roots())
        priced.raise_prices(deadline)
        if priced.is_closed or time.monotonic() > deadline:
            return priced.solution()
        if priced.solution().placement is None:
            self._combine(priced, weights, deadline)
        labels, choices = priced.left()
        rest = self._program(
            weights, labels, [choice.allowed for choice in choices], priced.bound, deadline
        )
        return _better(priced.solution(), rest)

    def _combine(self, priced: Priced, weights: Weights, deadline: float) -> None:
        """The best of what the parts of the placements met so far can make: it needs no proof."""
        labels, masks = priced.seen()
        left = deadline - time.monotonic()
        soon = time.monotonic() + min(_COMBINING_S, _COMBINING_SHARE * left)
        found = self._program(weights, labels, masks, None, soon, gap=_COMBINING_GAP)
        if found.placement is not None:
            priced.offer(found.placement)

    def _program(
        self,
        weights: Weights,
        labels: Sequence[Sequence[Label]],
        masks: Sequence[int],
        bound: float | None,
        deadline: float,
        gap: float = GAP,
    ) -> Solution:
        solve = solve_pulp if has_costly_limits(self.problem) else solve_folded
        return solve(
            self.problem,
            weights,
            time_limit_s=max(deadline - time.monotonic(), 0.1),
            gap=gap,
            allowed_labels=labels,
            lower_bound=bound,
            masks=useful_masks(self.problem.noise, masks),
        )


@dataclass(frozen=True, eq=False)
class _Roots:
    """The sets to begin with, and the pass that solved them for many weights, of which this is
    one."""

    choices: Sequence[Choice]
    worths: Sequence[Worth]
    done: Pass
    number: int


def _better(known: Solution, rest: Solution) -> Solution:
    """`rest` is of all placements that could be better than what is known."""
    method = f"{known.method}, {rest.method}"
    # the known placement is among those of the rest: if that is called infeasible, by a tolerance
    # of the solver, it proves nothing about the known one
    unproven = rest.status is Status.INFEASIBLE and known.placement is not None
    bound = known.bound if unproven else max(known.bound, min(rest.bound, known.value))
    best = known if known.value <= rest.value else rest
    if best.placement is None or best.costs is None:
        proven = rest.status is Status.INFEASIBLE
        return without(bound, method, Status.INFEASIBLE if proven else Status.UNKNOWN)
    return finished(best.placement, best.costs, best.value, bound, method)
