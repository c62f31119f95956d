"""What is not known of codecs of wires.

Noise models may not know what they lose, so that it is measured or warned of; old profiles don't
know what they cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tritier.documents import FLOAT_CODECS, QUANTIZING, Plan
from tritier.planner.evaluate import quantized_layers
from tritier.planner.problem import Placement
from tritier.workflow.problem import BuiltProblem
from tritier.workflow.problem_request import listed


def unmeasured(names: Sequence[str]) -> str:
    """The warning for a plan whose wires were not measured."""
    verb = "crosses" if len(names) == 1 else "cross"
    return (
        f"{listed(names)} {verb} in fewer bits, and what that loses is in no figure of noise here: "
        "measure it with --images or --data of the noise model, or with `tritier verify --images`"
    )


def uncounted(plan: Plan, built: BuiltProblem, placement: Placement) -> list[str]:
    """Warnings where a plan, the one of a placement, has codecs of which nobody measured what they
    cost: there they count as free. The 8 bits of quantized layers are."""
    problem = built.problem
    quantized = quantized_layers(problem, placement.quantized)
    free = {flow.name for flow in problem.flows if not quantized.isdisjoint(flow.coded_by)}
    servers: dict[str, set[str]] = {}
    for wire in plan.wires:
        is_free = wire.codec in QUANTIZING and plan.tensor(wire.tensor).name in free
        if wire.codec not in FLOAT_CODECS or is_free:
            continue
        for name in (wire.source, wire.target):
            if built.request.timings[name].coding(wire.codec) is None:
                servers.setdefault(name, set()).add(wire.codec)
    return [
        f"what coding and decoding in {' and '.join(sorted(codecs))} costs on '{name}' is not in "
        "its timing profile, which is of an earlier version: it counts as nothing; measure it with "
        f"`tritier profile --server {name} --force`"
        for name, codecs in sorted(servers.items())
    ]


def largest_share(noise: Mapping[str, float], limits: Mapping[str, float]) -> float:
    """The noise that comes nearest to its limit, as a share of it; above 1 one is broken."""
    shares = [
        noise[output] / limit if limit > 0 else math.inf if noise[output] > 0 else 0.0
        for output, limit in limits.items()
    ]
    return max(shares, default=0.0)


def with_one_wire(plan: Plan, tensor: str) -> Plan:
    """The same placement with nothing quantized, and nothing coded but one tensor of the model."""
    wires = tuple(
        wire
        if plan.tensor(wire.tensor).name == tensor
        else wire.model_copy(update={"codec": "as_is"})
        for wire in plan.wires
    )
    quantizes = any(wire.codec in QUANTIZING for wire in wires)
    known = plan.ranges or {}
    fields = {name: getattr(plan, name) for name in type(plan).model_fields}
    return Plan(**fields | {
        "plan_id": None,
        "quantized_layers": (),
        "wires": wires,
        "ranges": {tensor: known[tensor]} if quantizes else None,
        "predictions": None,
    })  # fmt: skip
