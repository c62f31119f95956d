"""A request is checked before its first hop: names, types, shapes and sizes, and its parameters.

Triton checks most of it itself; what it lets pass in some version stops here.
"""

import json
from dataclasses import dataclass

import numpy as np

_MAX_TIMEOUT_US = 86_400_000_000  # a day; a negative timeout arrives as a number beyond it
_MAX_DEADLINE_MS = _MAX_TIMEOUT_US // 1000
_SHOWN = 80  # characters of what an app sent, in messages
_RESERVED = "tritier_"
DTYPES = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
}


class Refused(Exception):
    """The request is wrong; the text says how."""


@dataclass(frozen=True)
class Wanted:
    """What a request asks for."""

    request_class: object
    budget_s: float
    traceparent: str | None


class Checker:
    """Knows the inputs of the model and the classes."""

    def __init__(self, config, table):
        self._table = table
        self._batched = int(config.get("max_batch_size") or 0)
        self._inputs = {item["name"]: item for item in config["input"]}
        self._needed = {n for n, item in self._inputs.items() if not item.get("optional")}
        self._outputs = {item["name"] for item in config["output"]}

    def wanted(self, parameters_json, timeout_us):
        """Class, budget and trace of a request; Refused for anything that is not allowed."""
        parameters = json.loads(parameters_json or "{}")
        reserved = [name for name in parameters if name.startswith(_RESERVED)]
        if reserved:
            raise Refused(
                f"parameters {str(reserved)[:_SHOWN]}: names that begin with '{_RESERVED}' are ours"
            )
        name = parameters.get("class", self._table.default_class)
        request_class = self._table.classes.get(name) if isinstance(name, str) else None
        if request_class is None:
            known = ", ".join(self._table.classes)
            raise Refused(f"parameter 'class' is {repr(name)[:_SHOWN]}; allowed are {known}")
        budget_s = min(request_class.deadline_s, self._table.deadline_s)
        if timeout_us:
            if timeout_us > _MAX_TIMEOUT_US:
                raise Refused(f"timeout is {timeout_us}; allowed are microseconds up to one day")
            budget_s = min(budget_s, timeout_us / 1e6)
        if "deadline_ms" in parameters:
            budget_s = min(budget_s, _milliseconds(parameters["deadline_ms"]) / 1000)
        traceparent = parameters.get("traceparent")
        return Wanted(request_class, budget_s, traceparent if type(traceparent) is str else None)

    def tensors(self, tensors, outputs):
        """Refused unless names, types, shapes and sizes are those of the model.

        `tensors`: objects with name(), shape() and as_numpy().
        """
        seen = set()
        for tensor in tensors:
            name = tensor.name()
            if name not in self._inputs or name in seen:
                known = ", ".join(self._inputs)
                raise Refused(f"input '{name}' is unknown or given twice; known are {known}")
            seen.add(name)
            self._tensor(name, tensor)
        missing = sorted(self._needed - seen)
        if missing:
            raise Refused(f"inputs {missing} are missing")
        unknown = [name for name in outputs if name not in self._outputs]
        if unknown:
            known = ", ".join(sorted(self._outputs))
            raise Refused(f"outputs {unknown} are unknown; known are {known}")

    def _tensor(self, name, tensor):
        item = self._inputs[name]
        shape = [int(size) for size in tensor.shape()]
        expected = [int(size) for size in item["dims"]]
        if self._batched:
            expected = [-1, *expected]
            if shape and shape[0] > self._batched:
                raise Refused(f"input '{name}': batch {shape[0]}; allowed is {self._batched}")
        fits = len(shape) == len(expected) and all(
            size >= 0 and want in (-1, size) for size, want in zip(shape, expected, strict=True)
        )
        if not fits:
            raise Refused(f"input '{name}' has shape {shape}; allowed is {expected}")
        dtype = DTYPES.get(item["data_type"])
        if dtype is None:  # texts and bfloat16, which numpy does not hold as they came
            return
        array = tensor.as_numpy()
        if array.dtype != dtype:
            raise Refused(f"input '{name}' is of {array.dtype}; allowed is {np.dtype(dtype)}")
        if list(array.shape) != shape:
            # What this server does, silently, when its Python environment has numpy 2.
            raise Refused(f"input '{name}' has {array.nbytes} bytes, too few for shape {shape}")


def _milliseconds(value):
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        value = repr(value)
    try:
        number = int(value)
    except ValueError:
        number = 0
    if not 1 <= number <= _MAX_DEADLINE_MS:
        raise Refused(
            f"parameter 'deadline_ms' is {repr(value)[:_SHOWN]}; allowed are whole milliseconds "
            "from 1 up to one day"
        )
    return number
