"""What a request says of itself, and what goes on to the next server."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from tests.helpers.shared_models import load_flat
from tests.helpers.wire import load_wire

Context: Any = load_flat("context", "shared").Context
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Request:
    """As the server gives it to a model."""

    def __init__(self, timeout_us: int = 0, name: str = "", **parameters: Any) -> None:
        self._timeout_us = timeout_us
        self._name = name
        self._parameters = parameters

    def parameters(self) -> str:
        return json.dumps(self._parameters) if self._parameters else ""

    def timeout(self) -> int:
        return self._timeout_us

    def request_id(self) -> str:
        return self._name


def in_ns(seconds: float) -> str:
    return str(time.monotonic_ns() + int(seconds * 1e9))


@pytest.mark.parametrize(
    ("request_", "expected_s"),
    [
        (Request(), 10.0),
        (Request(3_000_000), 3.0),
        (Request(30_000_000), 10.0),
    ],
)
def test_the_timeout_shortens_the_budget(request_: Request, expected_s: float) -> None:
    assert Context(request_, 10.0).left_s() == pytest.approx(expected_s, abs=0.5)


@pytest.mark.parametrize(
    ("timeout_us", "deadline_s", "expected_s"), [(3_000_000, 2, 2), (1_000_000, 2, 1), (0, -2, -2)]
)
def test_the_shortest_budget_counts(timeout_us: int, deadline_s: float, expected_s: float) -> None:
    request = Request(timeout_us, tritier_deadline_ns=in_ns(deadline_s))
    assert Context(request, 10.0).left_s() == pytest.approx(expected_s, abs=0.5)


def test_what_goes_on_to_the_next_server() -> None:
    request = Request(
        tritier_deadline_ns=in_ns(2),
        tritier_request="ab12",
        tritier_attempt="2",
        traceparent=PARENT,
        tracestate="v=1",
        other="low",
    )
    context = Context(request, 10.0)
    assert (context.attempt, context.request, context.traceparent) == (2, "ab12", PARENT)
    # Not the deadline, which is of this machine's clock; not the app's own parameters.
    assert context.onwards("00-next") == {
        "tritier_request": "ab12",
        "tritier_attempt": 2,
        "traceparent": "00-next",
        "tracestate": "v=1",
    }


def test_a_plain_request_hands_nothing_on() -> None:
    context = Context(Request(name="mine"), 10.0)
    assert (context.onwards(None), context.request, context.attempt) == ({}, "mine", 1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"tritier_deadline_ns": "soon"}, "'tritier_deadline_ns' is 'soon'; allowed is a whole"),
        ({"tritier_deadline_ns": True}, "'tritier_deadline_ns' is 'True'"),
        ({"tritier_deadline_ns": "9" * 5000}, "'tritier_deadline_ns' is '999"),
        ({"tritier_attempt": "0"}, "'tritier_attempt' is 0; allowed are 1 to 1000"),
        ({"tritier_attempt": 10**9}, "'tritier_attempt' is 1000000000"),
    ],
)
def test_nonsense_is_refused_by_name(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        Context(Request(**parameters), 10.0)
    assert len(str(refused.value)) < 250


def test_long_texts_are_cut() -> None:
    context = Context(Request(tritier_request="x" * 100_000), 10.0)
    assert len(context.onwards("y" * 100_000)["tritier_request"]) == 512
    assert len(context.onwards("y" * 100_000)["traceparent"]) == 512


def test_parameters_on_the_wire() -> None:
    wire = load_wire()
    parameters = {"text": "ü", "number": 7, "flag": True}
    data = wire.encode_request("m", [], [], "id", 5_000_000, parameters)
    for expected_us, sent in ((5_000_000, data), (1_000, wire.with_timeout(data, 1_000))):
        found = service_pb2.ModelInferRequest.FromString(sent).parameters
        assert found["timeout"].int64_param == expected_us
        assert found["text"].string_param == "ü"
        assert found["number"].int64_param == 7
        assert found["flag"].bool_param is True
        assert len(found) == 4
