"""How well predicted noise meets measured noise, and the factor that makes predictions safe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tritier.documents import NoiseFigures
from tritier.errors import CheckFailed, InputError

Array = npt.NDArray[np.float64]
# Errors are relative to no less than this share of the largest noise: where nothing is measured
# and something predicted, the error is large and finite.
_LEAST_SHARE = 1e-6
_SAME = 1e-9  # noise that differs by less, relative to the largest, counts as equal


def predict(terms: Mapping[int, float], constant: float, power: int, mask: int) -> float:
    """The noise of a subset, in the unit of the samples. `terms` go by the mask of the layers that
    must all be in the subset; noise ** power = constant + the sum of them, and no less than 0.
    The constant counts if any layer is in the subset."""
    if not mask:
        return 0.0
    found = [value for layers, value in terms.items() if layers & mask == layers]
    return float(max(math.fsum([constant, *found]), 0.0) ** (1 / power))


def figures(measured: Mapping[int, float], predicted: Callable[[int], float]) -> NoiseFigures:
    """Figures over all measured subsets. Raises InputError without any.

    Where all are measured alike nothing is there to explain or to rank: R2 and Spearman are 1 if
    the predictions are alike too (for R2: and right), else 0. Spearman is also 0 where predictions
    are alike and measurements are not.
    """
    if not measured:
        raise InputError("no measured subsets to take figures from: 1 at least is needed")
    real = np.array(list(measured.values()), np.float64)
    told = np.array([predicted(mask) for mask in measured], np.float64)
    top = max(real.max(), told.max())
    if top > 0:  # before anything is squared, which tiny noise would not survive
        real, told = real / top, told / top
    over = (told - real) / np.maximum(real, _LEAST_SHARE)
    return NoiseFigures(
        subsets=len(real),
        r2=_r2(real, told),
        mape=float(np.abs(over).mean()),
        spearman=_spearman(real, told),
        worst_under=float(-over.min()),
        worst_over=float(over.max()),
    )


def margin(
    measured: Mapping[int, float], predicted: Callable[[int], float], coverage: float = 0.95
) -> float:
    """A factor >= 1: measured noise is within prediction x factor for at least this share of draws.

    Split conformal prediction (Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World,
    2005; Lei et al.: Distribution-Free Predictive Inference for Regression, 2018): of n scores
    measured / predicted the ceil((n + 1) coverage)-th smallest. It holds without any assumption on
    the model, over draws of the verification subsets and of one more subset together, if all are
    drawn alike and none was fitted to. It does not hold for a subset that was searched for because
    its prediction is low: a plan's choice has to be measured (`settle`).

    Raises InputError where there are too few subsets for the coverage, CheckFailed where no factor
    is enough because 0 was predicted for noise that is there.
    """
    share = Fraction(str(coverage))  # 20 x 0.95 is 19, not a little more
    if not 0 < share < 1:
        raise InputError(f"a coverage of {coverage}: a share above 0 and below 1 is needed")
    rank, needed = math.ceil((len(measured) + 1) * share), math.ceil(share / (1 - share))
    if rank > len(measured):
        raise InputError(
            f"{len(measured)} verification subsets are too few for a coverage of {coverage}: "
            f"{needed} at least are needed; measure more or ask for less coverage"
        )
    scores = sorted(_ratio(noise, predicted(mask)) for mask, noise in measured.items())
    if math.isinf(scores[rank - 1]):
        raise CheckFailed(
            f"no margin covers {coverage} of the verification subsets: {scores.count(math.inf)} of "
            f"{len(scores)} were predicted to have no noise and have some; measure more subsets "
            "and learn the noise again"
        )
    return max(scores[rank - 1], 1.0)


def _ratio(measured: float, predicted: float) -> float:
    if predicted > 0:
        return measured / predicted
    return math.inf if measured > 0 else 0.0


def _r2(real: Array, told: Array) -> float:
    error, spread = float(((real - told) ** 2).sum()), float(((real - real.mean()) ** 2).sum())
    if math.sqrt(spread / len(real)) <= _SAME * real.max():
        return 1.0 if math.sqrt(error / len(real)) <= _SAME else 0.0
    return 1.0 - error / spread


def _spearman(real: Array, told: Array) -> float:
    """Correlation of the ranks; rounded first, so that noise in the last bits ranks nothing."""
    from scipy.stats import rankdata  # here, as it loads for a second

    ranks = [rankdata(np.round(values / _SAME)) for values in (real, told)]
    alike = [bool(np.ptp(rank) == 0) for rank in ranks]
    if any(alike):
        return float(all(alike))
    return float(np.clip(np.corrcoef(*ranks)[0, 1], -1.0, 1.0))
