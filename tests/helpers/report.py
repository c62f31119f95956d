"""Documents for a report: the shipped super-resolution model planned over three servers, with
times, links and measurements that are made up."""

from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.planning import WHEN, link, timing
from tritier.documents import (
    BenchResult,
    NetworkState,
    NoiseModel,
    Plan,
    PlanReport,
    Ranges,
    ServersSpec,
)
from tritier.documents.comparison import Comparison
from tritier.documents.costs import CostReport
from tritier.documents.load import LoadResult
from tritier.graph import LoadedModel, build_layer_graph, load_model, profile_model
from tritier.report import Paths
from tritier.resources import example_dir
from tritier.workflow.compare import Known, predict_plan
from tritier.workflow.planning import make_plan
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem_request import PlanningRequest

CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5")
# GFLOP/s of each server, its watts, and layers at which it is that many times as slow: so that no
# server is best at everything.
SPEED = {"device": 1.5, "edge": 30.0, "cloud": 60.0}
SLOW = {("edge", "conv3"): 9.0, ("edge", "conv4"): 9.0, ("cloud", "conv2"): 9.0}
WATT = {"device": 6.0, "edge": 60.0, "cloud": 210.0}
ENVIRONMENT: dict[str, Any] = {
    "measured_at": WHEN, "tritier": "0.1.0", "python": "3.11.2", "platform": "Linux 6.1 x86_64",
    "processor": "Example CPU 3.0 GHz", "cores": 2, "memory_bytes": 8 << 30,
    "load_averages": [0.42, 0.3, 0.2], "perf_analyzer": "2.51.0",
    "servers": {"device": "2.51.0", "edge": "2.51.0", "cloud": "2.51.0"},
}  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A plan with the planning report, and what both were made from."""

    model: LoadedModel
    plan: Plan
    report: PlanReport
    known: Known
    noise: NoiseModel


def planned() -> Example:
    """Some layers in int8, in components on three servers."""
    model = load_model(example_dir("super_resolution") / "espcn_x3.onnx")
    profile = profile_model(model)
    spec = _servers()
    timings = {
        name: timing(model, name, _times(profile, name), borders=[], dims=profile.dims)
        for name in SPEED
    }
    rates = {("device", "edge"): 120, ("edge", "cloud"): 1200, ("device", "cloud"): 12}
    links = [
        link(a, b, rates.get((a, b)) or rates[b, a], 4 if "cloud" not in (a, b) else 6, 0.4, 0.3)
        for a, b in itertools.permutations(SPEED, 2)
    ]
    rows = [
        {"name": n, "id": f"{i:08x}", "url": f"127.0.0.1:80{i}1", "state": "ready",
         "checked_at": WHEN}
        for i, n in enumerate(SPEED)
    ]  # fmt: skip
    state = NetworkState.from_data({"servers": rows, "links": links})
    noise = _noise(model)
    tensors = {t.name: (0.0, 1.0) for t in profile.tensors}
    ranges = Ranges(model_sha256=model.sha256, method="minmax", samples=1, ranges=tensors)
    request = PlanningRequest(
        model=model, graph=build_layer_graph(model.proto), profile=profile, servers=spec,
        timings=timings, network=state, noise=[noise], noise_limits={"upscaled": 0.004},
        ranges=ranges, uses_energy=True,
    )  # fmt: skip
    found = make_plan(request, Goals(objective="weighted", front=6))
    return Example(model, found.plan, found.report, Known(model, spec, timings, state), noise)


def write_example(folder: Path, example: Example) -> Paths:
    """All documents as files."""
    (folder / "profiles").mkdir(parents=True)
    plan = example.plan
    documents = {
        "plan.json": plan.to_json(),
        "planning.json": example.report.to_json(),
        "network.json": example.known.network.to_json() if example.known.network else "",
        "noise.json": example.noise.to_json(),
        "bench.json": bench(plan, "", 1.02 * example.report.figures.latency_ms).to_json(),
        "bench_whole.json": bench(plan, "__whole", 720.0).to_json(),
        "load.json": load(plan).to_json(),
        "comparison.json": comparison(example).to_json(),
        "cost.json": cost(plan).to_json(),
    }
    documents |= {f"profiles/{x.server}.json": x.to_json() for x in example.known.timings.values()}
    for name, text in documents.items():
        (folder / name).write_text(text, encoding="utf-8")
    return Paths(
        plan=folder / "plan.json", model=example.model.path, planning=folder / "planning.json",
        timing=(folder / "profiles",), network=folder / "network.json",
        noise=folder / "noise.json", bench=(folder / "bench.json", folder / "bench_whole.json"),
        load=(folder / "load.json",), comparison=folder / "comparison.json",
        cost=(folder / "cost.json",),
    )  # fmt: skip


def arguments(paths: Paths) -> list[str]:
    """The options of `tritier report` for these files."""
    options = [
        ("--model", paths.model), ("--planning", paths.planning), ("--network", paths.network),
        ("--noise", paths.noise), ("--comparison", paths.comparison),
        *(("--timing", x) for x in paths.timing), *(("--bench", x) for x in paths.bench),
        *(("--load", x) for x in paths.load), *(("--cost", x) for x in paths.cost),
    ]  # fmt: skip
    given = [word for name, path in options if path is not None for word in (name, str(path))]
    return ["report", str(paths.plan), *given]


def level(batch: int, offered: float, single_ms: float = 92.0, **changes: Any) -> dict[str, Any]:
    """A level of a sweep: a request alone takes `single_ms`, three times as many are the most."""
    most = 1000.0 / single_ms * 3.0
    rate = most * offered / (offered + 2.0) * (1 + 0.05 * math.log2(batch))
    mean = 1000.0 * offered * batch / rate
    stable = not (offered == 11 and batch == 8)
    data: dict[str, Any] = {
        "batch": batch, "offered": offered, "stable": stable, "runs": 1, "window_requests": 50,
        "windows": 3, "requests": 180 + int(offered), "duration_s": 10.0, "infer_per_s": rate,
        "mean_ms": mean, "std_ms": 0.06 * mean, "p50_ms": 0.98 * mean, "p90_ms": 1.08 * mean,
        "p95_ms": 1.13 * mean, "p99_ms": 1.3 * mean, "low_ms": 0.975 * mean,
        "high_ms": 1.025 * mean, "command": f"perf_analyzer -m espcn_x3 -b {batch} "
        f"--concurrency-range {offered:g}:{offered:g}:1 --percentile=95",
        "servers": {"edge": [{"model": "espcn_x3__c1", "requests": 200, "queue_ms": 0.4,
                              "compute_input_ms": 0.3, "compute_infer_ms": 21.5,
                              "compute_output_ms": 0.2}]},
    }  # fmt: skip
    if not stable:
        data["unstable_because"] = "latency differs by 14 % between windows"
    return data | changes


def bench(plan: Plan, suffix: str = "", single_ms: float = 92.0, **changes: Any) -> BenchResult:
    """A sweep of the plan, or of the whole model."""
    levels = [level(b, float(c), single_ms) for b in (1, 8) for c in (1, 3, 5, 7, 9, 11, 16)]
    data = {
        "model": plan.model.name + suffix,
        "url": "127.0.0.1:8001",
        "mode": "concurrency",
        "settings": {
            "window_requests": 50, "max_window_requests": 400, "max_windows": 10,
            "stability_percent": 10.0, "arrivals": "closed", "input": "random",
            "shapes": {"luminance": [1, 1, 224, 224]}, "batching": "first_dimension",
        },
        "environment": ENVIRONMENT,
        "levels": levels,
    }  # fmt: skip
    if not suffix:
        data["plan_id"] = plan.id
    return BenchResult.from_data(json.loads(json.dumps(data | changes)))


def load(plan: Plan, **changes: Any) -> LoadResult:
    """Steps up and down; some requests fail at the top."""
    points = []
    for index, users in enumerate((1, 2, 4, 8, 16, 8, 4, 1)):
        rate = 24.0 * users / (users + 1.2)
        points.append({
            "t_s": 20.0 * index, "length_s": 18.0, "users": users, "per_s": rate,
            "requests": int(rate * 18) + (3 if users == 16 else 0),
            "failures": 3 if users == 16 else 0, "wrong": 0,
            "mean_ms": 1000 * users / rate, "std_ms": 5.0, "p50_ms": 990 * users / rate,
            "p90_ms": 1050 * users / rate, "p95_ms": 1100 * users / rate,
            "p99_ms": 1200 * users / rate, "max_ms": 1400 * users / rate,
        })  # fmt: skip
    total = sum(int(x["requests"]) for x in points)
    data = {
        "model": plan.model.name, "url": "127.0.0.1:8001", "plan_id": plan.id, "shape": "steps",
        "users": [x["users"] for x in points], "duration_s": 160.0, "requests": total,
        "failures": 3, "wrong": 0, "infer_per_s": (total - 3) / 160.0, "mean_ms": 300.0,
        "std_ms": 80.0, "p50_ms": 280.0, "p90_ms": 500.0, "p95_ms": 600.0, "p99_ms": 700.0,
        "max_ms": 800.0, "messages": ["DEADLINE_EXCEEDED on 'edge': 3 times"], "points": points,
        "answered_by": {plan.id: total - 3},
        "settings": {
            "inputs": "16 drawn inputs", "inputs_sha256": "3" * 64, "batch": 1, "seed": 1,
            "timeout_ms": 1000, "pause_ms": 0.0, "tls": False, "workers": 1, "locust": "2.47.0",
        },
        "environment": ENVIRONMENT,
    }  # fmt: skip
    return LoadResult.from_data(json.loads(json.dumps(data | changes)))


def comparison(example: Example) -> Comparison:
    """Real predictions; measurements that are some per cent off."""
    draw = random.Random(7)
    predicted = predict_plan(example.plan, example.known)
    told = json.loads(predicted.model_dump_json(by_alias=True, exclude_none=True))

    def taken(ms: float) -> dict[str, Any]:
        real = ms * draw.uniform(0.96, 1.07)
        return {"median_ms": real, "mean_ms": real * 1.01, "std_ms": real * 0.05, "n": 200}

    whole = predicted.latency_ms * 1.021
    measured = {
        "latency": {"n": 200, "mean_ms": whole * 1.01, "std_ms": 3.1, "median_ms": whole,
                    "p90_ms": whole * 1.05, "p95_ms": whole * 1.08, "p99_ms": whole * 1.2,
                    "low_ms": whole * 0.99, "high_ms": whole * 1.01},
        "components": [{"id": x.id, "server": x.server, "queue_ms": 0.1, "service": taken(x.ms)}
                       for x in predicted.components],
        "messages": [{**{k: x[k] for k in ("kind", "component", "from", "to")},
                      "bytes": x["bytes"] + 400, "time": taken(x["ms"])}
                     for x in told["messages"]],
        "memory_bytes": {k: int(v * 1.04) for k, v in predicted.memory_bytes.items()},
        "timeline": [{**x, "start_ms": x["start_ms"] * 1.02, "end_ms": x["end_ms"] * 1.021}
                     for x in told["timeline"]],
    }  # fmt: skip
    data = {
        "plan_id": example.plan.id, "model": example.plan.model.name, "predicted_at": WHEN,
        "plan": json.loads(example.plan.to_json()),
        "predicted": told, "measured_at": WHEN, "measured": measured, "environment": ENVIRONMENT,
    }  # fmt: skip
    return Comparison.from_data(data)


def cost(plan: Plan) -> CostReport:
    """Of an inference of the plan."""
    servers = [
        {"server": "device", "busy_ms": 6.0, "machine_usd": 0.0, "energy_joule": 0.04,
         "energy_usd": 3e-9},
        {"server": "edge", "busy_ms": 24.0, "machine_usd": 1.3e-6, "energy_joule": 1.4,
         "energy_usd": 1.2e-7},
        {"server": "cloud", "busy_ms": 5.0, "machine_usd": 9e-7, "energy_joule": 1.1,
         "energy_usd": 0.0},
    ]  # fmt: skip
    links = [{"from": "cloud", "to": "device", "bytes": 1806336, "usd": 1.6e-7}]
    data = {
        "name": "espcn", "hours_per_month": 730.0,
        "plan": {
            "plan_id": plan.id, "model": plan.model.name, "figures": "predicted",
            "servers": servers, "links": links, "machine_usd": 2.2e-6, "energy_usd": 1.23e-7,
            "egress_usd": 1.6e-7, "usd_per_inference": 2.483e-6,
        },
        "prices": [{"name": "edge box", "usd": 0.19, "unit": "hour", "source": "made up"}],
        "assumptions": ["servers serve other models in the time between"],
    }  # fmt: skip
    return CostReport.from_data(data)


def _servers() -> ServersSpec:
    data = json.loads(ServersSpec.load(example_dir("super_resolution") / "servers.yaml").to_json())
    for index, row in enumerate(data["servers"]):
        row |= {"url": f"127.0.0.1:80{index}1", "compute_power_watt": WATT[row["name"]],
                "tx_other_power_watt": 2.0}  # fmt: skip
    return ServersSpec.from_data(data)


def _times(profile: Any, server: str) -> dict[str, tuple[float, float | None]]:
    found: dict[str, tuple[float, float | None]] = {}
    for layer in profile.layers:
        ms = max((layer.flops or 0) / SPEED[server] / 1e6, 0.05)
        ms *= SLOW.get((server, layer.name), 1.0)
        found[layer.name] = (ms, ms * 0.55 if layer.name in CONVS else None)
    return found


def _noise(model: LoadedModel) -> NoiseModel:
    """The square of the noise is a sum over layers; measured with a few per cent of error."""
    draw = random.Random(3)
    squares = {"conv1": 9e-6, "conv2": 4e-6, "conv3": 2e-6, "conv4": 1.5e-6, "conv5": 6e-6}
    subsets = [list(names) for size in range(1, 6) for names in itertools.combinations(CONVS, size)]
    figures = {"subsets": 31, "r2": 0.99, "mape": 0.03, "spearman": 0.99, "worst_under": 0.06,
               "worst_over": 0.07}  # fmt: skip
    data = {
        "model": {"name": "espcn_x3", "sha256": model.sha256},
        "settings": {"metric": "mean_abs", "quantization": {}, "kernels": "simulated", "seed": 4,
                     "onnxruntime": "1.31.1"},
        "layers": list(CONVS),
        "outputs": [{
            "output": "upscaled", "power": 2, "constant": 0.0, "margin": 1.12, "fitted": figures,
            "held_out": figures,
            "terms": [{"layers": [name], "value": value} for name, value in squares.items()],
        }],
        "measured": [
            {"layers": names, "use": "design" if len(names) < 3 else "verification", "inputs": 8,
             "noise": {"upscaled": math.sqrt(sum(squares[n] for n in names))
                       * draw.uniform(0.95, 1.05)}}
            for names in subsets
        ],
        "ranges_sha256": Ranges(
            model_sha256=model.sha256, method="minmax", samples=1,
            ranges={t.name: (0.0, 1.0) for t in profile_model(model).tensors},
        ).sha256,
        "calibration": [],
        "inputs": [{"name": f"photo{i}.png", "sha256": f"{i:x}" * 64} for i in range(8)],
        "measured_at": WHEN,
        "elapsed_s": 41.0,
    }  # fmt: skip
    return NoiseModel.from_data(data)
