"""Figures of requests, from the times at which they were sent and answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Enough for an interval, and few enough that neighbours in time, which depend on each other, fall
# into one.
_MOST_GROUPS = 20
_LEAST_OF_GROUP = 5
# 97.5 % quantile of Student's t for 1, 2, ... degrees of freedom.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
)  # fmt: skip


@dataclass(frozen=True)
class LatencyFigures:
    """Of latencies in ms. `low_ms` and `high_ms` are the 95 % interval of the mean."""

    mean_ms: float
    std_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    low_ms: float
    high_ms: float


def latency_figures(latencies_ms: Sequence[float]) -> LatencyFigures:
    """Figures of at least one latency, in the order in which the requests were sent."""
    values = np.asarray(latencies_ms, np.float64)
    mean = float(values.mean())
    half = _half_interval(values)
    p50, p90, p95, p99 = (float(q) for q in np.quantile(values, (0.5, 0.9, 0.95, 0.99)))
    return LatencyFigures(
        mean_ms=mean,
        std_ms=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        low_ms=max(0.0, mean - half),
        high_ms=mean + half,
    )


def _half_interval(values: npt.NDArray[np.float64]) -> float:
    """Half of the mean's 95 % interval, by means of groups of successive requests: one slow moment
    makes many of them slow, so that single requests would say too little spread."""
    groups = min(_MOST_GROUPS, len(values) // _LEAST_OF_GROUP)
    if groups < 2:
        groups = len(values)
    if groups < 2:
        return 0.0
    means = np.array([part.mean() for part in np.array_split(values, groups)])
    t = _T[groups - 2] if groups - 2 < len(_T) else 1.96
    return float(t * means.std(ddof=1) / math.sqrt(groups))
