"""The published way, for comparison: a polynomial of the choices fitted to the noise itself.

    noise = constant + sum over sets C of at most d layers of w_C prod_{i in C} z_i

Products of different layers only, since z_i ** 2 = z_i: 298 for 12 layers and d = 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tritier.errors import InputError
from tritier.noise.fit import bits, check_samples

_MOST_TERMS = 20_000
# Least squares needs clearly more samples than terms. The published 1000 for 298 are.
_SAMPLES_PER_TERM = 2


def count_terms(count: int, degree: int) -> int:
    """Of a polynomial of so many layers; raises InputError for a degree that can't be."""
    if degree < 1:
        raise InputError(f"a polynomial of degree {degree}: 1 at least is needed")
    number = sum(math.comb(count, k) for k in range(1, degree + 1))
    if number > _MOST_TERMS:
        raise InputError(
            f"a polynomial of degree {degree} of {count} layers has {number} terms, {_MOST_TERMS} "
            "are allowed: choose a lower degree or fewer layers"
        )
    return number


def fit_polynomial(
    samples: Mapping[int, float], count: int, degree: int
) -> tuple[float, dict[int, float]]:
    """(constant, mask of at most `degree` layers -> term), in the unit of the samples. The constant
    counts if any layer is quantized. Raises InputError for samples or a degree that can't be."""
    from sklearn.linear_model import LinearRegression, RidgeCV  # here, as it loads for a second
    from sklearn.preprocessing import PolynomialFeatures

    check_samples(samples, count)
    number = count_terms(count, degree)
    products = PolynomialFeatures(degree, interaction_only=True, include_bias=False)
    features = products.fit_transform(bits(list(samples), count))
    # In units of the largest noise, so that a penalty means the same for all.
    top = max(samples.values()) or 1.0
    noise = np.array(list(samples.values())) / top
    if len(samples) >= _SAMPLES_PER_TERM * number:
        model = LinearRegression()
    else:
        # With about as many samples as terms, or fewer, least squares meets every sample and is far
        # off elsewhere. A penalty chosen by cross-validation stays near the published way and was
        # better in nearly all trials: R2 of 0.7 to 0.8 instead of -0.1 to 0.7 from 33 samples.
        model = RidgeCV(np.logspace(-6, 3, 19))
    model.fit(features, noise)
    masks = [sum(1 << int(i) for i in np.flatnonzero(row)) for row in products.powers_]
    terms = {mask: float(value * top) for mask, value in zip(masks, model.coef_, strict=True)}
    return float(model.intercept_ * top), terms
