"""Threads of the hop models: nothing goes on after the end, and no failure stops the others."""

from __future__ import annotations

import gc
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.helpers.shared_models import flat_imports, load_flat

callers: Any = load_flat("callers", "shared")
in_flight: Any = load_flat("in_flight", "models/remote", "shared")
withdrawal: Any = load_flat("withdrawal", "shared")


class Call:
    """A call in flight."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Request:
    """A request of which the server says that it was cancelled, or nothing sensible."""

    def __init__(self, answer: bool | Exception = False) -> None:
        self.answer = answer
        self.asked = 0

    def is_cancelled(self) -> bool:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def wait_for(condition: Callable[[], Any], patience_s: float = 5) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(in_flight, "_CANCEL_POLL_S", 0.02)
    watching = in_flight.InFlight(2)
    yield watching
    watching.close()


class TestCallers:
    def test_who_waits_for_a_job_keeps_nothing_of_the_last_one(self) -> None:
        threads = callers.Callers()
        request = Request()
        gone = weakref.ref(request)
        done = threading.Event()
        threads.start(lambda _request: done.set(), request)
        assert done.wait(5)
        del request
        wait_for(lambda: gc.collect() >= 0 and gone() is None)
        assert threads.close(5)

    def test_the_end_is_waited_for_as_often_as_needed(self) -> None:
        threads = callers.Callers()
        may_end = threading.Event()
        threads.start(may_end.wait)
        threads.start(lambda: None)
        assert not threads.close(0.05)
        may_end.set()
        assert threads.close(5)


class TestInFlight:
    def test_a_request_that_cannot_be_asked_does_not_hide_the_others(
        self, calls: Any, capfd: pytest.CaptureFixture[str]
    ) -> None:
        broken, other = Call(), Call()
        calls.add(broken, Request(RuntimeError("no answer")), None)
        wait_for(lambda: "no answer" in capfd.readouterr().err)
        calls.add(other, Request(answer=True), None)
        wait_for(lambda: other.is_cancelled)
        assert not broken.is_cancelled

    def test_an_answered_request_is_not_asked_but_kept_for_a_moment(
        self, calls: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = threading.Event()
        request = Request()
        gone = weakref.ref(request)
        monkeypatch.setattr(in_flight, "_CANCEL_POLL_S", 0.3)
        request.is_cancelled = lambda: asked.set() or False  # type: ignore[func-returns-value,method-assign]
        watched = calls.add(Call(), request, None)
        del request
        assert asked.wait(5)
        calls.remove(watched)
        asked.clear()
        del watched
        assert gone() is not None
        wait_for(lambda: gone() is None)
        assert not asked.is_set()

    def test_a_second_try_is_cancelled_with_its_request(self, calls: Any) -> None:
        first, second = Call(), Call()
        watched = calls.add(first, Request(), "f00d")
        calls.cancel("f00d")
        watched.replace(second)
        assert second.is_cancelled
        third = Call()
        calls.add(third, None, None)
        calls.cancel_all()
        assert third.is_cancelled


def test_nobody_listens_after_the_end() -> None:
    heard: list[str] = []
    listener = withdrawal.Listener("unit", "0badcafe", heard.append)
    assert withdrawal.withdraw("unit", "0badcafe", "f00d") == 1
    wait_for(lambda: heard == ["f00d"])
    listener.close()
    assert not any(t.name == "withdrawal" for t in threading.enumerate())
    assert withdrawal.withdraw("unit", "0badcafe", "f00d") == 0


class Sender:
    """Takes no answer."""

    def send(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("closed")


class Failed(grpc.RpcError):  # type: ignore[misc]
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "gone"


class Failing(Call):
    """A call that fails, as a stream of one answer."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        raise Failed


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, calls: Any) -> Any:
    """A proxy without a server around it."""
    server: Any = types.ModuleType("triton_python_backend_utils")
    server.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    server.InferenceResponse = lambda **_: None
    codes = ("INVALID_ARG", "NOT_FOUND", "UNAVAILABLE", "CANCELLED", "UNSUPPORTED", "INTERNAL")
    server.TritonError = type(
        "TritonError", (), {**{c: c for c in codes}, "__init__": lambda *_: None}
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", server)
    with flat_imports("models/remote", "shared"):
        import model  # type: ignore[import-not-found]
    proxy = model.TritonPythonModel.__new__(model.TritonPythonModel)
    proxy._label = "server 'far'"
    proxy._typical_ms = 0.0
    proxy._in_flight = calls
    proxy.ends = []
    proxy._report = types.SimpleNamespace(ended=lambda *ended: proxy.ends.append(ended[1]))
    proxy._poison = types.SimpleNamespace(send=lambda *_: None)
    return proxy


def test_an_answer_that_cannot_be_sent_frees_its_place(proxy: Any) -> None:
    record = types.SimpleNamespace(tries=1, elapsed_ms=lambda: 1.0, bytes_in=0, context=None)
    record.context = types.SimpleNamespace(attempt=1, left_s=lambda: 1.0)
    for _ in range(5):
        assert proxy._in_flight.admit()
        watched = proxy._in_flight.add(Failing(), Request(), None)
        proxy._await(Sender(), watched, record, None, None)
    assert proxy._in_flight.count == 0
    assert proxy.ends == ["UNAVAILABLE"] * 5


def test_nothing_is_raised_to_the_server(proxy: Any) -> None:
    """It would free what it needs for the answer a second time, and crash."""
    proxy._start = lambda *_: 1 / 0
    proxy.execute([types.SimpleNamespace(get_response_sender=Sender)] * 2)
