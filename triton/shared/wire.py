"""Encode and decode ModelInfer messages with as few copies as Python allows.

tritonclient copies a tensor four times on its way out (tobytes, into the protobuf message, out of
it, into gRPC). A serialized protobuf message may be written as the concatenation of its parts, so
the small part (names, shapes) is serialized by protobuf and each tensor's bytes are appended to it
as one more `raw_input_contents` field: one copy. The way back is the same in reverse: the raw
outputs are found in the received bytes and read in place.

Field numbers are those of the KServe v2 protocol, grpc_service.proto:
ModelInferRequest.raw_input_contents = 7, ModelInferResponse.raw_output_contents = 6.
"""

import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

_LENGTH_DELIMITED = 2
_RAW_INPUT_TAG = bytes([7 << 3 | _LENGTH_DELIMITED])
_RAW_OUTPUT_FIELD = 6


def encode_request(model_name, inputs, outputs, request_id="", timeout_us=0, parameters=None):
    """Serialized ModelInferRequest.

    `inputs` are (name, C-contiguous array) pairs; arrays of numbers or booleans only, or of
    `bytes` objects, which become BYTES. `outputs` are the names to ask for. `parameters` are of the
    request: name -> bool, int or str.
    """
    message = service_pb2.ModelInferRequest(model_name=model_name, id=request_id)
    _set_parameters(message, timeout_us, parameters or {})
    parts = [b""]
    for name, array in inputs:
        message.inputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        raw = _raw_bytes(array)
        parts += [_RAW_INPUT_TAG, _varint(raw.nbytes), raw]
    for name in outputs:
        message.outputs.add(name=name)
    parts[0] = message.SerializeToString()
    return b"".join(parts)


def with_timeout(data, timeout_us):
    """A serialized ModelInferRequest with another timeout: of a parameter, the last one counts."""
    more = service_pb2.ModelInferRequest()
    _set_parameters(more, timeout_us, {})
    return data + more.SerializeToString()


def decode_response(data):
    """List of (name, array) of a serialized ModelInferResponse; the arrays are views of `data`."""
    view = memoryview(data)
    small, raw = _split_raw_outputs(view)
    message = service_pb2.ModelInferResponse.FromString(small)
    if len(raw) != len(message.outputs):
        raise ValueError(
            f"{message.model_name}: {len(message.outputs)} outputs but {len(raw)} raw contents"
        )
    return [
        (
            output.name,
            np.frombuffer(contents, dtype=triton_to_np_dtype(output.datatype)).reshape(
                tuple(output.shape)
            ),
        )
        for output, contents in zip(message.outputs, raw, strict=True)
    ]


def _set_parameters(message, timeout_us, parameters):
    if timeout_us:
        message.parameters["timeout"].int64_param = timeout_us
    for name, value in parameters.items():
        if isinstance(value, bool):
            message.parameters[name].bool_param = value
        elif isinstance(value, int):
            message.parameters[name].int64_param = value
        else:
            message.parameters[name].string_param = value


def _raw_bytes(array):
    if array.dtype == np.object_:  # BYTES: each element has its length before it
        return memoryview(
            b"".join(len(item).to_bytes(4, "little") + item for item in array.reshape(-1))
        )
    return memoryview(np.ascontiguousarray(array)).cast("B") if array.size else memoryview(b"")


def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(view, position):
    value = shift = 0
    while True:
        if position == len(view):
            raise ValueError("truncated ModelInferResponse")
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _split_raw_outputs(view):
    """(every other field joined, [raw output contents]) of a serialized response."""
    small, raw, position = [], [], 0
    while position < len(view):
        start = position
        tag, position = _read_varint(view, position)
        if tag & 7 != _LENGTH_DELIMITED:
            raise ValueError(f"unexpected wire type {tag & 7} in a ModelInferResponse")
        length, position = _read_varint(view, position)
        end = position + length
        if end > len(view):
            raise ValueError("truncated ModelInferResponse")
        if tag >> 3 == _RAW_OUTPUT_FIELD:
            raw.append(view[position:end])
        else:
            small.append(view[start:end])
        position = end
    return b"".join(small), raw
