"""Wire codecs: how a tensor is coded while it crosses a link (rule R5)."""

from __future__ import annotations

from typing import Literal

import numpy as np

Codec = Literal["as_is", "fp16", "int8", "uint8", "to_int32", "to_int16", "to_int8", "to_uint8"]

# Codec -> type on the wire. `to_` casts integers to a narrower type; int8 and uint8 quantize floats
# with a scale and a zero point from the tensor's calibration range.
WIRE_DTYPES: dict[Codec, str] = {
    "fp16": "float16",
    "int8": "int8",
    "uint8": "uint8",
    "to_int32": "int32",
    "to_int16": "int16",
    "to_int8": "int8",
    "to_uint8": "uint8",
}
QUANTIZING: tuple[Codec, ...] = ("int8", "uint8")
NARROWING: tuple[Codec, ...] = ("to_uint8", "to_int8", "to_int16", "to_int32")
_LEAST_TO_NARROW = 4  # bytes; ONNX Runtime can't clip narrower integers
FLOAT_CODECS: tuple[Codec, ...] = ("fp16", *QUANTIZING)


def suits(codec: Codec, dtype: str) -> bool:
    """Whether a codec makes tensors of a type (numpy's name) smaller."""
    if codec == "as_is":
        return True
    kind, bytes_now = np.dtype(dtype).kind, np.dtype(dtype).itemsize
    if np.dtype(WIRE_DTYPES[codec]).itemsize >= bytes_now:
        return False
    if codec in FLOAT_CODECS:
        return kind == "f"
    return kind == "i" and bytes_now >= _LEAST_TO_NARROW


def suiting(dtype: str) -> list[Codec]:
    """The codecs that tensors of a type may have."""
    every: tuple[Codec, ...] = ("as_is", *FLOAT_CODECS, *NARROWING)
    return [codec for codec in every if suits(codec, dtype)]
