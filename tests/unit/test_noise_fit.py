"""Subsets to measure, fits of noise and figures of fits, by hand and on synthetic networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from tritier.errors import CheckFailed, InputError
from tritier.noise.design import design, in_prefix_order, random_design, verification
from tritier.noise.figures import figures, margin, predict
from tritier.noise.fit import fit_squared
from tritier.noise.polynomial import fit_polynomial


def network(count: int, seed: int) -> Callable[[int], float]:
    """Noise of a synthetic network: error vectors on 8 images add up, with a little correlation,
    and each later layer damps what comes from earlier ones."""
    draw = np.random.default_rng(seed)
    sizes = np.exp(draw.normal(0, 0.8, count))
    common = draw.normal(size=(8, 200))
    errors = [size * (0.1 * common * draw.normal() + draw.normal(size=(8, 200))) for size in sizes]

    def noise(mask: int) -> float:
        moved = np.zeros((8, 200))
        for i in range(count):
            moved = moved * (1 - 0.05 / count) + errors[i] * (mask >> i & 1)
        return float(np.abs(moved).mean())

    return noise


# Subsets.


def test_design_of_four_layers() -> None:
    """Singles, all, the first 2 and 3, the last 2 and 3."""
    assert design(4) == [0b0001, 0b0010, 0b0100, 0b1000, 0b1111, 0b0011, 0b0111, 0b1100, 0b1110]


@pytest.mark.parametrize(
    ("count", "number"),
    [(1, 1), (2, 3), (3, 6), (5, 25), (12, 33), (13, 34), (40, 61), (88, 109)],
)
def test_designs_stay_small_and_repeat_nothing(count: int, number: int) -> None:
    found = design(count)
    assert len(found) == len(set(found)) == number
    assert all(0 < mask < 1 << count for mask in found)
    assert {1 << i for i in range(count)} | {(1 << count) - 1} <= set(found)


def test_many_layers_have_random_subsets_of_all_sizes() -> None:
    drawn = [mask for mask in design(88) if 1 < mask.bit_count() < 88]
    assert [mask.bit_count() for mask in drawn] == [round(88 * k / 21) for k in range(1, 21)]
    assert design(88) == design(88, seed=0) != design(88, seed=1)


def test_design_without_layers() -> None:
    with pytest.raises(InputError, match="0 layers to measure the noise of: 1 at least"):
        design(0)


def test_verification_draws_all_sizes_alike() -> None:
    """Each layer as often as the others, and each size as often, as long as there are enough."""
    found = verification(40, 2000, seed=3, without=design(40))
    assert len(set(found)) == 2000
    assert not set(found) & {0, *design(40)}
    share = [sum(mask >> i & 1 for mask in found) / 2000 for i in range(40)]
    assert share == pytest.approx([0.5] * 40, abs=0.04)
    sizes = [mask.bit_count() for mask in found]
    for low in (3, 12, 21, 30):
        part = sum(low <= size < low + 9 for size in sizes) / 2000
        assert part == pytest.approx(9 / 38, abs=0.03)  # all singles are in the design


def test_random_design_draws_all_subsets_alike() -> None:
    found = random_design(12, 2000, seed=3)
    assert len(set(found)) == 2000
    assert 0 not in found
    assert sum(mask.bit_count() == 6 for mask in found) / 2000 == pytest.approx(0.2256, abs=0.03)


def test_verification_depends_on_the_seed_alone() -> None:
    assert verification(88, 20, 1, ()) == verification(88, 20, 1, ())
    assert verification(88, 20, 1, ()) != verification(88, 20, 2, ())
    assert max(verification(88, 20, 1, ())) >= 1 << 80


def test_verification_takes_what_there_is() -> None:
    assert sorted(verification(3, 20, 0, [1, 2, 4, 7, 0, 99])) == [3, 5, 6]
    assert verification(2, 20, 0, design(2)) == []
    assert sorted(random_design(2, 20, 0)) == [1, 2, 3]


def test_prefix_order_changes_the_last_layers_first() -> None:
    found = in_prefix_order(range(8), 3)
    assert found == [0b000, 0b100, 0b010, 0b110, 0b001, 0b101, 0b011, 0b111]


# Fits.


def test_two_layers() -> None:
    """25 = 9 + 16 without a pair; 36 needs one of 11."""
    assert fit_squared({1: 3.0, 2: 4.0, 3: 5.0}, 2) == {1: 9.0, 2: 16.0}
    assert fit_squared({1: 3.0, 2: 4.0, 3: 6.0}, 2) == pytest.approx({1: 9, 2: 16, 3: 11}, rel=1e-6)
    assert fit_squared({1: 3.0, 2: 4.0, 3: 8.0}, 2, power=1) == pytest.approx({1: 3, 2: 4, 3: 1})


def test_one_layer() -> None:
    assert fit_squared({1: 3.0}, 1) == {1: 9.0}


@pytest.mark.parametrize(("count", "r2"), [(12, 0.995), (30, 0.98)])
def test_a_network_is_learned_from_the_design(count: int, r2: float) -> None:
    noise = network(count, seed=1)
    terms = fit_squared({mask: noise(mask) for mask in design(count)}, count)
    fresh = {mask: noise(mask) for mask in verification(count, 100, 5, design(count))}
    found = figures(fresh, partial(predict, terms, 0.0, 2))
    alone = {mask: value for mask, value in terms.items() if mask.bit_count() == 1}
    assert found.r2 > r2
    assert found.r2 > figures(fresh, partial(predict, alone, 0.0, 2)).r2
    assert found.spearman > 0.98


def test_layers_that_add_up_leave_no_pairs() -> None:
    sizes = np.linspace(1, 3, 88)
    samples = {
        mask: math.sqrt(sum(sizes[i] ** 2 for i in range(88) if mask >> i & 1))
        for mask in design(88)
    }
    assert fit_squared(samples, 88) == pytest.approx({1 << i: sizes[i] ** 2 for i in range(88)})


def test_small_pairs_are_dropped_within_a_thousandth() -> None:
    """Pairs of 1e-4 do not matter, one of 5 does; all 57 subsets with pairs are measured."""
    truth = {1 << i: 1.0 for i in range(6)}
    truth |= {1 << i | 1 << j: 1e-4 for i, j in itertools.combinations(range(6), 2)}
    truth[0b11] = 5.0
    samples = {mask: predict(truth, 0, 2, mask) for mask in range(1, 64)}
    terms = fit_squared(samples, 6)
    assert [mask for mask in terms if mask.bit_count() == 2] == [0b11]
    told = {mask: predict(terms, 0, 2, mask) for mask in samples}
    assert told == pytest.approx(samples, rel=1e-3)


def test_errors_of_the_noise_count_and_not_of_its_square() -> None:
    """All 127 subsets, off by up to a tenth: stress on large or small noise is worse."""
    draw = np.random.default_rng(0)
    truth = {1 << i: 2.0**i for i in range(7)}
    samples = {m: predict(truth, 0, 2, m) * draw.uniform(0.9, 1.1) for m in range(1, 128)}
    errors = []
    for stress in (0, 2, -2):
        weights = {mask: noise**stress for mask, noise in samples.items()}
        terms = fit_squared(samples, 7, weights=weights)
        errors.append(sum((predict(terms, 0, 2, m) - noise) ** 2 for m, noise in samples.items()))
    assert errors[0] < min(errors[1:])


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-9, 1.0, 1e100])
def test_layers_without_any_effect(scale: float) -> None:
    noise = {mask: scale * (mask & 3).bit_count() for mask in design(5)}
    terms = fit_squared(noise, 5)
    assert all(math.isfinite(value) for value in terms.values())
    assert predict(terms, 0.0, 2, 0b11100) == pytest.approx(0.0, abs=1e-3 * scale)
    if scale > 1e-100:
        assert predict(terms, 0.0, 2, 0b00011) == pytest.approx(2 * scale, rel=0.02)


@pytest.mark.parametrize("power", [1, 2])
def test_no_noise_at_all(power: int) -> None:
    assert fit_squared(dict.fromkeys(design(4), 0.0), 4, power) == {1: 0, 2: 0, 4: 0, 8: 0}


def test_layers_that_do_something_only_together() -> None:
    """As an accuracy does that no layer alone spoils."""
    samples = {1: 0.0, 2: 0.0, 4: 1.0, 3: 2.0, 5: 1.0, 6: 1.0, 7: 3.0}
    terms = fit_squared(samples, 3, power=1)
    assert predict(terms, 0, 1, 3) == pytest.approx(2.0, rel=0.01)


def test_a_weight_of_nothing_leaves_a_sample_out() -> None:
    wild = {1: 1.0, 2: 1.0, 4: 1.0, 3: 1.5, 7: 9.0}
    without = fit_squared({mask: wild[mask] for mask in (1, 2, 4, 3)}, 3)
    found = fit_squared(wild, 3, weights={7: 0.0})
    assert found == pytest.approx(without)
    assert fit_squared(wild, 3)[3] > 2 * found[3]
    with pytest.raises(InputError, match=r"finite and 0 or more: 0x7: -1"):
        fit_squared(wild, 3, weights={7: -1.0})


@pytest.mark.parametrize(
    ("samples", "count", "message"),
    [
        ({}, 2, "no samples to fit noise to"),
        ({1: 1.0, 3: 2.0}, 2, r"no sample of layer 1 alone \(of 2 layers\)"),
        ({1: 1.0, 2: 1.0, 4: 1.0}, 2, r"subset 0x4 is not among those of 2 layers \(1 to 0x3\)"),
        ({0: 0.0, 1: 1.0}, 1, "subset 0x0 is not among"),
        ({1: -1.0}, 1, "the noise of subset 0x1 is -1.0: a finite number, 0 or more"),
        ({1: math.nan}, 1, "is nan"),
        ({1: 1e200}, 1, "a finite number"),
    ],
)
def test_bad_samples(samples: dict[int, float], count: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_squared(samples, count)


def test_bad_power() -> None:
    with pytest.raises(InputError, match="a power of 3"):
        fit_squared({1: 1.0}, 1, power=3)


# The published polynomial.


def test_a_polynomial_is_found_again() -> None:
    truth = {0b0001: 1.0, 0b0010: 2.0, 0b0100: 3.0, 0b1000: 0.5, 0b0011: 1.5, 0b0111: -2.0}
    samples = {mask: predict(truth, 4.0, 1, mask) for mask in range(1, 16)}
    constant, terms = fit_polynomial(samples | {15: samples[15]}, 4, 2)
    assert len(terms) == 10
    constant, terms = fit_polynomial(samples, 4, 1)
    assert set(terms) == {1, 2, 4, 8}
    found = {mask: predict(terms, constant, 1, mask) for mask in samples}
    assert figures(samples, found.__getitem__).r2 < 0.99


def test_least_squares_with_enough_samples_is_exact() -> None:
    truth = {0b00001: 1.0, 0b00010: 2.0, 0b10000: 0.5, 0b00011: 1.5, 0b10010: -0.25}
    samples = {mask: predict(truth, 4.0, 1, mask) for mask in range(1, 32)}
    constant, terms = fit_polynomial(samples, 5, 2)
    assert len(terms) == 15
    assert constant == pytest.approx(4.0)
    assert {mask: value for mask, value in terms.items() if abs(value) > 1e-9} == (
        pytest.approx(truth)
    )


def test_the_published_size() -> None:
    noise = network(12, seed=2)
    samples = {mask: noise(mask) for mask in random_design(12, 700, seed=1)}
    constant, terms = fit_polynomial(samples, 12, 3)
    assert len(terms) == 298
    fresh = {mask: noise(mask) for mask in verification(12, 100, 5, samples)}
    assert figures(fresh, partial(predict, terms, constant, 1)).r2 > 0.99


def test_few_samples_do_not_blow_up() -> None:
    """Least squares without a penalty has an R2 of -0.1 here: 33 samples for 298 terms."""
    noise = network(12, seed=1)
    samples = {mask: noise(mask) for mask in random_design(12, 33, seed=1)}
    constant, terms = fit_polynomial(samples, 12, 3)
    fresh = {mask: noise(mask) for mask in verification(12, 100, 5, samples)}
    assert figures(fresh, partial(predict, terms, constant, 1)).r2 > 0.6


def test_bad_degrees() -> None:
    with pytest.raises(InputError, match="degree 0: 1 at least"):
        fit_polynomial({1: 1.0}, 1, 0)
    with pytest.raises(InputError, match="degree 3 of 88 layers has 113652 terms, 20000 are"):
        fit_polynomial({1: 1.0}, 88, 3)


# Figures and margins.


def test_prediction_by_hand() -> None:
    terms = {0b001: 4.0, 0b010: 9.0, 0b011: 3.0, 0b100: -99.0}
    assert predict(terms, 0.0, 2, 0b011) == 4.0
    assert predict(terms, 1.5, 1, 0b001) == 5.5
    assert predict(terms, 1.5, 1, 0) == 0.0
    assert predict(terms, 0.0, 2, 0b111) == 0.0


def test_figures_by_hand() -> None:
    measured, told = {1: 1.0, 2: 2.0, 3: 4.0}, {1: 1.1, 2: 1.5, 3: 4.0}
    found = figures(measured, told.__getitem__)
    spread = sum((x - 7 / 3) ** 2 for x in measured.values())
    assert found.subsets == 3
    assert found.r2 == pytest.approx(1 - (0.01 + 0.25) / spread)
    assert found.mape == pytest.approx((0.1 + 0.25 + 0) / 3)
    assert (found.worst_under, found.worst_over) == pytest.approx((0.25, 0.1))
    assert found.spearman == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("measured", "told", "r2", "spearman"),
    [
        ([2.0, 2.0], [2.0, 2.0], 1.0, 1.0),
        ([2.0, 2.0], [3.0, 3.0], 0.0, 1.0),
        ([2.0, 2.0], [1.0, 3.0], 0.0, 0.0),
        ([1.0, 3.0], [2.0, 2.0], 0.0, 0.0),
        ([0.0, 0.0], [0.0, 0.0], 1.0, 1.0),
        ([0.0, 0.0], [0.0, 1.0], 0.0, 0.0),
        ([1e-320, 2e-320], [1e-320, 2e-320], 1.0, 1.0),
        ([5.0], [5.0], 1.0, 1.0),
    ],
)
def test_figures_where_nothing_differs(
    measured: list[float], told: list[float], r2: float, spearman: float
) -> None:
    found = figures(dict(enumerate(measured, 1)), lambda mask: told[mask - 1])
    assert (found.r2, found.spearman) == pytest.approx((r2, spearman))


def test_noise_predicted_where_there_is_none_is_a_large_finite_error() -> None:
    found = figures({1: 0.0, 2: 1.0}, lambda _: 1.0)
    assert found.worst_over == pytest.approx(1e6)
    assert figures({1: 1.0, 2: 1.0}, lambda _: 0.0).worst_under == 1.0


def test_figures_of_nothing() -> None:
    with pytest.raises(InputError, match="no measured subsets"):
        figures({}, lambda _: 0.0)


@pytest.mark.parametrize(
    ("number", "coverage", "rank"), [(20, 0.95, 20), (19, 0.95, 19), (39, 0.95, 38), (9, 0.5, 5)]
)
def test_margin_is_an_order_statistic(number: int, coverage: float, rank: int) -> None:
    measured = {i: 1 + i / 100 for i in range(number, 0, -1)}
    assert margin(measured, lambda _: 1.0, coverage) == 1 + rank / 100


def test_margin_is_not_below_one() -> None:
    assert margin(dict.fromkeys(range(1, 21), 0.5), lambda _: 1.0) == 1.0
    assert margin(dict.fromkeys(range(1, 21), 0.0), lambda _: 0.0) == 1.0


def test_too_few_subsets_for_a_margin() -> None:
    with pytest.raises(InputError, match=r"18 verification .* coverage of 0.95: 19 at least"):
        margin(dict.fromkeys(range(18), 1.0), lambda _: 1.0)
    with pytest.raises(InputError, match=r"20 .* 0.99: 99 at least"):
        margin(dict.fromkeys(range(20), 1.0), lambda _: 1.0, 0.99)
    for coverage in (0.0, 1.0, -1.0):
        with pytest.raises(InputError, match="above 0 and below 1"):
            margin(dict.fromkeys(range(20), 1.0), lambda _: 1.0, coverage)


def test_no_factor_makes_noise_of_nothing() -> None:
    """One of 20 is the largest and needed; one of 39 is beyond the 38 that coverage asks for."""
    with pytest.raises(CheckFailed, match="1 of 20 were predicted to have no noise and have some"):
        margin(dict.fromkeys(range(20), 1.2), lambda mask: float(mask > 0))
    assert margin(dict.fromkeys(range(39), 1.2), lambda mask: float(mask > 0)) == 1.2
