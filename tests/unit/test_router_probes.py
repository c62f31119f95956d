"""What the router concludes from servers that are ready, gone, or slow to say so."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from tests.helpers.router import load_router

parts = load_router()


class _Error(grpc.RpcError):  # type: ignore[misc, unused-ignore]
    def __init__(self, code: Any) -> None:
        super().__init__()
        self._code = code

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return "as told"


class Probes:
    """A prober of one plan on `edge`; `server` is what the edge says, `loaded` whether its model
    is, `answer` the error of a synthetic inference."""

    def __init__(self) -> None:
        self.server: Any = True
        self.loaded = True
        self.answer: Any = None
        self.inferred = 0
        self.threads_left = True
        plans = {"p": {"model": "m__p", "servers": ["device", "edge"]}}
        table = parts.table.read_table(
            {
                "plans": json.dumps(plans),
                "classes": '{"normal": {"plans": ["p"]}}',
                "entry": "device",
                "probe_interval_ms": "10",
            }
        )
        self.health = parts.health.Health(table.plans, 3, 0.01, lambda *_: None)
        zeros = parts.probes.zeros(
            {"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [1]}]}, {}
        )
        self.prober = parts.probes.Prober(
            table,
            self.health,
            {"edge": SimpleNamespace(future=lambda *_, **__: SimpleNamespace(result=self._ready))},
            lambda *_, **__: SimpleNamespace(ready=self.loaded),
            self._infer,
            zeros,
            self._start,
        )

    def _start(self, job: Any, *arguments: Any) -> None:
        if not self.threads_left:
            raise RuntimeError("can't start new thread")
        job(*arguments)

    def _ready(self) -> Any:
        if isinstance(self.server, Exception):
            raise self.server
        return SimpleNamespace(ready=self.server)

    def _infer(self, _message: bytes, timeout: float) -> Any:
        assert timeout > 0
        self.inferred += 1
        if self.answer is not None:
            raise self.answer
        return iter([b""])

    def usable_after_a_round(self) -> bool:
        self.prober.round()
        return bool(self.health.is_usable("p"))


_GONE = _Error(grpc.StatusCode.UNAVAILABLE)


def test_a_server_that_is_gone_takes_its_plan_out_and_brings_it_back() -> None:
    probes = Probes()
    assert probes.usable_after_a_round()
    probes.server = False  # as Triton says while it loads another model
    assert probes.usable_after_a_round()
    probes.server = _GONE
    assert not probes.usable_after_a_round()
    assert "server 'edge' is not ready" in probes.health.reason("p")
    probes.server = True
    assert probes.usable_after_a_round()  # a synthetic inference was answered


def test_a_slow_server_is_lost_only_if_nothing_is_answered_through_it() -> None:
    probes = Probes()
    probes.server = _Error(grpc.StatusCode.DEADLINE_EXCEEDED)
    probes.health.succeeded("p", time.monotonic() + 1)  # answered while it was asked
    assert probes.usable_after_a_round()
    probes.health.succeeded("p", time.monotonic() - 1)
    assert not probes.usable_after_a_round()


def test_an_unloaded_entry_model_takes_the_plan_out() -> None:
    probes = Probes()
    probes.loaded = False
    assert not probes.usable_after_a_round()
    assert "m__p is not ready on the entry" in probes.health.reason("p")


def test_a_plan_that_does_not_answer_zeros_stays_out() -> None:
    probes = Probes()
    probes.server = _GONE
    assert not probes.usable_after_a_round()
    probes.server, probes.answer = True, _Error(grpc.StatusCode.UNAVAILABLE)
    assert not probes.usable_after_a_round()
    time.sleep(0.03)  # its backoff
    probes.answer = _Error(grpc.StatusCode.INVALID_ARGUMENT)
    assert probes.usable_after_a_round()  # half open: a request may try
    assert probes.health.state("p") == parts.health.HALF_OPEN
    assert probes.inferred >= 2


def test_a_probe_that_found_no_thread_is_sent_later() -> None:
    probes = Probes()
    probes.server = _GONE
    assert not probes.usable_after_a_round()
    probes.server, probes.threads_left = True, False
    with pytest.raises(RuntimeError):
        probes.prober.round()
    probes.threads_left = True
    assert probes.usable_after_a_round()


def test_the_thread_ends_when_it_is_told_to() -> None:
    probes = Probes()
    wake = probes.prober._wake
    # The word comes after the thread has waited and before it forgets what woke it.
    clear = wake.clear

    def told_meanwhile() -> None:
        probes.prober._stopped = True
        wake.set()
        clear()

    wake.clear = told_meanwhile
    probes.prober.begin()
    probes.prober._thread.join(0.5)
    assert not probes.prober._thread.is_alive()
    assert probes.inferred == 0
