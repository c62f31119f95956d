"""What the outputs of a model hold: a model whose outputs don't hang on the input is dead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tritier.calibration.images import Array
from tritier.documents import OutputSignal
from tritier.errors import InputError

# Share of an output's spread that hangs on the input. Exports with random weights have less than a
# thousandth of this, trained models more than a hundred times as much.
LEAST_VARIATION = 1e-3


@dataclass
class _Sums:
    """Of one output, per element of the corner that all its shapes have in common; `whole` are
    number, sum and sum of squares of all values, and the sum of their sizes."""

    count: int
    first: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]
    mean_abs: list[float]
    whole: npt.NDArray[np.float64]


@dataclass
class SignalMeter:
    """Gathers the outputs of the float model, one input after the other."""

    _sums: dict[str, _Sums] = field(default_factory=dict)
    _count: int = 0

    def add(self, outputs: Mapping[str, Array]) -> None:
        """Outputs that hold no numbers are left out. Raises InputError for values that are not
        finite: nothing is far from them or near."""
        self._count += 1
        for name, array in outputs.items():
            if array.dtype.kind not in "fiub":
                continue
            values = array.astype(np.float64)
            if not np.isfinite(values).all():
                raise InputError(
                    f"output '{name}' of the float model holds values that are infinite or not a "
                    f"number on input {self._count - 1}: leave that input out, or choose other "
                    "outputs with --model-output"
                )
            if name not in self._sums:
                zeros = np.zeros(values.shape)
                self._sums[name] = _Sums(0, zeros, zeros, [], np.zeros(3))
            _add(self._sums[name], values)

    def signals(self) -> dict[str, OutputSignal]:
        """By output."""
        return {name: _signal(sums) for name, sums in self._sums.items()}


def _add(sums: _Sums, values: npt.NDArray[np.float64]) -> None:
    sums.whole = sums.whole + np.array([values.size, values.sum(), (values**2).sum()])
    sums.mean_abs.append(float(np.abs(values).mean()) if values.size else 0.0)
    if values.ndim != sums.first.ndim:  # nothing in common
        values = values.reshape(-1)[:0]
        sums.first = sums.second = values
    corner = tuple(slice(min(a, b)) for a, b in zip(sums.first.shape, values.shape, strict=True))
    sums.first = sums.first[corner] + values[corner]
    sums.second = sums.second[corner] + values[corner] ** 2
    sums.count += 1


def _signal(sums: _Sums) -> OutputSignal:
    count, first, second = sums.whole
    mean = first / max(count, 1)
    spread = float(max(second / max(count, 1) - mean**2, 0.0) ** 0.5)
    return OutputSignal(
        mean_abs=float(np.mean(sums.mean_abs)), spread=spread, variation=_variation(sums)
    )


def _variation(sums: _Sums) -> float | None:
    """None where there is nothing to compare."""
    if sums.count < 2 or not sums.first.size:
        return None
    mean, square = sums.first / sums.count, sums.second / sums.count
    inner = float(np.maximum(square - mean**2, 0.0).mean())
    spread = float(square.mean() - mean.mean() ** 2)
    return (inner / spread) ** 0.5 if spread > 0 else 0.0


def check_alive(signals: Mapping[str, OutputSignal]) -> None:
    """Raise InputError if no output hangs on the input, or not enough to tell noise from it."""
    known = {name: x.variation for name, x in signals.items() if x.variation is not None}
    if known and max(known.values()) < LEAST_VARIATION:
        shown = ", ".join(f"'{name}' by {value:.1e} of its spread" for name, value in known.items())
        raise InputError(
            f"the outputs hardly change with the input ({shown}; at least {LEAST_VARIATION:g} is "
            "needed), as in an export with random weights: noise would mean nothing. Use a trained "
            "model; for benchmarks, `tritier rescale` lets signals pass through random weights"
        )
