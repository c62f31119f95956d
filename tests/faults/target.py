"""A deployed plan with every kind of model, for what is hostile to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.faults.hostile import Subject
from tests.faults.plane import family_of, written
from tests.helpers.faults import is_alive
from tests.helpers.load import Asker, summary
from tests.helpers.processes import children_of, words_of
from tests.helpers.small import questions, write_small
from tests.integration.conftest import Bench, three_servers
from tritier.deployment.client import TritonServer
from tritier.deployment.deploy import deploy, find_addresses
from tritier.deployment.lab import Lab
from tritier.documents import Assignment, LabServer
from tritier.graph import LoadedModel
from tritier.repository import GenerateOptions, Repositories
from tritier.workflow import plan_from_assignment

DEADLINE_MS = 1000
_HANG_S = 20.0


@dataclass
class Target:
    """A deployed plan with every kind of model, and channels to its servers."""

    bench: Bench
    model: LoadedModel
    repositories: Repositories
    urls: dict[str, str]
    subjects: list[Subject] = field(default_factory=list)
    calls: dict[str, Any] = field(default_factory=dict)

    def send(self, server: str, data: bytes, method: str = "ModelInfer") -> tuple[str, bytes]:
        """(status name, serialized answer or the message)."""
        call = self.calls[server][method]
        try:
            if method == "ModelInfer":
                return "OK", call(data, timeout=_HANG_S)
            return "OK", b"".join(call(iter([data]), timeout=_HANG_S))
        except grpc.RpcError as error:
            return error.code().name, (error.details() or "").encode()


@contextmanager
def deployed_target(folder: Path) -> Iterator[Target]:
    """A lab of its own: what is hostile may kill its servers."""
    spec = three_servers()
    model = write_small(folder / "small.onnx", side=16)
    layers = {"conv1": "edge", "relu1": "edge", "conv2": "cloud"}
    plan = plan_from_assignment(model, Assignment(layers=layers, default="device"), spec)
    options = GenerateOptions(
        optimisation="disabled", deadline_ms=DEADLINE_MS, mailbox_max_bytes=8 * 1024**2
    )
    classes = {"normal": ["peer", "whole"], "strict": ["peer"]}
    family = family_of({"peer": plan}, classes, DEADLINE_MS)
    repositories = written(folder / "repos", family, [plan], model, options)
    lab = Lab(folder / "lab")
    state = lab.up(spec, None)
    try:
        addresses = find_addresses(repositories, spec, state)
        deploy(repositories, addresses, push="always")
        found = Target(Bench(spec, lab, state, folder), model, repositories, dict(addresses.urls))
        channels = [_connect(found, name) for name in repositories.servers()]
        yield found
        for channel in channels:
            channel.close()
    finally:
        lab.down()


def _connect(target: Target, name: str) -> grpc.Channel:
    channel = grpc.insecure_channel(target.urls[name], options=[("grpc.enable_retries", 0)])
    service = "/inference.GRPCInferenceService/"
    target.calls[name] = {
        "ModelInfer": channel.unary_unary(f"{service}ModelInfer"),
        "ModelStreamInfer": channel.stream_stream(f"{service}ModelStreamInfer"),
    }
    with TritonServer(name, target.urls[name]) as server:
        for model in target.repositories.models_of(name):
            target.subjects.append(Subject(name, model.name, model.kind, server.config(model.name)))
    return channel


def check_unharmed(target: Target, before: dict[str, list[int]]) -> None:
    """All processes are the same, all models ready, and the answers those of the whole model."""
    state = target.bench.state
    for server in state.servers:
        assert is_alive(server), server.name
        _wait_for_processes(server, before[server.name])
    for subject in target.subjects:
        with TritonServer(subject.server, target.urls[subject.server]) as client:
            client.config(subject.name)  # raises for a model that is not ready
    for model in [s.name for s in target.subjects if s.kind in ("router", "entry", "whole")]:
        asker = Asker(target.urls["device"], model, questions(target.model), DEADLINE_MS)
        answers = [asker.ask(number) for number in range(16)]
        asker.close()
        assert all(answer.ok for answer in answers), summary(answers)


def processes_of(target: Target) -> dict[str, list[int]]:
    return {s.name: children_of(s.process.pid) for s in target.bench.state.servers}


def _wait_for_processes(server: LabServer, expected: list[int]) -> None:
    """The process of a model that was unloaded ends a moment later."""
    deadline = time.monotonic() + 10
    while (found := children_of(server.process.pid)) != expected:
        assert set(expected) <= set(found), f"a process of server '{server.name}' has died"
        extra = {pid: words_of(pid) for pid in set(found) - set(expected)}
        assert time.monotonic() < deadline, extra
        time.sleep(0.1)
