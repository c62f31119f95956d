"""Wire codecs alone: which suit which types, their scales, and what their nodes make of values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tritier.divider import Array, WholeModel
from tritier.divider.codec_nodes import check_opset, decoder, encoder, scale_and_zero_point
from tritier.documents import WIRE_DTYPES, Codec, Range, suiting, suits
from tritier.errors import InputError
from tritier.graph import ELEMENT_TYPES

FLOAT_MAX = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float16", ["as_is", "int8", "uint8"]),
        ("float32", ["as_is", "fp16", "int8", "uint8"]),
        ("float64", ["as_is", "fp16", "int8", "uint8"]),
        ("int64", ["as_is", "to_uint8", "to_int8", "to_int16", "to_int32"]),
        ("int32", ["as_is", "to_uint8", "to_int8", "to_int16"]),
        # ONNX Runtime's Clip takes neither narrower nor unsigned integers in every version.
        *((dtype, ["as_is"]) for dtype in ("int16", "int8", "uint8", "uint32", "uint64", "bool")),
    ],
)
def test_codecs_that_suit_a_type(dtype: str, expected: list[str]) -> None:
    assert suiting(dtype) == expected


def test_no_codec_makes_a_tensor_larger() -> None:
    for dtype in ELEMENT_TYPES:
        for codec, wire in WIRE_DTYPES.items():
            if suits(codec, dtype):
                assert np.dtype(wire).itemsize < np.dtype(dtype).itemsize


# -- scale and zero point -------------------------------------------------------------------------

LIMITS: list[Range] = [
    (-1.0, 1.0),
    (-0.1, 6.0),
    (0.0, 6.0),
    (2.0, 6.0),
    (-6.0, -2.0),
    (-6.0, 0.0),
    (-3e-7, 1e-7),
    (-FLOAT_MAX, FLOAT_MAX),
    (-FLOAT_MAX, 0.0),
    (1e-30, FLOAT_MAX),
    (-1e300, 1e300),
]


@pytest.mark.parametrize("codec", ["int8", "uint8"])
@pytest.mark.parametrize("limits", LIMITS)
def test_the_scale_covers_the_range_and_0_is_exact(codec: Codec, limits: Range) -> None:
    scale, zero = scale_and_zero_point(codec, limits)
    info = np.iinfo(WIRE_DTYPES[codec])
    assert info.min <= zero <= info.max
    assert 0 < scale < np.inf
    # In float32, as DequantizeLinear computes it; 0 stands for itself because it is an integer.
    ends = np.array([info.min - zero, info.max - zero], np.float32) * scale
    assert np.isfinite(ends).all()
    for limit in limits:
        kept = min(max(limit, float(ends[0])), float(ends[1]))
        # Half a step may be missing at an end; beyond float32 nothing can be kept.
        if abs(limit) < 0.99 * FLOAT_MAX:
            assert abs(kept - limit) <= 0.51 * float(scale)


@pytest.mark.parametrize("codec", ["int8", "uint8"])
@pytest.mark.parametrize("limits", [(0.0, 0.0), (0.0, 1e-44), (-1e-310, 0.0), (-1e-42, 1e-43)])
def test_a_tensor_that_is_always_0_needs_no_scale(codec: Codec, limits: Range) -> None:
    assert scale_and_zero_point(codec, limits) == (np.float32(1), 0)


def test_a_constant_that_is_not_0_keeps_its_value() -> None:
    scale, zero = scale_and_zero_point("uint8", (4.0, 4.0))
    assert (255 - zero) * float(scale) == pytest.approx(4.0)
    scale, zero = scale_and_zero_point("int8", (-4.0, -4.0))
    assert (-128 - zero) * float(scale) == pytest.approx(-4.0)


# -- nodes ----------------------------------------------------------------------------------------


def there_and_back(values: Array, codec: Codec, limits: Range | None = None) -> Array:
    """What comes out when values are coded and decoded."""
    dtype = values.dtype.name
    parts = [
        encoder("x", "coded", codec, dtype, limits),
        decoder("coded", "y", codec, dtype, limits, "back"),
    ]
    graph = helper.make_graph(
        [node for part in parts for node in part.nodes],
        "g",
        [helper.make_tensor_value_info("x", ELEMENT_TYPES[dtype], values.shape)],
        [
            helper.make_tensor_value_info("y", ELEMENT_TYPES[dtype], values.shape),
            helper.make_tensor_value_info("coded", ELEMENT_TYPES[WIRE_DTYPES[codec]], values.shape),
        ],
        [constant for part in parts for constant in part.constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    found = WholeModel(model.SerializeToString(), "disabled").run({"x": values})
    assert found["coded"].dtype == WIRE_DTYPES[codec]
    assert found["y"].dtype == values.dtype
    return found["y"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fp16_rounds_and_saturates(dtype: str) -> None:
    values = np.array([0, -0.0, 1 / 3, 65504, 65519, 65520, 1e30, -1e30, np.inf, -np.inf], dtype)
    expected = np.array([0, -0.0, 1 / 3, *[65504] * 4, -65504, 65504, -65504], np.float16)
    found = there_and_back(values, "fp16")
    assert found.tobytes() == expected.astype(dtype).tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("codec", ["int8", "uint8"])
def test_8_bits_keep_values_to_half_a_step(codec: Codec, dtype: str) -> None:
    values = np.linspace(-1, 3, 101).astype(dtype)
    found = there_and_back(values, codec, (-1.0, 3.0))
    assert np.abs(found - values).max() <= 0.51 * 4 / 255
    assert found[values == 0] == 0


@pytest.mark.parametrize("codec", ["int8", "uint8"])
def test_8_bits_saturate_beyond_the_range(codec: Codec) -> None:
    values = np.array([-1e30, -1.01, 3.01, 1e30, np.inf, -np.inf], np.float32)
    found = there_and_back(values, codec, (-1.0, 3.0))
    low, high = found.min(), found.max()
    assert (low, high) == pytest.approx((-1, 3), abs=4 / 255)
    assert found.tolist() == [low, low, high, high, high, low]


@pytest.mark.parametrize(
    ("dtype", "limits"),
    [
        # The end of the scale lies at -65604, which float16 would hold as an infinity.
        ("float16", (-65504.0, 100.0)),
        ("float16", (-100.0, 65504.0)),
        ("float32", (-FLOAT_MAX, 100.0)),
        ("float32", (-FLOAT_MAX, FLOAT_MAX)),
        ("float64", (-1e300, 1e300)),
    ],
)
@pytest.mark.parametrize("codec", ["int8", "uint8"])
def test_the_largest_values_come_back_finite(codec: Codec, dtype: str, limits: Range) -> None:
    values = np.array([*limits, 0.0], dtype)
    found = there_and_back(values, codec, limits)
    assert np.isfinite(found).all()
    assert (np.sign(found) == np.sign(values))[np.abs(values) > 1000].all()
    assert found[2] == 0


def test_a_constant_0_comes_back() -> None:
    values = np.zeros(3, np.float32)
    assert there_and_back(values, "int8", (0.0, 0.0)).tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("dtype", "codec"),
    [
        (dtype, codec)
        for dtype in ("int32", "int64")
        for codec in suiting(dtype)
        if codec.startswith("to_")
    ],
)
def test_narrower_integers_keep_what_they_hold_and_never_wrap(dtype: str, codec: Codec) -> None:
    to, wide = np.iinfo(WIRE_DTYPES[codec]), np.iinfo(dtype)
    kept = [to.min, to.max, 0, 1]
    above = [to.max + 1, 2**31 - 1, wide.max]
    below = [to.min - 1, -(2**31), wide.min]
    if dtype == "int64":
        # Of ONNX Runtime's own Clip some of these come out as they are.
        above += [2**31, 2**32 - 1, 2**53 + 1]
        below += [-(2**31) - 1, -(2**32), -(2**53) - 1]
    values = np.array([*kept, *above, *below], dtype)
    found = there_and_back(values, codec)
    assert found.tolist() == [*kept, *[to.max] * len(above), *[to.min] * len(below)]


def test_scalars_stay_scalars() -> None:
    assert there_and_back(np.array(1.5, np.float32), "fp16").shape == ()
    assert there_and_back(np.array(7, np.int64), "to_int8").shape == ()


@pytest.mark.parametrize(
    ("opset", "codec", "message"),
    [
        (10, "fp16", "the model has opset 10, the wire codec fp16 needs 11 or more"),
        (9, "int8", "the model has opset 9, the wire codec int8 needs 10 or more"),
        (11, "to_int8", "the model has opset 11, the wire codec to_int8 needs 12 or more"),
    ],
)
def test_a_model_may_be_too_old_for_a_codec(opset: int, codec: Codec, message: str) -> None:
    def opsets(version: int) -> list[Any]:
        return [helper.make_opsetid("other", 1), helper.make_opsetid("", version)]

    check_opset(opsets(opset + 1), [codec])
    with pytest.raises(InputError) as caught:
        check_opset(opsets(opset), ["uint8" if codec == "to_int8" else codec, codec])
    assert str(caught.value) == (
        f"{message}: convert it with `tritier prepare --opset 17`, or let the wire be as_is"
    )
