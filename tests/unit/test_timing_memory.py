"""Factors of weights and activations, by hand."""

from __future__ import annotations

import pytest

from tritier.timing import MemorySample, memory_factors, predictions_of_others

# Weights take 1.5 times their bytes, activations twice theirs.
EXACT = [
    MemorySample(weights=100, activations=50, loaded=150, peak=250),
    MemorySample(weights=20, activations=80, loaded=30, peak=190),
    MemorySample(weights=0, activations=10, loaded=0, peak=20),
]


def test_factors_are_found() -> None:
    found = memory_factors(EXACT)
    assert found.weight == pytest.approx(1.5)
    assert found.activation == pytest.approx(2.0)
    assert found.predict(10, 10) == 35
    assert found.predict(10, None) is None


def test_two_models_tell_apart_what_is_loaded_and_the_rest() -> None:
    found = memory_factors(EXACT[:2])
    assert (found.weight, found.activation) == (1.5, 2.0)


def test_a_model_does_not_predict_itself() -> None:
    odd = MemorySample(weights=0, activations=10, loaded=0, peak=900)
    assert predictions_of_others([*EXACT, odd])[-1] == 20


def test_without_weights_or_sizes_nothing_is_made_up() -> None:
    found = memory_factors([MemorySample(0, None, 10, 20)])
    assert (found.weight, found.activation) == (0.0, 0.0)
    assert predictions_of_others([EXACT[0]]) == [None]
