"""Promise 8: hostile requests and configs crash nothing, hang nothing and change no answer.

A finding is repeated with the seed and the number in its message; TRITIER_HOSTILE_SEED and
TRITIER_HOSTILE_REQUESTS draw other and more requests than the suite does.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from tests.faults.hostile import Subject, draw_of, hostile_request, valid_request
from tests.faults.target import DEADLINE_MS, Target, check_unharmed, processes_of
from tests.helpers.faults import is_alive, resources_of, server_of
from tritier.divider import Arrays, WholeModel

pytestmark = pytest.mark.integration
_SEED = int(os.environ.get("TRITIER_HOSTILE_SEED", "1"))
_REQUESTS = int(os.environ.get("TRITIER_HOSTILE_REQUESTS", "2400"))
# What a request may take beyond its deadline on a machine that does other things, too.
_SLACK_S = 5.0
_THREADS = 8


class Judge:
    """Collects what must not happen, each with the number of the request."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._whole = WholeModel(target.model.path, "disabled")
        self._right = threading.Lock()
        self.public = {s.name for s in target.subjects if s.kind in ("entry", "whole", "router")}
        self.statuses: Counter[str] = Counter()
        self.faults: list[str] = []

    def ask(self, number: int) -> None:
        draw = draw_of(_SEED, number)
        subject = draw.choice(self._target.subjects)
        data = hostile_request(subject, draw)
        method = "ModelStreamInfer" if draw.random() < 0.05 else "ModelInfer"
        started_s = time.monotonic()
        status, answer = self._target.send(subject.server, data, method)
        took_s = time.monotonic() - started_s
        with self._right:
            self.statuses[status] += 1
            for fault in self._faults(subject, data, method, status, answer, took_s):
                self.faults.append(f"seed {_SEED}, request {number} to {subject.name}: {fault}")

    def _faults(
        self,
        subject: Subject,
        data: bytes,
        method: str,
        status: str,
        answer: bytes,
        took_s: float,
    ) -> Iterator[str]:
        if not is_alive(server_of(self._target.bench.state, subject.server)):
            yield f"server '{subject.server}' has died"
        if took_s > DEADLINE_MS / 1000 + _SLACK_S:
            yield f"{status} after {took_s:.1f} s: {answer[:200]!r}"
        if status == "UNKNOWN" or b"Traceback" in answer or b"stub process" in answer.lower():
            yield f"{status}: {answer[:600]!r}"
        if status == "OK" and method == "ModelInfer":
            yield from self._wrong(data, answer)

    def _wrong(self, data: bytes, answer: bytes) -> Iterator[str]:
        """What an answer of a public model has that the whole model would not have answered."""
        request = service_pb2.ModelInferRequest.FromString(data)
        if request.model_name not in self.public or len(request.inputs) != 1:
            return
        response = service_pb2.ModelInferResponse.FromString(answer)
        inputs = _arrays(request)
        if inputs is None:
            yield f"an input that the model does not have was answered: {request.inputs}"[:400]
            return
        right = self._whole.run(inputs)["y"]
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            if output.datatype != "FP32":  # a classification was asked for
                continue
            if output.name != "y" or list(output.shape) != list(right.shape):
                yield f"answered {output.name} {output.shape}"
            elif not np.array_equal(np.frombuffer(raw, "<f4"), right.reshape(-1), equal_nan=True):
                yield "a wrong answer"


def _arrays(request: Any) -> Arrays | None:
    """The input of a request as the model would have to understand it; None if it can't."""
    item = request.inputs[0]
    if item.name != "x" or item.datatype != "FP32" or list(item.shape) != [1, 4, 16, 16]:
        return None
    raw = request.raw_input_contents
    values = np.frombuffer(raw[0], "<f4") if raw else np.array(item.contents.fp32_contents, "<f4")
    return {"x": values.reshape(1, 4, 16, 16)} if values.size == 1024 else None


def test_hostile_requests(target: Target) -> None:
    before = processes_of(target)
    held = {s.name: resources_of(s) for s in target.bench.state.servers}
    judge = Judge(target)
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(judge.ask, range(_REQUESTS)))
    assert not judge.faults, "\n".join([f"{len(judge.faults)} faults", *judge.faults[:20]])
    # Requests of the right form are among them, and most are not: else this tests nothing.
    refused = judge.statuses.total() - judge.statuses["OK"]
    assert 0.5 * _REQUESTS < refused < 0.98 * _REQUESTS, judge.statuses
    assert len(judge.statuses) >= 3, judge.statuses
    time.sleep(DEADLINE_MS / 1000 + 0.5)  # takes that still wait end
    check_unharmed(target, before)
    for server in target.bench.state.servers:
        now = resources_of(server)
        assert now.shm_entries == held[server.name].shm_entries
        assert now.rss_bytes < held[server.name].rss_bytes + 512 * 1024**2


def test_the_judge_can_tell(target: Target) -> None:
    """The control: a wrong answer, an answer to nonsense and a dead server are faults."""
    judge = Judge(target)
    subject = next(s for s in target.subjects if s.kind == "entry")
    data = valid_request(subject, draw_of(0, 0)).SerializeToString()
    status, answer = target.send("device", data)
    assert status == "OK"
    assert list(judge._faults(subject, data, "ModelInfer", status, answer, 0.1)) == []
    spoilt = answer[:-1] + bytes([answer[-1] ^ 1])
    other = service_pb2.ModelInferRequest.FromString(data)
    other.inputs[0].shape[:] = [4, 256]
    for request, said, took_s in (
        (data, spoilt, 0.1),
        (other.SerializeToString(), answer, 0.1),
        (data, answer, 60.0),
    ):
        assert list(judge._faults(subject, request, "ModelInfer", status, said, took_s))


def test_a_number_stands_for_the_same_request_in_every_run(target: Target) -> None:
    for subject in target.subjects:
        data = [hostile_request(subject, draw_of(_SEED, 3)) for _ in range(2)]
        assert data[0] == data[1]
