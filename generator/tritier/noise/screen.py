"""Find layers that must not be quantized: by themselves they destroy what an output holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tritier.calibration import Arrays
from tritier.calibration.images import Array
from tritier.documents import ExcludedLayer
from tritier.noise.executor import Executor, Program

# A slice of an output (one class, one coordinate) is lost when this share of its spread is left.
_LEFT = 0.01
_LEAST_VALUES = 64  # of a slice: a few may become equal by chance
# A layer that alone moves an output by this share of its spread leaves little of it.
_LARGEST_SHARE = 0.5


@dataclass
class _Slices:
    """Sums over inputs, per slice along axis 1 of an output: number, sum, sum of squares, and of
    squared differences from the float model. Where inputs differ in the number of slices, or layers
    change it, all is one slice."""

    count: float
    first: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]
    moved: npt.NDArray[np.float64]

    @property
    def whole(self) -> _Slices:
        """All as one slice."""
        sums = (x.sum(keepdims=True) for x in (self.first, self.second, self.moved))
        return _Slices(self.count * len(self.first), *sums)

    def add(self, other: _Slices) -> _Slices:
        if len(self.first) != len(other.first):
            return self.whole.add(other.whole)
        return _Slices(
            self.count + other.count,
            self.first + other.first,
            self.second + other.second,
            self.moved + other.moved,
        )

    @property
    def spread(self) -> npt.NDArray[np.float64]:
        count = max(self.count, 1)
        mean = self.first / count
        variance = self.second / count - mean**2
        # Less than what rounding of the two sums leaves is nothing.
        kept = np.maximum(variance, 0.0) * (variance > 1e-12 * self.second / count)
        found: npt.NDArray[np.float64] = np.sqrt(kept)
        return found


Screening = dict[int, dict[str, _Slices]]


def screen_input(
    executor: Executor, program: Program, inputs: Arrays, outputs: Sequence[str]
) -> Screening:
    """What each subset of a program, the first of which is the empty one, does to the slices of
    each output, on one input."""
    reference: Arrays = {}

    def fold(subset: int, arrays: Arrays) -> dict[str, _Slices]:
        chosen = {name: arrays[name] for name in outputs if arrays[name].dtype.kind in "fiub"}
        if subset == 0:
            reference.update({name: array.copy() for name, array in chosen.items()})
        return {name: _slices(reference[name], array) for name, array in chosen.items()}

    return executor.run(program, inputs, fold)


def excluded_layers(
    layers: Sequence[str], screenings: Sequence[Screening]
) -> tuple[ExcludedLayer, ...]:
    """Layers that destroy an output, and why, of screenings on several inputs."""
    total = _summed(screenings)
    found = []
    for index, layer in enumerate(layers):
        for name, item in total[1 << index].items():
            reason = _reason(name, total[0][name], item)
            if reason:
                found.append(ExcludedLayer(name=layer, reason=reason))
                break
    return tuple(found)


def _reason(output: str, reference: _Slices, item: _Slices) -> str:
    if not np.isfinite(item.second).all():
        return f"alone it makes '{output}' infinite or not a number"
    if len(reference.first) != len(item.first):
        reference, item = reference.whole, item.whole
    before = reference.spread
    lost = (before > 0) & (item.spread < _LEFT * before) & (item.count >= _LEAST_VALUES)
    if lost.any() and len(before) == 1:
        return f"alone it makes '{output}' constant"
    if lost.any():
        first = int(np.flatnonzero(lost)[0])
        return (
            f"alone it makes {int(lost.sum())} of {len(before)} slices of '{output}' constant, the "
            f"first is {first}"
        )
    # Of all values together: a few inputs alone may hardly change a slice.
    whole = float(reference.whole.spread[0])
    moved = float(np.sqrt(item.moved.sum() / max(item.count * len(before), 1)))
    if whole and moved > _LARGEST_SHARE * whole:
        return (
            f"alone it moves '{output}' by {moved:.3g} (root mean square), {moved / whole:.0%} of "
            "its spread"
        )
    return ""


def _summed(screenings: Sequence[Screening]) -> Screening:
    total = dict(screenings[0])
    for screening in screenings[1:]:
        for subset, items in screening.items():
            total[subset] = {
                name: total[subset][name].add(item) if name in total[subset] else item
                for name, item in items.items()
            }
    return total


def _slices(reference: Array, array: Array) -> _Slices:
    """Along axis 1, which holds channels, classes or coordinates; the whole if there is none."""
    before, after = (_by_slice(x) for x in (reference, array))
    moved = (after - before) ** 2 if before.shape == after.shape else np.zeros_like(after)
    sums = (after.sum(axis=1), (after**2).sum(axis=1), moved.sum(axis=1))
    return _Slices(after.shape[1], *sums)


def _by_slice(array: Array) -> npt.NDArray[np.float64]:
    values = array.astype(np.float64)
    if values.ndim < 2 or not values.size:
        return values.reshape(1, -1)
    return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
