"""The agent on real Tritons: what it measures, and that nobody gets it, or the server, stuck."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.helpers.agent import (
    ENDLESS,
    ENDLESS_INPUTS,
    HUGE,
    HUGE_INPUTS,
    SMALL,
    SMALL_INPUTS,
    model_bytes,
)
from tests.helpers.processes import children_of, words_of
from tests.integration.conftest import Bench
from tritier.deployment.client import TritonServer
from tritier.deployment.lab import Lab
from tritier.deployment.process import start_ticks
from tritier.documents import LabState, ServersSpec
from tritier.errors import ServerError
from tritier.network.agent import AGENT_NAME, Agent, AgentLimits, push_agent, running_agent

pytestmark = pytest.mark.integration
LIMITS = AgentLimits(max_payload_bytes=1 << 20, time_limit_s=20)
MODEL = "agent_small"
SMALL_BYTES = model_bytes(SMALL)
FOREVER: dict[str, Any] = {"op": "measure", "inputs": ENDLESS_INPUTS}
SERVE: dict[str, Any] = {"op": "serve", "model": MODEL, "inputs": SMALL_INPUTS, "outputs": ["y"]}
PATH = "../../etc/passwd"


class Host:
    """One server of a lab, its agent, and the processes that belong to them."""

    def __init__(self, state: LabState, name: str) -> None:
        self._state = next(server for server in state.servers if server.name == name)
        self.server = TritonServer(name, self._state.grpc_url)
        self.agent = Agent(self.server, AgentLimits())  # what is too large is for the agent to say

    @property
    def url(self) -> str:
        return self._state.grpc_url

    def stub(self) -> int | None:
        """The process in which the agent runs."""
        children = children_of(self._state.process.pid)
        return next((pid for pid in children if f"{AGENT_NAME}_0_0" in words_of(pid)), None)

    def workers(self) -> list[int]:
        """Processes in which the agent runs models."""
        stub = self.stub()
        children = [] if stub is None else children_of(stub)
        return [pid for pid in children if "-B" in words_of(pid)]

    def ask(self, order: dict[str, Any], payload: bytes | None = None) -> dict[str, Any]:
        return self.agent.ask(order, payload)[0]

    def refusal(self, order: dict[str, Any], payload: bytes | None = None) -> str:
        with pytest.raises(ServerError) as caught:
            self.agent.ask(order, payload)
        return str(caught.value)

    @contextmanager
    def measuring(self, **keys: object) -> Iterator[tuple[Agent, Path, list[str]]]:
        """A client of its own that has a model run for ever; the worker's folder; its failures."""
        client, failures = Agent(self.server, AgentLimits()), list[str]()

        def measure() -> None:
            try:
                client.ask({**FOREVER, **keys}, model_bytes(ENDLESS))
            except ServerError as error:
                failures.append(str(error))

        thread = threading.Thread(target=measure)
        thread.start()
        try:
            wait_until(lambda: len(self.workers()) == 1)
            folder = Path(words_of(self.workers()[0])[-1])
            wait_until(lambda: (folder / "job.json").exists())
            yield client, folder, failures
        finally:
            client.close()
            thread.join(timeout=30)
        assert not thread.is_alive()
        wait_until(lambda: not self.workers())

    def answers(self) -> bool:
        """Whether agent and models still do their work."""
        assert self.ask({"op": "facts"})["host"]["cores"] >= 1
        measured = self.ask({"op": "measure", "inputs": SMALL_INPUTS, "runs": 3}, SMALL_BYTES)
        served = self.ask({**SERVE, "runs": 2})
        return len(measured["runs_ns"]) == 3 and len(served["runs_ns"]) == 2

    def close(self) -> None:
        self.agent.close()
        self.server.close()


