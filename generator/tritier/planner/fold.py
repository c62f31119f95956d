"""Fold a problem: eliminate the layers that few others hang on, so that a small core is left.

What is eliminated is settled exactly: its best label is known for every choice of labels around it.
Of the layer graph of a network a few dozen layers stay, which an integer program solves quickly.
Only costs may be folded: limits hang on all layers that have a part in them, which must be kept.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tritier.planner.factors import Factors, Worth
from tritier.planner.problem import Floats, Placement, Problem

# A layer is folded if it hangs on at most so many others: tables stay small then.
FEW = 3


@dataclass(frozen=True, eq=False)
class Table:
    """A cost for each choice of labels of some variables: an axis for each, in this order."""

    scope: tuple[int, ...]
    costs: Floats


@dataclass(frozen=True, eq=False)
class _Settled:
    """A folded variable: its best label for each choice of labels of `scope`."""

    variable: int
    scope: tuple[int, ...]
    best: npt.NDArray[np.intp]


class Core:
    """What is left of a problem: tables over the variables that were not folded, and a constant.

    `kept` are layers that are not folded, whatever hangs on them.
    """

    def __init__(self, problem: Problem, worth: Worth, kept: Collection[int] = ()) -> None:
        factors = Factors(problem)
        self._problem = problem
        self._labels = factors.labels
        self.domains = factors.domains
        self.constant = 0.0
        self._settled: list[_Settled] = []
        self._tables: dict[int, Table] = {}
        self._of: dict[int, set[int]] = {}
        self._next = 0
        costs = factors.costs([worth])[0]
        for factor in factors.factors:
            values = costs[factor.start : factor.start + factor.size].reshape(factor.shape)
            self._add(Table(factor.scope, values))
        self._fold(set(kept))
        self.variables = tuple(sorted({v for table in self._tables.values() for v in table.scope}))
        self.tables = tuple(_merged(list(self._tables.values()), self.domains))

    def placement(self, labels: dict[int, int]) -> Placement:
        """The placement of all layers, from a label for each variable of the core."""
        found = dict(labels)
        for item in reversed(self._settled):
            found[item.variable] = int(item.best[tuple(found[v] for v in item.scope)])
        chosen = [of[found.get(layer, 0)] for layer, of in enumerate(self._labels)]
        return Placement.of(self._problem, chosen)

    def _fold(self, kept: set[int]) -> None:
        heap = [(len(self._near(v)), v) for v in self._of if v not in kept]
        heapq.heapify(heap)
        gone: set[int] = set()
        while heap:
            degree, v = heapq.heappop(heap)
            near = self._near(v)
            if v in gone or degree != len(near):
                continue
            if degree > FEW:
                break
            gone.add(v)
            self._eliminate(v)
            for u in near - kept:
                heapq.heappush(heap, (len(self._near(u)), u))

    def _eliminate(self, variable: int) -> None:
        tables = [self._tables.pop(number) for number in sorted(self._of.pop(variable))]
        for table in tables:
            for v in table.scope:
                if v != variable:
                    self._of[v] = {n for n in self._of[v] if n in self._tables}
        scope = tuple(sorted({v for table in tables for v in table.scope} - {variable}))
        total = _sum(tables, (*scope, variable), self.domains)
        self._settled.append(_Settled(variable, scope, total.argmin(axis=-1)))
        self._add(Table(scope, total.min(axis=-1)))

    def _near(self, variable: int) -> set[int]:
        scopes = (self._tables[n].scope for n in self._of.get(variable, ()))
        return {v for scope in scopes for v in scope} - {variable}

    def _add(self, table: Table) -> None:
        if not table.scope:
            self.constant += float(table.costs.reshape(()))
            return
        self._tables[self._next] = table
        for v in table.scope:
            self._of.setdefault(v, set()).add(self._next)
        self._next += 1


def _sum(tables: list[Table], scope: tuple[int, ...], domains: list[int]) -> Floats:
    position = {v: axis for axis, v in enumerate(scope)}
    total = np.zeros([domains[v] for v in scope])
    for table in tables:
        order = sorted(range(len(table.scope)), key=lambda axis: position[table.scope[axis]])
        inside = set(table.scope)
        shape = [domains[v] if v in inside else 1 for v in scope]
        total = total + table.costs.transpose(order).reshape(shape)
    return total


def _merged(tables: list[Table], domains: list[int]) -> list[Table]:
    """Tables over parts of another's variables join it: fewer and tighter rows."""
    tables.sort(key=lambda table: -len(table.scope))
    found: list[Table] = []
    for table in tables:
        for index, larger in enumerate(found):
            if set(table.scope) <= set(larger.scope):
                found[index] = Table(larger.scope, _sum([larger, table], larger.scope, domains))
                break
        else:
            found.append(table)
    return found


def is_possible(core: Core) -> bool:
    """Whether nothing that was folded is impossible already."""
    return math.isfinite(core.constant)
