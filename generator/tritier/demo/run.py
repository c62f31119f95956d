"""The main job from end to end, on three embedded servers with emulated links."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tritier.demo.photograph import EXAMPLE, Photograph
from tritier.demo.picture import Panel, write_picture
from tritier.demo.requirements import require_packages
from tritier.deployment.access import connect
from tritier.deployment.client import TritonServer
from tritier.deployment.deploy import Addresses, deploy, find_addresses, undeploy
from tritier.deployment.lab import Lab
from tritier.divider import Array
from tritier.documents import Assignment, Plan, ServersSpec
from tritier.graph import LoadedModel, load_model
from tritier.pool import Pool
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import (
    Verdict,
    gather_inputs,
    generate,
    infer,
    plan_from_assignment,
    remember,
    verify_chained,
    verify_live,
)

Report = Callable[[str], None]
_WARM_UP = 2


@dataclass(frozen=True)
class ComponentRow:
    """A component as measured: the mean service time on its server over `requests` requests."""

    component: str
    server: str
    layers: int
    bytes_in: int
    bytes_out: int
    mean_ms: float
    requests: int


@dataclass(frozen=True)
class Latency:
    """Times of requests as an app saw them."""

    median_ms: float
    min_ms: float
    max_ms: float
    requests: int


@dataclass(frozen=True)
class DemoResult:
    """What the demo shows at its end."""

    plan: Plan
    verdicts: tuple[Verdict, ...]
    components: tuple[ComponentRow, ...]
    split: Latency
    whole_on_entry: Latency
    photograph: str
    psnr_db: dict[str, float]
    picture: Path


def run_demo(workspace: Path, output: Path, requests: int, report: Report) -> DemoResult:
    """Plan, generate, start, deploy, verify, enlarge a photograph, stop.

    `requests` timed requests are sent to the split and to the whole model, in turn. Pictures go to
    `output`; the servers are stopped whatever happens. Raises UsageError, before anything else,
    when packages of the extras are missing.
    """
    require_packages()
    photograph = Photograph()
    model = load_model(EXAMPLE / "espcn_x3.onnx")
    spec = ServersSpec.load(EXAMPLE / "servers.yaml")
    report("planning: layers of assignment.yaml on three servers")
    plan = plan_from_assignment(
        model, Assignment.load(EXAMPLE / "assignment.yaml"), spec, "super_resolution"
    )
    repositories = _generate(plan, model, workspace, report)
    with _running(spec, repositories, workspace, report) as addresses:
        verdicts = _verify(repositories, model, photograph.tiles(), addresses, report)
        return _measure(repositories, photograph, addresses, verdicts, output, requests, report)


def _generate(plan: Plan, model: LoadedModel, workspace: Path, report: Report) -> Repositories:
    report(f"generating repositories of plan {plan.id}")
    pool = Pool(workspace / "pool")
    remember(pool, plan, model)
    files, _ = generate(plan, model, GenerateOptions(with_whole=True), pool)
    folder = workspace / "repos"
    write_files(files, folder, force=True)
    return Repositories.open(folder)


@contextmanager
def _running(
    spec: ServersSpec, repositories: Repositories, workspace: Path, report: Report
) -> Iterator[Addresses]:
    lab = Lab(workspace / "lab")
    state = lab.up(spec, repositories.path, report)
    try:
        addresses = find_addresses(repositories, spec, state)
        deploy(repositories, addresses, report=lambda model: report(f"loading {model}"))
        yield addresses
        report("unloading the plan")
        undeploy(repositories, addresses)
    finally:
        lab.down(report)


def _verify(
    repositories: Repositories,
    model: LoadedModel,
    tiles: Array,
    addresses: Addresses,
    report: Report,
) -> tuple[Verdict, ...]:
    plan = repositories.plan
    name = plan.tensor(plan.inputs[0]).name
    inputs = [{name: tiles}, *gather_inputs(plan, count=2, seed=0)]
    verdicts = []
    for tolerance in repositories.manifest.tolerances:
        report(f"verifying chained sub-models, graph optimisation {tolerance.optimisation}")
        verdicts.append(verify_chained(repositories, model, inputs, tolerance))
    report("verifying live, over gRPC")
    served = repositories.manifest.tolerances[-1]
    url = addresses.urls[plan.entry.name]
    return (*verdicts, verify_live(repositories, model, inputs, served, url))


def _measure(
    repositories: Repositories,
    photograph: Photograph,
    addresses: Addresses,
    verdicts: tuple[Verdict, ...],
    output: Path,
    requests: int,
    report: Report,
) -> DemoResult:
    plan = repositories.plan
    entry = addresses.urls[plan.entry.name]
    tiles = photograph.tiles()
    before = _service_times(plan, addresses)
    answer, times = _time_requests(plan, entry, tiles, requests, report)
    after = _service_times(plan, addresses)
    report("writing the picture")
    enlarged = {"bicubic": photograph.bicubic(), "split network": photograph.joined(answer)}
    psnr_db = {name: photograph.psnr_db(luminance) for name, luminance in enlarged.items()}
    panels = [
        Panel(f"{name}, {psnr_db[name]:.2f} dB PSNR", photograph.coloured(luminance))
        for name, luminance in enlarged.items()
    ]
    picture = output / "super_resolution.png"
    write_picture([*panels, Panel("original", photograph.original)], picture)
    return DemoResult(
        plan=plan,
        verdicts=verdicts,
        components=tuple(_rows(plan, before, after, len(tiles))),
        split=times[plan.model.name],
        whole_on_entry=times[f"{plan.model.name}__whole"],
        photograph=photograph.title,
        psnr_db=psnr_db,
        picture=picture,
    )


def _time_requests(
    plan: Plan, url: str, tiles: Array, requests: int, report: Report
) -> tuple[Array, dict[str, Latency]]:
    """The answer of the split model, and the times of both models, measured in turn."""
    name = plan.tensor(plan.inputs[0]).name
    output = plan.tensor(plan.outputs[0]).name
    models = (plan.model.name, f"{plan.model.name}__whole")
    times: dict[str, list[float]] = {model: [] for model in models}
    client = connect(url)
    answer = None
    try:
        for number in range(-_WARM_UP, requests):
            report(f"request {number + 1} of {requests}" if number >= 0 else "warm-up request")
            for model in models:
                started = time.perf_counter()
                result = infer(client, model, {name: tiles})[output]
                elapsed_ms = (time.perf_counter() - started) * 1000
                if number >= 0:
                    times[model].append(elapsed_ms)
                if model == plan.model.name:
                    answer = result
    finally:
        client.close()
    assert answer is not None
    return answer, {model: _latency(values) for model, values in times.items()}


def _latency(values: list[float]) -> Latency:
    return Latency(statistics.median(values), min(values), max(values), len(values))


def _service_times(plan: Plan, addresses: Addresses) -> dict[str, tuple[int, int]]:
    """Component -> (requests, nanoseconds) that its server has counted so far."""
    found = {}
    for component in plan.components:
        with TritonServer(component.server, addresses.urls[component.server]) as server:
            success = server.statistics(f"{plan.model.name}__{plan.id}__{component.id}").success
            found[component.id] = (success.count, success.ns)
    return found


def _rows(
    plan: Plan,
    before: dict[str, tuple[int, int]],
    after: dict[str, tuple[int, int]],
    batch: int,
) -> Iterator[ComponentRow]:
    for component in plan.components:
        count = after[component.id][0] - before[component.id][0]
        spent = after[component.id][1] - before[component.id][1]
        yield ComponentRow(
            component=component.id,
            server=component.server,
            layers=len(component.layers),
            bytes_in=sum(_bytes(plan, t, batch) for t in component.inputs),
            bytes_out=sum(_bytes(plan, t, batch) for t in component.outputs),
            mean_ms=spent / count / 1e6,
            requests=count,
        )


def _bytes(plan: Plan, tensor_id: str, batch: int) -> int:
    tensor = plan.tensor(tensor_id)
    sizes = [batch if isinstance(dim, str) else dim for dim in tensor.shape]
    return int(np.prod(sizes)) * np.dtype(tensor.dtype).itemsize
