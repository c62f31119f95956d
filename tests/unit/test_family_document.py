"""`family.json`: what holds between plans and classes, and every fault that is named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tritier.documents import Family
from tritier.errors import InputError

A, B = "aaaaaaaa", "bbbbbbbb"
GOOD: dict[str, Any] = {
    "model": {"name": "m", "sha256": "0" * 64},
    "plans": [
        {"id": A, "file": f"plans/{A}.json", "servers": ["cam", "edge"], "noise_limits": {"y": 0}},
        {"id": B, "file": f"plans/{B}.json", "servers": ["cam"], "without": ["edge"],
         "noise_limits": {"y": 0.5}, "latency_ms": 12.5},
    ],
    "classes": [
        {"name": "critical", "plans": [A, "whole"], "deadline_ms": 500, "hedge": True,
         "noise_limits": {"y": 0.1}},
        {"name": "low", "plans": [B, A, "whole"], "deadline_ms": 2000},
    ],
    "default_class": "low",
}  # fmt: skip


def test_a_good_family_is_read_whole() -> None:
    family = Family.from_data(GOOD)
    assert Family.from_data(family.model_dump(mode="json")) == family
    assert family.serves_whole
    assert family.longest_deadline_ms == 2000
    assert family.plan(B).without == ("edge",)
    assert family.request_class("critical").hedge


def _set(path: tuple[object, ...], value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        target: Any = data
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_set(("classes", 0, "plans"), [A, B]),
         f"classes['critical']: allows a noise of 0.1 in 'y', and plan '{B}' was planned with 0.5: "
         "leave it out of this class"),
        (_set(("plans", 0, "noise_limits"), {}),
         f"classes['critical']: allows a noise of 0.1 in 'y', and plan '{A}' was planned with no "
         "limit: leave it out of this class"),
        (_set(("classes", 0, "plans"), ["whole", A]),
         "classes['critical'].plans: 'whole' never fails before the entry does; let it be last"),
        (_set(("classes", 0, "plans"), [A, A]),
         f"classes['critical'].plans: '{A}' stands 2 times; it may stand once"),
        (_set(("classes", 0, "plans"), ["cccccccc"]),
         f"classes['critical'].plans: 'cccccccc' is no plan; known are {A}, {B}"),
        (_set(("classes", 1, "plans"), [A]),
         f"plans: no class uses '{B}': remove it or name it in a class"),
        (_set(("classes", 1, "name"), "critical"),
         "classes: 'critical' stands 2 times; it may stand once"),
        (_set(("default_class",), "lo"),
         "default_class: 'lo' is no class (did you mean 'low'?); known are critical, low"),
        (_set(("plans", 1, "file"), f"./plans/{A}.json"),
         f"plans, file: 'plans/{A}.json' stands 2 times; it may stand once"),
        (_set(("plans", 1, "file"), "../b.json"),
         f"plans['{B}'].file: '../b.json' leaves the folder of the family; give a file in it"),
        (_set(("plans", 1, "without"), ["cam"]),
         f"plans['{B}']: 'cam' is among its servers and among those that it is without"),
        (_set(("classes", 0, "deadline_ms"), 0), "classes[0].deadline_ms: 0: input should be"),
        (_set(("classes", 0, "plans"), ["all"]), "classes[0].plans[0]: \"all\": string should"),
    ],
)  # fmt: skip
def test_each_fault_is_named(change: Callable[[dict[str, Any]], None], fault: str) -> None:
    data = copy.deepcopy(GOOD)
    change(data)
    with pytest.raises(InputError) as caught:
        Family.from_data(data, "family.json")
    assert any(found.startswith(fault) for found in caught.value.faults), caught.value.faults


@pytest.mark.parametrize("value", [None, 3, [], {"id": 1}, [{"id": A}]])
@pytest.mark.parametrize("key", ["model", "plans", "classes", "default_class"])
def test_any_shape_is_answered(key: str, value: object) -> None:
    with pytest.raises(InputError):
        Family.from_data({**GOOD, key: value})
