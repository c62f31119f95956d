"""Any tensors survive the wire of the remote model, and read as Triton's own schema reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from tests.helpers.examples import examples
from tests.helpers.wire import load_wire

wire = load_wire()

DTYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def numbers() -> st.SearchStrategy[npt.NDArray[Any]]:
    """Arrays of every type that Triton and numpy both know, empty and scalar ones among them."""
    return st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(np.dtype(dtype), SHAPES))


def texts() -> st.SearchStrategy[npt.NDArray[Any]]:
    """Arrays of bytes objects, of any length and content."""
    return hnp.arrays(np.object_, SHAPES, elements=st.binary(max_size=300), fill=st.nothing())


def raw(array: npt.NDArray[Any]) -> bytes:
    """The content as tritonclient sends it."""
    if array.dtype != np.object_:
        return array.tobytes()
    serialized = serialize_byte_tensor(array)
    return bytes(serialized.item()) if serialized.size else b""


def named(arrays: st.SearchStrategy[npt.NDArray[Any]]) -> Any:
    """Up to four (name, array) pairs."""
    return st.lists(st.tuples(st.text(max_size=8), arrays), max_size=4)


def response(tensors: list[tuple[str, npt.NDArray[Any]]]) -> bytes:
    """What a server answers."""
    message = service_pb2.ModelInferResponse(model_name="m", model_version="1", id="7")
    for name, array in tensors:
        dtype = np_to_triton_dtype(array.dtype)
        message.outputs.add(name=name, datatype=dtype, shape=array.shape)
        message.raw_output_contents.append(array.tobytes())
    return bytes(message.SerializeToString())


@settings(max_examples=examples(150))
@given(named(numbers() | texts()), st.lists(st.text(max_size=8), max_size=3), st.text(max_size=8))
def test_a_request_is_what_the_schema_reads(
    inputs: list[tuple[str, npt.NDArray[Any]]], outputs: list[str], request_id: str
) -> None:
    expected = service_pb2.ModelInferRequest(model_name="m", id=request_id)
    expected.parameters["timeout"].int64_param = 5_000_000
    for name, array in inputs:
        dtype = np_to_triton_dtype(array.dtype)
        expected.inputs.add(name=name, datatype=dtype, shape=array.shape)
        expected.raw_input_contents.append(raw(array))
    for name in outputs:
        expected.outputs.add(name=name)
    data = wire.encode_request("m", inputs, outputs, request_id, 5_000_000)
    assert service_pb2.ModelInferRequest.FromString(data) == expected


@settings(max_examples=examples(150))
@given(named(numbers()))
def test_a_response_gives_the_arrays_back(tensors: list[tuple[str, npt.NDArray[Any]]]) -> None:
    found = wire.decode_response(response(tensors))
    assert [name for name, _ in found] == [name for name, _ in tensors]
    for (_, array), (_, original) in zip(found, tensors, strict=True):
        assert (array.dtype, array.shape) == (original.dtype, original.shape)
        assert array.tobytes() == original.tobytes()


@settings(max_examples=examples(100))
@given(named(numbers()), st.data())
def test_a_response_without_one_content_is_refused(
    tensors: list[tuple[str, npt.NDArray[Any]]], data: st.DataObject
) -> None:
    message = service_pb2.ModelInferResponse.FromString(response([*tensors, ("x", np.ones(2))]))
    del message.raw_output_contents[data.draw(st.integers(0, len(tensors)))]
    with pytest.raises(ValueError, match="raw contents"):
        wire.decode_response(message.SerializeToString())
