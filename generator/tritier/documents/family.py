"""`family.json`: several plans of one model, and which of them answer a class of requests.

The plans lie beside it. An app names the class of a request; the router tries the plans of the
class in their order. No plan of a class makes more noise than the class allows.
"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.classes import ClassName, Noise
from tritier.documents.plan import PlanModel
from tritier.documents.servers import ServerName
from tritier.errors import did_you_mean

# The uncut model on the entry, which is no plan: it stands at the end of the lists of classes.
WHOLE = "whole"
PlanId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
ClassPlan = Annotated[str, Field(pattern=r"^([0-9a-f]{8}|whole)$")]


class FamilyPlan(Document):
    """A plan of the family, and why it is there."""

    id: PlanId
    file: str = Field(min_length=1, description="of the plan, relative to the family's folder")
    servers: tuple[ServerName, ...] = Field(
        min_length=1, description="that must answer for the plan to work; the entry is one"
    )
    without: tuple[ServerName, ...] = Field(
        default=(), description="servers for whose loss it was planned"
    )
    noise_limits: dict[str, Noise] = Field(
        default={},
        description="output -> most noise that it was planned to make, 0 where it makes none; an "
        "output that is not named has no limit",
    )
    noise: dict[str, Noise] = Field(
        default={}, description="output -> noise, measured if it was, else predicted"
    )
    latency_ms: float | None = Field(default=None, ge=0, description="predicted")
    energy_joule: float | None = Field(default=None, ge=0, description="predicted")


class FamilyClass(Document):
    """A class of requests."""

    name: ClassName
    plans: tuple[ClassPlan, ...] = Field(
        min_length=1, description="in the order in which they are tried, 'whole' last"
    )
    deadline_ms: int = Field(ge=1, description="the longest that a request may take")
    hedge: bool = Field(
        default=False, description="ask the next plan too when the first is slower than usual"
    )
    noise_limits: dict[str, Noise] = Field(
        default={}, description="output -> most noise; an output that is not named has no limit"
    )


class Family(Document):
    """Several plans of one model, side by side."""

    title: ClassVar[str] = "family"

    format: Literal["tritier/family/1"] = "tritier/family/1"
    model: PlanModel
    plans: tuple[FamilyPlan, ...] = Field(min_length=1)
    classes: tuple[FamilyClass, ...] = Field(min_length=1)
    default_class: ClassName = Field(description="of requests that name no class")

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Names stand once and are known, files stay in the folder, noise is within its limits."""
        try:
            return _faults(data)
        except (AttributeError, KeyError, TypeError, ValueError):
            return []  # a field has a wrong shape, which is reported where it stands

    @property
    def serves_whole(self) -> bool:
        """Whether the uncut model answers some class in the end."""
        return any(WHOLE in item.plans for item in self.classes)

    @property
    def longest_deadline_ms(self) -> int:
        """The longest that any request may take."""
        return max(item.deadline_ms for item in self.classes)

    def plan(self, plan_id: str) -> FamilyPlan:
        """The plan of that id; KeyError if there is none."""
        return {item.id: item for item in self.plans}[plan_id]

    def request_class(self, name: str) -> FamilyClass:
        """The class of that name; KeyError if there is none."""
        return {item.name: item for item in self.classes}[name]


def _faults(data: dict[str, Any]) -> list[str]:
    plans = {item["id"]: item for item in data["plans"]}
    names = [item["name"] for item in data["classes"]]
    faults = [*_twice("plans", [x["id"] for x in data["plans"]]), *_twice("classes", names)]
    faults += _twice("plans, file", [str(PurePosixPath(item["file"])) for item in data["plans"]])
    for item in data["plans"]:
        faults += _plan_faults(item)
    for item in data["classes"]:
        faults += _class_faults(item, plans)
    used = {plan for item in data["classes"] for plan in item["plans"]}
    faults += [f"plans: no class uses '{x}': remove it or name it in a class"
               for x in plans if x not in used]  # fmt: skip
    default = data["default_class"]
    if default not in names:
        hint = did_you_mean(default, names)
        faults.append(f"default_class: '{default}' is no class{hint}; known are {', '.join(names)}")
    return faults


def _plan_faults(plan: dict[str, Any]) -> list[str]:
    where, path = f"plans['{plan['id']}']", PurePosixPath(plan["file"])
    faults = []
    if path.is_absolute() or ".." in path.parts or "\\" in plan["file"]:
        faults.append(f"{where}.file: '{path}' leaves the folder of the family; give a file in it")
    both = [name for name in plan.get("without", ()) if name in plan["servers"]]
    return faults + [f"{where}: '{x}' is among its servers and among those that it is without"
                     for x in both]  # fmt: skip


def _class_faults(item: dict[str, Any], plans: dict[str, Any]) -> list[str]:
    where, chosen = f"classes['{item['name']}']", list(item["plans"])
    faults = _twice(f"{where}.plans", chosen)
    if WHOLE in chosen[:-1]:
        faults.append(f"{where}.plans: '{WHOLE}' never fails before the entry does; let it be last")
    for plan_id in chosen:
        if plan_id == WHOLE:
            continue
        if plan_id not in plans:
            faults.append(f"{where}.plans: '{plan_id}' is no plan; known are {', '.join(plans)}")
            continue
        kept = plans[plan_id].get("noise_limits", {})
        faults += [
            f"{where}: allows a noise of {limit:g} in '{output}', and plan '{plan_id}' was planned "
            f"with {kept.get(output, 'no limit')}: leave it out of this class"
            for output, limit in item.get("noise_limits", {}).items()
            if output not in kept or kept[output] > limit
        ]
    return faults


def _twice(where: str, names: list[str]) -> list[str]:
    return [
        f"{where}: '{name}' stands {count} times; it may stand once"
        for name, count in Counter(names).items()
        if count > 1
    ]
