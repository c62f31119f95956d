"""The way of every tensor: local, with a call, back with its answer, fetched, or a mailbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tests.helpers.configs import crossings, read_configs, unused_tensors
from tests.helpers.plans import files_of, make_plan
from tritier.repository.routes import Routes


@dataclass(frozen=True)
class Row:
    """A plan (its entry is a) and what must come of it; what is not given must be empty."""

    case: str
    components: list[str]
    inputs: str = "t0"
    outputs: str = "t9"
    # `c0 b>c: t1 t2` for a put of component c0 from b to c; `in` stands for the model's inputs
    puts: list[str] = field(default_factory=list)
    called_with: Mapping[str, str] = field(default_factory=dict)
    brought_back: Mapping[str, str] = field(default_factory=dict)
    taken: Mapping[str, str] = field(default_factory=dict)
    fetched: Mapping[str, str] = field(default_factory=dict)


ROWS = [
    Row("local: everything on the entry", ["a: t0 -> t1", "a: t1 -> t9"]),
    Row(
        "call and back: one component elsewhere",
        ["b: t0 -> t9"],
        called_with={"c0": "t0"},
        brought_back={"c0": "t9"},
    ),
    Row(
        "call and back: an inner tensor of the entry, an answer that the entry goes on with",
        ["a: t0 -> t1", "b: t0 t1 -> t2 t3", "a: t2 t3 -> t9"],
        called_with={"c1": "t0 t1"},
        brought_back={"c1": "t2 t3"},
    ),
    Row(
        "mailbox: from one server to another, past the entry",
        ["b: t0 -> t1", "c: t1 -> t9"],
        puts=["c0 b>c: t1"],
        called_with={"c0": "t0"},
        brought_back={"c1": "t9"},
        taken={"c1": "t1"},
    ),
    Row(
        "mailbox and back: the entry needs it as well",
        ["b: t0 -> t1", "c: t1 -> t2", "a: t1 t2 -> t9"],
        puts=["c0 b>c: t1"],
        called_with={"c0": "t0"},
        brought_back={"c0": "t1", "c1": "t2"},
        taken={"c1": "t1"},
    ),
    Row(
        "mailbox and fetch: it is an output as well, and apps may ask for the other one only",
        ["b: t0 -> t1", "c: t1 -> t9"],
        outputs="t1 t9",
        puts=["c0 b>b: t1", "c0 b>c: t1"],
        called_with={"c0": "t0"},
        brought_back={"c1": "t9"},
        taken={"c1": "t1"},
        fetched={"c0": "t1"},
    ),
    Row(
        "back: of two outputs each has a component that feeds no other",
        ["b: t0 -> t1", "c: t0 -> t9"],
        outputs="t1 t9",
        called_with={"c0": "t0", "c1": "t0"},
        brought_back={"c0": "t1", "c1": "t9"},
    ),
    Row(
        "fetch: the entry goes on with it, another server too",
        ["b: t0 -> t1 t2", "c: t1 -> t3", "a: t1 t2 -> t9"],
        outputs="t3 t9",
        puts=["c0 b>b: t1 t2", "c0 b>c: t1"],
        called_with={"c0": "t0"},
        brought_back={"c1": "t3"},
        taken={"c1": "t1"},
        fetched={"c0": "t1 t2"},
    ),
    Row(
        "mailbox: two takers on one server, one put",
        ["b: t0 -> t1", "c: t1 -> t2", "a: t2 -> t3", "c: t1 t3 -> t9"],
        puts=["c0 b>c: t1"],
        called_with={"c0": "t0", "c3": "t3"},
        brought_back={"c1": "t2", "c3": "t9"},
        taken={"c1": "t1", "c3": "t1"},
    ),
    Row(
        "mailbox: from a component to a later one of its own server, over no link",
        ["b: t0 -> t1 t2", "c: t1 -> t3", "b: t2 t3 -> t9"],
        puts=["c0 b>b: t2", "c0 b>c: t1", "c1 c>b: t3"],
        called_with={"c0": "t0"},
        brought_back={"c2": "t9"},
        taken={"c1": "t1", "c2": "t2 t3"},
    ),
    Row(
        "mailbox: an input of the model that two components of one server need",
        ["b: t0 -> t1", "a: t1 -> t2", "b: t0 t2 -> t9"],
        puts=["in a>b: t0"],
        called_with={"c2": "t2"},
        brought_back={"c0": "t1", "c2": "t9"},
        taken={"c0": "t0", "c2": "t0"},
    ),
    Row(
        "call: an input that components of two servers need crosses two links",
        ["b: t0 -> t1", "c: t0 -> t2", "a: t1 t2 -> t9"],
        called_with={"c0": "t0", "c1": "t0"},
        brought_back={"c0": "t1", "c1": "t2"},
    ),
    Row(
        "mailbox: a tensor of the entry that two components of one server need",
        ["a: t0 -> t1", "b: t1 -> t2", "c: t2 -> t3", "b: t1 t3 -> t9"],
        puts=["c0 a>b: t1", "c1 b>c: t2", "c2 c>b: t3"],
        brought_back={"c3": "t9"},
        taken={"c1": "t1", "c2": "t2", "c3": "t1 t3"},
    ),
    Row(
        "mailbox: tensors of one producer for one server go in one message",
        ["b: t0 -> t1 t2 t3", "c: t1 t2 -> t4", "d: t3 -> t5", "a: t4 t5 -> t9"],
        puts=["c0 b>c: t1 t2", "c0 b>d: t3"],
        called_with={"c0": "t0"},
        brought_back={"c1": "t4", "c2": "t5"},
        taken={"c1": "t1 t2", "c2": "t3"},
    ),
    Row(
        "all ways at once",
        [
            "a: t0 -> t2",
            "b: t1 t2 -> t3 t4",
            "c: t2 t3 -> t5",
            "b: t2 t4 t5 -> t6",
            "a: t3 t6 -> t9",
        ],
        inputs="t0 t1",
        outputs="t9 t5",
        puts=["c0 a>b: t2", "c1 b>b: t3 t4", "c1 b>c: t3", "c2 c>b: t5", "c2 c>c: t5"],
        called_with={"c1": "t1", "c2": "t2"},
        brought_back={"c3": "t6"},
        taken={"c1": "t2", "c2": "t3", "c3": "t2 t4 t5"},
        fetched={"c1": "t3", "c2": "t5"},
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.case for row in ROWS])
def test_ways(row: Row) -> None:
    plan = make_plan(row.components, inputs=row.inputs, outputs=row.outputs, servers="abcd")
    routes = Routes(plan)
    puts = [f"{p.producer} {p.source}>{p.target}: {' '.join(p.tensors)}" for p in routes.puts]
    assert puts == row.puts
    remote = [component for component in plan.components if component.server != "a"]
    for component in remote:
        name = component.id
        assert routes.call_inputs(component) == row.called_with.get(name, "").split(), name
        assert routes.returned(component) == row.brought_back.get(name, "").split(), name
        assert routes.taken_from_mailbox(component) == row.taken.get(name, "").split(), name
        assert routes.fetched(component) == row.fetched.get(name, "").split(), name
        assert routes.needs_stage(component) == (name in row.taken or bool(routes.puts_of(name)))


@pytest.mark.parametrize("row", ROWS, ids=[row.case for row in ROWS])
def test_r3_each_tensor_crosses_each_link_once(row: Row) -> None:
    plan = make_plan(row.components, inputs=row.inputs, outputs=row.outputs, servers="abcd")
    configs = read_configs(files_of(plan))
    assert crossings(configs) == {(w.tensor, w.source, w.target): 1 for w in plan.wires}
    assert unused_tensors(configs) == []


def test_mailboxes_know_how_often_each_tensor_is_taken() -> None:
    row = next(row for row in ROWS if row.case == "all ways at once")
    plan = make_plan(row.components, inputs=row.inputs, outputs=row.outputs)
    routes = Routes(plan)
    assert routes.mailbox_servers() == ["b", "c"]
    assert {t: routes.takes(t, "b") for t in routes.mailbox_tensors("b")} == {
        "t2": 2,  # by two components
        "t3": 1,  # fetched
        "t4": 1,
        "t5": 1,
    }
    assert {t: routes.takes(t, "c") for t in routes.mailbox_tensors("c")} == {"t3": 1, "t5": 1}
    assert routes.producer("t1") == "in"
    assert routes.source_server("t1") == "a"
