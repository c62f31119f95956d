"""The plan document: rules R1 to R3 as far as a plan alone can show them, and its id."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers.plans import make_plan, plan_data
from tritier.documents import Plan, Predictions, Wire, required_wires
from tritier.errors import InputError

# t1 goes from b to c past the entry; t2 comes back.
TRIANGLE = ["b: t0 -> t1", "c: t0 t1 -> t2", "a: t1 t2 -> t9"]

Change = Callable[[dict[str, Any]], None]


def faults_of(data: dict[str, Any]) -> tuple[str, ...]:
    """What is said about a bad plan."""
    with pytest.raises(InputError) as caught:
        Plan.from_data(data, "plan.json")
    return caught.value.faults


def test_a_good_plan_answers_questions_about_itself() -> None:
    plan = make_plan(TRIANGLE)
    assert plan.entry.name == "a"
    assert plan.server("b").url == "b:8001"
    assert plan.tensor("t1").name == "n1"
    assert plan.producer("t0") is None
    producer = plan.producer("t1")
    assert producer is not None
    assert producer.id == "c0"
    assert [c.id for c in plan.consumers("t1")] == ["c1", "c2"]


def test_wires_are_what_the_components_need_each_once() -> None:
    wires = {(w.tensor, w.source, w.target) for w in make_plan(TRIANGLE).wires}
    assert wires == {
        ("t0", "a", "b"),
        ("t0", "a", "c"),
        ("t1", "b", "a"),
        ("t1", "b", "c"),
        ("t2", "c", "a"),
    }


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        pytest.param([("c0", ["t0"], ["t1"])], [], id="all on the entry"),
        pytest.param(
            [("c1", ["t0"], ["t1"])], [("t0", "a", "b"), ("t1", "b", "a")], id="there and back"
        ),
        pytest.param(
            [("c1", ["t0"], ["t1"]), ("c2", ["t1"], ["t2"]), ("c3", ["t1", "t2"], ["t3"])],
            [("t0", "a", "b"), ("t1", "b", "a"), ("t1", "b", "c")],
            id="two takers on one server, and an output of the model: once per link",
        ),
    ],
)
def test_required_wires(
    components: list[tuple[str, list[str], list[str]]], expected: list[tuple[str, str, str]]
) -> None:
    servers = {"c0": "a", "c1": "b", "c2": "c", "c3": "c"}
    assert required_wires(servers, components, ["t0"], ["t1"], "a") == expected


def test_wires_are_sorted_by_number_not_by_text() -> None:
    found = required_wires({"c0": "b"}, [("c0", ["t10", "t2"], ["t3"])], ["t2", "t10"], [], "a")
    assert [wire[0] for wire in found] == ["t2", "t10"]


# -- the id ---------------------------------------------------------------------------------------


def test_the_id_is_computed_and_checked() -> None:
    data = plan_data(TRIANGLE)
    plan = Plan.from_data(data)
    assert len(plan.id) == 8
    assert Plan.from_data({**data, "plan_id": plan.id}) == plan
    assert faults_of({**data, "plan_id": "00000000"}) == (
        f"plan_id: the content hashes to '{plan.id}': remove plan_id to have it computed again",
    )


def test_a_plan_that_was_edited_no_longer_has_its_id() -> None:
    data = json.loads(make_plan(TRIANGLE).to_json())
    data["servers"][1]["threads"] = 7
    assert faults_of(data)[0].startswith("plan_id: the content hashes to ")


def test_predictions_do_not_change_the_id() -> None:
    plan = make_plan(TRIANGLE)
    other = plan.with_predictions(Predictions(latency_ms=12.5))
    assert other.id == plan.id
    assert Plan.from_data(json.loads(other.to_json())) == other
    assert other != plan


def test_all_else_changes_the_id() -> None:
    base = make_plan(TRIANGLE).id
    assert make_plan(TRIANGLE, names={"t1": "other"}).id != base
    assert make_plan(TRIANGLE, shapes={"t1": [3]}).id != base
    assert make_plan(["b: t0 -> t1", "c: t0 t1 -> t2", "b: t1 t2 -> t9"]).id != base


def test_defaults_that_are_spelt_out_do_not_change_the_id() -> None:
    data = plan_data(TRIANGLE)
    data["servers"][1]["threads"] = 1
    data["quantized_layers"] = []
    assert Plan.from_data(data).id == make_plan(TRIANGLE).id


# -- faults ---------------------------------------------------------------------------------------


def _set(key: str, value: Any) -> Change:
    return lambda data: data.__setitem__(key, value)


def _wire(index: int, **changes: str) -> Change:
    return lambda data: data["wires"][index].update(changes)


def _component(index: int, **changes: Any) -> Change:
    return lambda data: data["components"][index].update(changes)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        pytest.param(
            _component(1, layers=["l1", "l0"]),
            "components: layer 'l0' is in 2 components; rule R1 allows one",
            id="R1: a layer twice",
        ),
        pytest.param(
            _component(0, inputs=["t0", "t2"]),
            "components: c0 needs 't2' before any component made it; rule R2 asks for components "
            "in topological order, without a cycle",
            id="R2: a cycle of c0 and c1",
        ),
        pytest.param(
            lambda data: data["components"].reverse(),
            "components: c2 needs 't1' before any component made it; rule R2 asks for components "
            "in topological order, without a cycle",
            id="R2: the wrong order",
        ),
        pytest.param(
            lambda data: data["wires"].pop(3),
            "wires: 't1' from b to c is needed and missing",
            id="R3: a wire is missing",
        ),
        pytest.param(
            lambda data: data["wires"].append({"tensor": "t2", "from": "c", "to": "b"}),
            "wires: 't2' from c to b is needed by no component",
            id="R3: a wire too many",
        ),
        pytest.param(
            lambda data: data["wires"].append(dict(data["wires"][3])),
            "wires: 't1' from b to c stands 2 times; rule R3 allows one",
            id="R3: a wire twice",
        ),
        pytest.param(
            _wire(4, **{"from": "b"}),
            "wires: 't2' from b to a is needed by no component",
            id="R3: a wire from where the tensor is not",
        ),
        pytest.param(
            lambda data: data["servers"][1].update(entry=True),
            "servers: 2 are the entry; set `entry` on exactly one",
            id="two entries",
        ),
        pytest.param(
            lambda data: data["servers"][0].update(entry=False),
            "servers: 0 are the entry; set `entry` on exactly one",
            id="no entry",
        ),
        pytest.param(
            _component(1, server="x"),
            "components: c1 is on unknown server 'x'; known are a, b, c",
            id="unknown server",
        ),
        pytest.param(
            _component(1, inputs=["t0", "t1", "t7"]),
            "components: c1 names unknown tensor 't7'",
            id="unknown tensor",
        ),
        pytest.param(_set("outputs", ["t8"]), "outputs: unknown tensor 't8'", id="unknown output"),
        pytest.param(
            _component(1, id="c0"),
            "components: 'c0' stands 2 times; give it once",
            id="a component id twice",
        ),
        pytest.param(
            lambda data: data["tensors"][1].update(id="t0"),
            "tensors: 't0' stands 2 times; give it once",
            id="a tensor id twice",
        ),
        pytest.param(
            lambda data: data["tensors"][1].update(name="n0"),
            "tensors, by name: 'n0' stands 2 times; give it once",
            id="two ids for one tensor of the model",
        ),
        pytest.param(
            _set("outputs", ["t9", "t9"]),
            "outputs: 't9' stands 2 times; give it once",
            id="an output twice",
        ),
        pytest.param(
            _set("inputs", ["t0", "t0"]),
            "inputs: 't0' stands 2 times; give it once",
            id="an input twice",
        ),
        pytest.param(
            _component(2, inputs=["t1", "t2", "t1"]),
            "components: inputs of c2: 't1' stands 2 times; give it once",
            id="an input of a component twice",
        ),
        pytest.param(
            _component(1, outputs=["t2", "t1"]),
            "components: c1 makes 't1', made before",
            id="two sources",
        ),
        pytest.param(
            _set("outputs", ["t9", "t0"]),
            "outputs: 't0' is an input, which no component makes",
            id="an input is an output",
        ),
        pytest.param(
            _component(2, inputs=["t1"]),
            "components: c1 makes 't2', which nothing needs",
            id="a tensor that nothing needs",
        ),
        pytest.param(
            lambda data: (
                data["inputs"].append("t5"),
                data["tensors"].append({"id": "t5", "name": "n5", "dtype": "bool", "shape": ["N"]}),
            ),
            "inputs: no component needs 't5'",
            id="an input that nothing needs",
        ),
        pytest.param(
            lambda data: data["wires"][0].update(tensor="tx"),
            'wires[0].tensor: "tx": string should match pattern',
            id="a wire with a bad tensor id",
        ),
        pytest.param(
            lambda data: data["tensors"][1].update(shape=[-1, 4]),
            "tensors[1].shape[0]",
            id="a negative size",
        ),
        pytest.param(
            lambda data: data["tensors"][1].update(dtype="bfloat16"),
            'tensors[1].dtype: "bfloat16": input should be ',
            id="a type that can't cross",
        ),
        pytest.param(
            lambda data: data["model"].update(name="a/../b"),
            'model.name: "a/../b": string should match pattern',
            id="a model name that is no safe folder",
        ),
        pytest.param(
            _set("format", "tritier/plan/2"),
            "format: \"tritier/plan/2\": input should be 'tritier/plan/1'",
            id="a format of the future",
        ),
        pytest.param(
            _component(0, layers=[]),
            "components[0].layers: is empty; give at least one",
            id="empty",
        ),
    ],
)
def test_a_fault_is_told(change: Change, fault: str) -> None:
    data = plan_data(TRIANGLE)
    change(data)
    assert any(found.startswith(fault) for found in faults_of(data))


def test_a_bad_tensor_id_everywhere_is_told_as_such() -> None:
    data = json.loads(json.dumps(plan_data(TRIANGLE)).replace('"t1"', '"tx"'))
    assert all("string should match pattern" in fault for fault in faults_of(data))


def test_wires_by_their_names_in_python_are_unknown_keys() -> None:
    data = plan_data(TRIANGLE)
    data["wires"][0] = {"tensor": "t0", "source": "a", "target": "b"}
    assert "wires[0].from: is missing" in faults_of(data)
    assert Wire.of("t0", "a", "b").target == "b"


@pytest.mark.parametrize("shape", ["components", "wires", "servers", "tensors", "inputs"])
@pytest.mark.parametrize("value", [None, 3, "t0", [None], [{"id": []}], {"a": 1}])
def test_no_wrong_shape_makes_the_check_stumble(shape: str, value: Any) -> None:
    assert faults_of({**plan_data(TRIANGLE), shape: value})
