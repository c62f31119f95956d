"""What comparing int8 formats has found on one machine, and what follows from it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tritier.documents import Duration, Figure, Quantization

# Formats so near to the fastest are as fast: among them noise decides.
AS_FAST = 0.05
_DRAWS = 2000


@dataclass(frozen=True)
class FormatNoise:
    """Mean over inputs of mean |float - quantized| of an output.

    `real` is with the kernels that serve, `simulated` with floats that are rounded as 8 bits are;
    where integers overflow, real is far above simulated. `signal` is mean |float|.
    """

    output: str
    real: Figure
    simulated: Figure
    signal: Figure


@dataclass(frozen=True)
class FormatRow:
    """A format, measured. `speedup` is the float model's time over this one's."""

    name: str
    quantization: Quantization | None
    layers: tuple[str, ...]
    int8_layers: tuple[str, ...] | None
    time: Duration
    speedup: Figure
    noise: tuple[FormatNoise, ...]

    @property
    def gains(self) -> bool:
        """Whether it is faster than float, beyond what its interval leaves open."""
        return self.speedup.low is not None and self.speedup.low > 1

    @property
    def relative_noise(self) -> float:
        """See `relative_noise`."""
        return relative_noise(self.noise)

    @property
    def settings(self) -> str | None:
        """What servers.yaml needs for it."""
        return None if self.quantization is None else settings_text(self.quantization)

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        settings = self.quantization
        return {
            "name": self.name,
            "quantization": settings and settings.model_dump(mode="json"),
            "layers": list(self.layers),
            "int8_layers": None if self.int8_layers is None else list(self.int8_layers),
            "time": self.time.model_dump(mode="json") | {"source": "measured"},
            "speedup": _figure_data(self.speedup),
            "gains": self.gains,
            "noise": [
                {
                    "output": item.output,
                    "real": _figure_data(item.real),
                    "simulated": _figure_data(item.simulated),
                    "signal": _figure_data(item.signal),
                }
                for item in self.noise
            ],
        }


@dataclass(frozen=True)
class FormatsReport:
    """The formats of one place, float first."""

    model: str
    place: str
    processor: str
    onnxruntime: str
    threads: int
    inputs: int
    rows: tuple[FormatRow, ...]

    @property
    def fastest(self) -> FormatRow:
        """Float, if no format gains."""
        return max(
            (row for row in self.rows if row.gains or row.quantization is None),
            key=lambda row: row.speedup.value,
        )

    @property
    def least_noise(self) -> FormatRow:
        """Of the quantized ones."""
        return min(self.rows[1:], key=lambda row: row.relative_noise)

    @property
    def advised(self) -> FormatRow | None:
        """What to write into servers.yaml: of the formats that gain and are as fast as the fastest,
        the one with the least noise on those layers; None if none gains."""
        if self.fastest.quantization is None:
            return None
        floor = self.fastest.speedup.value * (1 - AS_FAST)
        near = [row for row in self.rows[1:] if row.gains and row.speedup.value >= floor]
        return min(near, key=lambda row: row.relative_noise)

    def to_data(self) -> dict[str, Any]:
        """Plain data: names of layers and figures with their sources."""
        return {
            "format": "tritier/formats/1",
            "model": self.model,
            "place": self.place,
            "processor": self.processor,
            "onnxruntime": self.onnxruntime,
            "threads": self.threads,
            "inputs": self.inputs,
            "rows": [row.to_data() for row in self.rows],
            "fastest": self.fastest.name,
            "least_noise": self.least_noise.name,
            "advised": self.advised and self.advised.name,
            "settings": self.advised and self.advised.settings,
        }


def ratio(over: Sequence[float], under: Sequence[float]) -> Figure:
    """Ratio of the medians of two series of times that were taken in turn, with the interval that
    comes of drawing turns anew."""
    a, b = np.asarray(over, np.float64), np.asarray(under, np.float64)
    draw = np.random.default_rng(0).integers(0, len(a), (_DRAWS, len(a)))
    drawn = np.median(a[draw], axis=1) / np.median(b[draw], axis=1)
    low, high = (float(x) for x in np.quantile(drawn, (0.025, 0.975)))
    value = float(np.median(a) / np.median(b))
    return Figure(value=value, low=min(low, value), high=max(high, value), n=len(a))


def settings_text(settings: Quantization) -> str:
    """What servers.yaml needs for a format; defaults are left out."""
    default = Quantization()
    changed = {
        name: getattr(settings, name)
        for name in Quantization.model_fields
        if getattr(settings, name) != getattr(default, name)
    }
    texts = [f"{k}: {str(v).lower() if isinstance(v, bool) else v}" for k, v in changed.items()]
    return f"quantization: {{{', '.join(texts)}}}"


def relative_noise(noise: Iterable[FormatNoise]) -> float:
    """Real noise over signal, mean of the outputs; 0 where no output has a signal."""
    shares = [x.real.value / x.signal.value for x in noise if x.signal.value > 0]
    return statistics.fmean(shares) if shares else 0.0


def _figure_data(figure: Figure) -> dict[str, Any]:
    return figure.model_dump(mode="json", exclude_none=True)
