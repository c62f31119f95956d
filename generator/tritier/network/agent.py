"""The agent on a server: pushed through model control, asked over gRPC, removed again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tritier.deployment.access import connect
from tritier.deployment.client import TritonServer
from tritier.errors import ServerError
from tritier.resources import triton_dir

AGENT_NAME = "tritier_agent"  # as in triton/models/agent/probe.py
DEFAULT_MAX_PAYLOAD_BYTES = 64 << 20
DEFAULT_TIME_LIMIT_S = 600.0
_SETTLE_S, _SETTLE_POLL_S = 5.0, 0.1
# What the agent needs to answer after its own time limit has passed.
_SPARE_S = 30.0


@dataclass(frozen=True)
class AgentLimits:
    """The most that an agent takes and does for one order."""

    max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES
    time_limit_s: float = DEFAULT_TIME_LIMIT_S


@dataclass(frozen=True)
class Message:
    """One message of a probe; times in ns of one clock of the sender."""

    bytes: int
    start_ns: int
    end_ns: int


class Agent:
    """The agent of one server, while it is loaded."""

    def __init__(self, server: TritonServer, limits: AgentLimits) -> None:
        self.server = server
        self._limits = limits
        self._client = connect(server.url)

    def close(self) -> None:
        """Close the connection; the agent stays loaded."""
        self._client.close()

    def facts(self, power_s: float = 0.0) -> dict[str, Any]:
        """`host` (the keys of HostFacts), `power` and `clock_s` (Unix time) of the server. Power
        counters are read twice, `power_s` apart."""
        return self.ask({"op": "facts", "power_s": power_s})[0]

    def ping_ns(self, peer: str, repeats: int) -> list[int]:
        """Times of empty calls from this server to a peer, over one warm channel."""
        found: list[int] = self.ask({"op": "ping", "server": peer, "repeats": repeats})[0][
            "runs_ns"
        ]
        return found

    def probe(
        self, peer: str, sizes: Sequence[int], in_flight: int = 1, idle_s: float = 0.0
    ) -> list[Message]:
        """Send messages of these sizes (bytes) to the agent of a peer, `in_flight` at a time, after
        `idle_s` without a message each."""
        order = {
            "op": "probe",
            "server": peer,
            "bytes": list(sizes),
            "in_flight": in_flight,
            "idle_s": idle_s,
        }
        return [Message(*row) for row in self.ask(order)[0]["messages"]]

    def ask(
        self, order: Mapping[str, Any], payload: bytes | None = None
    ) -> tuple[dict[str, Any], bytes]:
        """(answer, data) of any order, see triton/models/agent/orders.py. Raises ServerError."""
        text = triton.InferInput("order", [1], "BYTES")
        text.set_data_from_numpy(np.array([json.dumps(order).encode()], np.object_))
        inputs = [text]
        if payload is not None:
            data = triton.InferInput("payload", [len(payload)], "UINT8")
            data.set_data_from_numpy(np.frombuffer(payload, np.uint8))
            inputs.append(data)
        limit_s = order.get("limit_s")
        if not isinstance(limit_s, int | float):  # also for the agent to refuse
            limit_s = self._limits.time_limit_s
        try:
            result = self._client.infer(AGENT_NAME, inputs, client_timeout=limit_s + _SPARE_S)
        except InferenceServerException as error:
            raise ServerError(
                f"the agent of server '{self.server.name}' ({self.server.url}) failed at "
                f"'{order.get('op')}': {error.message()}"
            ) from None
        answer: dict[str, Any] = json.loads(result.as_numpy("answer")[0])
        return answer, result.as_numpy("data").tobytes()


@contextmanager
def running_agent(
    server: TritonServer, peers: Mapping[str, str], limits: AgentLimits | None = None
) -> Iterator[Agent]:
    """The agent, loaded on a server for the time of the block.

    `peers` are the servers that it may send messages to, with their addresses; on a server whose
    environment names its peers' addresses, that goes first. Raises ServerError where the server
    does not take the agent.
    """
    limits = limits or AgentLimits()
    was_ready = server.is_ready()
    push_agent(server, peers, limits)
    agent = Agent(server, limits)
    try:
        yield agent
    except BaseException:
        agent.close()  # which ends an order that is under way
        with suppress(ServerError):  # what went wrong first is what matters
            server.unload(AGENT_NAME)
        raise
    agent.close()
    server.unload(AGENT_NAME)
    if was_ready:
        _await_ready(server)


def _await_ready(server: TritonServer) -> None:
    """Triton calls itself not ready while a model's process ends, a second or so: that must not
    look like a fault to whoever asks next."""
    deadline = time.monotonic() + _SETTLE_S
    while time.monotonic() < deadline and not server.is_ready():
        time.sleep(_SETTLE_POLL_S)


def push_agent(server: TritonServer, peers: Mapping[str, str], limits: AgentLimits) -> None:
    """Load the agent on a server; raises ServerError where it does not take it."""
    try:
        server.load(AGENT_NAME, json.dumps(_config(peers, limits)), _files())
    except ServerError as error:
        raise ServerError(
            f"{error}\nthe agent needs explicit model control, the Python backend with onnxruntime "
            "and tritonclient[grpc] in its environment, and TRITIER_AGENT not 'off'"
        ) from None


def _files() -> dict[str, bytes]:
    """The agent's modules and those that it shares with the proxies of the data plane."""
    folders = (triton_dir() / "models" / "agent", triton_dir() / "shared")
    paths = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    return {f"file:1/{path.name}": path.read_bytes() for path in paths}


def _config(peers: Mapping[str, str], limits: AgentLimits) -> dict[str, Any]:
    def tensor(name: str, kind: str, dims: int, **more: Any) -> dict[str, Any]:
        return {"name": name, "data_type": kind, "dims": [dims], **more}

    parameters = {
        "peers": json.dumps(dict(peers)),
        "max_payload_bytes": str(limits.max_payload_bytes),
        "time_limit_s": str(limits.time_limit_s),
    }
    return {
        "name": AGENT_NAME,
        "backend": "python",
        "max_batch_size": 0,
        "input": [
            tensor("order", "TYPE_STRING", 1),
            tensor("payload", "TYPE_UINT8", -1, optional=True),
        ],
        "output": [tensor("answer", "TYPE_STRING", 1), tensor("data", "TYPE_UINT8", -1)],
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
    }
