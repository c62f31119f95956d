"""Families of plans by the planner: lost servers, classes, the order of fallbacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.models import load
from tests.helpers.planning import ALL_GAIN, CHAIN, link, network, noise, request, timing
from tritier.documents import Classes, Ranges
from tritier.errors import InfeasibleError, InputError, UsageError
from tritier.graph import LoadedModel
from tritier.workflow.family_classes import class_task, without_server
from tritier.workflow.family_files import write_family
from tritier.workflow.family_generate import read_family
from tritier.workflow.family_plan import PlannedFamily, plan_family
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem_request import PlanningRequest

QUICK = Goals(explain=False, time_limit_s=10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("model"), CHAIN)


def three(model: LoadedModel, factors: Mapping[str, float], **changes: Any) -> PlanningRequest:
    """Servers whose layers take `factors` of the entry's times, with links of the best."""
    names = "".join(factors)
    times = {
        name: {k: (f * x, None if q is None else q * x) for k, (f, q) in ALL_GAIN.items()}
        for name, x in factors.items()
    }
    links = [link(k, h, 5000, 1) for k in names for h in names if k != h]
    made = request(model, names, network=network(*links, names=names), **changes)
    return replace(made, timings={name: timing(model, name, times[name]) for name in names})


def classes(**rows: Mapping[str, Any]) -> Classes:
    return Classes.from_data({"classes": rows})


def family(item: PlanningRequest, rows: Classes, **options: Any) -> PlannedFamily:
    return plan_family(item, QUICK, rows, "m", **options)


FAST_B = {"a": 1.0, "b": 0.1, "c": 0.2}


@pytest.fixture(scope="module")
def fast_b(model: LoadedModel) -> PlannedFamily:
    """One class, b the best and c the next."""
    return family(three(model, FAST_B), classes(any={}))


def test_without_a_server_the_next_best_answers(fast_b: PlannedFamily) -> None:
    planned = fast_b
    best, without_b = planned.family.plans
    assert set(best.servers) == {"a", "b"}
    assert best.without == ("c",)  # which it does not use
    assert set(without_b.servers) == {"a", "c"}
    assert without_b.without == ("b",)
    assert (best.latency_ms or 0) < (without_b.latency_ms or 0)
    assert planned.family.classes[0].plans == (best.id, without_b.id, "whole")
    assert [plan.id for plan in planned.plans] == [best.id, without_b.id] == list(planned.reports)


def test_equal_plans_of_classes_are_there_once(model: LoadedModel) -> None:
    planned = family(three(model, FAST_B), classes(one={}, two={"noise": 0, "hedge": True}))
    one, two = planned.family.classes
    assert one.plans == two.plans
    assert len(planned.plans) == len(set(one.plans) - {"whole"}) == 2
    assert two.noise_limits == {"y": 0.0}
    assert all(item.noise_limits == {"y": 0.0} for item in planned.family.plans)


def test_a_fallback_that_is_the_whole_model_is_left_to_it(model: LoadedModel) -> None:
    two = {"a": 1.0, "b": 0.1}  # without b all is on a
    (only,) = family(three(model, two), classes(any={})).family.plans
    assert "b" in only.servers
    bare = family(three(model, two), classes(any={}), with_whole=False)
    assert [x.servers for x in bare.family.plans] == [("a", "b"), ("a",)]
    assert bare.family.classes[0].plans == tuple(x.id for x in bare.family.plans)


def test_all_on_the_entry_is_a_plan_if_it_is_the_best(model: LoadedModel) -> None:
    planned = family(three(model, {"a": 1.0, "b": 90.0}), classes(any={}))
    (only,) = planned.family.plans
    assert only.servers == ("a",)
    assert only.without == ("b",)


def _is_refused_as_exact(planned: PlannedFamily, plan_id: str, folder: Path) -> bool:
    """A family by hand that says of a noisy plan that it makes no noise."""
    plans = tuple(
        x.model_copy(update={"noise_limits": {"y": 0.0}}) if x.id == plan_id else x
        for x in planned.family.plans
    )
    wrong = planned.family.model_copy(update={"plans": plans})
    write_family(folder / "wrong", wrong, planned.plans, force=False)
    with pytest.raises(InputError) as caught:
        read_family(folder / "wrong")
    return all("the family says that it makes no noise in y" in x for x in caught.value.faults)


def test_a_class_may_quantize_and_another_not(model: LoadedModel, tmp_path: Path) -> None:
    item = three(model, FAST_B, noise=[noise(model)], ranges=_ranges(model))
    planned = family(item, classes(exact={"noise": 0}, most={"noise": 50.0}, some={"noise": 2.5}))
    by_id = {plan.id: plan for plan in planned.plans}
    exact, most, some = planned.family.classes
    assert by_id[exact.plans[0]].is_exact
    assert len(by_id[most.plans[0]].quantized_layers) > len(by_id[some.plans[0]].quantized_layers)
    assert all(by_id[x].is_exact for x in exact.plans[:-1])
    limits = {x.id: x.noise_limits["y"] for x in planned.family.plans}
    assert max(limits[x] for x in some.plans[:-1]) <= 2.5
    assert set(some.plans) < set(most.plans)
    for row in planned.family.classes:
        # Own fallbacks first, then those of stricter classes, each by latency.
        rest = row.plans[1:-1]
        own = [x for x in rest if limits[x] == row.noise_limits["y"]]
        others = [x for x in rest if x not in own]
        assert rest == (*own, *others)
        for ids in (own, others):
            latencies = [planned.family.plan(x).latency_ms or 0 for x in ids]
            assert latencies == sorted(latencies)
    assert _is_refused_as_exact(planned, most.plans[0], tmp_path)
    assert [planned.family.plan(x).noise["y"] <= limits[x] for x in limits] == [True] * len(limits)


