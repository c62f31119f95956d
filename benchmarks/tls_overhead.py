"""What mutual TLS adds to a request.

Two labs of two servers each, one with mutual TLS and a key for administrative APIs, one without,
serve the same two models: the negative of a tensor of float32, computed on the device (one
connection, of the app), and its double negative, half on the device and half on the edge (two
connections: the app's, and that of the proxy). Requests of all kinds are sent in turn in one run
over connections that stay open; medians are reported, and the median of the differences between a
request with TLS and the one without that came just before or after. Usage:

    python -m benchmarks.tls_overhead [--requests 200] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import tritonclient.grpc as triton
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from tritier.deployment.access import connect, lab_addresses
from tritier.deployment.deploy import deploy, find_addresses
from tritier.deployment.lab import Lab
from tritier.deployment.security import LabProtection
from tritier.divider import Array
from tritier.documents import Assignment, ServersSpec
from tritier.graph import load_model
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import generate, plan_from_assignment

SIZES_BYTES = (1_024, 4 * 2**20)
# Name of the split -> server of its first half.
SPLITS = {"one connection": "device", "two connections": "edge"}
PROTECTIONS = {"plain": LabProtection(), "mutual TLS": LabProtection(mutual=True, admin_key=True)}
_WARM_UP = 20


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds of `n` requests of each kind."""

    split: str
    tensor_bytes: int
    n: int
    plain_ms: float
    tls_ms: float
    added_ms: float


def main() -> int:
    """Print the table; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200, help="timed requests of each kind")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tritier-bench-") as name, ExitStack() as stack:
        clients = {
            kind: stack.enter_context(_served(Path(name), kind, protection))
            for kind, protection in PROTECTIONS.items()
        }
        rows = [
            _measure(clients, split, size, arguments.requests)
            for split in SPLITS
            for size in SIZES_BYTES
        ]
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    else:
        _show(rows)
    return 0


@contextmanager
def _served(
    folder: Path, kind: str, protection: LabProtection
) -> Iterator[triton.InferenceServerClient]:
    """A client of the entry of a lab that serves all splits."""
    names = ("device", "edge")
    rows = [{"name": n, "tier": n, "entry": n == "device"} for n in names]
    spec = ServersSpec.from_data({"servers": rows})
    place = folder / kind.replace(" ", "_")
    lab = Lab(place / "lab")
    state = lab.up(spec, None, protection=protection)
    try:
        for split, first in SPLITS.items():
            repositories = _repositories(place, split, first, spec)
            deploy(repositories, find_addresses(repositories, spec, state), push="always")
        client = connect(lab_addresses(state)["device"])
        yield client
        client.close()
    finally:
        lab.down()


def _repositories(folder: Path, split: str, first: str, spec: ServersSpec) -> Repositories:
    name = split.replace(" ", "_")
    nodes = [
        helper.make_node("Neg", ["x"], ["y"], name="first"),
        helper.make_node("Neg", ["y"], ["z"], name="second"),
    ]
    tensors = [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n"]) for x in ("x", "z")]
    graph = helper.make_graph(nodes, name, tensors[:1], tensors[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, folder / f"{name}.onnx")
    model = load_model(folder / f"{name}.onnx")
    assignment = Assignment.from_data({"default": "device", "layers": {"first": first}})
    plan = plan_from_assignment(model, assignment, spec, name)
    files, _ = generate(plan, model, GenerateOptions(optimisation="disabled"))
    write_files(files, folder / name, force=False)
    return Repositories.open(folder / name)


def _measure(
    clients: dict[str, triton.InferenceServerClient], split: str, size: int, requests: int
) -> Row:
    array = np.random.default_rng(0).random(size // 4, dtype=np.float32)
    times: dict[str, list[float]] = {kind: [] for kind in clients}
    kinds = list(clients)
    for number in range(-_WARM_UP, requests):
        for kind in kinds if number % 2 else kinds[::-1]:
            elapsed_ms = _timed_ms(clients[kind], split.replace(" ", "_"), array)
            if number >= 0:
                times[kind].append(elapsed_ms)
    plain, tls = (times[kind] for kind in PROTECTIONS)
    return Row(
        split=split,
        tensor_bytes=size,
        n=requests,
        plain_ms=statistics.median(plain),
        tls_ms=statistics.median(tls),
        added_ms=statistics.median(b - a for a, b in zip(plain, tls, strict=True)),
    )


def _timed_ms(client: triton.InferenceServerClient, model: str, array: Array) -> float:
    started = time.perf_counter()
    item = triton.InferInput("x", list(array.shape), "FP32")
    item.set_data_from_numpy(array)
    answer = client.infer(model, [item], client_timeout=30).as_numpy("z")
    elapsed_ms = (time.perf_counter() - started) * 1000
    if not np.array_equal(answer, array):
        raise AssertionError(f"{model} answered something else than its input")
    return elapsed_ms


def _show(rows: list[Row]) -> None:
    table = Table(title="what mutual TLS adds to a request (medians)", title_justify="left")
    for column in ("request", "tensor bytes", "n", "plain ms", "mutual TLS ms", "added ms"):
        table.add_column(column, justify="left" if column == "request" else "right")
    for row in rows:
        times = (f"{x:.2f}" for x in (row.plain_ms, row.tls_ms, row.added_ms))
        table.add_row(row.split, f"{row.tensor_bytes:,}", str(row.n), *times)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
