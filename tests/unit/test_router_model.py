"""What the router's model does when Triton can't: an answer that can't be sent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.router import load_router


class _Error:
    INTERNAL, INVALID_ARG, UNAVAILABLE, CANCELLED = "INTERNAL", "INVALID_ARG", "UNAVAILABLE", "C"

    def __init__(self, text: str, code: str) -> None:
        self.text, self.code = text, code


backend = SimpleNamespace(
    TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
    TritonError=_Error,
    InferenceResponse=lambda output_tensors=(), error=None: error or list(output_tensors),
)
parts = load_router(backend)


class Router:
    """What replies use; `answers` has the statuses of the requests that are over."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, str | None]] = []

    def start_span(self, _traceparent: Any) -> Any:
        return SimpleNamespace(traceparent=None, end=lambda **_: None)

    def response(self, tensors: Any, _parameters: Any) -> Any:
        return tensors

    def answered(self, _reply: Any, _flight: Any, _attempt: Any, status: str, text: Any) -> None:
        self.answers.append((status, text))


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_request_is_over_whether_its_answer_could_be_sent_or_not(failures: int) -> None:
    """Else its place among those in flight would be lost for ever."""
    sent: list[Any] = []
    left = [RuntimeError("shared memory is full")] * failures

    def send(response: Any, flags: int) -> None:
        assert flags == 1
        if left:
            raise left.pop()
        sent.append(response)

    request = SimpleNamespace(get_response_sender=lambda: SimpleNamespace(send=send))
    router = Router()
    reply = parts.model.Reply(router, request)
    reply.accepted(SimpleNamespace(traceparent=None))
    attempt = SimpleNamespace(plan=SimpleNamespace(id="p"), number=1)
    flight = SimpleNamespace(
        request_class=SimpleNamespace(name="normal"),
        payload=SimpleNamespace(outputs=[]),
        attempts=[attempt],
    )
    reply.give(flight, attempt, parts.flight.Answer(["y"]))
    [(status, text)] = router.answers
    if failures:
        assert (status, text) == (
            "INTERNAL", "the answer could not be sent: shared memory is full"
        )  # fmt: skip
        assert [error.code for error in sent] == ["INTERNAL"][failures - 1 :]
    else:
        assert (status, text, sent) == ("OK", None, [["y"]])
