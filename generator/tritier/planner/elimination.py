"""The cheapest placement by exact elimination of one layer after the other.

To eliminate a layer, the tables that it stands in are added up and the least over its labels is
kept, as a table over the layers that it was joined with. Layer graphs are nearly chains (treewidth
1 to 5), so that tables stay small when layers are taken in an order that joins few others
(min-fill; R. Dechter, "Bucket elimination", Artificial Intelligence 113, 1999).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tritier.planner.factors import Factor, Factors, TooWide, Worth
from tritier.planner.problem import Floats, Placement, Problem

Ints = npt.NDArray[np.int64]
# Numbers in the tables that one pass may hold at once: 1 GB.
MOST_NUMBERS = 125_000_000
# Numbers in the tables of a pass that are kept: 128 MB.
KEPT_NUMBERS = 16_000_000
# A problem with a larger table goes to an integer program, which is faster then.
WIDEST_TABLE = 5_000_000


@dataclass(frozen=True)
class Choice:
    """Masks of layers that may be quantized, and that must be."""

    allowed: int
    forced: int = 0


@dataclass(frozen=True, eq=False)
class _Part:
    """A table that a step adds up: a factor, or what an earlier step left (`factor` is None)."""

    factor: Factor | None
    step: int
    axes: tuple[int, ...] | None  # to transpose, behind the two axes of the batch
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Step:
    """The elimination of a variable: `scope` are those that it is joined with, itself left out."""

    variable: int
    scope: tuple[int, ...]
    parts: tuple[_Part, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Pass:
    """Values [worths, choices] and, if they were kept, the added-up tables of each step."""

    values: Floats
    tables: list[Floats]


class Elimination:
    """A problem, ready to be solved for any worth and any choice of quantized layers.

    `order` is that of an earlier one, taken if the same variables have more than one label.
    Raises TooWide if its tables would be too large.
    """

    def __init__(self, problem: Problem, order: Sequence[int] | None = None) -> None:
        self.problem = problem
        self.factors = Factors(problem)
        free = {v for v, labels in enumerate(self.factors.domains) if labels > 1}
        fits = order is not None and set(order) == free
        self.order = tuple(order) if order is not None and fits else self._order()
        self.steps = self._steps()
        self.numbers = max((math.prod(step.shape) for step in self.steps), default=1)
        self.total = sum(math.prod(step.shape) for step in self.steps)
        if self.numbers > WIDEST_TABLE or self.total > MOST_NUMBERS // 2:
            raise TooWide(f"a table of {self.numbers} numbers, {self.total} in all")

    def values(self, worths: Sequence[Worth], choices: Sequence[Choice]) -> Floats:
        """The least cost for each worth and choice, infinite if none; [worths, choices]."""
        size = max(1, MOST_NUMBERS // (8 * self.numbers * len(worths)))
        parts = [
            self.run(worths, choices[start : start + size], keep=False).values
            for start in range(0, len(choices), size)
        ]
        return np.concatenate(parts, axis=1)

    def run(self, worths: Sequence[Worth], choices: Sequence[Choice], keep: bool = True) -> Pass:
        """One pass over all steps; with `keep`, the tables stay for `labels` and for marginals."""
        costs = self.factors.costs(worths)
        bars = self._bars(worths, choices)
        left: dict[int, Floats] = {}
        tables: list[Floats] = []
        constant = np.zeros((len(worths), 1))
        for factor in self.factors.factors:
            if not factor.scope:
                constant = constant + self._table(factor, costs, bars)
        for number, step in enumerate(self.steps):
            total = self._total(step, costs, bars, left)
            least = total.min(axis=-1)
            if step.scope:
                left[number] = least
            else:
                constant = constant + least
            if keep:
                tables.append(total)
        values = np.broadcast_to(constant, (len(worths), len(choices)))
        return Pass(np.array(values), tables)

    def _total(
        self, step: Step, costs: Floats, bars: list[Floats], left: dict[int, Floats]
    ) -> Floats:
        """The sum of a step's tables; what earlier steps left is used up."""
        total: Floats | None = None
        for part in step.parts:
            if part.factor is None:
                table = left.pop(part.step)
            else:
                table = self._table(part.factor, costs, bars)
            if part.axes is not None:
                table = table.transpose(part.axes)
            table = table.reshape(table.shape[:2] + part.shape)
            total = table if total is None else total + table
        assert total is not None, f"no table holds variable {step.variable}"
        return total

    def kept(self, worths: Sequence[Worth], choices: Sequence[Choice]) -> Pass:
        """One pass, with its tables if they are not too large to be kept together."""
        if self.total * len(worths) * len(choices) <= KEPT_NUMBERS:
            return self.run(worths, choices)
        return Pass(self.values(worths, choices), [])

    def best(
        self,
        done: Pass,
        worths: Sequence[Worth],
        choices: Sequence[Choice],
        worth: int,
        choice: int,
    ) -> Placement:
        """The placement of the least cost for one worth and choice of a pass by `kept`."""
        if done.tables:
            return self.labels(done, worth, choice)
        return self.labels(self.run([worths[worth]], [choices[choice]]))

    def labels(self, done: Pass, worth: int = 0, choice: int = 0) -> Placement:
        """The placement that has the least cost, of a pass that kept its tables."""
        found: dict[int, int] = {}
        for step, table in zip(reversed(self.steps), reversed(done.tables), strict=True):
            part = table[min(worth, table.shape[0] - 1), min(choice, table.shape[1] - 1)]
            place = tuple(found[v] for v in step.scope)
            found[step.variable] = int(part[place].argmin())
        labels = [of[found.get(layer, 0)] for layer, of in enumerate(self.factors.labels)]
        return Placement.of(self.problem, labels)

    def _table(self, factor: Factor, costs: Floats, bars: list[Floats]) -> Floats:
        """[worths, choices or 1, *shape]."""
        table = costs[:, factor.start : factor.start + factor.size]
        table = table.reshape((len(costs), 1, *factor.shape))
        if factor.bit is None:
            return table
        bar = bars[factor.bit]
        return table + bar.reshape((*bar.shape[:2], *factor.shape))

    def _bars(self, worths: Sequence[Worth], choices: Sequence[Choice]) -> list[Floats]:
        """Of each quantizable layer, what its labels cost besides: fees, and what a choice bars;
        [worths, choices, labels]."""
        found = []
        for bit, layer in enumerate(self.problem.quantizable):
            modes = np.array([mode for _, mode in self.factors.labels[layer]], dtype=bool)
            bar = np.zeros((len(worths), len(choices), len(modes)))
            for row, worth in zip(bar, worths, strict=True):
                row[:, modes] = worth.fees[bit]
            for column, choice in enumerate(choices):
                if not choice.allowed >> bit & 1:
                    bar[:, column, modes] = np.inf
                elif choice.forced >> bit & 1:
                    bar[:, column, ~modes] = np.inf
            found.append(bar)
        return found

    def _order(self) -> tuple[int, ...]:
        count = len(self.factors.domains)
        near: list[set[int]] = [set() for _ in range(count)]
        for factor in self.factors.factors:
            for v in factor.scope:
                near[v].update(factor.scope)
        for v in range(count):
            near[v].discard(v)
        return min_fill(near, [v for v in range(count) if self.factors.domains[v] > 1])

    def _steps(self) -> list[Step]:
        place = {v: i for i, v in enumerate(self.order)}
        waiting: list[list[tuple[Factor | None, int, tuple[int, ...]]]] = [[] for _ in self.order]
        for factor in self.factors.factors:
            if factor.scope:
                waiting[min(place[v] for v in factor.scope)].append((factor, -1, factor.scope))
        steps = []
        for number, variable in enumerate(self.order):
            around = {v for _, _, scope in waiting[number] for v in scope} - {variable}
            scope = tuple(sorted(around, key=place.__getitem__, reverse=True))
            full = (*scope, variable)
            parts = [self._part(item, full) for item in waiting[number]]
            shape = tuple(self.factors.domains[v] for v in full)
            steps.append(Step(variable, scope, tuple(parts), shape))
            if scope:
                waiting[place[scope[-1]]].append((None, number, scope))
        return steps

    def _part(
        self, item: tuple[Factor | None, int, tuple[int, ...]], full: tuple[int, ...]
    ) -> _Part:
        factor, step, scope = item
        position = {v: i for i, v in enumerate(full)}
        order = sorted(range(len(scope)), key=lambda axis: position[scope[axis]])
        moved = order != list(range(len(scope)))
        shape = tuple(self.factors.domains[v] if v in scope else 1 for v in full)
        return _Part(factor, step, (0, 1, *(axis + 2 for axis in order)) if moved else None, shape)


def min_fill(near: list[set[int]], variables: Sequence[int]) -> tuple[int, ...]:
    """An order of elimination: always the variable whose neighbours lack the fewest edges.

    `near` holds the neighbours of each variable and is changed.
    """

    def missing(v: int) -> tuple[int, int]:
        around = list(near[v])
        gaps = sum(b not in near[a] for i, a in enumerate(around) for b in around[:i])
        return gaps, len(around)

    key = {v: missing(v) for v in variables}
    heap = [(rank, v) for v, rank in key.items()]
    heapq.heapify(heap)
    order: list[int] = []
    while heap:
        rank, v = heapq.heappop(heap)
        if key.get(v) != rank:
            continue
        del key[v]
        order.append(v)
        around = near[v]
        changed = set(around)
        for a in around:
            near[a].discard(v)
        if rank[0]:
            for a in around:
                near[a] |= around - {a}
            for a in around:
                changed |= near[a]
        for a in changed & key.keys():
            new = missing(a)
            if new != key[a]:
                key[a] = new
                heapq.heappush(heap, (new, a))
    return tuple(order)
