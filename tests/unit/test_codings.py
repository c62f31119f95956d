"""What codecs cost: fitted from what was served, in predictions, and where the planner chooses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.helpers.compared import known_of, placed
from tests.helpers.models import load
from tests.helpers.planned import FAST, NEAR, SLOW, mixed, noisy, ranges
from tests.helpers.planning import CHAIN, quantizing, request, timing
from tritier.cli.profile import show_profiles
from tritier.documents import FLOAT_CODECS, Codec, Plan, ServingTiming
from tritier.errors import CheckFailed, InputError
from tritier.graph import LoadedModel, build_layer_graph
from tritier.planner.evaluate import evaluate
from tritier.planner.simulation_graph import CodingCost, Conditions
from tritier.timing import Border, CodingRun, fit_coding
from tritier.timing.durations import MIB
from tritier.workflow.coding import code_plan
from tritier.workflow.compare import Known, PlanPredictor, predict_plan
from tritier.workflow.planning import make_plan
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem import build_problem
from tritier.workflow.problem_request import PlanningRequest
from tritier.workflow.timing_codings import coding_piece

QUICK = Goals(explain=False)
BOTH: Any = {("a", "b"): ("as_is", "fp16"), ("b", "a"): ("as_is", "fp16")}


def coding(codec: str, *figures: float) -> dict[str, Any]:
    """Encoding: ms, and per MiB; decoding: ms, and per MiB."""
    keys = ("encoding_ms", "encoding_ms_per_mib", "decoding_ms", "decoding_ms_per_mib")
    return {"codec": codec, **dict(zip(keys, figures, strict=True))}


# Of a tensor of 1 MiB: 1.5 to code and 0.75 to decode in fp16, 3 and 5 in int8, 7 and 9 in uint8.
COSTS = [coding("fp16", 1, 0.5, 0.5, 0.25), coding("int8", 1, 2, 2, 3), coding("uint8", 3, 4, 4, 5)]


def with_codings(item: PlanningRequest, *names: str, **codings: Any) -> PlanningRequest:
    """The request with profiles that know codecs: those of these servers, or all."""
    timings = {
        name: type(old).from_data(
            old.model_dump(mode="json", exclude_none=True)
            | ({"codings": codings.get(name, COSTS)} if name in (names or "ab") else {})
        )
        for name, old in item.timings.items()
    }
    return replace(item, timings=timings)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


def coded(plan: Plan, model: LoadedModel, **codecs: Codec) -> Plan:
    graph = build_layer_graph(model.proto)
    return code_plan(plan, model, graph, (), ranges(model), wire_codecs=codecs)


# -- measuring -----------------------------------------------------------------------------------


def test_a_codec_costs_what_it_makes_longer_and_what_fewer_bytes_have_saved() -> None:
    """0.125 ms and 4 per MiB, where serving half of an end saves 1 ms per MiB."""
    serving = ServingTiming(call_ms=0.5, tensor_ms=0.25, copy_ms_per_mib=2.0)
    runs = [
        CodingRun(
            mib, Border(2, round(1.5 * mib * MIB)), Border(2, round(2 * mib * MIB)), 9 + 9 * mib,
            0.125 + 4 * mib - 1 * mib,
        )
        for mib in (0.0625, 1.0, 4.0)
    ]  # fmt: skip
    assert fit_coding(serving, runs) == pytest.approx((0.125, 4.0))


def test_a_codec_never_costs_less_than_nothing() -> None:
    serving = ServingTiming(call_ms=1.0, tensor_ms=0.0, copy_ms_per_mib=0.0)
    same = Border(2, MIB)
    rising = [CodingRun(x, same, same, 1.0 + x, 2 * x - 0.5) for x in (0.25, 1.0)]
    fixed, per_mib = fit_coding(serving, rising)
    assert fixed == 0
    assert 0 < per_mib < 2
    assert fit_coding(serving, [CodingRun(1.0, same, same, 1.0, -0.5)]) == (0.0, 0.0)
    with pytest.raises(CheckFailed, match="in no time"):
        fit_coding(serving, [CodingRun(1.0, same, same, 0.0, 0.0)])


@pytest.mark.parametrize("codec", FLOAT_CODECS)
def test_models_that_code_do_what_components_do(codec: Codec) -> None:
    first, last = coding_piece(64, codec, "encode"), coding_piece(64, codec, "decode")
    width = 2 if codec == "fp16" else 1
    assert first.border == last.border == Border(2, 64 * (4 + width))
    assert coding_piece(64).border == Border(2, 64 * 8)
    assert (first.name, last.name) == (f"encode_{codec}_64", f"decode_{codec}_64")
    wanted = np.linspace(-1, 1, 64, dtype=np.float32)
    values = wanted
    for piece in (first, last):
        assert piece.inputs["t0"]["shape"] == [64]
        session = ort.InferenceSession(piece.data, providers=["CPUExecutionProvider"])
        (values,) = session.run(list(piece.outputs), {"t0": values})
        assert values.dtype == next(t.dtype for t in piece.tensors if t.id == "t1")
    assert values == pytest.approx(wanted, abs=0.01)  # negated twice


def test_profiles_have_each_codec_once_and_old_ones_none(chain: LoadedModel) -> None:
    old = timing(chain, "a")
    assert "codings" not in old.to_json()
    assert old.coding("fp16") is None
    found = timing(chain, "a", codings=COSTS).coding("int8")
    assert found is not None
    assert found.decoding_ms_per_mib == 3
    with pytest.raises(InputError, match="codings: 'fp16' stands 2 times"):
        timing(chain, "a", codings=[COSTS[0], COSTS[0]])


def test_what_codecs_cost_is_shown(chain: LoadedModel, capsys: pytest.CaptureFixture[str]) -> None:
    show_profiles([timing(chain, "a", codings=COSTS), timing(chain, "b")])
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell for cell in line.split() if cell != "│"] for line in lines]
    assert ["a", "int8", "1.000", "2.000", "2.000", "3.000"] in rows
    show_profiles([timing(chain, "b")])
    assert "codecs of wires" not in capsys.readouterr().out


# -- the planner ---------------------------------------------------------------------------------


def test_a_crossing_in_a_codec_costs_coding_at_both_ends(chain: LoadedModel) -> None:
    old = request(chain, wire_codecs={("a", "b"): ("fp16",)})
    free = build_problem(old).problem
    costs = {"a": [coding("fp16", 1, 2, 64, 64)], "b": [coding("fp16", 128, 128, 4, 8)]}
    paid = build_problem(with_codings(old, **costs)).problem
    added = paid.transfer_ms[:, 0, 1] - free.transfer_ms[:, 0, 1]
    assert added == pytest.approx([1 + 2 + 4 + 8] * 6)  # 1 MiB each
    assert (paid.transfer_ms[:, 1, 0] == free.transfer_ms[:, 1, 0]).all()
    assert (paid.transfer_ms[:, [0, 1], [0, 1]] == 0).all()


def test_a_profile_without_codecs_counts_them_as_free(chain: LoadedModel) -> None:
    old = request(chain, wire_codecs={("a", "b"): ("fp16",)})
    free = build_problem(old).problem.transfer_ms[1, 0, 1]
    for name, ms in (("a", 1.5), ("b", 0.75)):
        built = build_problem(with_codings(old, name))
        assert built.problem.transfer_ms[1, 0, 1] == pytest.approx(free + ms)
        assert [key for key in built.sources if "codecs" in key] == [f"codecs on {name}"]


def test_the_8_bits_of_quantized_layers_cost_nothing(chain: LoadedModel) -> None:
    wires: Any = {("a", "b"): ("int8",)}
    old = quantizing(chain, wire_codecs=wires, int8_tensors=["*"], ranges=ranges(chain))
    free, paid = build_problem(old).problem, build_problem(with_codings(old)).problem
    paired = [bool(flow.coded_by) for flow in free.flows]
    assert any(paired)
    added = paid.coded_ms[:, 0, 1] - free.coded_ms[:, 0, 1]
    assert added[paired].tolist() == [0.0] * sum(paired)
    others = paid.transfer_ms[:, 0, 1] - free.transfer_ms[:, 0, 1]
    assert others == pytest.approx([3 + 5] * 6)


def test_no_codec_is_chosen_that_costs_more_than_it_saves(chain: LoadedModel) -> None:
    """Over 20 MiB/s fp16 saves 25 ms and half of the copies of a MiB."""
    for ms, wanted in ((20.0, "fp16"), (40.0, "as_is")):
        dear = [coding("fp16", ms / 2, 0, ms / 2, 0)]
        item = with_codings(request(chain, wire_codecs=BOTH), a=dear, b=dear)
        assert build_problem(item).codec_of(1, 1, 0, quantized=False) == wanted


def test_coding_that_is_dear_changes_where_layers_stand(chain: LoadedModel) -> None:
    only: Any = {("a", "b"): ("fp16",), ("b", "a"): ("fp16",)}
    old = request(
        chain, wire_codecs=only, network=NEAR,
        timings={"a": timing(chain, "a", SLOW), "b": timing(chain, "b", FAST)},
    )  # fmt: skip
    assert {wire.codec for wire in make_plan(old, QUICK).plan.wires} == {"fp16"}
    dear = [coding("fp16", 500, 0, 500, 0)]
    found = make_plan(with_codings(old, a=dear, b=dear), QUICK)
    assert found.plan.wires == ()
    assert found.found.placement is not None
    assert found.report.value == evaluate(found.built.problem, found.found.placement).latency_ms


def test_energy_is_that_of_a_longer_crossing(chain: LoadedModel) -> None:
    """Like all that a crossing costs: at the power of sending, 2 W."""
    pinned = request(chain, wire_codecs=BOTH, pins={"*": "b"})
    cheap = make_plan(pinned, QUICK)
    paid = make_plan(with_codings(pinned), QUICK)
    assert [wire.codec for wire in paid.plan.wires] == ["fp16", "fp16"]
    before, after = (x.report.figures for x in (cheap, paid))
    added = 2 * (1.5 + 0.75)
    assert after.sum_ms - before.sum_ms == pytest.approx(added)
    assert after.energy_joule - before.energy_joule == pytest.approx(2 * added / 1000)


# -- predictions ---------------------------------------------------------------------------------


def test_coding_is_in_the_components_at_both_ends(chain: LoadedModel) -> None:
    old = mixed(chain)
    plan = coded(placed(old, "aabbb"), chain, b="fp16", y="int8")
    before = predict_plan(plan, known_of(old))
    found = predict_plan(plan, known_of(with_codings(old)))
    added = [x.ms - y.ms for x, y in zip(found.components, before.components, strict=True)]
    # b leaves c0 and is read by c1; y leaves c1 and is decoded by a component of its own.
    assert added == pytest.approx([1.5, 0.75 + 3, 5])
    assert [x.layers_ms for x in found.components] == [x.layers_ms for x in before.components]
    assert [x.bytes for x in found.messages] == [x.bytes for x in before.messages]
    assert found.latency_ms - before.latency_ms == pytest.approx(sum(added))
    watts = 3.0  # of both servers while they compute
    assert found.energy_joule == pytest.approx((before.energy_joule or 0) + watts * 0.01025)


def test_inputs_are_coded_and_outputs_decoded_on_the_entry(chain: LoadedModel) -> None:
    old = mixed(chain)
    plan = coded(placed(old, "bbbbb"), chain, x="uint8", y="fp16")
    only_b = predict_plan(plan, known_of(with_codings(old, "b"))).components
    found = predict_plan(plan, known_of(with_codings(old))).components
    free = predict_plan(plan, known_of(old)).components
    assert [x.ms - y.ms for x, y in zip(only_b, free, strict=True)] == pytest.approx(
        [9 + 1.5, 0, 0]
    )
    assert [x.ms - y.ms for x, y in zip(found, only_b, strict=True)] == pytest.approx([0, 7, 0.75])


def test_a_tensor_is_coded_once_in_a_codec_and_decoded_by_each_reader() -> None:
    costs = {
        "fp16": CodingCost(np.array([[1.0, 2, 4]]), np.array([[8.0, 16, 32]])),
        "int8": CodingCost(np.array([[64.0, 0, 0]]), np.zeros((1, 3))),
    }
    same = {(0, 0, 1): "fp16", (0, 0, 2): "fp16"}
    known = Conditions(crossing_codecs=same, codings=costs)
    assert known.encoding_ms(0, False, 0, [0, 1, 2]) == 1
    assert [known.decoding_ms(0, False, 0, target) for target in range(3)] == [0, 16, 32]
    other = Conditions(crossing_codecs={**same, (0, 0, 2): "int8"}, codings=costs)
    assert other.encoding_ms(0, False, 0, [0, 1, 2]) == 1 + 64
    # In 8 bits anyway, but not if another codec was chosen for it.
    assert other.encoding_ms(0, True, 0, [2]) == 0
    assert other.encoding_ms(0, True, 0, [1]) == 1
    assert Conditions().encoding_ms(0, False, 0, [1]) == 0


def test_every_component_that_reads_a_coded_tensor_decodes_it(chain: LoadedModel) -> None:
    """c2 on b and c3 on b are apart, with add on a between them; b goes to both servers."""
    old = mixed(chain)
    plan = coded(placed(old, "aabab"), chain, b="fp16", c="fp16", d="fp16")
    before = PlanPredictor(plan, known_of(old)).figures()
    found = PlanPredictor(plan, known_of(with_codings(old))).figures()
    names = [part.layers for part in plan.components]
    assert names == [("c1", "r1"), ("c2",), ("add",), ("c3",)]
    added = [x.ms - y.ms for x, y in zip(found.components, before.components, strict=True)]
    both = 1.5 + 0.75
    assert added == pytest.approx([1.5, both, both, 0.75])


def test_quantized_layers_pay_nothing_for_their_8_bits(chain: LoadedModel) -> None:
    old = noisy(chain)
    graph = build_layer_graph(chain.proto)
    plan = code_plan(placed(old, "aaaab"), chain, graph, ["c3"], ranges(chain))
    assert [plan.tensor(wire.tensor).name for wire in plan.wires] == ["d", "y"]
    assert all(wire.codec == "int8" for wire in plan.wires)
    paid = Known(chain, old.servers, with_codings(old).timings, old.network)
    assert predict_plan(plan, paid) == predict_plan(plan, known_of(old))
    half = code_plan(
        placed(old, "aaaab"), chain, graph, ["c3"], ranges(chain), wire_codecs={"d": "fp16"}
    )
    added = predict_plan(half, paid).latency_ms - predict_plan(half, known_of(old)).latency_ms
    assert added == pytest.approx(1.5 + 0.75)


def test_plans_with_codecs_are_predicted_as_the_planner_does(chain: LoadedModel) -> None:
    for item in (noisy(chain, wire_codecs=BOTH), mixed(chain, wire_codecs=BOTH, pins={"*": "b"})):
        asked = with_codings(item)
        planned = make_plan(asked, QUICK)
        assert any(wire.codec == "fp16" for wire in planned.plan.wires)
        found = predict_plan(planned.plan, known_of(asked))
        assert found.latency_ms == pytest.approx(planned.report.figures.latency_ms, rel=1e-12)


# -- what is not known ---------------------------------------------------------------------------


def test_codecs_that_are_used_and_not_measured_are_warned_of(chain: LoadedModel) -> None:
    old = mixed(chain, wire_codecs=BOTH, pins={"*": "b"})
    for item, names in ((old, "ab"), (with_codings(old, "b"), "a"), (with_codings(old), "")):
        planned = make_plan(item, QUICK)
        told = [text for text in planned.report.warnings if "timing profile" in text]
        assert len(told) == len(names)
        for name, text in zip(names, told, strict=True):
            assert f"coding and decoding in fp16 costs on '{name}' is not in its timing" in text
            assert f"`tritier profile --server {name} --force`" in text
        assert predict_plan(planned.plan, known_of(item)).warnings == tuple(told)
    assert make_plan(mixed(chain, pins={"*": "b"}), QUICK).report.warnings == ()


def test_nobody_is_warned_of_the_8_bits_of_quantized_layers(chain: LoadedModel) -> None:
    old = noisy(chain)
    graph = build_layer_graph(chain.proto)
    plan = code_plan(placed(old, "aaaab"), chain, graph, ["c3"], ranges(chain))
    assert predict_plan(plan, known_of(old)).warnings == ()
