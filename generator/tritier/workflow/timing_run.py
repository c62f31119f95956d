"""Profile a model on several servers, side by side where they are on different machines."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tritier.deployment.client import TritonServer
from tritier.divider import FIRST_OPSET
from tritier.documents import HostFacts, ModelProfile, Ranges, Server, TimingProfile
from tritier.errors import CheckFailed, InputError, ServerError, TritierError
from tritier.graph import LayerGraph, LoadedModel, build_layer_graph, constant_bytes
from tritier.network.agent import AgentLimits, running_agent
from tritier.workflow.timing_bench import Runs, ServerBench
from tritier.workflow.timing_pieces import PieceMaker
from tritier.workflow.timing_profile import Method, Task, profile_on_server
from tritier.workflow.timing_store import Store

# Server, what is being done there, which share of it is done.
Report = Callable[[str, str, float], None]
_SPARE_BYTES = 64 << 20
_MAX_MODEL_BYTES = (1 << 31) - 1 - _SPARE_BYTES


@dataclass(frozen=True)
class ProfileRequest:
    """What is to be profiled, and how."""

    model: LoadedModel
    profile: ModelProfile
    store: Path
    ranges: Ranges | None = None
    method: Method = "profiler"
    runs: Runs = field(default_factory=Runs)
    components: int = 5
    seed: int = 0
    fresh: bool = False


def without_unquantizable(
    model: LoadedModel, profile: ModelProfile
) -> tuple[ModelProfile, tuple[str, ...]]:
    """The profile with only those layers quantizable that the quantizer takes, and why the others
    are not."""
    opset = next((x.version for x in model.proto.opset_import if x.domain in ("", "ai.onnx")), 1)
    chosen = profile.quantizable_layers
    if chosen and opset < FIRST_OPSET:
        dropped = dict.fromkeys(
            chosen,
            f"the model has opset {opset}, quantized layers need {FIRST_OPSET} or more: convert it "
            "with `tritier prepare --opset 17`",
        )
    else:
        types = {name: set[str]() for name in chosen}
        for tensor in profile.tensors:
            for name in {tensor.source, *tensor.consumers} & types.keys():
                types[name].add(tensor.dtype or "unknown")
        dropped = {
            name: f"layer '{name}' is of {', '.join(sorted(found))}, quantized are float32"
            for name, found in types.items()
            if found != {"float32"}
        }
    layers = tuple(
        layer.model_copy(update={"quantizable": False}) if layer.name in dropped else layer
        for layer in profile.layers
    )
    return profile.model_copy(update={"layers": layers}), tuple(dict.fromkeys(dropped.values()))


def profile_on_servers(
    request: ProfileRequest,
    servers: Sequence[Server],
    urls: Mapping[str, str],
    report: Report = lambda *_: None,
    done: Callable[[TimingProfile], None] = lambda _: None,
) -> list[TimingProfile]:
    """Timing profiles in the order of `servers`; `done` gets each when it is ready.

    Servers that are on one host are measured one after another: they would disturb each other. If
    some fail, the others are still profiled and then one error names all that failed.
    """
    size = constant_bytes(request.model.proto)
    if size > _MAX_MODEL_BYTES:
        raise InputError(
            f"model '{request.profile.model.name}' has {size} bytes of constants; at most "
            f"{_MAX_MODEL_BYTES} go through model control: profile a part of it"
        )
    job = _Job(request, build_layer_graph(request.model.proto), urls, size, report, done)
    queues: dict[str, list[Server]] = defaultdict(list)
    for server in servers:
        with job.failing(server):
            queues[_host_of(server, urls[server.name]).host].append(server)
    with ThreadPoolExecutor(max(1, len(queues))) as executor:
        jobs = [executor.submit(job.work, queue) for queue in queues.values()]
        try:
            wait(jobs)
        except BaseException:  # Ctrl-C: what runs ends at its next step, and cleans up
            job.stopped.set()
            raise
        for item in jobs:
            item.result()
    _raise_failures(job.failures)
    return [job.found[server.name] for server in servers]


class _Stopped(BaseException):
    """The command was interrupted."""


@dataclass
class _Job:
    """One call of `profile_on_servers`: what it is about, and what has come of it."""

    request: ProfileRequest
    graph: LayerGraph
    urls: Mapping[str, str]
    size: int
    report: Report
    done: Callable[[TimingProfile], None]
    stopped: threading.Event = field(default_factory=threading.Event)
    found: dict[str, TimingProfile] = field(default_factory=dict)
    failures: dict[str, TritierError] = field(default_factory=dict)

    def work(self, queue: Sequence[Server]) -> None:
        """Profile servers one after another."""
        for server in queue:
            with self.failing(server):
                self.found[server.name] = found = self._profile(server)
                self.done(found)

    @contextmanager
    def failing(self, server: Server) -> Iterator[None]:
        """Note what fails on a server; the others go on."""
        try:
            yield
        except TritierError as error:
            self.failures[server.name] = error

    def _tell(self, server: str, text: str, share: float) -> None:
        if self.stopped.is_set():
            raise _Stopped
        self.report(server, text, share)

    def _profile(self, server: Server) -> TimingProfile:
        request = self.request
        limits = AgentLimits(max_payload_bytes=self.size + _SPARE_BYTES)
        url = self.urls[server.name]
        with TritonServer(server.name, url) as triton, running_agent(triton, {}, limits) as agent:
            bench = ServerBench(
                server,
                triton,
                agent,
                HostFacts.from_data(agent.facts()["host"]),
                Store(request.store, request.fresh),
                request.runs,
                lambda text, share: self._tell(server.name, text, share),
            )
            maker = PieceMaker(request.model, self.graph, request.profile, server, request.ranges)
            task = Task(bench, maker, request.profile, self.graph, request.components, request.seed)
            return profile_on_server(task, request.method)


def _host_of(server: Server, url: str) -> HostFacts:
    with TritonServer(server.name, url) as triton, running_agent(triton, {}) as agent:
        return HostFacts.from_data(agent.facts()["host"])


def _raise_failures(failures: Mapping[str, TritierError]) -> None:
    if not failures:
        return
    text = "\n".join(f"{name}: {error}" for name, error in failures.items())
    kinds = {type(error) for error in failures.values()}
    if kinds == {CheckFailed}:
        raise CheckFailed(text)
    if kinds == {InputError}:
        raise InputError(text)
    raise ServerError(text)
