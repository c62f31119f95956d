"""What a hop between two servers costs, beside a bare upload of the same bytes.

A model of two components (device -> edge, no link emulation) passes a tensor of a given size. Its
weights are drawn at random: only times are looked at.

  hop      time of a request to the plan, as an app sees it, minus the service times of its two
           components on their servers (Triton's own statistics: queue, input, inference, output)
  upload   time of sending the same tensor to a Triton Python model on the edge that reads its first
           element, with plain tritonclient
  app      time of a call of an app that moves nothing: one element to and from a Triton Python
           model on the device. Both `hop` and `upload` contain one such call
  net      hop minus app: what the plan adds to a call that an app makes anyway
  naive    the same as `hop` for an ensemble with a plain asyncio proxy (naive.py) over the same
           components

Requests of all kinds are sent in turn in one run; medians are reported. Usage:

    python -m benchmarks.hop_overhead [--requests 200] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import tritonclient.grpc as triton
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from benchmarks.naive import ENSEMBLE, load_naive
from tritier.deployment.client import TritonServer
from tritier.deployment.deploy import deploy, find_addresses
from tritier.deployment.lab import Lab
from tritier.divider import Array
from tritier.documents import Assignment, Plan, ServersSpec
from tritier.graph import LoadedModel, load_model
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import generate, plan_from_assignment

SIZES_BYTES = (1_000, 10_000, 100_000, 1_000_000, 5_000_000, 10_000_000)
_WARM_UP = 30
_SINK = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            array = pb_utils.get_input_tensor_by_name(request, "tensor").as_numpy()
            assert array.size
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("first", array[:1])]))
        return responses
"""


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds for one tensor size; `n` requests of each kind."""

    tensor_bytes: int
    n: int
    plan_ms: float
    components_ms: float
    hop_ms: float
    net_ms: float
    upload_ms: float
    app_ms: float
    naive_hop_ms: float
    plan_p90_ms: float
    upload_p90_ms: float

    @property
    def ratio(self) -> float:
        """Hop over upload; at most 1 is the goal from 1 MB up."""
        return self.hop_ms / self.upload_ms


class Calls:
    """One warm client per server and the requests that are timed."""

    def __init__(self, plan: Plan, urls: dict[str, str], elements: int) -> None:
        self._device = triton.InferenceServerClient(urls["device"])
        self._edge = triton.InferenceServerClient(urls["edge"])
        self._plan = plan
        self._small = np.ones(1, np.float32)
        self._large = np.random.default_rng(0).random(elements, dtype=np.float32)

    def plan_ms(self) -> float:
        """A request to the split model."""
        return _timed_ms(self._device, self._plan.model.name, "x", self._small, "z")

    def upload_ms(self) -> float:
        """The bare upload."""
        return _timed_ms(self._edge, "sink", "tensor", self._large, "first")

    def app_ms(self) -> float:
        """A call of an app that moves nothing."""
        return _timed_ms(self._device, "nothing", "tensor", self._small, "first")

    def naive_ms(self) -> float:
        """A request to the naive split."""
        return _timed_ms(self._device, ENSEMBLE, "x", self._small, "z")

    def close(self) -> None:
        """Close the connections."""
        self._device.close()
        self._edge.close()


def main() -> int:
    """Print the table; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200, help="timed requests of each kind")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES_BYTES, help="bytes")
    arguments = parser.parse_args()
    spec = ServersSpec.from_data(
        {
            "servers": [
                {"name": "device", "tier": "device", "entry": True},
                {"name": "edge", "tier": "edge"},
            ]
        }
    )
    with tempfile.TemporaryDirectory(prefix="tritier-bench-") as name:
        folder = Path(name)
        lab = Lab(folder / "lab")
        lab.up(spec, None)
        try:
            rows = [
                measure(lab, spec, folder, size, arguments.requests) for size in arguments.sizes
            ]
        finally:
            lab.down()
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    else:
        show(rows)
    return 0


