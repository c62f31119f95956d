"""What a component takes of memory: its weights and its activations, each times a factor.

ONNX Runtime keeps weights in layouts of its own and plans buffers for activations in an arena that
only grows: how much more than the stated bytes that is, is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ENOUGH = 3  # samples for two factors


@dataclass(frozen=True)
class MemorySample:
    """A model in bytes: what is stated of it, and resident memory when it is loaded and at its
    peak, both above those of a model that does nothing. `activations` is None if not known."""

    weights: int
    activations: int | None
    loaded: int
    peak: int


@dataclass(frozen=True)
class MemoryFactors:
    """weights x weight + activations x activation is what is predicted."""

    weight: float
    activation: float

    def predict(self, weights: int, activations: int | None) -> int | None:
        """Bytes at the peak; None if the activations are not known."""
        if activations is None:
            return None
        return round(self.weight * weights + self.activation * activations)


def memory_factors(samples: Sequence[MemorySample]) -> MemoryFactors:
    """The two factors, neither negative, whose predictions are nearest to the peaks, by squares of
    relative errors. Of fewer than three samples: the weights' factor when they are loaded, and what
    is left of the peaks for the activations."""
    known = [x for x in samples if x.activations is not None and x.peak > 0]
    if len(known) >= _ENOUGH:
        rows = np.array([[x.weights / x.peak, (x.activations or 0) / x.peak] for x in known])
        from scipy.optimize import nnls  # here, as it loads for a second

        weight, activation = nnls(rows, np.ones(len(known)))[0]
        return MemoryFactors(float(weight), float(activation))
    weights = sum(sample.weights for sample in samples)
    weight = sum(sample.loaded for sample in samples) / weights if weights else 0.0
    activations = sum(x.activations or 0 for x in known)
    rest = sum(max(0.0, x.peak - weight * x.weights) for x in known)
    return MemoryFactors(weight, rest / activations if activations else 0.0)


def predictions_of_others(samples: Sequence[MemorySample]) -> list[int | None]:
    """What is predicted of each sample by the factors of all the others; None if there are none."""
    if len(samples) < 2:
        return [None] * len(samples)
    found = []
    for index, sample in enumerate(samples):
        factors = memory_factors([*samples[:index], *samples[index + 1 :]])
        found.append(factors.predict(sample.weights, sample.activations))
    return found
