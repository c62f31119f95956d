"""Single hops: a proxy on one server that calls a small model on another."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tritier.deployment.client import TritonServer
from tritier.resources import triton_dir

# Answers what the request says of itself, as JSON; `x` is how many seconds it takes to answer.
ECHO = """
import json, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            time.sleep(float(pb_utils.get_input_tensor_by_name(request, "x").as_numpy()[0]))
            said = {
                "timeout_us": request.timeout(),
                "id": request.request_id(),
                "parameters": json.loads(request.parameters() or "{}"),
            }
            text = np.frombuffer(json.dumps(said).encode(), np.uint8)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", text)]))
        return responses
"""


def load_echo(server: TritonServer, instances: int = 1) -> None:
    """Load the model `echo`."""
    server.load("echo", _config("echo", instances), {"file:1/model.py": ECHO.encode()})


def load_proxy(server: TritonServer, name: str, url: str, **parameters: str) -> None:
    """Load a proxy of `echo` at `url`. The server that it calls has no name that others know."""
    chosen = {
        "on": server.name,
        "server": "far",
        "component": "c9",
        "plan_id": "0badcafe",
        "model_name": "echo",
        "url": url,
        "deadline_ms": "8000",
        **parameters,
    }
    folders = (triton_dir() / "models" / "remote", triton_dir() / "shared")
    files = {
        f"file:1/{path.name}": path.read_bytes()
        for folder in folders
        for path in folder.glob("*.py")
    }
    server.load(name, _config(name, 1, chosen), files)


def ask(
    client: triton.InferenceServerClient, model: str, seconds: float = 0.0, **options: Any
) -> dict[str, Any]:
    """What `echo` says after so many seconds; raises InferenceServerException."""
    item = triton.InferInput("x", [1], "FP32")
    item.set_data_from_numpy(np.array([seconds], np.float32))
    answer = client.infer(model, [item], **options).as_numpy("y")
    assert answer is not None
    found: dict[str, Any] = json.loads(answer.tobytes())
    return found


def refusal(
    client: triton.InferenceServerClient, model: str, seconds: float = 0.0, **options: Any
) -> tuple[str, float]:
    """(error text, empty if there was none; seconds) of the same."""
    started = time.monotonic()
    try:
        ask(client, model, seconds, **options)
    except InferenceServerException as error:
        return str(error), time.monotonic() - started
    return "", time.monotonic() - started


class Gate:
    """A TCP relay to a server that can be shut for a while: connections end, new ones are refused.

    It listens on the same port of 127.0.0.1 all the time that it is open.
    """

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition(":")
        self._target = (host, int(port))
        self._listener: socket.socket | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.port = 0
        self.connections = 0
        self._closed = False
        self._lock = threading.Lock()
        self.open()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def open(self) -> None:
        """Take connections (again)."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        with self._lock:
            self._listener, self.port = listener, listener.getsockname()[1]

    def shut(self) -> None:
        """End all connections and refuse new ones."""
        with self._lock:
            if self._listener is not None:
                self._listener.close()
            self._listener = None
            for pair in self._pairs:
                for end in pair:
                    end.close()
            self._pairs.clear()

    def close(self) -> None:
        self._closed = True
        self._thread.join()
        self.shut()

    def _run(self) -> None:
        while not self._closed:
            with self._lock:
                ends = {a: b for pair in self._pairs for a, b in (pair, pair[::-1])}
                sources = [*ends, *([self._listener] if self._listener else [])]
                ready = select.select(sources, [], [], 0)[0] if sources else []
                for source in ready:
                    if source is self._listener:
                        accepted, _ = source.accept()
                        self._pairs.append((accepted, socket.create_connection(self._target)))
                        self.connections += 1
                    else:
                        self._pass_on(source, ends[source])
            if not ready:
                time.sleep(0.002)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            data = source.recv(1 << 20)
            target.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._pairs = [pair for pair in self._pairs if source not in pair]
            source.close()
            target.close()


def _config(name: str, instances: int, parameters: dict[str, str] | None = None) -> str:
    return json.dumps(
        {
            "name": name,
            "backend": "python",
            "max_batch_size": 0,
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [1]}],
            "output": [{"name": "y", "data_type": "TYPE_UINT8", "dims": [-1]}],
            "instance_group": [{"kind": "KIND_CPU", "count": instances}],
            "parameters": {k: {"string_value": v} for k, v in (parameters or {}).items()},
        }
    )
