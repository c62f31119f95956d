"""A Triton on one core whose sharers wait for each other by its rate limiter, and its clients."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

from tritier.costs.sharing_config import RESOURCE, instance_group, server_flags
from tritier.deployment import embedded, process
from tritier.deployment.client import TritonServer
from tritier.resources import example_dir

MODEL = "shared"
_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 0
input [ {{ name: "luminance" data_type: TYPE_FP32 dims: [ 1, 1, 224, 224 ] }} ]
output [ {{ name: "upscaled" data_type: TYPE_FP32 dims: [ 1, 1, 672, 672 ] }} ]
{group}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
"""
_START_S = 60.0
_STOP_S = 15.0
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Layout:
    """What is loaded: `models` copies of the super-resolution model, each with `instances`."""

    models: int
    instances: int
    limited: bool = True

    @property
    def names(self) -> list[str]:
        """Of the Triton models."""
        return [f"{MODEL}_{number}" for number in range(self.models)]

    def write(self, folder: Path) -> Path:
        """The model repository in that folder."""
        group = instance_group("KIND_CPU", self.instances, 1 if self.limited else None)
        model = (example_dir("super_resolution") / "espcn_x3.onnx").read_bytes()
        for name in self.names:
            (folder / name / "1").mkdir(parents=True, exist_ok=True)
            (folder / name / "1" / "model.onnx").write_bytes(model)
            (folder / name / "config.pbtxt").write_text(_CONFIG.format(name=name, group=group))
        return folder


class Pinned:
    """A running server; `pid` leads its process group."""

    def __init__(self, pid: int, url: str, core: int) -> None:
        self.pid, self.url, self._core = pid, url, core

    def cpu_s(self) -> float:
        """Processor time so far of all processes of the group, of threads that ended too."""
        total = 0
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                text = (folder / "stat").read_text()
            except OSError:  # it ended meanwhile
                continue
            fields = text.rpartition(")")[2].split()
            if int(fields[2]) == self.pid:
                total += int(fields[11]) + int(fields[12])
        return total * _TICK_S

    def core_s(self) -> float:
        """Time so far in which the core was not idle, whoever used it, other guests of the
        machine's host included."""
        lines = Path("/proc/stat").read_text().splitlines()
        line = next(x for x in lines if x.startswith(f"cpu{self._core} "))
        user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
        return (user + nice + system + irq + softirq + steal) * _TICK_S


@contextmanager
def pinned_server(folder: Path, layout: Layout, core: int) -> Iterator[Pinned]:
    """A server with these models on one core; stopped by its own pid at the end."""
    ports = embedded.free_ports(3)
    prefix = f"tritier_{secrets.token_hex(4)}_"
    server = embedded.EmbeddedServer(
        name="shared",
        repository=layout.write(folder / "models"),
        grpc_port=ports[0],
        http_port=ports[1],
        metrics_port=ports[2],
        log_file=folder / "server.log",
        backends=embedded.prepare_backends(folder / "backends"),
        shm_prefix=prefix,
    )
    flags = server_flags({RESOURCE: 1}) if layout.limited else []
    own = os.sched_getaffinity(0)
    with server.log_file.open("ab") as log:
        os.sched_setaffinity(0, {core})  # which the server and its children inherit
        try:
            pid = process.spawn(
                [*embedded.command(server), *flags],
                embedded.environment(server),
                log.fileno(),
                log.fileno(),
            )
        finally:
            os.sched_setaffinity(0, own)
    ticks = process.start_ticks(pid) or 0
    try:
        url = f"127.0.0.1:{ports[0]}"
        with TritonServer("shared", url) as client:
            client.wait_until_live(_START_S, lambda: process.is_running(pid, ticks))
        with triton.InferenceServerClient(url) as client:
            for name in layout.names:
                client.load_model(name)
        yield Pinned(pid, url, core)
    finally:
        process.stop(pid, ticks, _STOP_S)
        for left in Path("/dev/shm").glob(f"{prefix}*"):  # noqa: S108 - POSIX shared memory
            left.unlink(missing_ok=True)


@dataclass(frozen=True)
class Sent:
    """A request: when it was due and when it was answered, in s of one clock."""

    due_s: float
    done_s: float

    @property
    def latency_ms(self) -> float:
        """From when it was due."""
        return (self.done_s - self.due_s) * 1000.0


class Clients:
    """One client, with a connection of its own, per sharer."""

    def __init__(self, url: str, models: Sequence[str]) -> None:
        self._models = list(models)
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._clients = [
            triton.InferenceServerClient(url, channel_args=options) for _ in self._models
        ]
        self._input = triton.InferInput("luminance", [1, 1, 224, 224], "FP32")
        self._input.set_data_from_numpy(
            np.random.default_rng(0).random((1, 1, 224, 224), np.float32)
        )

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()

    def ask(self, sharer: int) -> None:
        """One request of a sharer."""
        result = self._clients[sharer].infer(self._models[sharer], [self._input])
        answer = result.as_numpy("upscaled")
        assert answer is not None
        assert answer.shape == (1, 1, 672, 672)

    def closed(self, sharers: int, seconds: float, least: int) -> list[list[Sent]]:
        """Each of the first sharers sends one request after the other for that long, and at least
        `least` requests; then all stop."""
        end = time.perf_counter() + seconds

        def one(sharer: int, found: list[Sent]) -> None:
            while time.perf_counter() < end or len(found) < least:
                started = time.perf_counter()
                self.ask(sharer)
                found.append(Sent(started, time.perf_counter()))

        return _all(sharers, one)

    def periodic(
        self, sharers: int, period_s: float, phases_s: Sequence[float], count: int
    ) -> list[list[Sent]]:
        """Each of the first sharers sends `count` requests, one each period, as a camera does; a
        request that waits for the one before it counts from when it was due."""
        begin = time.perf_counter() + 0.05

        def one(sharer: int, found: list[Sent]) -> None:
            for number in range(count):
                due = begin + phases_s[sharer] + number * period_s
                time.sleep(max(0.0, due - time.perf_counter()))
                self.ask(sharer)
                found.append(Sent(due, time.perf_counter()))

        return _all(sharers, one)


def _all(sharers: int, one: Callable[[int, list[Sent]], None]) -> list[list[Sent]]:
    found: list[list[Sent]] = [[] for _ in range(sharers)]
    faults: list[BaseException] = []

    def run(sharer: int) -> None:
        try:
            one(sharer, found[sharer])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(sharers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return found
