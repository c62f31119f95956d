"""How plans are called: by BLS when that is safe, else over gRPC."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from tests.helpers.router import load_router

parts = load_router()


class Backend:
    """Triton's Python API, as far as it is used; `fails` is the error of the next BLS calls."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.fails: str | None = None

    def InferenceRequest(self, **arguments: Any) -> Any:  # noqa: N802 - Triton's name
        self.requests.append(arguments)
        error = SimpleNamespace(code=lambda: "__ErrorCode.INTERNAL", message=lambda: self.fails)
        response = SimpleNamespace(
            has_error=lambda: self.fails is not None,
            error=lambda: error,
            output_tensors=lambda: ["tensor"],
        )
        return SimpleNamespace(exec=lambda: response)

    def Tensor(self, name: str, array: Any) -> Any:  # noqa: N802
        return (name, array)


class OwnCall:
    """ModelInfer on this server's own address."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.error: Any = None

    def __call__(self, message: bytes, timeout: float) -> Any:
        self.sent.append((service_pb2.ModelInferRequest.FromString(message), timeout))
        return _Stream(self.error)


class _Stream:
    def __init__(self, error: Any) -> None:
        self._error = error
        answer = service_pb2.ModelInferResponse(model_name="m")
        answer.outputs.add(name="y", datatype="FP32", shape=[1])
        answer.raw_output_contents.append(np.ones(1, np.float32).tobytes())
        self._answers: Iterator[bytes] = iter([answer.SerializeToString()])

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> bytes:
        if self._error is not None:
            raise self._error
        return next(self._answers)

    def cancel(self) -> None: ...


class _Lost(grpc.RpcError):  # type: ignore[misc, unused-ignore]
    def code(self) -> Any:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "failed to connect"


class Parts:
    def __init__(self, slots: int = 2, own: bool = True) -> None:
        self.backend, self.own = Backend(), OwnCall()
        self.slots = parts.budget.Slots(slots)
        self.health = parts.health.Health(["p"], 3, 1.0, lambda *_: None)
        self.transports = parts.transports.Transports(
            self.backend, self.own if own else None, ["y", "z"], self.slots, self.health
        )

    def call(
        self, outputs: list[str] | None = None, left_s: float = 1.0, is_stopped: bool = False
    ) -> Any:
        plan = parts.table.Plan("p", "m__p", ("device",))
        now = time.monotonic()
        span = SimpleNamespace(traceparent="00-a-b-01")
        attempt = parts.flight.Attempt(plan, 1, now, now + left_s, span)
        attempt.is_stopped = is_stopped
        tensor = SimpleNamespace(name=lambda: "x", as_numpy=lambda: np.zeros(2, np.float32))
        payload = parts.transports.Payload(
            "id", [tensor], outputs or ["y"], {"tritier_request": "r"}
        )
        return self.transports.call(attempt, payload)


def test_a_plan_of_which_nothing_is_known_is_called_over_grpc_then_by_bls() -> None:
    made = Parts()
    answer = made.call()
    [(name, array)] = answer.outputs
    assert (name, array.tolist()) == ("y", [1.0])
    [(message, timeout_s)] = made.own.sent
    assert message.model_name == "m__p"
    assert [output.name for output in message.outputs] == ["y"]
    assert 1 < timeout_s < 1.1  # the flight ends it before gRPC does
    assert message.parameters["timeout"].int64_param <= 1_000_000
    assert message.parameters["tritier_request"].string_param == "r"
    assert message.parameters["tritier_attempt"].int64_param == 1
    assert message.parameters["traceparent"].string_param == "00-a-b-01"
    made.health.succeeded("p", 0.0)
    assert made.call().outputs == ["tensor"]
    [request] = made.backend.requests
    assert request["model_name"] == "m__p"
    assert 0 < request["timeout"] <= 1_000_000
    assert int(request["parameters"]["tritier_deadline_ns"]) > time.monotonic_ns()
    assert made.slots.free == 2


def test_no_more_bls_calls_than_slots() -> None:
    made = Parts(slots=0)
    made.health.succeeded("p", 0.0)
    made.call()
    assert not made.backend.requests
    assert len(made.own.sent) == 1
    alone = Parts(slots=0, own=False)
    failure = alone.call()
    assert "give the entry a url" in failure.text
    assert not failure.blames_plan  # which had nothing to do with it
    assert not failure.may_retry  # every other plan needs a place too


@pytest.mark.parametrize("own", [True, False])
def test_errors_are_classified(own: bool) -> None:
    made = Parts(own=own)
    made.own.error = _Lost()
    made.backend.fails = "attempt 1: UNAVAILABLE after 1 ms: failed to connect"
    failure = made.call()
    assert (failure.kind, failure.may_retry) == ("UNAVAILABLE", True)
    assert "failed to connect" in failure.text
    assert made.slots.free == 2


def test_a_subset_that_triton_cannot_give_is_asked_for_as_a_whole() -> None:
    made = Parts()
    made.health.succeeded("p", 0.0)
    made.backend.fails = "in ensemble 'm__p', unexpected deadlock, at least one output is not set"
    assert made.call(["z"]).kind == "SUBSET"
    assert [r["requested_output_names"] for r in made.backend.requests] == [["z"], ["y", "z"]]
    made.backend.fails = None
    made.call(["z"])
    assert made.backend.requests[-1]["requested_output_names"] == ["y", "z"]  # it remembers
    made.call(["y"])
    assert made.backend.requests[-1]["requested_output_names"] == ["y"]


def test_nothing_is_sent_when_the_time_is_up() -> None:
    made = Parts()
    assert made.call(left_s=-0.1).kind == "CANCELLED"
    assert made.call(is_stopped=True).kind == "CANCELLED"
    assert not made.own.sent
