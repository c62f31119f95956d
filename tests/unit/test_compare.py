"""Comparing a split model's outputs with the whole model's (rule R4)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from tritier.divider import Comparison, Difference

NAN = float("nan")
INF = float("inf")


def compared(
    whole: npt.ArrayLike,
    split: npt.ArrayLike,
    absolute: float = 0.0,
    relative: float = 0.0,
    dtype: str = "float32",
) -> Difference:
    """One output, one run."""
    comparison = Comparison(absolute, relative)
    comparison.add({"y": np.array(whole, dtype)}, {"y": np.array(split, dtype)})
    (row,) = comparison.differences()
    assert row.output == "y"
    assert row.samples == 1
    return row


@pytest.mark.parametrize(
    ("whole", "split", "max_abs", "ok"),
    [
        pytest.param([1, 2], [1, 2], 0, True, id="equal"),
        pytest.param([1, 2], [1, 2.5], 0.5, False, id="different"),
        pytest.param([], [], 0, True, id="empty"),
        pytest.param([NAN, 1], [NAN, 1], 0, True, id="NaN on both sides"),
        pytest.param([NAN, 1], [NAN, 2], 1, False, id="NaN on both sides and a difference"),
        pytest.param([NAN, 1], [0, 1], INF, False, id="NaN in the whole only"),
        pytest.param([0, 1], [NAN, 1], INF, False, id="NaN in the parts only"),
        pytest.param([INF, 1], [INF, 1], 0, True, id="infinity on both sides"),
        pytest.param([INF, 1], [INF, 2], 1, False, id="infinity on both sides and a difference"),
        pytest.param([INF], [-INF], INF, False, id="infinities of opposite sign"),
        pytest.param([INF], [1], INF, False, id="infinity in the whole only"),
        pytest.param([1], [-INF], INF, False, id="infinity in the parts only"),
        pytest.param([NAN], [INF], INF, False, id="NaN against infinity"),
        pytest.param([[1, 2]], [1, 2], INF, False, id="another shape"),
        pytest.param([1], 1, INF, False, id="one element against a scalar"),
    ],
)
def test_exact(whole: npt.ArrayLike, split: npt.ArrayLike, max_abs: float, ok: bool) -> None:
    row = compared(whole, split)
    assert row.max_abs == max_abs
    assert row.ok is ok


@pytest.mark.parametrize("relative", [0.0, 1e-4, 0.5])
@pytest.mark.parametrize(
    ("whole", "split"), [([NAN], [1]), ([INF], [1]), ([1], [INF]), ([INF], [-INF]), ([1], [NAN])]
)
def test_no_tolerance_lets_what_is_not_finite_pass(
    whole: list[float], split: list[float], relative: float
) -> None:
    assert not compared(whole, split, absolute=1e30, relative=relative).ok


@pytest.mark.parametrize(
    ("whole", "split", "absolute", "relative", "ok"),
    [
        pytest.param([8], [8.5], 0.5, 0, True, id="absolute, on the edge"),
        pytest.param([8], [8.5], 0.4999, 0, False, id="absolute, past the edge"),
        pytest.param([8], [8.5], 0, 0.0625, True, id="relative, on the edge"),
        pytest.param([-8], [-8.5], 0, 0.0625, True, id="relative of a negative number"),
        pytest.param([8.5], [8], 0, 0.0588, False, id="relative to the whole, not to the parts"),
        pytest.param([8], [8.5], 0.25, 0.03125, True, id="both together, on the edge"),
        pytest.param([8, 0], [8.5, 0.1], 0, 0.0625, False, id="each element by its own size"),
    ],
)
def test_tolerance(
    whole: list[float], split: list[float], absolute: float, relative: float, ok: bool
) -> None:
    assert compared(whole, split, absolute, relative).ok is ok


def test_the_smallest_step_of_a_float_breaks_bit_equality() -> None:
    assert not compared([1.0], np.nextafter(np.float32(1), np.float32(2))[None]).ok


@pytest.mark.parametrize(
    ("whole", "split", "dtype"),
    [
        ([2**53], [2**53 + 1], "int64"),
        ([2**64 - 1], [2**64 - 2], "uint64"),
        ([True], [False], "bool"),
        ([255], [0], "uint8"),
        ([-128], [127], "int8"),
    ],
)
def test_integers_are_compared_exactly(whole: list[int], split: list[int], dtype: str) -> None:
    assert compared(whole, whole, dtype=dtype).ok
    assert not compared(whole, split, dtype=dtype).ok


def test_unsigned_differences_do_not_wrap_round() -> None:
    assert compared([0], [255], dtype="uint8").max_abs == 255


def test_another_type_is_a_difference() -> None:
    comparison = Comparison(1.0, 0.0)
    comparison.add({"y": np.ones(2, np.float32)}, {"y": np.ones(2, np.float64)})
    assert not comparison.differences()[0].ok


@pytest.mark.parametrize(("whole", "split"), [(["y", "z"], ["y"]), (["y"], ["y", "z"])])
def test_another_set_of_outputs_is_a_difference(whole: list[str], split: list[str]) -> None:
    comparison = Comparison(1.0, 0.0)
    one = np.ones(2, np.float32)
    comparison.add(dict.fromkeys(whole, one), dict.fromkeys(split, one))
    assert {row.output: row.ok for row in comparison.differences()} == {"y": True, "z": False}


def test_the_worst_of_all_runs_counts() -> None:
    comparison = Comparison(0.5, 0.0)
    for gap in (0.25, 1.0, 0.0):
        comparison.add({"y": np.zeros(2, "f4")}, {"y": np.array([0, gap], "f4")})
    (row,) = comparison.differences()
    assert row.max_abs == 1.0
    assert row.excess == 0.5
    assert math.isclose(row.mean_abs, (0.125 + 0.5) / 3)
    assert row.samples == 3
    assert not row.ok
