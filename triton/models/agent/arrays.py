"""Arrays to feed models with."""

import numpy as np

_TYPES = {
    "BOOL": np.bool_, "INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16, "UINT16": np.uint16,
    "FP16": np.float16, "INT32": np.int32, "UINT32": np.uint32, "FP32": np.float32,
    "INT64": np.int64, "UINT64": np.uint64, "FP64": np.float64,
}  # fmt: skip


def array_of(item):
    """The given values, else drawn ones: floats in [0, 1), integers 0 or 1."""
    dtype = _TYPES[item["datatype"]]
    if item["values"] is not None:
        return np.array(item["values"], dtype).reshape(item["shape"])
    draw = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return draw.random(item["shape"], dtype=np.float32).astype(dtype, copy=False)
    return draw.integers(0, 2, item["shape"], dtype=np.uint8).astype(dtype, copy=False)
