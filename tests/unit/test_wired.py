"""Codecs become part of a plan's components: what is made where, and what crosses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.helpers.plans import files_of, plan_data
from tritier.documents import WIRE_DTYPES, Codec, Plan, WiredPlan, wire_up

# Links of a tensor, "t1>c", and the codec there.
Codecs = Mapping[str, Codec]

CHAIN = ["b: t0 -> t1", "c: t1 -> t9"]


def coded_plan(components: Sequence[str], codecs: Codecs, **options: Any) -> Plan:
    """A plan with codecs on some wires; every tensor has a range."""
    data = plan_data(components, **options)
    data["ranges"] = {tensor["name"]: [-1.0, 1.0] for tensor in data["tensors"]}
    links = {f"{wire['tensor']}>{wire['to']}": wire for wire in data["wires"]}
    for link, codec in codecs.items():
        links[link]["codec"] = codec
    return Plan.from_data(data)


def lines(plan: WiredPlan) -> list[str]:
    """Its components, a line each: `b: t0 t1 -> t2`, and `*` before what only codes."""
    return [
        f"{'' if c.layers else '*'}{c.server}: {' '.join(c.inputs)} -> {' '.join(c.outputs)}"
        for c in plan.components
    ]


def wires(plan: WiredPlan) -> list[str]:
    """`t1 a>b` for each wire."""
    return [f"{w.tensor} {w.source}>{w.target}" for w in plan.wires]


def test_without_a_codec_nothing_changes() -> None:
    plan = coded_plan(CHAIN, {})
    wired = wire_up(plan)
    assert wired.model_dump(include=set(Plan.model_fields)) == plan.model_dump()
    assert (wired.coded, wired.decoded) == ({}, {})
    documents = ("plan.json", "manifest.json")  # which tell all fields of a plan
    files, expected = (
        {path: data for path, data in files_of(p).items() if path not in documents}
        for p in (wired, plan)
    )
    assert files == expected


def test_a_wired_plan_is_wired_already() -> None:
    wired = wire_up(coded_plan(CHAIN, {"t1>c": "fp16"}))
    assert wire_up(wired) is wired


def test_a_wired_plan_keeps_the_id_and_is_deterministic() -> None:
    plan = coded_plan(CHAIN, {"t0>b": "int8", "t1>c": "fp16", "t9>a": "uint8"})
    wired = wire_up(plan)
    assert wired.id == plan.id
    assert wire_up(Plan.from_data(json.loads(plan.to_json()))) == wired


def test_a_coded_tensor_takes_the_place_of_the_tensor() -> None:
    wired = wire_up(coded_plan(CHAIN, {"t1>c": "fp16"}))
    assert lines(wired) == ["b: t0 -> t10", "c: t10 -> t9"]
    assert wires(wired) == ["t0 a>b", "t9 c>a", "t10 b>c"]
    assert wired.coded == {"t10": ("t1", "fp16")}
    assert (wired.tensor("t10").name, wired.tensor("t10").dtype) == ("n1 as fp16", "float16")
    # No one reads the tensor as it is: a repository can't have it at a border.
    assert [t.id for t in wired.tensors] == ["t0", "t9", "t10"]
    assert {wire.codec for wire in wired.wires} == {"as_is"}


def test_model_inputs_are_coded_by_a_component_of_the_entry() -> None:
    plan = coded_plan(
        ["b: t0 t1 -> t2", "a: t0 t2 -> t9"], {"t0>b": "int8", "t1>b": "fp16"}, inputs="t0 t1"
    )
    wired = wire_up(plan)
    # The entry itself goes on reading the input as it is.
    assert lines(wired) == ["*a: t0 t1 -> t10 t11", "b: t10 t11 -> t2", "a: t0 t2 -> t9"]
    assert wires(wired) == ["t2 b>a", "t10 a>b", "t11 a>b"]
    assert wired.inputs == plan.inputs
    assert wired.components[0].id == "c2"


def test_inputs_without_a_codec_do_not_pass_through_the_encoder() -> None:
    plan = coded_plan(["b: t0 t1 -> t9"], {"t1>b": "fp16"}, inputs="t0 t1")
    assert lines(wire_up(plan)) == ["*a: t1 -> t10", "b: t0 t10 -> t9"]


def test_model_outputs_are_decoded_by_a_component_of_the_entry() -> None:
    plan = coded_plan(
        ["b: t0 -> t1 t8", "c: t1 -> t9"], {"t8>a": "int8", "t9>a": "fp16"}, outputs="t9 t8"
    )
    wired = wire_up(plan)
    assert lines(wired) == ["b: t0 -> t1 t10", "*a: t10 -> t13", "c: t1 -> t11", "*a: t11 -> t12"]
    assert wired.outputs == ("t12", "t13")
    assert wired.decoded == {"t12": "t9", "t13": "t8"}
    # Apps know outputs by name, and it is the decoded tensor that they get.
    assert [wired.tensor(t).name for t in wired.outputs] == ["n9", "n8"]
    assert len({t.name for t in wired.tensors}) == len(wired.tensors)


def test_an_output_that_others_read_as_it_is() -> None:
    plan = coded_plan(["b: t0 -> t8", "c: t8 -> t9"], {"t8>a": "int8"}, outputs="t8 t9")
    wired = wire_up(plan)
    assert lines(wired) == ["b: t0 -> t8 t10", "*a: t10 -> t11", "c: t8 -> t9"]
    assert wires(wired) == ["t0 a>b", "t8 b>c", "t9 c>a", "t10 b>a"]
    assert wired.tensor("t8").name == "n8 before its wire"
    assert wired.tensor("t11").name == "n8"


def test_an_output_that_the_entry_itself_reads_is_decoded_once() -> None:
    plan = coded_plan(["b: t0 -> t8", "a: t8 -> t9"], {"t8>a": "int8"}, outputs="t8 t9")
    assert lines(wire_up(plan)) == ["b: t0 -> t10", "*a: t10 -> t11", "a: t11 -> t9"]


def test_an_output_that_its_own_server_reads_on() -> None:
    plan = coded_plan(["b: t0 -> t8", "b: t8 -> t9"], {"t8>a": "fp16"}, outputs="t8 t9")
    assert lines(wire_up(plan)) == ["b: t0 -> t8 t10", "*a: t10 -> t11", "b: t8 -> t9"]


FAN = ["b: t0 -> t1", "c: t1 -> t2", "d: t1 -> t3", "a: t1 t2 t3 -> t9"]


def test_r3_each_link_has_one_form_of_a_tensor() -> None:
    plan = coded_plan(FAN, {"t1>a": "uint8", "t1>c": "fp16", "t1>d": "int8"}, servers="abcd")
    wired = wire_up(plan)
    form = {codec: new for new, (_, codec) in wired.coded.items()}
    assert wired.components[0].outputs == (form["uint8"], form["fp16"], form["int8"])
    crossing = [wire for wire in wires(wired) if wire.split()[0] in wired.coded]
    assert crossing == [f"{form['uint8']} b>a", f"{form['fp16']} b>c", f"{form['int8']} b>d"]
    assert [c.inputs[0] for c in wired.components[1:]] == [
        form["fp16"], form["int8"], form["uint8"],
    ]  # fmt: skip


def test_two_links_with_the_same_codec_share_the_coded_tensor() -> None:
    plan = coded_plan(FAN, {"t1>c": "fp16", "t1>d": "fp16"}, servers="abcd")
    wired = wire_up(plan)
    assert lines(wired) == ["b: t0 -> t1 t10", "c: t10 -> t2", "d: t10 -> t3", "a: t1 t2 t3 -> t9"]
    assert wires(wired)[-2:] == ["t10 b>c", "t10 b>d"]


def test_two_takers_on_one_server_get_one_tensor() -> None:
    plan = coded_plan(["b: t0 -> t1", "c: t1 -> t2", "c: t1 t2 -> t9"], {"t1>c": "int8"})
    wired = wire_up(plan)
    assert lines(wired) == ["b: t0 -> t10", "c: t10 -> t2", "c: t10 t2 -> t9"]
    assert wires(wired).count("t10 b>c") == 1


@pytest.mark.parametrize("codec", ["fp16", "int8", "uint8"])
def test_a_wired_plan_is_a_good_plan_but_for_components_that_only_code(codec: Codec) -> None:
    links = ["t0>b", "t1>a", "t1>c", "t1>d", "t2>a", "t3>a"]
    plan = coded_plan(FAN, dict.fromkeys(links, codec), servers="abcd", outputs="t9 t1")
    wired = wire_up(plan)
    fields = {f: v for f, v in wired.model_dump(by_alias=True).items() if f in Plan.model_fields}
    data = json.loads(json.dumps(fields))
    del data["plan_id"]
    for component in data["components"]:
        component["layers"] = component["layers"] or [f"codecs of {component['id']}"]
    checked = Plan.from_data(data)  # topological order, one source each, wires, ids, names
    assert checked.wires == wired.wires
    assert all(t.dtype == WIRE_DTYPES[codec] for t in wired.tensors if t.id in wired.coded)


def test_the_last_ids_of_a_plan_may_be_taken() -> None:
    data = plan_data(["b: t0 -> t41", "c: t41 -> t9"])
    data["components"][1]["id"] = "c77"
    data["wires"] = [w | ({"codec": "fp16"} if w["tensor"] == "t9" else {}) for w in data["wires"]]
    wired = wire_up(Plan.from_data(data))
    assert [c.id for c in wired.components] == ["c0", "c77", "c78"]
    assert wired.components[1].outputs == ("t42",)
