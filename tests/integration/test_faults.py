"""Requests keep to their deadlines, and errors say where they come from."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.integration.conftest import Bench, peer_plan, three_servers
from tritier.deployment.lab import Lab
from tritier.divider import Array, WholeModel
from tritier.errors import ServerError
from tritier.graph import LoadedModel
from tritier.repository import GenerateOptions
from tritier.workflow import gather_inputs, infer

pytestmark = pytest.mark.integration
_DEADLINE_MS = 3000


def test_64_concurrent_requests_meet_in_the_mailbox(bench: Bench, espcn: LoadedModel) -> None:
    plan = peer_plan(espcn, bench.spec)
    options = GenerateOptions(optimisation="disabled", deadline_ms=60_000)
    with bench.deployed(plan, espcn, options) as (_, at):
        inputs = gather_inputs(plan, 64, 0)
        whole = WholeModel(espcn.path, "disabled")
        client = triton.InferenceServerClient(at.urls["device"])
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda arrays: infer(client, "espcn", arrays), inputs))
        client.close()
    for arrays, answer in zip(inputs, answers, strict=True):
        assert np.array_equal(answer["upscaled"], whole.run(arrays)["upscaled"])


class TestMailbox:
    """The mailbox alone, as its peers call it."""

    @pytest.fixture
    def mailbox(self, bench: Bench, espcn: LoadedModel) -> Iterator[Mailbox]:
        plan = peer_plan(espcn, bench.spec)
        options = GenerateOptions(deadline_ms=3000, mailbox_max_bytes=30 * 1024**2)
        with bench.deployed(plan, espcn, options) as (_, at):
            tensor = next(w.tensor for w in plan.wires if w.source == "edge")
            channels = plan.tensor(tensor).shape[1]
            yield Mailbox(at.urls["cloud"], f"espcn__{plan.id}__mailbox", tensor, int(channels))

    def test_a_take_waits_for_its_put(self, mailbox: Mailbox) -> None:
        answers: queue.Queue[Array] = queue.Queue()
        taking = threading.Thread(target=lambda: answers.put(mailbox.take(1)))
        taking.start()
        time.sleep(0.2)
        assert answers.empty()
        sent = mailbox.put(1)
        taking.join(timeout=5)
        assert np.array_equal(answers.get_nowait(), sent)

    def test_a_put_waits_for_its_take(self, mailbox: Mailbox) -> None:
        sent = mailbox.put(2)
        assert np.array_equal(mailbox.take(2), sent)

    def test_keys_do_not_mix(self, mailbox: Mailbox) -> None:
        third, fourth = mailbox.put(3), mailbox.put(4)
        assert np.array_equal(mailbox.take(4), fourth)
        assert np.array_equal(mailbox.take(3), third)

    def test_a_wait_ends_by_the_deadline(self, mailbox: Mailbox) -> None:
        started = time.monotonic()
        with pytest.raises(InferenceServerException, match=r"server 'cloud'.*deadline exceeded"):
            mailbox.take(5)
        assert time.monotonic() - started < 5

    def test_poison_reaches_who_waits_and_who_comes_later(self, mailbox: Mailbox) -> None:
        mailbox.poison(6, "the edge is gone")
        with pytest.raises(InferenceServerException, match="the edge is gone"):
            mailbox.take(6)

    def test_a_cancelled_take_takes_nothing(self, mailbox: Mailbox) -> None:
        with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
            mailbox.take(8, patience_s=0.2)  # the client gives up, which cancels its request
        time.sleep(1)
        sent = mailbox.put(8)
        assert np.array_equal(mailbox.take(8), sent)

    def test_no_more_than_its_bytes(self, mailbox: Mailbox) -> None:
        def fill() -> None:
            for key in range(100, 110):
                mailbox.put(key)

        with pytest.raises(InferenceServerException, match="full"):
            fill()
        # What waits there is forgotten after its time; then there is room again.
        deadline = time.monotonic() + 20
        while True:
            try:
                mailbox.put(200)
                break
            except InferenceServerException:
                assert time.monotonic() < deadline
                time.sleep(0.5)

    def test_a_tensor_is_put_once(self, mailbox: Mailbox) -> None:
        mailbox.put(7)
        with pytest.raises(InferenceServerException, match="were put before"):
            mailbox.put(7)

    def test_a_short_key_is_refused(self, mailbox: Mailbox) -> None:
        with pytest.raises(InferenceServerException):
            mailbox.call([("key", np.array([1], np.uint64))], mailbox.tensor)


class Mailbox:
    def __init__(self, url: str, model: str, tensor: str, channels: int) -> None:
        self._client = triton.InferenceServerClient(url)
        self._model = model
        self.tensor = tensor
        self._shape = (1, channels, 224, 224)

    def call(self, inputs: list[tuple[str, Array]], output: str, patience_s: float = 30) -> Array:
        request = []
        for name, array in inputs:
            kind = {"u": "UINT64", "f": "FP32", "O": "BYTES"}[array.dtype.kind]
            item = triton.InferInput(name, list(array.shape), kind)
            item.set_data_from_numpy(array)
            request.append(item)
        outputs = [triton.InferRequestedOutput(output)]
        answer = self._client.infer(
            self._model, request, outputs=outputs, client_timeout=patience_s
        )
        return np.asarray(answer.as_numpy(output))

    def put(self, key: int) -> Array:
        data = np.random.default_rng(key).random(self._shape, dtype=np.float32)
        self.call([_key(key), (self.tensor, data)], "ack")
        return data

    def take(self, key: int, patience_s: float = 30) -> Array:
        return self.call([_key(key)], self.tensor, patience_s)

    def poison(self, key: int, reason: str) -> None:
        self.call([_key(key), ("poison", np.array([reason.encode()], object))], "ack")


def _key(number: int) -> tuple[str, Array]:
    return "key", np.array([number, 0], np.uint64)


@pytest.fixture
def own_bench(tmp_path: Path) -> Iterator[Bench]:
    """A lab of this test's own, because one of its servers will die. The edge is slow."""
    spec = three_servers(slowdown=40)
    lab = Lab(tmp_path / "lab")
    state = lab.up(spec, None)
    try:
        yield Bench(spec, lab, state, tmp_path)
    finally:
        lab.down()


