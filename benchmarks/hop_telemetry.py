"""What logs and traces cost a hop, and what the hop of another checkout costs beside it.

Labs of two servers (device -> edge, no link emulation) run at the same time, one per kind:

  before   the modules of another checkout's data plane (--before FOLDER), if it is given
  off      this one: failures are logged, no spans (the default)
  log      each request is logged (TRITIER_LOG=requests)
  trace    each request brings a traceparent and its spans go to a collector (TRITIER_OTLP)

The same small model is asked in turn in all of them; medians and quartiles of the time that an app
sees are printed, in milliseconds. Usage:

    python -m benchmarks.hop_telemetry [--requests 300] [--bytes 10000] [--before FOLDER]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import tritonclient.grpc as triton

from benchmarks.hop_overhead import write_model
from tests.helpers.otlp import Collector
from tritier.deployment.deploy import deploy, find_addresses
from tritier.deployment.lab import Lab
from tritier.documents import Assignment, ServersSpec
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import generate, plan_from_assignment

_MODEL = "hop"
_WARM_UP = 40
_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_SPEC = {
    "servers": [
        {"name": "device", "tier": "device", "entry": True},
        {"name": "edge", "tier": "edge"},
    ]
}


def main() -> int:
    """Print one line for each kind; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=300, help="timed requests of each kind")
    parser.add_argument("--bytes", type=int, default=10_000, help="size of the tensor")
    parser.add_argument("--before", type=Path, help="another checkout's folder triton/")
    parser.add_argument("--kinds", nargs="+", help="only these")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        collector = stack.enter_context(Collector())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tritier-bench-")))
        settings: dict[str, dict[str, str]] = {
            "off": {},
            "log": {"TRITIER_LOG": "requests"},
            "trace": {"TRITIER_OTLP": collector.url},
        }
        if arguments.before:
            settings = {"before": {}, **settings}
        clients = {
            kind: stack.enter_context(
                _client(folder / kind, variables, arguments.bytes, _triton(kind, arguments.before))
            )
            for kind, variables in settings.items()
            if not arguments.kinds or kind in arguments.kinds
        }
        times = _time(clients, arguments.requests)
    for kind, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        print(f"{kind:8} {middle:.3f} ms  ({low:.3f} to {high:.3f}, n={len(found)})")
    print(f"spans: {len(collector.spans)}")
    return 0


def _triton(kind: str, before: Path | None) -> Path | None:
    return before if kind == "before" else None


@contextmanager
def _client(
    folder: Path, variables: Mapping[str, str], size_bytes: int, modules: Path | None
) -> Iterator[triton.InferenceServerClient]:
    """A client of the device of a lab with the model split over it."""
    spec, lab = ServersSpec.from_data(_SPEC), Lab(folder / "lab")
    model = write_model(_made(folder) / f"{_MODEL}.onnx", max(1, size_bytes // 4))
    assignment = Assignment(layers={"make": "device"}, default="edge")
    plan = plan_from_assignment(model, assignment, spec)
    files, _ = generate(plan, model, GenerateOptions())
    write_files(files, folder / "repos", force=False)
    with mock.patch.dict(os.environ, variables):
        lab.up(spec, folder / "repos")
    try:
        repositories = Repositories.open(folder / "repos")
        addresses = find_addresses(repositories, spec, lab.state())
        if modules is not None:
            _swap(folder / "repos", modules)
        deploy(repositories, addresses, push="never")
        assert plan.model.name == _MODEL
        client = triton.InferenceServerClient(addresses.urls["device"])
        yield client
        client.close()
    finally:
        lab.down()


def _swap(repositories: Path, modules: Path) -> None:
    """Put the proxies of another checkout in place of this one's."""
    for folder in repositories.glob("*/*__call/1"):
        for path in folder.glob("*.py"):
            path.unlink()
        for path in (modules / "models" / "remote").glob("*.py"):
            (folder / path.name).write_bytes(path.read_bytes())


def _time(
    clients: Mapping[str, triton.InferenceServerClient], requests: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {kind: [] for kind in clients}
    item = triton.InferInput("x", [1], "FP32")
    item.set_data_from_numpy(np.ones(1, np.float32))
    for number in range(_WARM_UP + requests):
        for kind, client in clients.items():
            headers = {"traceparent": _PARENT} if kind == "trace" else None
            started = time.perf_counter()
            client.infer(_MODEL, [item], headers=headers)
            elapsed_ms = (time.perf_counter() - started) * 1000
            if number >= _WARM_UP:
                times[kind].append(elapsed_ms)
    return times


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