def measure(lab: Lab, spec: ServersSpec, folder: Path, size_bytes: int, requests: int) -> Row:
    """Deploy a plan that passes `size_bytes` and time it."""
    elements = max(1, size_bytes // 4)
    model = write_model(folder / f"hop{size_bytes}.onnx", elements)
    assignment = Assignment(layers={"make": "device"}, default="edge")
    plan = plan_from_assignment(model, assignment, spec)
    files, _ = generate(plan, model, GenerateOptions())
    repos = folder / f"repos{size_bytes}"
    write_files(files, repos, force=False)
    repositories = Repositories.open(repos)
    addresses = find_addresses(repositories, spec, lab.state())
    deploy(repositories, addresses, push="always")
    with TritonServer("edge", addresses.urls["edge"]) as edge:
        edge.load("sink", _sink_config("sink", elements), {"file:1/model.py": _SINK.encode()})
    with TritonServer("device", addresses.urls["device"]) as device:
        device.load("nothing", _sink_config("nothing", 1), {"file:1/model.py": _SINK.encode()})
        load_naive(device, addresses.urls["edge"], plan, elements)
    calls = Calls(plan, dict(addresses.urls), elements)
    try:
        return _time(calls, plan, dict(addresses.urls), size_bytes, requests)
    finally:
        calls.close()


def write_model(path: Path, elements: int) -> LoadedModel:
    """The model x [1] -> make -> y [elements] -> shrink -> z [1]; drawn weights."""
    weights = np.random.default_rng(0).random(elements, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["w", "x"], ["y"], name="make"),
            helper.make_node("Slice", ["y", "start", "end"], ["z"], name="shrink"),
        ],
        "hop",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
        [
            helper.make_tensor("w", TensorProto.FLOAT, [elements], weights.tobytes(), raw=True),
            helper.make_tensor("start", TensorProto.INT64, [1], [0]),
            helper.make_tensor("end", TensorProto.INT64, [1], [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return load_model(path)


def show(rows: list[Row]) -> None:
    """The table."""
    console = Console(width=120)
    table = Table(title="one hop, device -> edge (measured, medians, ms)", title_justify="left")
    columns = (
        "tensor",
        "plan",
        "components",
        "hop",
        "upload",
        "hop/upload",
        "app",
        "net",
        "naive",
        "n",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row.tensor_bytes / 1e6:g} MB",
            f"{row.plan_ms:.2f}",
            f"{row.components_ms:.2f}",
            f"{row.hop_ms:.2f}",
            f"{row.upload_ms:.2f}",
            f"{row.ratio:.2f}",
            f"{row.app_ms:.2f}",
            f"{row.net_ms:.2f}",
            f"{row.naive_hop_ms:.2f}",
            str(row.n),
        )
    console.print(table)


def _time(calls: Calls, plan: Plan, urls: dict[str, str], size_bytes: int, requests: int) -> Row:
    for _ in range(_WARM_UP):
        _each(calls)
    before = _service_ns(plan, urls)
    times = [_each(calls) for _ in range(requests)]
    after = _service_ns(plan, urls)
    components_ms = sum(
        (after[c][1] - before[c][1]) / (after[c][0] - before[c][0]) / 1e6 for c in after
    )
    plans, uploads, apps, naives = zip(*times, strict=True)
    plan_ms = statistics.median(plans)
    return Row(
        tensor_bytes=size_bytes,
        n=requests,
        plan_ms=plan_ms,
        components_ms=components_ms,
        hop_ms=plan_ms - components_ms,
        net_ms=plan_ms - components_ms - statistics.median(apps),
        upload_ms=statistics.median(uploads),
        app_ms=statistics.median(apps),
        naive_hop_ms=statistics.median(naives) - components_ms,
        plan_p90_ms=statistics.quantiles(plans, n=10)[-1],
        upload_p90_ms=statistics.quantiles(uploads, n=10)[-1],
    )


def _each(calls: Calls) -> tuple[float, float, float, float]:
    return calls.plan_ms(), calls.upload_ms(), calls.app_ms(), calls.naive_ms()


def _service_ns(plan: Plan, urls: dict[str, str]) -> dict[str, tuple[int, int]]:
    found = {}
    for component in plan.components:
        with TritonServer(component.server, urls[component.server]) as server:
            success = server.statistics(f"{plan.model.name}__{plan.id}__{component.id}").success
            found[component.id] = (success.count, success.ns)
    return found


def _timed_ms(
    client: triton.InferenceServerClient, model: str, name: str, array: Array, output: str
) -> float:
    started = time.perf_counter()
    item = triton.InferInput(name, list(array.shape), "FP32")
    item.set_data_from_numpy(array)
    result = client.infer(model, [item]).as_numpy(output)
    elapsed_ms = (time.perf_counter() - started) * 1000
    assert result is not None
    assert result.size == 1
    return elapsed_ms


def _sink_config(name: str, elements: int) -> str:
    return json.dumps(
        {
            "name": name,
            "backend": "python",
            "input": [{"name": "tensor", "data_type": "TYPE_FP32", "dims": [elements]}],
            "output": [{"name": "first", "data_type": "TYPE_FP32", "dims": [1]}],
            "instance_group": [{"kind": "KIND_CPU", "count": 1}],
        }
    )


if __name__ == "__main__":
    sys.exit(main())
