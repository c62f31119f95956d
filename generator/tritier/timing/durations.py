"""Times as documents."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tritier.documents import Duration, ServingTiming
from tritier.errors import CheckFailed

NS_PER_MS = 1e6
MIB = 1024 * 1024


def duration(times_ns: Sequence[float]) -> Duration:
    """Median, mean and standard deviation of times in ns."""
    return Duration(
        median_ms=statistics.median(times_ns) / NS_PER_MS,
        mean_ms=statistics.fmean(times_ns) / NS_PER_MS,
        std_ms=statistics.pstdev(times_ns) / NS_PER_MS,
        n=len(times_ns),
    )


def merged_summaries(rounds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """One summary (`median_ns`, `mean_ns`, `std_ns`, `n`) of several rounds: the median of the
    medians, the mean of the means, and a deviation with what is between the rounds."""
    means = [x["mean_ns"] for x in rounds]
    variance = statistics.fmean(x["std_ns"] ** 2 for x in rounds) + statistics.pvariance(means)
    return {
        "median_ns": statistics.median(x["median_ns"] for x in rounds),
        "mean_ns": statistics.fmean(means),
        "std_ns": variance**0.5,
        "n": sum(x["n"] for x in rounds),
    }


@dataclass(frozen=True)
class Border:
    """Inputs and outputs of a model together."""

    tensors: int
    bytes: int


def fit_serving(copies: Sequence[tuple[Border, float]]) -> ServingTiming:
    """What serving costs, from (border, ms) of models that only hand on what they get: the line
    call + tensor * tensors + copy * MiB with no negative part that is nearest to them.

    Squares are of relative errors: the cost of a call shows in the small ones only. Raises
    CheckFailed for times that can't be.
    """
    if any(time <= 0 for _, time in copies):
        raise CheckFailed("models that do nothing were served in no time: measure with more --runs")
    rows = np.array([[1.0, border.tensors, border.bytes / MIB] for border, _ in copies])
    times = np.array([time for _, time in copies])
    from scipy.optimize import nnls  # here, as it loads for a second

    call, tensor, copy = nnls(rows / times[:, None], np.ones(len(times)))[0]
    return ServingTiming(call_ms=call, tensor_ms=tensor, copy_ms_per_mib=copy)
