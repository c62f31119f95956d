"""What is planned for a class of requests: the request of the command with the class's own limits
of noise and goals; and a request without a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tritier.documents import RequestClass
from tritier.errors import InputError, UsageError
from tritier.workflow.planning import Planned
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem_noise import known_losses
from tritier.workflow.problem_request import PlanningRequest


@dataclass(frozen=True)
class ClassTask:
    """A class to be planned. `limits`: output -> most noise that any of its plans may make;
    `measured`: its noise can be measured; tasks with equal `key` have equal plans."""

    name: str
    request: PlanningRequest
    goals: Goals
    limits: Mapping[str, float]
    measured: bool
    key: tuple[object, ...]


def class_task(
    name: str, item: RequestClass, request: PlanningRequest, goals: Goals, can_measure: bool
) -> ClassTask:
    """The task of a class. Raises UsageError for a class that says nothing, or too much."""
    goals = _own_goals(name, item, goals)
    if goals.objective == "cost" and request.prices is None:
        raise UsageError(
            f"class '{name}': the objective cost needs prices of all servers: give them with "
            "price_per_hour_usd in the servers file, or --machine"
        )
    request = replace(
        request,
        uses_energy=goals.objective in ("energy", "weighted") or goals.front is not None,
        uses_money=goals.objective == "cost",
    )
    if goals.objective not in ("latency", "makespan"):  # which is as fast as can be anyway
        request = replace(request, latency_ms=min(request.latency_ms, float(item.deadline_ms)))
    if item.noise == 0:
        outputs = [info.name for info in request.model.proto.graph.output]
        request = _exact(request)
        limits: Mapping[str, float] = dict.fromkeys(outputs, 0.0)
    else:
        request = _within(name, item, request)
        limits = request.noise_limits
    key = (
        goals.objective, goals.latency_weight, request.latency_ms, request.unlimited_noise,
        item.noise == 0, tuple(sorted(limits.items())),
    )  # fmt: skip
    measured = can_measure and bool(request.noise_limits)
    return ClassTask(name, request, goals, limits, measured, key)


def without_server(request: PlanningRequest, server: str) -> PlanningRequest:
    """The same as if the server were not there: what is pinned to it may be anywhere."""
    return replace(
        request,
        timings={name: x for name, x in request.timings.items() if name != server},
        pins={layer: name for layer, name in request.pins.items() if name != server},
    )


def unknown_wires(planned: Planned, request: PlanningRequest) -> list[str]:
    """Tensors that a plan codes of its own will, whose loss no noise model knows."""
    known = known_losses(request.noise)
    plan = planned.plan
    chosen = {
        (plan.tensor(wire.tensor).name, wire.codec)
        for wire in plan.wires
        if wire.codec == "fp16" or plan.tensor(wire.tensor).name in request.int8_tensors
    }
    return sorted({name for name, codec in chosen if (name, codec) not in known})


def _own_goals(name: str, item: RequestClass, goals: Goals) -> Goals:
    objective = item.objective or goals.objective
    if item.latency_weight is not None and objective != "weighted":
        raise UsageError(
            f"class '{name}': latency_weight is for the objective weighted, not for {objective}"
        )
    weight = goals.latency_weight if item.latency_weight is None else item.latency_weight
    return replace(goals, objective=objective, latency_weight=weight)


def _exact(request: PlanningRequest) -> PlanningRequest:
    """Nothing is quantized, every tensor crosses as it is."""
    return replace(
        request,
        noise=(),
        noise_limits={},
        unlimited_noise=False,
        wire_codecs={},
        int8_everywhere=False,
    )


def _within(name: str, item: RequestClass, request: PlanningRequest) -> PlanningRequest:
    outputs = [output.output for model in request.noise for output in model.outputs]
    if item.noise is None:
        if request.noise and not request.noise_limits and not request.unlimited_noise:
            raise UsageError(
                f"class '{name}' has no limit of noise: give it one (0: nothing is quantized), or "
                "--max-noise or --unlimited-noise for all classes that have none"
            )
        return request
    if not request.noise:
        raise UsageError(
            f"class '{name}' limits noise to {item.noise}, and nothing says how much there is: "
            "give a noise model with --noise, or the limit 0"
        )
    if isinstance(item.noise, float | int):
        limits = dict.fromkeys(outputs, float(item.noise))
    else:
        limits = {**request.noise_limits, **item.noise}
        if missing := [output for output in item.noise if output not in outputs]:
            raise InputError(
                f"class '{name}': noise: '{missing[0]}' is no output of the noise model; known are "
                f"{', '.join(dict.fromkeys(outputs))}"
            )
    return replace(request, noise_limits=limits, unlimited_noise=False)
