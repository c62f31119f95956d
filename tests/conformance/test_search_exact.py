"""The planner's search finds what brute force finds: small random graphs with all limits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.problems import random_problem
from tests.helpers.searching import WEIGHTS, check


@pytest.mark.parametrize("seed", range(100, 300))
def test_all_limits(seed: int) -> None:
    """Noise, latency, energy of all and of each server, memory."""
    problem = random_problem(np.random.default_rng(seed), with_rows=True)
    check(problem, WEIGHTS[seed % 3])


@pytest.mark.parametrize("seed", range(60))
def test_noise_alone(seed: int) -> None:
    """Noise that may fall when a layer is added, and refused sets."""
    problem = random_problem(np.random.default_rng(1100 + seed), quantizable=3)
    for weights in WEIGHTS:
        check(problem, weights)
