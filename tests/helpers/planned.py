"""Planning requests for the small chain on two servers that are near to each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from tests.helpers.planning import (
    ALL_GAIN,
    LAYERS,
    link,
    network,
    noise,
    request,
    timing,
)
from tritier.documents import LimitUse, NoiseModel, Plan, Ranges, TimingProfile
from tritier.graph import LoadedModel
from tritier.workflow.planning import NoiseCheck, Planned
from tritier.workflow.problem_request import PlanningRequest

# 4 ms per MiB and 2 ms per message: a tensor's way takes 6 ms and what serving takes.
NEAR = network(link("a", "b", 250, 4), link("b", "a", 250, 4))
SLOW = {name: (10 * slow, None if fast is None else 10 * fast)
        for name, (slow, fast) in ALL_GAIN.items()}  # fmt: skip
FAST = {name: (slow / 10, None if fast is None else fast / 10)
        for name, (slow, fast) in ALL_GAIN.items()}  # fmt: skip
# Good on a: c2 and add. Good on b: c1 and c3. The best plan is no baseline.
ON_A = {"c1": (90.0, None), "r1": (3.0, None), "c2": (2.0, None), "add": (1.0, None),
        "c3": (90.0, None)}  # fmt: skip
ON_B = {"c1": (3.0, None), "r1": (1.0, None), "c2": (80.0, None), "add": (80.0, None),
        "c3": (3.0, None)}  # fmt: skip
# Quick, or thrifty.
HOT = {"compute_power_watt": 900.0}


def asked(model: LoadedModel, a: Any = SLOW, b: Any = FAST, **changes: Any) -> PlanningRequest:
    """Two servers with layer times of their own, near to each other."""
    timings: dict[str, TimingProfile] = {"a": timing(model, "a", a), "b": timing(model, "b", b)}
    return request(model, **{"timings": timings, "network": NEAR, **changes})


def mixed(model: LoadedModel, **changes: Any) -> PlanningRequest:
    return asked(model, ON_A, ON_B, **changes)


def ranges(model: LoadedModel) -> Ranges:
    names = dict.fromkeys("xabcdy", (-4.0, 4.0))
    return Ranges(model_sha256=model.sha256, method="minmax", samples=1, ranges=names)


def known(model: LoadedModel) -> NoiseModel:
    """With samples that are as its terms say, of an input each."""
    squares = {"c1": 9.0, "c2": 4.0, "c3": 1.0, "c1 c2": 11.0, "c1 c3": 15.0, "c2 c3": 5.0}
    measured = [
        {"layers": names.split(), "use": "design", "noise": {"y": square**0.5}, "inputs": 1}
        for names, square in squares.items()
    ]
    return noise(model, measured=measured)


def noisy(model: LoadedModel, **changes: Any) -> PlanningRequest:
    """Noise of y, squared: c1 9, c2 4, c3 1, c1 c2 -2, c1 c3 5; the margin is 1.25."""
    given = {"noise": [known(model)], "noise_limits": {"y": 2.9}, "ranges": ranges(model)}
    return asked(model, **{**given, **changes})


def hot(model: LoadedModel) -> PlanningRequest:
    """Between latency and energy there is a choice."""
    found = mixed(model, uses_energy=True)
    powers = [
        server if server.name == "a" else server.model_copy(update=HOT)
        for server in found.servers.servers
    ]
    return replace(found, servers=found.servers.model_copy(update={"servers": tuple(powers)}))


def servers_of(plan: Plan) -> dict[str, str]:
    found = {layer: part.server for part in plan.components for layer in part.layers}
    return {layer: found[layer] for layer in LAYERS}


def limit(found: Planned, what: str) -> LimitUse:
    (item,) = [item for item in found.report.limits if item.what == what]
    return item


class Bench:
    """Measures nothing: what it is told, else what the noise model predicts."""

    def __init__(self, model: NoiseModel, told: Mapping[str, float]) -> None:
        self._model, self._told = model, told
        self.asked: list[str] = []

    def __call__(self, layers: Collection[str]) -> Mapping[str, float]:
        self.asked.append(" ".join(layers))
        predicted = self._model.output("y").predict(list(layers))
        return {"y": self._told.get(self.asked[-1], predicted)}

    def check(self, runs: int = 6) -> NoiseCheck:
        return NoiseCheck(self, inputs=2, runs=runs)
