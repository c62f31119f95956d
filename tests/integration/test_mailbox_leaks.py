"""A mailbox of a real server under random requests, many of them cancelled or refused."""

from __future__ import annotations

import json
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.integration.conftest import Bench
from tritier.deployment.client import TritonServer
from tritier.divider import Array
from tritier.resources import triton_dir

pytestmark = pytest.mark.integration
_MODEL = "leaky"
_REQUESTS = 10_000
_THREADS = 24
_TTL_MS = 1500
# How requests fail, by a word of the error: the last one is of the client, which gave up.
_ENDS = ("full", "wait here", "will not come", "deadline exceeded", "put before", "Deadline")


@pytest.fixture
def url(bench: Bench) -> Iterator[str]:
    """The edge, with a mailbox for two tensors that is soon full."""
    edge = next(server for server in bench.state.servers if server.name == "edge")
    with TritonServer("edge", edge.grpc_url) as server:
        load_mailbox(server)
        yield edge.grpc_url
        server.unload(_MODEL)


def load_mailbox(server: TritonServer) -> None:
    """Load the model `leaky`, a mailbox."""
    parameters = {
        "server": server.name,
        "plan_id": "0badcafe",
        "takes": json.dumps({"a": 1, "b": 2}),
        "deadline_ms": "300",
        "ttl_ms": str(_TTL_MS),
        "max_bytes": "60000",
        "max_waiting": "16",
    }
    folders = (triton_dir() / "models" / "mailbox", triton_dir() / "shared")
    paths = [path for folder in folders for path in folder.glob("*.py")]
    files = {f"file:1/{path.name}": path.read_bytes() for path in paths}
    server.load(_MODEL, _config(parameters), files)


def test_nothing_is_left_after_10000_random_requests(bench: Bench, url: str) -> None:
    client = triton.InferenceServerClient(url)
    with ThreadPoolExecutor(_THREADS) as pool:
        ends = Counter(pool.map(lambda seed: _one(client, seed), range(_REQUESTS)))
    client.close()
    # The bounds were reached, and requests of each kind went well and badly.
    assert set(ends) == {"ok", *_ENDS}
    assert min(ends.values()) > 10, dict(ends)
    deadline = time.monotonic() + _TTL_MS / 1000 + 15
    while any(state := _state(bench).values()):
        assert time.monotonic() < deadline, list(state)
        time.sleep(0.5)
    assert len(_state(bench)) == 3


def put_and_take(client: triton.InferenceServerClient, number: int) -> None:
    """A tensor is put and taken again, or waited for in vain (as when the mailbox was loaded anew
    in between)."""
    key = np.array([number, 0], np.uint64)
    if number % 4:
        _infer(client, {"key": key, "a": np.full(10, number, np.float32)}, ["ack"], 30)
    try:
        _infer(client, {"key": key}, ["a"], 30)
    except InferenceServerException as error:
        if "deadline exceeded" not in str(error) and "unloaded while" not in str(error):
            raise


def _one(client: triton.InferenceServerClient, seed: int) -> str:
    """One random request; how it ended."""
    draw = random.Random(seed)
    key = np.array([draw.randrange(max(1, seed - 40), seed + 2), 0], np.uint64)
    names = draw.choice([["a"], ["b"], ["a", "b"]])
    kind = draw.choices(["put", "take", "cancel", "poison"], [10, 8, 2, 1])[0]
    arrays: dict[str, Array] = {"key": key}
    outputs = ["ack"]
    if kind == "put":
        size = draw.randrange(1, 1500)
        arrays |= {name: np.full(size, draw.random(), np.float32) for name in names}
    elif kind == "poison":
        arrays["poison"] = np.array([b"drawn"], np.object_)
    else:
        outputs = names
    try:
        _infer(client, arrays, outputs, 0.05 if kind == "cancel" else 30)
    except InferenceServerException as error:
        text = str(error)
        return next((word for word in _ENDS if word in text), text)
    return "ok"


def _infer(
    client: triton.InferenceServerClient,
    arrays: dict[str, Array],
    outputs: list[str],
    patience_s: float,
) -> None:
    types = {"u": "UINT64", "f": "FP32", "O": "BYTES"}
    inputs = []
    for name, array in arrays.items():
        item = triton.InferInput(name, list(array.shape), types[array.dtype.kind])
        item.set_data_from_numpy(array)
        inputs.append(item)
    wanted = [triton.InferRequestedOutput(name) for name in outputs]
    client.infer(_MODEL, inputs, outputs=wanted, client_timeout=patience_s)


def _state(bench: Bench) -> dict[str, float]:
    """The gauges of the mailbox."""
    url = next(s.metrics_url for s in bench.state.servers if s.name == "edge")
    with urllib.request.urlopen(f"http://{url}/metrics", timeout=10) as answer:
        rows = [line.rpartition(" ") for line in answer.read().decode().splitlines()]
    gauges = ("tritier_mailbox_bytes{", "tritier_mailbox_keys{", "tritier_mailbox_waiting{")
    return {n: float(v) for n, _, v in rows if n.startswith(gauges) and _MODEL in n}


def _config(parameters: dict[str, str]) -> str:
    def tensor(name: str, kind: str, dim: int, **more: bool) -> dict[str, object]:
        return {"name": name, "data_type": kind, "dims": [dim], **more}

    floats = [tensor(name, "TYPE_FP32", -1, optional=True) for name in ("a", "b")]
    return json.dumps(
        {
            "name": _MODEL,
            "backend": "python",
            "max_batch_size": 0,
            "input": [
                tensor("key", "TYPE_UINT64", 2),
                *floats,
                tensor("poison", "TYPE_STRING", 1, optional=True),
            ],
            "output": [
                *(tensor(name, "TYPE_FP32", -1) for name in ("a", "b")),
                tensor("ack", "TYPE_BOOL", 1),
            ],
            "instance_group": [{"kind": "KIND_CPU", "count": 1}],
            "parameters": {k: {"string_value": v} for k, v in parameters.items()},
        }
    )
