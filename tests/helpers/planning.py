"""Documents by hand for a small model, and planning requests made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tritier.documents import (
    NetworkState,
    NoiseModel,
    ServersSpec,
    TimingProfile,
)
from tritier.errors import InputError
from tritier.graph import LoadedModel, build_layer_graph, profile_model
from tritier.timing.durations import MIB
from tritier.workflow.problem import BuiltProblem, build_problem
from tritier.workflow.problem_request import PlanningRequest

# Every tensor has 1 MiB; weights have 4, 4 and 8 bytes, as c3 has a bias.
CHAIN = """
    g (float[1,1,512,512] x) => (float[1,1,512,512] y)
    <float[1,1,1,1] w1 = {1}, float[1,1,1,1] w2 = {2}, float[1,1,1,1] w3 = {3}, float[1] b3 = {1}> {
      [c1] a = Conv(x, w1) [r1] b = Relu(a) [c2] c = Conv(b, w2) [add] d = Add(c, b)
      [c3] y = Conv(d, w3, b3)
    }
"""
LAYERS = ("c1", "r1", "c2", "add", "c3")
CONVS = ("c1", "c2", "c3")
# name -> (float, int8); c2 does not gain.
TIMES: dict[str, tuple[float, float | None]] = {
    "c1": (8.0, 5.0), "r1": (1.0, None), "c2": (4.0, 4.0), "add": (2.0, None), "c3": (16.0, 9.0),
}  # fmt: skip
ALL_GAIN = {**TIMES, "c2": (4.0, 1.0)}
WHEN = "2026-01-01T00:00:00Z"
ONCE = {"median_ms": 100.0, "mean_ms": 100.0, "std_ms": 0.0, "n": 1}
HOST = {
    "host": "h", "cores": 1, "cpu_model": "x", "cpu_flags": [], "memory_total_bytes": 1,
    "memory_available_bytes": 1, "python": "3.11",
}  # fmt: skip
POWERS = {"compute_power_watt": 3.0, "tx_other_power_watt": 2.0}


def servers(names: str = "ab", links: Sequence[Any] = (), **more: Mapping[str, Any]) -> ServersSpec:
    """The first is the entry; `more` has keys of servers by name."""
    rows = [
        {"name": n, "tier": "edge", "entry": i == 0, "url": f"{n}:1", **POWERS, **more.get(n, {})}
        for i, n in enumerate(names)
    ]
    return ServersSpec.from_data({"servers": rows, "links": list(links)})


def timing(
    model: LoadedModel,
    server: str,
    times: Mapping[str, tuple[float, float | None]] = TIMES,
    **changes: Any,
) -> TimingProfile:
    """Serving: 0.5 ms per call, 0.25 per tensor, 2 per MiB. Memory: twice the weights, three times
    the activations, 10 MiB for nothing."""
    layers = [
        {"name": name, "float_ms": slow, "measured_float": ONCE}
        | ({} if fast is None else {"int8_ms": fast})
        for name, (slow, fast) in times.items()
    ]
    data = {
        "model": {"name": "m", "sha256": model.sha256},
        "server": server,
        "host": HOST,
        "measured_at": WHEN,
        "settings": {
            "method": "profiler", "execution_provider": "cpu", "threads": 1,
            "quantization": {}, "warmup": 1, "runs": 1,
        },
        "layers": layers,
        "borders": [{"tensor": "b", "making_ms": 0.125, "reading_ms": 0.0625}],
        "whole": ONCE,
        "whole_alone": ONCE,
        "serving": {"call_ms": 0.5, "tensor_ms": 0.25, "copy_ms_per_mib": 2.0},
        "corrections": {"float_scale": 1.0},
        "memory": {
            "weight_bytes": 1, "measured_bytes": 1, "weight_factor": 2.0, "activation_factor": 3.0,
            "process_bytes": 10 * MIB,
        },
        "profiling_s": 1.0,
    }  # fmt: skip
    return TimingProfile.from_data(data | changes)


def link(
    source: str, target: str, mib_s: float, trip_ms: float, call: float = 0, copy: float = 0
) -> dict[str, Any]:
    """A measured link."""
    return {
        "from": source, "to": target, "measured_at": WHEN, "bandwidth_mib_s": {"value": mib_s},
        "round_trip_ms": {"value": trip_ms}, "call_ms": {"value": call},
        "copy_ms_per_mib": {"value": copy},
    }  # fmt: skip


def network(*links: Any, names: Sequence[str] = "ab", **power: Sequence[Any]) -> NetworkState:
    """Of servers and links; `power` has facts by server."""
    rows = [
        {
            "name": n, "id": f"{i:08x}", "url": f"{n}:1", "state": "ready", "checked_at": WHEN,
            "power": list(power.get(n, ())),
        }
        for i, n in enumerate(names)
    ]  # fmt: skip
    return NetworkState.from_data({"servers": rows, "links": list(links)})


BOTH = (link("a", "b", 10, 8, 3, 5), link("b", "a", 20, 6, 1, 2))


def noise(
    model: LoadedModel,
    layers: Sequence[str] = CONVS,
    terms: Mapping[str, float] | None = None,
    **changes: Any,
) -> NoiseModel:
    """Of output y; the terms are named by their layers."""
    figures = {"subsets": 1, "r2": 1.0, "mape": 0.0, "spearman": 1.0, "worst_under": 0.0,
               "worst_over": 0.0}  # fmt: skip
    terms = terms or {"c1": 9.0, "c2": 4.0, "c3": 1.0, "c1 c2": -2.0, "c1 c3": 5.0}
    output = {
        "output": "y", "power": 2, "constant": 0.0, "margin": 1.25, "fitted": figures,
        "terms": [{"layers": k.split(), "value": v} for k, v in terms.items()],
    }  # fmt: skip
    settings = {
        "metric": "mean_abs", "quantization": changes.pop("quantization", {}),
        "kernels": "simulated", "seed": 0, "onnxruntime": "1",
    }  # fmt: skip
    data = {
        "model": {"name": "m", "sha256": model.sha256},
        "settings": settings,
        "layers": list(layers),
        "outputs": [{**output, **changes.pop("output", {})}],
        "measured": [{"layers": ["c1"], "use": "design", "noise": {"y": 3.0}, "inputs": 2}],
        "ranges_sha256": "1" * 64,
        "calibration": [],
        "inputs": [{"name": "i", "sha256": "2" * 64}],
        "measured_at": WHEN,
        "elapsed_s": 1.0,
    }
    return NoiseModel.from_data(data | changes)


def request(
    model: LoadedModel,
    names: str = "ab",
    times: Mapping[str, tuple[float, float | None]] = TIMES,
    **changes: Any,
) -> PlanningRequest:
    """Two servers with measured links and profiles of their own; nothing may be quantized."""
    made = PlanningRequest(
        model=model,
        graph=build_layer_graph(model.proto),
        profile=profile_model(model),
        servers=servers(names),
        timings={name: timing(model, name, times) for name in names},
        network=network(*BOTH),
    )
    return replace(made, **changes)


def build(model: LoadedModel, *args: Any, **changes: Any) -> BuiltProblem:
    return build_problem(request(model, *args, **changes))


def quantizing(model: LoadedModel, times: Any = ALL_GAIN, **changes: Any) -> PlanningRequest:
    """The same with a noise model and a limit."""
    noisy = {"noise": [noise(model)], "noise_limits": {"y": 2.5}}
    return request(model, times=times, **{**noisy, **changes})


def faults(item: PlanningRequest) -> str:
    with pytest.raises(InputError) as caught:
        build_problem(item)
    return "\n".join(caught.value.faults)