def test_a_killed_edge_gives_a_clear_error_in_time(own_bench: Bench, espcn: LoadedModel) -> None:
    plan = peer_plan(espcn, own_bench.spec)
    edge = next(s for s in own_bench.state.servers if s.name == "edge")
    options = GenerateOptions(deadline_ms=_DEADLINE_MS)
    named = f"server 'edge', component c0, plan {plan.id}"
    assert plan.components[0].server == "edge"
    with own_bench.deployed(plan, espcn, options) as (_, at):
        client = triton.InferenceServerClient(at.urls["device"])
        arrays = gather_inputs(plan, 1, 0)[0]
        _answers(client, arrays)
        with ThreadPoolExecutor(8) as pool:
            in_flight = [pool.submit(_timed, client, arrays) for _ in range(8)]
            time.sleep(0.3)
            os.killpg(edge.process.pid, signal.SIGKILL)
            ended = [job.result(timeout=30) for job in in_flight]
        ended.append(_timed(client, arrays))
        client.close()
        failures = [text for text, _ in ended if text]
        assert len(failures) >= 2
        assert all(named in text and "UNAVAILABLE" in text for text in failures)
        assert all(seconds < _DEADLINE_MS / 1000 + 2 for _, seconds in ended)


def test_a_stalled_edge_ends_by_the_deadline(own_bench: Bench, espcn: LoadedModel) -> None:
    plan = peer_plan(espcn, own_bench.spec)
    edge = next(s for s in own_bench.state.servers if s.name == "edge")
    with own_bench.deployed(plan, espcn, GenerateOptions(deadline_ms=1500)) as (_, at):
        client = triton.InferenceServerClient(at.urls["device"])
        arrays = gather_inputs(plan, 1, 0)[0]
        os.kill(edge.process.pid, signal.SIGSTOP)
        try:
            text, seconds = _timed(client, arrays)
        finally:
            os.kill(edge.process.pid, signal.SIGCONT)
        client.close()
        assert "deadline" in text.lower()
        assert "edge" in text or "cloud" in text
        assert seconds < 5


def _answers(client: triton.InferenceServerClient, arrays: dict[str, Array]) -> None:
    """Alive, it answers: the first request may take longer than its deadline on a busy machine."""
    failures = []
    for _ in range(3):
        text, _ = _timed(client, arrays)
        if not text:
            return
        failures.append(text)
    pytest.fail(f"no answer before anything was killed: {failures}")


def _timed(client: triton.InferenceServerClient, arrays: dict[str, Array]) -> tuple[str, float]:
    """(error text, empty if there was none; seconds)."""
    started = time.monotonic()
    try:
        infer(client, "espcn", arrays)
    except ServerError as error:
        return str(error), time.monotonic() - started
    return "", time.monotonic() - started
