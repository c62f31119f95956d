"""Which sets of quantized layers keep the noise within its limits.

The noise of an output, or its square, is a constant plus terms, each for a set of layers that are
all quantized. For few layers every set is looked at once. Where each subset of a set within the
limits is within them too, the sets that can't be enlarged say it all: a set is within the limits if
it lies in one of those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

# More layers make too many sets to look at; the limits are then rows of an integer program.
TABULATED = 16
# Relative slack of limits: terms summed in another order differ in the last digits.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class NoiseRow:
    """constant (if any layer is quantized) + sum of the terms of quantized layers <= budget.

    `terms` maps masks of layers, all of which must be quantized, to values.
    """

    output: str
    constant: float
    terms: Mapping[int, float]
    budget: float

    def load(self, mask: int) -> float:
        """The left-hand side for a mask of quantized layers."""
        if not mask:
            return 0.0
        return self.constant + sum(v for term, v in self.terms.items() if term & ~mask == 0)


@dataclass(frozen=True)
class NoiseLimit:
    """Rows that a mask of `count` layers must keep, and masks that are refused in spite of them.

    Nothing quantized is always allowed.
    """

    count: int = 0
    rows: Sequence[NoiseRow] = ()
    refused: frozenset[int] = field(default=frozenset())

    @property
    def limits(self) -> bool:
        """Whether it forbids anything."""
        return bool(self.rows or self.refused)

    @property
    def is_tabulated(self) -> bool:
        """Whether there are few enough layers to look at each set."""
        return self.count <= TABULATED

    def allows(self, mask: int) -> bool:
        """Whether these layers may be quantized."""
        if not mask:
            return True
        if mask in self.refused:
            return False
        return all(row.load(mask) <= padded(row.budget) for row in self.rows)

    def share(self, mask: int) -> float:
        """The largest load by its budget; above 1 the mask is not allowed."""
        return max(
            (row.load(mask) / row.budget if row.budget > 0 else np.inf for row in self.rows
             if row.load(mask) > 0),
            default=0.0,
        )  # fmt: skip

    @cached_property
    def feasible(self) -> npt.NDArray[np.bool_]:
        """Of every mask, whether it is allowed; [2 ** count]."""
        masks = np.arange(1 << self.count)
        allowed = np.ones(len(masks), dtype=bool)
        for row in self.rows:
            load = np.zeros(len(masks))
            load[1:] = row.constant
            for term, value in row.terms.items():
                load[masks & term == term] += value
            allowed &= load <= padded(row.budget)
        allowed[list(self.refused)] = False
        allowed[0] = True
        return allowed

    @cached_property
    def largest(self) -> tuple[int, ...]:
        """The allowed masks that no other allowed mask contains."""
        masks = np.arange(1 << self.count)
        within = self.feasible.copy()  # whether a mask or one that contains it is allowed
        for bit in range(self.count):
            low = masks[masks >> bit & 1 == 0]
            within[low] |= within[low | 1 << bit]
        kept = within.copy()
        for bit in range(self.count):
            low = masks[masks >> bit & 1 == 0]
            kept[low] &= ~within[low | 1 << bit]
        return tuple(int(mask) for mask in masks[kept])

    def between(self, forced: int, allowed: int) -> bool:
        """Whether an allowed mask contains `forced` and lies in `allowed`."""
        masks = np.flatnonzero(self.feasible)
        return bool(np.any((masks & forced == forced) & (masks & ~allowed == 0)))


def padded(budget: float) -> float:
    """With the slack of sums in another order."""
    return budget + TOLERANCE * abs(budget)
