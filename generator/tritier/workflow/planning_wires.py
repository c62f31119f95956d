"""What codecs of wires lose: noise models don't know it, so that it is measured or warned of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tritier.documents import QUANTIZING, Plan
from tritier.workflow.problem_request import listed


def unmeasured(names: Sequence[str]) -> str:
    """The warning for a plan whose wires were not measured."""
    verb = "crosses" if len(names) == 1 else "cross"
    return (
        f"{listed(names)} {verb} in fewer bits, and what that loses is in no figure of noise here: "
        "measure it with --images or --data of the noise model, or with `tritier verify --images`"
    )


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
