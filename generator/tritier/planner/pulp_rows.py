"""A PuLP program row by row: sums of named variables, and rows with names that tell what they say.

Sums are lists of (variable, factor) and become PuLP's expressions at once: its operators take two
to four times as long. Rows without variables never reach the solver.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import pulp

# Solvers keep rows to 1e-6 of their own unit; limits are scaled so that this is 1e-9 of the limit.
_LIMIT_SCALE = 3
# The largest factor of an objective has so many digits: gaps and steps of solvers are absolute too.
_OBJECTIVE_DIGITS = 3


class Sum:
    """Variables times factors, plus a constant."""

    __slots__ = ("constant", "terms")

    def __init__(self, constant: float = 0.0) -> None:
        self.terms: list[tuple[pulp.LpVariable, float]] = []
        self.constant = constant

    @classmethod
    def of(cls, parts: Iterable[Sum]) -> Sum:
        """The sum of several."""
        total = cls()
        for part in parts:
            total.add(part)
        return total

    def add(self, other: Sum, factor: float = 1.0) -> None:
        """Add another one, times a factor."""
        if factor:
            self.terms += [(variable, value * factor) for variable, value in other.terms]
            self.constant += other.constant * factor

    def times(self, factor: float) -> Sum:
        """A new one, times a factor."""
        product = Sum()
        product.add(self, factor)
        return product

    @property
    def is_constant(self) -> bool:
        """Whether it holds no variable."""
        return not self.terms

    def value(self) -> float:
        """By the values that a solver has left in the variables."""
        return self.constant + math.fsum(v * (x.varValue or 0.0) for x, v in self.terms)

    def factors(self) -> dict[pulp.LpVariable, float]:
        """Each variable once; one that cancels out is gone."""
        merged: dict[pulp.LpVariable, float] = {}
        for variable, value in self.terms:
            merged[variable] = merged.get(variable, 0.0) + value
        return {variable: value for variable, value in merged.items() if value}


class Rows:
    """A program under construction. `impossible` names rows without variables that don't hold."""

    def __init__(self, name: str) -> None:
        self.program = pulp.LpProblem(name, pulp.LpMinimize)
        self.impossible: list[str] = []
        self.objective_scale = 1.0

    def variable(self, name: str, *, binary: bool = False, high: float | None = 1.0) -> Sum:
        """A new variable from 0 to `high`, a whole number if it is binary."""
        kind = pulp.LpInteger if binary else pulp.LpContinuous
        made = Sum()
        made.terms.append((self.program.add_variable(name, 0, high, kind), 1.0))
        return made

    def at_most(self, name: str, left: Sum, right: Sum | float) -> None:
        """Left <= right"""
        self._row(name, left, pulp.LpConstraintLE, right)

    def at_least(self, name: str, left: Sum, right: Sum | float) -> None:
        """Left >= right"""
        self._row(name, left, pulp.LpConstraintGE, right)

    def equal(self, name: str, left: Sum, right: Sum | float) -> None:
        """Left = right"""
        self._row(name, left, pulp.LpConstraintEQ, right)

    def limit(self, name: str, left: Sum, most: float) -> None:
        """Left <= most, times a power of ten, so that solvers keep it to some 1e-9 of it."""
        size = abs(most) or max(map(abs, left.factors().values()), default=1.0)
        scale = _power(_LIMIT_SCALE, size)
        self.at_most(name, left.times(scale), most * scale)

    def minimise(self, objective: Sum) -> None:
        """Set the objective, times `objective_scale`, a power of ten that suits solvers."""
        factors = objective.factors()
        largest = max((abs(v) for v in factors.values()), default=0.0)
        self.objective_scale = scale = _power(_OBJECTIVE_DIGITS - 1, largest) if largest else 1.0
        self.program.setObjective(
            pulp.LpAffineExpression(
                [(variable, value * scale) for variable, value in factors.items()],
                constant=objective.constant * scale,
            )
        )

    def _row(self, name: str, left: Sum, sense: int, right: Sum | float) -> None:
        row = Sum()
        row.add(left)
        if isinstance(right, Sum):
            row.add(right, -1.0)
        else:
            row.constant -= right
        factors = row.factors()
        if factors:
            expression = pulp.LpAffineExpression(list(factors.items()))
            constraint = pulp.LpConstraint(expression, sense, name, -row.constant)
            self.program.addConstraint(constraint)
        elif not _stands(row.constant, sense):
            self.impossible.append(name)


def safe(text: str, length: int = 24) -> str:
    """A part of a name that every LP file may hold."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:length] or "_"


def _stands(constant: float, sense: int) -> bool:
    if sense == pulp.LpConstraintEQ:
        return abs(constant) <= 1e-9
    return constant * sense >= -1e-9


def _power(digits: int, value: float) -> float:
    """The power of ten that brings a value between 10 ** digits and ten times that."""
    return float(10.0 ** (digits - math.floor(math.log10(value))))
