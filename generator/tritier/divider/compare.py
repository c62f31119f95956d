"""Compare the outputs of a split model with those of the whole model (rule R4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tritier.divider.run import Array


@dataclass(frozen=True)
class Difference:
    """How far one output is from the whole model's, over all inputs that were tried.

    `excess` is the largest |split - whole| - (absolute + relative * |whole|): above `slack` means
    that the tolerance is broken.
    """

    output: str
    max_abs: float
    mean_abs: float
    excess: float
    samples: int
    slack: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the output is within the tolerance."""
        return self.excess <= self.slack


class Comparison:
    """Gathers differences over many inputs."""

    def __init__(self, absolute: float, relative: float) -> None:
        self._absolute = absolute
        self._relative = relative
        self._rows: dict[str, list[tuple[float, float, float]]] = {}

    def add(self, whole: Mapping[str, Array], split: Mapping[str, Array]) -> None:
        """Compare one run. Another shape, type or set of outputs counts as an infinite difference,
        as does a NaN on one side only."""
        for name in dict.fromkeys((*whole, *split)):
            both = name in whole and name in split
            row = self._compare(whole[name], split[name]) if both else (np.inf,) * 3
            self._rows.setdefault(name, []).append(row)

    def differences(self) -> list[Difference]:
        """One row per output."""
        return [
            Difference(
                output=name,
                max_abs=max(row[0] for row in rows),
                mean_abs=float(np.mean([row[1] for row in rows])),
                excess=max(row[2] for row in rows),
                samples=len(rows),
            )
            for name, rows in self._rows.items()
        ]

    def _compare(self, whole: Array, split: Array) -> tuple[float, float, float]:
        if whole.shape != split.shape or whole.dtype != split.dtype:
            return np.inf, np.inf, np.inf
        if whole.size == 0 or np.array_equal(whole, split, equal_nan=whole.dtype.kind == "f"):
            return 0.0, 0.0, 0.0
        reference = whole.astype(np.float64)
        with np.errstate(invalid="ignore"):  # of two infinities, settled in the next line
            gap = np.abs(split.astype(np.float64) - reference)
        gap[(whole != split) & (gap == 0)] = 1.0  # integers above 2**53, equal only as floats
        gap[(whole == split) | (np.isnan(reference) & np.isnan(split.astype(np.float64)))] = 0.0
        gap = np.nan_to_num(gap, nan=np.inf, posinf=np.inf)
        allowed = self._absolute + self._relative * np.abs(np.nan_to_num(reference))
        return float(gap.max()), float(gap.mean()), float((gap - allowed).max())
