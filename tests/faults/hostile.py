"""Hostile requests: valid ones of a model, with one to three things about them spoilt.

Everything is drawn from a seed and the number of the request, so that a finding can be repeated
alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2

Request = Any  # service_pb2.ModelInferRequest has no types
Spoil = Callable[[Request, random.Random], None]

_SIZES = {"BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2}
_SIZES |= {"UINT32": 4, "INT32": 4, "FP32": 4, "UINT64": 8, "INT64": 8, "FP64": 8}
_DTYPES = [*_SIZES, "BYTES", "", "fp32", "FP128", "TYPE_FP32", "\0", "X" * 5000]
_NAMES = ["", "nothing", "../../etc/passwd", "\0", "é" * 300, "N" * 20_000, "key", "poison", "ack"]
_DIMS = [0, -1, -2, 1, 2, 3, 7, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, -(2**63)]
_NUMBERS = [0, 1, -1, 2, 10**6, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)]
_TEXTS = ["", "0", "-1", "abc", "1e400", "nan", "{}", "[1,", "\0\n", "x" * 30_000, "ü", "' OR 1=1"]
_PARAMETERS = ["timeout", "class", "deadline_ms", "priority", "sequence_id", "sequence_start"]
_PARAMETERS += ["tritier_deadline_ns", "tritier_request", "tritier_attempt", "tritier_probe"]
_PARAMETERS += ["traceparent", "tracestate", "binary_data_output", "triton_final_response", "x"]
_INPUT_PARAMETERS = ["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"]
_INPUT_PARAMETERS += ["binary_data_size", "classification"]


@dataclass(frozen=True)
class Subject:
    """A model that is asked, on a server."""

    server: str
    name: str
    kind: str
    config: Any


def valid_request(subject: Subject, draw: random.Random) -> Request:
    """A request of the right form. For a mailbox: a put, a take or a poison."""
    request = service_pb2.ModelInferRequest(model_name=subject.name)
    inputs = list(subject.config.input)
    if subject.kind == "mailbox":
        role = draw.choice(["put", "take", "poison"])
        tensors = [t for t in inputs if t.name not in ("key", "poison")]
        chosen = {"put": tensors, "take": [], "poison": [t for t in inputs if t.name == "poison"]}
        inputs = [t for t in inputs if t.name == "key"] + chosen[role]
        outputs = [t.name for t in tensors] if role == "take" else ["ack"]
        for name in outputs:
            request.outputs.add(name=name)
    numbers = np.random.default_rng(draw.getrandbits(32))
    batch = [1] if subject.config.max_batch_size else []
    for tensor in inputs:
        shape = [*batch, *(dim if dim > 0 else 1 for dim in tensor.dims)]
        dtype = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
        dtype = "BYTES" if dtype == "STRING" else dtype
        request.inputs.add(name=tensor.name, datatype=dtype, shape=shape)
        request.raw_input_contents.append(_content(dtype, int(np.prod(shape)), numbers))
    return request


def hostile_request(subject: Subject, draw: random.Random) -> bytes:
    """A serialized request with one to three faults, sometimes with bytes of it spoilt, too."""
    request = valid_request(subject, draw)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        draw.choice(_SPOILS)(request, draw)
    data: bytes = request.SerializeToString()
    return _spoilt_bytes(data, draw) if draw.random() < 0.08 else data


def _content(dtype: str, count: int, numbers: np.random.Generator) -> bytes:
    if dtype == "BYTES":
        return b"\x05\0\0\0words" * count
    if dtype == "FP32":  # signals as the model knows them
        return numbers.normal(size=count).astype(np.float32).tobytes()
    return numbers.bytes(_SIZES[dtype] * count)


def _shape(request: Request, draw: random.Random) -> None:
    for item in _one_of(request.inputs, draw):
        kind = draw.randrange(5)
        dims = list(item.shape)
        if kind == 0 and dims:
            dims[draw.randrange(len(dims))] = draw.choice(_DIMS)
        elif kind == 1:
            dims = [draw.choice(_DIMS) for _ in range(draw.randrange(0, 7))]
        elif kind == 2:
            dims = dims[::-1]
        elif kind == 3:
            dims.insert(draw.randrange(len(dims) + 1), draw.choice([0, 1, 2]))
        else:
            dims = [1] * draw.choice([64, 3000])
        item.shape[:] = dims


def _dtype(request: Request, draw: random.Random) -> None:
    for item in _one_of(request.inputs, draw):
        item.datatype = draw.choice(_DTYPES)


def _length(request: Request, draw: random.Random) -> None:
    if not request.raw_input_contents:
        return
    place = draw.randrange(len(request.raw_input_contents))
    data = request.raw_input_contents[place]
    request.raw_input_contents[place] = draw.choice(
        [b"", data[:-1], data + b"\0", data * 2, data[: len(data) // 2], bytes(1 << 20)]
    )


def _values(request: Request, draw: random.Random) -> None:
    """Right sizes, strange values: not a number, infinite, all bits set."""
    if not request.raw_input_contents:
        return
    place = draw.randrange(len(request.raw_input_contents))
    size = len(request.raw_input_contents[place])
    pattern = draw.choice([b"\xff", b"\0\0\x80\x7f", b"\0\0\xc0\x7f", b"\xff\xff\x7f\x7f"])
    request.raw_input_contents[place] = (pattern * size)[:size]


def _contents(request: Request, draw: random.Random) -> None:
    """More or fewer raw contents than inputs, or numbers beside them."""
    kind = draw.randrange(4)
    if kind == 0:
        request.raw_input_contents.append(draw.randbytes(draw.choice([0, 16, 4096])))
    elif kind == 1 and request.raw_input_contents:
        del request.raw_input_contents[draw.randrange(len(request.raw_input_contents))]
    elif kind == 2:
        del request.raw_input_contents[:]
    for item in _one_of(request.inputs, draw):
        if kind >= 2:
            item.contents.fp32_contents.extend([1.0] * draw.choice([1, 7, 4096]))
        if kind == 3:
            item.contents.bytes_contents.append(b"\xff")
            item.contents.uint64_contents.extend([2**64 - 1, 0])


def _inputs(request: Request, draw: random.Random) -> None:
    kind = draw.randrange(4)
    if kind == 0 and request.inputs:
        place = draw.randrange(len(request.inputs))
        del request.inputs[place]
        if place < len(request.raw_input_contents):
            del request.raw_input_contents[place]
    elif kind == 1:
        request.inputs.add(name=draw.choice(_NAMES), datatype="FP32", shape=[1])
        request.raw_input_contents.append(bytes(4))
    elif kind == 2 and request.inputs:
        place = draw.randrange(len(request.inputs))
        request.inputs.add().CopyFrom(request.inputs[place])
        if place < len(request.raw_input_contents):
            request.raw_input_contents.append(request.raw_input_contents[place])
    else:
        for item in _one_of(request.inputs, draw):
            item.name = draw.choice(_NAMES)


def _outputs(request: Request, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 1, 2, 500])):
        output = request.outputs.add(name=draw.choice([*_NAMES, "y", "t0", "t1"]))
        if draw.random() < 0.3:
            output.parameters["classification"].int64_param = draw.choice(_NUMBERS)


def _parameters(request: Request, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 1, 2, 5])):
        _set(request.parameters[draw.choice(_PARAMETERS)], draw)


def _input_parameters(request: Request, draw: random.Random) -> None:
    for item in _one_of(request.inputs, draw):
        for _ in range(draw.choice([1, 3])):
            _set(item.parameters[draw.choice(_INPUT_PARAMETERS)], draw)


def _identity(request: Request, draw: random.Random) -> None:
    kind = draw.randrange(3)
    if kind == 0:
        request.id = draw.choice([*_TEXTS, "i" * 200_000])
    elif kind == 1:
        request.model_version = draw.choice(["0", "1", "2", "-1", "abc", "9" * 30, "1\0"])
    else:
        request.model_name = draw.choice([*_NAMES, request.model_name + "\0", "../" * 40])


def _key(request: Request, draw: random.Random) -> None:
    """Keys of another size, and one that many requests share."""
    for place, item in enumerate(request.inputs):
        if item.name == "key" and place < len(request.raw_input_contents):
            count = draw.choice([0, 1, 2, 2, 2, 3, 4096])
            item.shape[:] = [count]
            request.raw_input_contents[place] = bytes(8 * count)


def _poison(request: Request, draw: random.Random) -> None:
    """A poison with everything, of texts that are none."""
    data = [b"\xff\xff\xff\xff", b"\x03\0\0\0\xff\xfe\xfd", b"", b"\0" * 4, b"\x01\0\0\0a" * 300]
    request.inputs.add(name="poison", datatype="BYTES", shape=[draw.choice([0, 1, 1, 300])])
    request.raw_input_contents.append(draw.choice(data))


def _big(request: Request, draw: random.Random) -> None:
    """A tensor of some MiB whose shape agrees with its bytes."""
    for place, item in enumerate(request.inputs):
        if place < len(request.raw_input_contents) and item.datatype in _SIZES:
            count = draw.choice([1 << 18, 1 << 20])
            item.shape[:] = draw.choice([[count], [1, 1, 1, count], [1024, count // 1024]])
            request.raw_input_contents[place] = bytes(count * _SIZES[item.datatype])
            return


_SPOILS: list[Spoil] = [_shape, _shape, _dtype, _length, _values, _contents, _inputs, _outputs]
_SPOILS += [_parameters, _parameters, _input_parameters, _identity, _key, _poison, _big]


def _one_of(items: Any, draw: random.Random) -> list[Any]:
    return [items[draw.randrange(len(items))]] if items else []


def _set(parameter: Any, draw: random.Random) -> None:
    kind = draw.randrange(5)
    if kind == 0:
        parameter.bool_param = draw.random() < 0.5
    elif kind == 1:
        parameter.string_param = draw.choice(_TEXTS)
    elif kind == 2:
        parameter.double_param = draw.choice([0.0, -1.0, 1e308, float("nan"), float("inf")])
    elif kind == 3:
        parameter.uint64_param = draw.choice([0, 1, 2**63, 2**64 - 1])
    else:
        parameter.int64_param = draw.choice(_NUMBERS)


def _spoilt_bytes(data: bytes, draw: random.Random) -> bytes:
    spoilt = bytearray(data[:200_000])
    kind = draw.randrange(3)
    if kind == 0:
        return bytes(spoilt[: draw.randrange(len(spoilt) + 1)])
    # The fields before the tensors are where a changed byte means something.
    for _ in range(draw.choice([1, 3, 20])):
        if spoilt:
            spoilt[draw.randrange(min(len(spoilt), 300))] = draw.randrange(256)
    return bytes(spoilt) if kind == 1 else bytes(spoilt) + draw.randbytes(40)


def draw_of(seed: int, number: int) -> random.Random:
    """What decides everything about the request of that number."""
    return random.Random(f"{seed}/{number}")
