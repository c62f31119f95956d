"""The noise of any subset of layers from the noise of a few: linear in products of the choices.

Rounding errors of different layers are nearly independent, so their noise adds in squares: about
99 % of its variance is first order. What is left goes to pairs:

    noise ** 2 = sum_i v_i ** 2 z_i + sum_ij c_ij z_i z_j

where v_i is the measured noise of layer i alone, so that singles are exact. The first order is not
fitted again: in trials on synthetic networks that gave no better predictions from the design, and
a single layer's noise is known. The c_ij are small and more than there are samples: ridge
regression of what the first order leaves, in units of v_i v_j, which makes a coefficient
twice the correlation of two errors. Without knowledge of a pair its c is 0.

For a metric that already adds up (power 1) the same holds of the noise itself, with pairs in units
of sqrt(v_i v_j).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tritier.errors import InputError

Array = npt.NDArray[np.float64]
# Shares of the largest noise. Samples below the first weigh no more than one at it; layers whose
# own noise is below the second may still do something together with others.
_LEAST_WEIGHED, _LEAST_SCALE = 0.05, 0.01
# Penalties to choose from, relative to the mean square of a sample's features. Measurements do not
# scatter: more was never right, and leaving one out of few samples asked for it at times.
_PENALTIES = np.logspace(-8, -1, 15)
_ALIKE = 1e-6  # errors of penalties that differ by less, relatively, are the same
_DROPPED = 1e-3  # by how much dropping pairs may change a prediction


def fit_squared(
    samples: Mapping[int, float],
    count: int,
    power: int = 2,
    weights: Mapping[int, float] | None = None,
) -> dict[int, float]:
    """Mask of one or two layers -> term: noise ** power is the sum of all terms whose layers are
    in the subset.

    `samples` are mean noise by subset, the singles among them; the unit is theirs. `weights` are
    how much a sample counts beside others (1 unless told). Pairs that matter nothing are left out.
    Raises InputError for missing singles, bad masks, noise and weights.
    """
    check_samples(samples, count)
    if power not in (1, 2):
        raise InputError(f"a power of {power}: the noise (1) or its square (2) can be fitted")
    if missing := [i for i in range(count) if 1 << i not in samples]:
        raise InputError(
            f"no sample of layer {', '.join(map(str, missing))} alone (of {count} layers): measure "
            "the design, which has all singles"
        )
    top = max(samples.values())
    alone = np.array([samples[1 << i] for i in range(count)], np.float64)
    terms = {1 << i: float(alone[i] ** power) for i in range(count)}
    counts = {mask: (weights or {}).get(mask, 1.0) for mask in samples}
    if bad := [
        f"{mask:#x}: {value}" for mask, value in counts.items() if not 0 <= value < math.inf
    ]:
        raise InputError(f"weights of samples must be finite and 0 or more: {', '.join(bad)}")
    several = [mask for mask in samples if mask.bit_count() > 1 and counts[mask] > 0]
    if top == 0 or not several:
        return terms
    # In units of the largest noise, so that squares of tiny noise are not lost.
    noise = np.array([samples[mask] for mask in several]) / top
    weight = np.array([counts[mask] for mask in several])
    first, second = np.triu_indices(count, 1)
    pairs = _pair_terms(bits(several, count), alone / top, noise, power, weight)
    for i, j, value in zip(first, second, pairs * top**power, strict=True):
        if value:
            terms[1 << int(i) | 1 << int(j)] = float(value)
    return terms


def check_samples(samples: Mapping[int, float], count: int) -> None:
    """Raise InputError unless there are samples, of subsets of so many layers, with a noise that
    is not negative and not too large to be squared."""
    if not samples:
        raise InputError("no samples to fit noise to: measure the design")
    faults = [
        f"subset {mask:#x} is not among those of {count} layers (1 to {(1 << count) - 1:#x})"
        for mask in samples
        if not 0 < mask < 1 << count
    ]
    faults += [
        f"the noise of subset {mask:#x} is {noise}: a finite number, 0 or more, is needed"
        for mask, noise in samples.items()
        if not (noise >= 0 and math.isfinite(noise * noise))
    ]
    if faults:
        raise InputError(faults)


def bits(masks: list[int], count: int) -> Array:
    """A row per subset, 1 for the layers in it."""
    return np.array([[mask >> i & 1 for i in range(count)] for mask in masks], np.float64)


def _pair_terms(chosen: Array, alone: Array, noise: Array, power: int, weight: Array) -> Array:
    """A term for each pair (upper triangle, row by row), 0 for those that are left out."""
    first, second = np.triu_indices(len(alone), 1)
    both = chosen[:, first] * chosen[:, second]
    scale = np.maximum(alone, _LEAST_SCALE) ** (power / 2)
    unit = scale[first] * scale[second]
    left = noise**power - chosen @ alone**power
    # An error of noise ** power is power * noise ** (power - 1) times that of the noise itself.
    weight = np.sqrt(weight) / np.maximum(noise, _LEAST_WEIGHED) ** (power - 1)
    features = both * unit * weight[:, None]
    size = math.sqrt((features**2).sum(1).mean())
    if size == 0:
        return np.zeros(len(unit))
    terms = _ridge(features / size, left * weight) / size * unit
    fitted = np.maximum(chosen @ alone**power + both @ terms, _DROPPED**power)
    return _thinned(terms, both, power * _DROPPED * fitted)


def _ridge(features: Array, left: Array) -> Array:
    """Coefficients with the penalty that has the least mean square error when each sample is left
    out once. Of penalties that are alike in that, the smallest: where samples say nothing about
    each other, each is at least met."""
    from sklearn.linear_model import Ridge, RidgeCV  # here, as it loads for a second

    tried = RidgeCV(_PENALTIES, fit_intercept=False, store_cv_results=True).fit(features, left)
    errors = tried.cv_results_.mean(axis=0)
    penalty = _PENALTIES[np.flatnonzero(errors <= errors.min() * (1 + _ALIKE))[0]]
    solver = Ridge(penalty, fit_intercept=False, solver="svd").fit(features, left)
    found: Array = solver.coef_
    return found


def _thinned(terms: Array, both: Array, allowed: Array) -> Array:
    """Without the smallest pairs, as many as change no row by more than is allowed. Changes are
    added up without their signs: then no part of a row changes by more either."""
    order = np.argsort(np.abs(terms), kind="stable")
    change = np.cumsum(both[:, order] * np.abs(terms[order]), axis=1)
    within = (change <= allowed[:, None]).all(axis=0)
    kept = terms.copy()
    kept[order[: int(within.sum())]] = 0.0
    return kept
