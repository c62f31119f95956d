"""What the app's own connection to the entry takes, measured before a plan is predicted.

Neither profiles nor links hold it. A model that computes nothing is loaded on the entry for a
moment; it takes as many bytes as a request of the plan, and returns as many.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tritier.deployment.access import connect
from tritier.deployment.client import TritonServer
from tritier.divider import Arrays
from tritier.documents import Plan
from tritier.errors import InputError, ServerError
from tritier.graph import Quantizable, profile_model
from tritier.resources import triton_dir
from tritier.workflow.compare import Known

ECHO_NAME = "tritier__echo"
_TIMEOUT_S = 60.0
_COUNTED_S = 2.0
_RUNS, _WARM_UP = 15, 5


def app_bytes(known: Known, inputs: Sequence[Arrays]) -> tuple[int, int]:
    """Bytes of a request as an app sends it, in the mean over the inputs, and of its answer."""
    sent = [sum(array.nbytes for array in arrays.values()) for arrays in inputs]
    dims: dict[str, int] = {}
    for timing in known.timings.values():
        dims |= timing.dims
    profile = profile_model(known.model, dims, Quantizable(count=0))
    sizes = {tensor.name: tensor.bytes or 0 for tensor in profile.tensors}
    outputs = {value.name for value in known.model.proto.graph.output}
    answered = sum(size for name, size in sizes.items() if name in outputs)
    return round(statistics.fmean(sent)), answered


def check_shapes(plan: Plan, known: Known, inputs: Sequence[Arrays]) -> None:
    """Raises InputError if what is sent has other sizes than what was profiled: times of one say
    nothing of the other."""
    faults = []
    dims: dict[str, int] = {}
    for timing in known.timings.values():
        for name, size in timing.dims.items():
            if dims.setdefault(name, size) != size:
                faults.append(
                    f"dimension '{name}' is {dims[name]} in one profile and {size} in that of "
                    f"'{timing.server}': profile all servers with the same --dim"
                )
    for value in known.model.proto.graph.input:
        wanted = [
            dims.get(dim.dim_param) if dim.HasField("dim_param") else dim.dim_value
            for dim in value.type.tensor_type.shape.dim
        ]
        for arrays in inputs:
            shape = list(arrays[value.name].shape) if value.name in arrays else wanted
            if any(w is not None and w != s for w, s in zip(wanted, shape, strict=False)):
                faults.append(
                    f"input '{value.name}' of plan {plan.id} is sent as {shape}, and the profiles "
                    f"are of {wanted}: profile again with these sizes (--dim), or send inputs of "
                    "those of the profiles"
                )
    if faults:
        raise InputError(list(dict.fromkeys(faults)))


def measure_app_ms(entry: str, url: str, sent_bytes: int, answered_bytes: int) -> float:
    """Median ms of requests with so many bytes there and back, less what Triton counts of them.

    Raises ServerError where the entry does not take the model: it needs explicit model control and
    the Python backend.
    """
    with TritonServer(entry, url) as server, _served(server):
        client = connect(url)
        try:
            request = _request(sent_bytes, answered_bytes)
            before = _counted(server)
            found = []
            for number in range(_WARM_UP + _RUNS):
                started = time.perf_counter_ns()
                client.infer(ECHO_NAME, request, client_timeout=_TIMEOUT_S)
                spent_ns = time.perf_counter_ns() - started
                after = _counted_after(server, before)
                if number >= _WARM_UP:
                    found.append((spent_ns - (after[1] - before[1])) / 1e6)
                before = after
        except InferenceServerException as error:
            raise ServerError(f"model '{ECHO_NAME}' on '{entry}': {error}") from None
        finally:
            client.close()
    return max(0.0, statistics.median(found))


@contextmanager
def _served(server: TritonServer) -> Iterator[None]:
    program = (triton_dir() / "models" / "echo" / "model.py").read_bytes()
    server.load(ECHO_NAME, _config(), {"file:1/model.py": program})
    try:
        yield
    except BaseException:
        with suppress(ServerError):  # what went wrong first is what matters
            server.unload(ECHO_NAME)
        raise
    server.unload(ECHO_NAME)


def _config() -> str:
    return json.dumps(
        {
            "name": ECHO_NAME,
            "backend": "python",
            "max_batch_size": 0,
            "input": [
                {"name": "payload", "data_type": "TYPE_UINT8", "dims": [-1]},
                {"name": "count", "data_type": "TYPE_INT64", "dims": [1]},
            ],
            "output": [{"name": "made", "data_type": "TYPE_UINT8", "dims": [-1]}],
            "instance_group": [{"kind": "KIND_CPU", "count": 1}],
        }
    )


def _request(sent_bytes: int, answered_bytes: int) -> list[triton.InferInput]:
    payload = triton.InferInput("payload", [max(1, sent_bytes)], "UINT8")
    payload.set_data_from_numpy(np.zeros(max(1, sent_bytes), np.uint8))
    count = triton.InferInput("count", [1], "INT64")
    count.set_data_from_numpy(np.array([max(1, answered_bytes)], np.int64))
    return [payload, count]


def _counted(server: TritonServer) -> tuple[int, int]:
    """Requests, and ns of input, inference and output."""
    found = server.statistics(ECHO_NAME)
    parts = (found.compute_input, found.compute_infer, found.compute_output)
    return int(found.success.count), sum(int(part.ns) for part in parts)


def _counted_after(server: TritonServer, before: tuple[int, int]) -> tuple[int, int]:
    """A request may be counted after its answer."""
    deadline = time.monotonic() + _COUNTED_S
    while (found := _counted(server))[0] == before[0]:
        if time.monotonic() > deadline:
            raise ServerError(f"server '{server.name}' does not count requests to '{ECHO_NAME}'")
        time.sleep(0.001)
    if found[0] != before[0] + 1:
        raise ServerError(f"'{ECHO_NAME}' on '{server.name}' is asked by somebody else: try again")
    return found
