"""What coding and decoding a tensor costs, from models with and without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tritier.documents import ServingTiming
from tritier.errors import CheckFailed
from tritier.timing.durations import MIB, Border


@dataclass(frozen=True)
class CodingRun:
    """A model that codes or decodes one tensor, beside the same model without that: MiB of the
    tensor as float32, borders of both, median ms of the first, and by how much it is longer."""

    mib: float
    border: Border
    plain: Border
    ms: float
    more_ms: float


def fit_coding(serving: ServingTiming, runs: Sequence[CodingRun]) -> tuple[float, float]:
    """(ms of every tensor, ms per MiB) that coding takes: the line with no negative part that is
    nearest to what it makes longer, and to what serving fewer bytes has saved beside that.

    Squares are relative to the whole times, as in `fit_serving`. Raises CheckFailed for times that
    can't be.
    """
    if any(run.ms <= 0 for run in runs):
        raise CheckFailed("models that code were served in no time: measure with more --runs")
    times = np.array([run.ms for run in runs])
    rows = np.array([[1.0, run.mib] for run in runs])
    saved = [serving.copy_ms_per_mib * (x.plain.bytes - x.border.bytes) / MIB for x in runs]
    spent = np.array([run.more_ms for run in runs]) + np.array(saved)
    from scipy.optimize import nnls  # here, as it loads for a second

    fixed, per_mib = nnls(rows / times[:, None], spent / times)[0]
    return float(fixed), float(per_mib)
