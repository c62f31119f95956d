"""The wire of the remote model: what Triton's own schema and client read, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

from tests.helpers.wire import load_wire

wire = load_wire()

NUMBERS = [
    np.array([True, False]),
    np.arange(6, dtype=np.uint8).reshape(2, 3),
    np.arange(4, dtype=np.uint16),
    np.arange(4, dtype=np.uint32),
    np.array([2**64 - 1], np.uint64),
    np.array([-1, 127], np.int8),
    np.array([-1, 2**15 - 1], np.int16),
    np.array([-1, 2**31 - 1], np.int32),
    np.array([-1, 2**63 - 1], np.int64),
    np.array([0.5, -0.0, np.inf], np.float16),
    np.array([[1.5, np.nan]], np.float32),
    np.array([1e300], np.float64),
    np.zeros((3, 0, 2), np.float32),
    np.array([7], np.float32),
]
TEXTS = [
    np.array([b"plain", b"", "größe".encode(), bytes(range(256))], np.object_),
    np.array([[b"a"], [b"b" * 70_000]], np.object_),
    np.array([], np.object_),
]


def read_back(data: bytes) -> list[npt.NDArray[Any]]:
    """The arrays of a request, as a server that speaks the protocol reads them."""
    message = service_pb2.ModelInferRequest.FromString(data)
    arrays = []
    for item, raw in zip(message.inputs, message.raw_input_contents, strict=True):
        if item.datatype == "BYTES":
            found = deserialize_bytes_tensor(raw)
        else:
            found = np.frombuffer(raw, triton_to_np_dtype(item.datatype))
        arrays.append(found.reshape(tuple(item.shape)))
    return arrays


@pytest.mark.parametrize("array", [*NUMBERS, *TEXTS], ids=lambda a: f"{a.dtype}-{a.shape}")
def test_a_tensor_reads_back(array: npt.NDArray[Any]) -> None:
    (found,) = read_back(wire.encode_request("m", [("x", array)], ["y"]))
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    if array.dtype == np.object_:
        assert found.tolist() == array.tolist()
    else:
        assert found.tobytes() == array.tobytes()


def test_a_scalar_of_the_server_is_one_element() -> None:
    (found,) = read_back(wire.encode_request("m", [("x", np.array(3, np.float32))], []))
    assert found.shape == ()
    assert found.tolist() == 3.0


def test_an_array_that_is_not_contiguous_is_sent_in_its_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    assert not array.flags.c_contiguous
    (found,) = read_back(wire.encode_request("m", [("x", array)], []))
    assert found.tolist() == array.tolist()


def test_the_request_is_the_one_that_tritonclient_sends() -> None:
    arrays = {"a": NUMBERS[1], "b": TEXTS[0]}
    inputs = []
    for name, array in arrays.items():
        dtype = "BYTES" if array.dtype == np.object_ else "UINT8"
        item = triton.InferInput(name, list(array.shape), dtype)
        item.set_data_from_numpy(array)
        inputs.append(item)
    expected = service_pb2.ModelInferRequest(model_name="m", id="7")
    expected.inputs.extend(item._get_tensor() for item in inputs)
    expected.raw_input_contents.extend(item._get_content() for item in inputs)
    expected.outputs.extend([triton.InferRequestedOutput("y")._get_tensor()])
    expected.parameters["timeout"].int64_param = 1500
    data = wire.encode_request("m", list(arrays.items()), ["y"], "7", 1500)
    assert service_pb2.ModelInferRequest.FromString(data) == expected


def test_without_a_timeout_there_is_no_parameter() -> None:
    message = service_pb2.ModelInferRequest.FromString(wire.encode_request("m", [], []))
    assert dict(message.parameters) == {}


# -- answers --------------------------------------------------------------------------------------


def response(*arrays: npt.NDArray[Any]) -> bytes:
    """A server's answer with outputs y0, y1, ..."""
    request = service_pb2.ModelInferRequest.FromString(
        wire.encode_request("m", [(f"y{i}", array) for i, array in enumerate(arrays)], [])
    )
    message = service_pb2.ModelInferResponse(model_name="m", model_version="1", id="7")
    message.parameters["sequence_id"].int64_param = 5
    for item in request.inputs:
        message.outputs.add(name=item.name, datatype=item.datatype, shape=item.shape)
    message.raw_output_contents.extend(request.raw_input_contents)
    return bytes(message.SerializeToString())


def test_an_answer_is_read_in_place() -> None:
    found = wire.decode_response(data := response(*NUMBERS))
    assert [name for name, _ in found] == [f"y{i}" for i in range(len(NUMBERS))]
    for (_, array), original in zip(found, NUMBERS, strict=True):
        assert array.dtype == original.dtype
        assert array.shape == original.shape
        assert array.tobytes() == original.tobytes()
    whole = np.frombuffer(data, np.uint8)
    assert all(np.shares_memory(array, whole) for _, array in found if array.size)


def test_the_answer_may_come_in_any_order_of_fields() -> None:
    message = service_pb2.ModelInferResponse(model_name="m")
    message.raw_output_contents.append(NUMBERS[4].tobytes())
    rest = service_pb2.ModelInferResponse(id="7")
    rest.outputs.add(name="y", datatype="UINT64", shape=[1])
    data = message.SerializeToString() + rest.SerializeToString()
    ((name, array),) = wire.decode_response(data)
    assert (name, array.tolist()) == ("y", NUMBERS[4].tolist())


def test_an_answer_without_outputs_is_empty() -> None:
    assert wire.decode_response(response()) == []


def test_an_answer_cut_off_in_a_tensor_is_refused() -> None:
    data = response(np.arange(1000, dtype=np.float32))
    for length in (len(data) - 1, len(data) - 100, len(data) - 3999):
        with pytest.raises(ValueError, match="truncated ModelInferResponse"):
            wire.decode_response(data[:length])


def test_an_answer_cut_off_anywhere_is_refused() -> None:
    data = response(np.arange(200, dtype=np.float32), np.arange(3, dtype=np.int64))
    # Before the first output there is only a name and a version: a whole answer, without outputs.
    first = data.index(b"y0") - 4
    for length in range(first + 1, len(data)):
        with pytest.raises(ValueError, match=r".+"):
            wire.decode_response(data[:length])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.raw_output_contents.pop(), "m: 1 outputs but 0 raw contents"),
        (lambda m: m.raw_output_contents.append(b"1"), "m: 1 outputs but 2 raw contents"),
        (lambda m: m.outputs[0].shape.append(2), "cannot reshape array of size 2"),
        (lambda m: m.raw_output_contents.__setitem__(0, b"123"), "buffer size must be a multiple"),
        (lambda m: setattr(m.outputs[0], "datatype", "BYTES"), "cannot create an OBJECT array"),
    ],
)
def test_an_answer_that_contradicts_itself_is_refused(change: Any, message: str) -> None:
    answer = service_pb2.ModelInferResponse.FromString(response(np.zeros(2, np.float32)))
    change(answer)
    with pytest.raises(ValueError, match=message):
        wire.decode_response(answer.SerializeToString())


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="unexpected wire type 0 in a ModelInferResponse"):
        wire.decode_response(b"\x08\x01")