def wait_until(condition: Callable[[], bool], patience_s: float = 15) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def load_small(server: TritonServer) -> None:
    def tensor(name: str, dims: list[int]) -> dict[str, Any]:
        return {"name": name, "data_type": "TYPE_FP32", "dims": dims}

    config = {
        "name": MODEL,
        "backend": "onnxruntime",
        "max_batch_size": 0,
        "input": [tensor("x", [1, 2, 8, 8])],
        "output": [tensor("y", [1, 1, 6, 6])],
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
    }
    server.load(MODEL, json.dumps(config), {"file:1/model.onnx": SMALL_BYTES})


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """Address where somebody takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module")
def host(bench: Bench, silent: str) -> Iterator[Host]:
    """The device, with an agent that takes little; another agent is on the edge."""
    here, edge = Host(bench.state, "device"), Host(bench.state, "edge")
    load_small(here.server)
    peers = {"dead": "127.0.0.1:1", "silent": silent}
    with running_agent(here.server, peers, LIMITS), running_agent(edge.server, {}, LIMITS):
        yield here
        assert here.answers()
    here.server.unload(MODEL)
    here.close()
    edge.close()


@pytest.fixture
def other(bench: Bench) -> Iterator[Host]:
    """The cloud, where a test may load agents as it likes."""
    here = Host(bench.state, "cloud")
    yield here
    here.server.unload(AGENT_NAME)
    wait_until(lambda: here.stub() is None)
    here.close()


class TestMeasures:
    def test_links(self, host: Host) -> None:
        assert len(host.agent.ping_ns("edge", 3)) == 3
        messages = host.agent.probe("edge", [10, 1 << 18, 1 << 10, 1], in_flight=4)
        assert [message.bytes for message in messages] == [10, 1 << 18, 1 << 10, 1]
        assert all(message.start_ns < message.end_ns for message in messages)
        one, two = host.agent.probe("edge", [1, 1], idle_s=0.2)
        assert two.start_ns - one.end_ns >= 200_000_000

    def test_models(self, host: Host) -> None:
        order = {"op": "measure", "inputs": SMALL_INPUTS, "profile": True, "runs": 3}
        answer, graph = host.agent.ask(order, SMALL_BYTES)
        assert {kernel["n"] for kernel in answer["kernels"]} == {3}
        assert graph.startswith(b"\x08")

    def test_models_that_are_loaded(self, host: Host) -> None:
        before = host.server.statistics(MODEL).success.count
        assert len(host.ask({**SERVE, "runs": 7})["runs_ns"]) == 7
        assert host.server.statistics(MODEL).success.count == before + 7


HOSTILE: dict[str, tuple[dict[str, Any], bytes | None, str]] = {
    "no order": ({}, None, "op null is unknown"),
    "unknown key": ({"op": "facts", "path": PATH}, None, 'unknown key "path"'),
    "payload too large": (
        {"op": "take"}, bytes(2 << 20), "2097152 bytes; this agent takes 1048576",
    ),
    "inputs too large": (
        {"op": "measure", "inputs": {"x": {"datatype": "FP32", "shape": [2**39]}}},
        SMALL_BYTES,
        "inputs of 2199023255552 bytes; this agent takes 1048576",
    ),
    "not ONNX": ({"op": "measure", "inputs": {}}, b"#!/bin/sh", "the model is not ONNX"),
    "4 TiB": ({"op": "measure", "inputs": HUGE_INPUTS}, model_bytes(HUGE), "ONNX Runtime: "),
    "path as op": ({"op": PATH}, None, "is unknown"),
    "path as server": ({"op": "ping", "server": PATH}, None, "is no peer of this server"),
    "path as provider": (
        {"op": "measure", "inputs": {}, "provider": PATH}, b"", "allowed are cpu, openvino, cuda",
    ),
    "path as datatype": (
        {"op": "measure", "inputs": {"x": {"datatype": PATH, "shape": []}}},
        b"",
        "allowed are BOOL",
    ),
    "path as input": (
        {"op": "measure", "inputs": {PATH: SMALL_INPUTS["x"]}}, SMALL_BYTES, "has the inputs ['x']",
    ),
    "path as model": ({**SERVE, "model": PATH}, None, "allowed are letters, digits"),
    "path as served input": (
        {**SERVE, "inputs": {PATH: SMALL_INPUTS["x"]}}, None, "unexpected inference input",
    ),
    "path as served output": ({**SERVE, "outputs": [PATH]}, None, "unexpected inference output"),
    "half a surrogate pair": (
        {**SERVE, "inputs": {"\ud800": SMALL_INPUTS["x"]}}, None, "of Unicode",
    ),
    "no such model": ({**SERVE, "model": "nothing"}, None, "serve: "),
    "the agent itself": ({**SERVE, "model": AGENT_NAME}, None, "the agent does not call itself"),
    "a stranger": (
        {"op": "ping", "server": "127.0.0.1:22"}, None, "known are cloud, dead, device, edge",
    ),
    "a dead peer": (
        {"op": "ping", "server": "dead"}, None, "server 'dead' at 127.0.0.1:1: UNAVAILABLE",
    ),
    "a peer without an agent": (
        {"op": "probe", "server": "cloud", "bytes": [1]}, None, "unknown model",
    ),
    "a silent peer": (
        {"op": "probe", "server": "silent", "bytes": [9], "limit_s": 1}, None, "DEADLINE_EXCEEDED",
    ),
    "a time limit that is too long": ({**FOREVER, "limit_s": 21}, SMALL_BYTES, "from 0.01 to 20.0"),
}  # fmt: skip


class TestHostile:
    @pytest.mark.parametrize("case", HOSTILE)
    def test_is_refused_with_the_reason(self, host: Host, case: str) -> None:
        order, payload, reason = HOSTILE[case]
        found = host.refusal(order, payload)
        assert reason in found
        assert not host.workers()

    def test_wrong_types_and_shapes_are_refused_by_triton(self, host: Host) -> None:
        text = np.array([b'{"op": "take"}'] * 2, np.object_)
        cases: list[tuple[str, Any, str]] = [
            ("order", text, "BYTES"),
            ("order", np.zeros(1, np.float32), "FP32"),
            ("payload", np.zeros(1, np.float32), "FP32"),
            ("path", np.zeros(1, np.uint8), "UINT8"),
        ]
        with closing(triton.InferenceServerClient(host.url)) as client:
            for name, array, datatype in cases:
                inputs = {"order": (text[:1], "BYTES"), name: (array, datatype)}
                request = []
                for key, (value, kind) in inputs.items():
                    request.append(triton.InferInput(key, list(value.shape), kind))
                    request[-1].set_data_from_numpy(value)
                with pytest.raises(InferenceServerException, match="expect"):
                    client.infer(AGENT_NAME, request, client_timeout=10)
        assert host.answers()

    def test_a_model_that_runs_for_ever_is_ended_at_the_limit(self, host: Host) -> None:
        with host.measuring(limit_s=2) as (_, folder, failures):
            wait_until(lambda: bool(failures))
            assert "ended after the time limit of 2 s" in failures[0]
            assert not folder.exists()
        assert host.answers()


class TestTogether:
    def test_one_measurement_at_a_time(self, host: Host) -> None:
        with host.measuring():
            orders: list[tuple[dict[str, Any], bytes | None]] = [
                ({"op": "measure", "inputs": SMALL_INPUTS}, SMALL_BYTES),
                (SERVE, None),
                ({"op": "ping", "server": "edge"}, None),
                ({"op": "probe", "server": "edge", "bytes": [1]}, None),
            ]
            for order, payload in orders:
                assert "busy: another measurement runs" in host.refusal(order, payload)
            assert host.ask({"op": "take"}, b"12345") == {"bytes": 5}
            assert host.ask({"op": "facts"})["clock_s"] > 0

    def test_a_client_that_goes_away_frees_the_agent(self, host: Host) -> None:
        with host.measuring() as (client, folder, _):
            client.close()
            wait_until(lambda: not folder.exists())
            assert not host.workers()
        assert host.answers()

    @pytest.mark.parametrize(
        "order",
        [
            {"op": "probe", "server": "silent", "bytes": [1] * 20, "in_flight": 4},
            {"op": "probe", "server": "edge", "bytes": [1, 1], "idle_s": 15},
            {**SERVE, "runs": 100_000},
        ],
        ids=["silent", "idle", "serve"],
    )
    def test_a_client_that_gives_up_frees_the_agent(
        self, host: Host, order: dict[str, Any]
    ) -> None:
        started = time.monotonic()
        _give_up(host.url, order, 0.5)
        wait_until(lambda: _is_free(host), 5)
        assert time.monotonic() - started < 10  # the order's limit is 20 s
        assert host.answers()


def _give_up(url: str, order: dict[str, Any], patience_s: float) -> None:
    text = triton.InferInput("order", [1], "BYTES")
    text.set_data_from_numpy(np.array([json.dumps(order).encode()], np.object_))
    with closing(triton.InferenceServerClient(url)) as client:
        try:
            client.infer(AGENT_NAME, [text], client_timeout=patience_s)
        except InferenceServerException as error:
            assert "Deadline Exceeded" in str(error) or "busy" in str(error)  # noqa: PT017


def _is_free(host: Host) -> bool:
    try:
        host.ask({"op": "ping", "server": "edge"})
    except ServerError as error:
        assert "busy" in str(error)  # noqa: PT017
        return False
    return True


class TestEnds:
    def test_unloading_leaves_nothing_once_the_client_is_gone(self, other: Host) -> None:
        push_agent(other.server, {}, LIMITS)
        stub = other.stub()
        assert stub is not None
        with other.measuring() as (client, folder, _):
            worker = other.workers()[0]
            other.server.unload(AGENT_NAME)
            # Triton waits for what is under way, so an order goes on to its limit at most.
            client.close()
            wait_until(lambda: start_ticks(stub) is None)
            assert start_ticks(worker) is None
            assert not folder.exists()

    def test_an_agent_of_a_failed_command_is_unloaded(self, other: Host) -> None:
        with pytest.raises(KeyError), running_agent(other.server, {}, LIMITS):
            raise KeyError
        assert AGENT_NAME not in other.server.index()

    def test_a_new_agent_takes_over(self, other: Host) -> None:
        push_agent(other.server, {}, LIMITS)
        with other.measuring():
            push_agent(other.server, {"x": "127.0.0.1:1"}, LIMITS)
            assert "device, edge, x" in other.refusal({"op": "ping", "server": "y"})


@contextmanager
def lab_of_one(folder: Path) -> Iterator[Host]:
    spec = ServersSpec.from_data({"servers": [{"name": "one", "tier": "device", "entry": True}]})
    lab = Lab(folder)
    host = Host(lab.up(spec, None), "one")
    try:
        yield host
    finally:
        host.close()
        lab.down()


def test_a_killed_agent_takes_its_worker_with_it(tmp_path: Path) -> None:
    with lab_of_one(tmp_path / "lab") as host:
        push_agent(host.server, {}, LIMITS)
        stub = host.stub()
        assert stub is not None
        with host.measuring() as (_, folder, _):
            worker = host.workers()[0]
            # It says this of itself once it has asked to end with the agent.
            score = Path(f"/proc/{worker}/oom_score_adj")
            wait_until(lambda: score.read_text().strip() == "1000")
            os.kill(stub, signal.SIGKILL)
            wait_until(lambda: start_ticks(worker) is None)
            assert folder.exists()  # nobody was left to remove it
            assert folder.parent == Path(tempfile.gettempdir())
        host.server.unload(AGENT_NAME)
        push_agent(host.server, {}, LIMITS)
        assert not folder.exists()  # the next agent did


def test_a_server_may_refuse_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITIER_AGENT", "off")
    with lab_of_one(tmp_path / "lab") as host:
        with pytest.raises(ServerError, match="the agent is switched off on this server"):
            push_agent(host.server, {}, LIMITS)
        assert host.stub() is None