def _ranges(model: LoadedModel) -> Ranges:
    return Ranges(
        model_sha256=model.sha256, method="minmax", samples=1,
        ranges=dict.fromkeys("xabcdy", (-4.0, 4.0)),
    )  # fmt: skip


def test_what_is_pinned_to_a_lost_server_is_free(model: LoadedModel) -> None:
    item = three(model, FAST_B, pins={"c2": "b", "c3": "a"})
    freed = without_server(item, "b")
    assert (freed.pins, freed.planned_servers) == ({"c3": "a"}, ("a", "c"))
    planned = family(item, classes(any={}))
    on = {layer: c.server for c in planned.plans[1].components for layer in c.layers}
    assert on["c3"] == "a"
    assert "b" not in on.values()


def test_a_class_that_needs_a_server_is_warned_of(model: LoadedModel) -> None:
    """A layer must not be on the entry: without b there is no plan, and the whole model is not
    what was asked for either."""
    item = three(model, {"a": 1.0, "b": 0.1}, forbidden={"c2": ["a"]})
    planned = family(item, classes(any={}))
    (only,) = planned.family.plans
    assert "b" in only.servers
    (warning,) = [x for x in planned.warnings if "without b" in x]
    assert warning.startswith("no plan for class any without b: 'c2' may stand on no server")
    assert any("the whole model on 'a', which answers last, breaks" in x for x in planned.warnings)


def test_a_class_without_any_plan_is_named(model: LoadedModel) -> None:
    item = three(model, {"a": 1.0, "b": 0.1}, latency_ms=0.001)
    with pytest.raises((InfeasibleError, InputError), match="class hasty"):
        family(item, classes(hasty={}))


def test_a_late_plan_is_warned_of(model: LoadedModel) -> None:
    planned = family(three(model, FAST_B), classes(hasty={"deadline_ms": 1}))
    (warning,) = planned.warnings
    assert warning.startswith("class 'hasty': its plan is predicted to take ")
    assert warning.endswith("more than its deadline of 1 ms")


def test_a_class_has_its_own_objective(model: LoadedModel) -> None:
    base = three(model, FAST_B)
    task = class_task(
        "cheap", classes(cheap={"objective": "energy", "deadline_ms": 70}).classes["cheap"],
        base, QUICK, can_measure=False,
    )  # fmt: skip
    assert (task.goals.objective, task.request.uses_energy) == ("energy", True)
    assert task.request.latency_ms == 70
    weighted = classes(x={"objective": "weighted", "latency_weight": 0.25}).classes["x"]
    assert class_task("x", weighted, base, QUICK, False).goals.latency_weight == 0.25
    with pytest.raises(UsageError, match="for the objective weighted, not for latency"):
        class_task("x", classes(x={"latency_weight": 0.2}).classes["x"], base, QUICK, False)


def test_limits_of_outputs_by_name(model: LoadedModel) -> None:
    item = three(model, FAST_B, noise=[noise(model)], noise_limits={"y": 9.0})
    named = classes(x={"noise": {"y": 0.25}}).classes["x"]
    task = class_task("x", named, item, QUICK, can_measure=True)
    assert (task.limits, task.measured) == ({"y": 0.25}, True)
    exact = class_task("x", classes(x={"noise": 0}).classes["x"], item, QUICK, can_measure=True)
    assert (exact.request.noise, exact.measured) == ((), False)
    with pytest.raises(InputError, match="'z' is no output of the noise model; known are y"):
        class_task("x", classes(x={"noise": {"z": 1}}).classes["x"], item, QUICK, True)


def test_wires_whose_loss_nobody_knows_stay_as_they_are(model: LoadedModel) -> None:
    """A slow link, where half the bytes are worth it: free for who limits no noise."""
    slow = [link(k, h, 50, 1) for k, h in (("a", "b"), ("b", "a"))]
    item = replace(
        three(model, {"a": 10.0, "b": 0.1}, wire_codecs={("a", "b"): ("as_is", "fp16")}),
        network=network(*slow, names="ab"), noise=[noise(model)], ranges=_ranges(model),
        int8_everywhere=False, unlimited_noise=False, noise_limits={"y": 0.9},
    )  # fmt: skip
    planned = family(item, classes(limited={}, exact={"noise": 0}))
    for plan in planned.plans:
        assert all(wire.codec != "fp16" for wire in plan.wires)
    assert any("what that loses is not known" in text for text in planned.warnings)
    free = family(replace(item, noise=(), noise_limits={}), classes(any={}))
    assert any(wire.codec == "fp16" for wire in free.plans[0].wires)


def test_a_family_is_written_and_read_back(fast_b: PlannedFamily, tmp_path: Path) -> None:
    planned = fast_b
    folder = tmp_path / "fam"
    write_family(folder, planned.family, planned.plans, force=False)
    assert read_family(folder) == (planned.family, list(planned.plans))
    assert read_family(folder / "family.json") == read_family(folder)
    with pytest.raises(InputError, match="is not empty"):
        write_family(folder, planned.family, planned.plans, force=False)
    write_family(folder, planned.family, planned.plans, force=True)
    first, second = (folder / item.file for item in planned.family.plans)
    second.write_bytes(first.read_bytes())
    with pytest.raises(InputError) as caught:
        read_family(folder)
    assert any("is plan" in fault for fault in caught.value.faults)
    second.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_family(folder)
