"""The router of a family: what apps call, and what it is told of plans and classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tritier.documents import WHOLE, Family, Plan
from tritier.repository.dataplane import app_tensors
from tritier.repository.types import GenerateOptions, TritonModel


def entry_name(model: str, plan_id: str) -> str:
    """The Triton model that runs one plan among several, or the whole model."""
    return f"{model}__{plan_id}"


def whole_id(family: Family) -> str:
    """`plan_id` in the config of the whole model, which is of no plan."""
    return f"{WHOLE}-{family.model.sha256[:8]}"


def routing(family: Family, plans: Mapping[str, Plan]) -> dict[str, Any]:
    """What the router goes by. Its hash is the id of the family."""
    name, entry = family.model.name, next(iter(plans.values())).entry.name
    served = {
        plan.id: {
            "model": entry_name(name, plan.id),
            "servers": [server.name for server in plans[plan.id].servers],
        }
        for plan in family.plans
    }
    if family.serves_whole:
        served[WHOLE] = {"model": entry_name(name, WHOLE), "servers": [entry]}
    return {
        "model_sha256": family.model.sha256,
        "plans": served,
        "classes": {
            item.name: {
                "plans": list(item.plans),
                "deadline_ms": item.deadline_ms,
                "hedge": item.hedge,
            }
            for item in family.classes
        },
        "default_class": family.default_class,
        "deadline_ms": family.longest_deadline_ms,
        "entry": entry,
    }


def family_id(family: Family, plans: Mapping[str, Plan]) -> str:
    """8 hex digits that tell routers apart: same plans, classes and deadlines, same id."""
    text = json.dumps(routing(family, plans), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def router_model(
    family: Family, plans: Mapping[str, Plan], options: GenerateOptions
) -> TritonModel:
    """The model that apps call: same name, inputs and outputs as the whole model."""
    table, own_id = routing(family, plans), family_id(family, plans)
    first = next(iter(plans.values()))
    urls = {
        server.name: server.url or ""
        for plan in plans.values()
        for server in plan.servers
        if server.url
    }
    return TritonModel(
        server=first.entry.name,
        name=family.model.name,
        kind="router",
        inputs=app_tensors(first, first.inputs),
        outputs=app_tensors(first, first.outputs),
        plan=own_id,
        parameters={
            "family_id": own_id,
            "plans": json.dumps(table["plans"]),
            # In the order of the family: the most important class first.
            "classes": json.dumps(table["classes"]),
            "default_class": family.default_class,
            "deadline_ms": str(family.longest_deadline_ms),
            "entry": first.entry.name,
            "urls": json.dumps(urls, sort_keys=True),
            "max_in_flight": str(options.max_in_flight),
        },
        comment="What apps call: picks a plan for each request, and another if that fails",
    )
