"""Fits of noise on any truth: what is quadratic is found again, and nothing hangs on the names of
layers or the unit of noise. Margins cover what they say."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tritier.noise.design import design, in_prefix_order, verification
from tritier.noise.figures import figures, margin, predict
from tritier.noise.fit import fit_squared

SIZES = st.floats(0.1, 10)
Samples = dict[int, float]


@st.composite
def quadratics(draw: st.DrawFn) -> tuple[int, int, dict[int, float]]:
    """(layers, power, terms): pairs are small enough for noise never to be negative."""
    count = draw(st.integers(2, 5))
    power = draw(st.sampled_from([1, 2]))
    sizes = draw(st.lists(SIZES, min_size=count, max_size=count))
    terms = {1 << i: size**power for i, size in enumerate(sizes)}
    for i, j in itertools.combinations(range(count), 2):
        share = draw(st.floats(-0.9 / count, 1))
        terms[1 << i | 1 << j] = share * (sizes[i] * sizes[j]) ** (power / 2)
    return count, power, terms


@st.composite
def samples_of_designs(draw: st.DrawFn) -> tuple[int, Samples]:
    """Any noise that grows somehow with the layers, on the design and a few more subsets."""
    count = draw(st.integers(1, 7))
    sizes = draw(st.lists(SIZES, min_size=count, max_size=count))
    subsets = design(count) + verification(count, 3, draw(st.integers(0, 9)), design(count))
    found = {}
    for mask in subsets:
        alone = math.hypot(*(size for i, size in enumerate(sizes) if mask >> i & 1))
        found[mask] = alone * draw(st.floats(0.7, 1.4))
    return count, found


def told(terms: dict[int, float], count: int, power: int = 2) -> list[float]:
    """Predictions for all subsets."""
    return [predict(terms, 0.0, power, mask) for mask in range(1 << count)]


@given(quadratics())
@settings(max_examples=examples(40))
def test_a_quadratic_truth_is_found_again(truth: tuple[int, int, dict[int, float]]) -> None:
    """Where all pairs are measured; but for pairs that change no prediction by a thousandth."""
    count, power, terms = truth
    real = told(terms, count, power)
    pairs = [1 << i | 1 << j for i, j in itertools.combinations(range(count), 2)]
    samples = {mask: real[mask] for mask in dict.fromkeys(design(count) + pairs)}
    found = fit_squared(samples, count, power)
    assert {mask: predict(found, 0.0, power, mask) for mask in samples} == (
        pytest.approx(samples, rel=2e-3)
    )
    assert told(found, count, power) == pytest.approx(real, rel=0.01)


@given(samples_of_designs(), st.sampled_from([1, 2]))
@settings(max_examples=examples(40))
def test_singles_are_exact(drawn: tuple[int, Samples], power: int) -> None:
    count, samples = drawn
    terms = fit_squared(samples, count, power)
    assert all(mask.bit_count() <= 2 for mask in terms)
    for i in range(count):
        assert predict(terms, 0.0, power, 1 << i) == pytest.approx(samples[1 << i], rel=1e-12)


@given(samples_of_designs(), st.randoms(use_true_random=False))
@settings(max_examples=examples(25))
def test_permuted_layers_permute_the_terms(
    drawn: tuple[int, Samples], random: np.random.RandomState
) -> None:
    count, samples = drawn
    order = list(range(count))
    random.shuffle(order)

    def moved(mask: int) -> int:
        return sum(1 << order[i] for i in range(count) if mask >> i & 1)

    plain = fit_squared(samples, count)
    found = fit_squared({moved(mask): noise for mask, noise in samples.items()}, count)
    told_plain = [predict(plain, 0.0, 2, mask) for mask in range(1 << count)]
    told_moved = [predict(found, 0.0, 2, moved(mask)) for mask in range(1 << count)]
    # Which of two nearly equal pairs is dropped first may change: by a thousandth on samples.
    assert told_moved == pytest.approx(told_plain, rel=0.01, abs=1e-6)


@given(samples_of_designs(), st.floats(1e-12, 1e12), st.sampled_from([1, 2]))
@settings(max_examples=examples(25))
def test_scaled_noise_scales_predictions(
    drawn: tuple[int, Samples], scale: float, power: int
) -> None:
    count, samples = drawn
    plain = told(fit_squared(samples, count, power), count, power)
    scaled = {mask: noise * scale for mask, noise in samples.items()}
    found = told(fit_squared(scaled, count, power), count, power)
    assert [x / scale for x in found] == pytest.approx(plain, rel=0.01, abs=1e-6)


@given(
    st.lists(st.floats(0.01, 100), min_size=19, max_size=60),
    st.sampled_from([0.5, 0.8, 0.9, 0.95]),
)
def test_a_margin_covers_no_more_and_no_less_than_it_says(
    ratios: list[float], coverage: float
) -> None:
    """At least the conformal number of subsets lie within, and a smaller factor has fewer."""
    found = margin(dict(enumerate(ratios)), lambda _: 1.0, coverage)
    needed = math.ceil((len(ratios) + 1) * Fraction(str(coverage)))
    assert sum(ratio <= found for ratio in ratios) >= needed
    assert found == 1.0 or sum(ratio < found for ratio in ratios) < needed


@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)), min_size=1, max_size=20))
def test_figures_are_finite_and_in_range(pairs: list[tuple[float, float]]) -> None:
    measured = {i: real for i, (real, _) in enumerate(pairs)}
    found = figures(measured, lambda i: pairs[i][1])
    assert all(map(math.isfinite, found.model_dump().values()))
    assert found.worst_under <= 1
    perfect = figures(measured, measured.__getitem__)
    assert (perfect.r2, perfect.mape, perfect.spearman) == pytest.approx((1, 0, 1))


@given(st.integers(1, 90), st.integers(0, 99))
@settings(max_examples=examples(40))
def test_neighbours_in_prefix_order_share_what_any_order_could(count: int, seed: int) -> None:
    """Sorted by first layers: each distinct prefix is met in one stretch, so computed once."""
    subsets = design(count) + verification(count, 20, seed, design(count))
    ordered = in_prefix_order(subsets, count)
    assert sorted(ordered) == sorted(subsets)
    for length in range(count):
        prefixes = [mask & (1 << length) - 1 for mask in ordered]
        changes = sum(a != b for a, b in itertools.pairwise(prefixes))
        assert changes == len(set(prefixes)) - 1
