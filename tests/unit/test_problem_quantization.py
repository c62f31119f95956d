"""What may be quantized in a placement problem, within which noise, and what is then 8 bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.models import load, spec
from tests.helpers.noise import NETWORK
from tests.helpers.planning import (
    ALL_GAIN,
    CHAIN,
    CONVS,
    LAYERS,
    TIMES,
    build,
    faults,
    noise,
    quantizing,
    timing,
)
from tritier.divider import quantized_tensors
from tritier.documents import (
    Assignment,
    Ranges,
)
from tritier.graph import LoadedModel, Quantizable, build_layer_graph, load_model, profile_model
from tritier.planner.evaluate import evaluate
from tritier.planner.problem import Placement
from tritier.resources import example_dir
from tritier.timing.durations import MIB
from tritier.workflow import plan_from_assignment
from tritier.workflow.problem import build_problem
from tritier.workflow.problem_noise import coding_layers, noise_rows, translated


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


# -- int8 ----------------------------------------------------------------------------------------


def test_int8_is_offered_where_it_gains(chain: LoadedModel) -> None:
    """Rule R7; c2 gains on b only, c1 on a only."""
    slow_b = {**ALL_GAIN, "c1": (8.0, 9.0)}
    both = {"a": timing(chain, "a"), "b": timing(chain, "b", slow_b)}
    item = quantizing(chain, timings=both)
    problem = build_problem(item).problem
    assert problem.quantizable == (1, 3, 5)
    inf = math.inf
    assert problem.int8_ms[1:-1].tolist() == [[5, inf], [inf, inf], [inf, 1], [inf, inf], [9, 9]]
    everywhere = build_problem(replace(item, int8_everywhere=True)).problem
    assert everywhere.int8_ms[1:-1].tolist() == [[5, 9], [inf, inf], [4, 1], [inf, inf], [9, 9]]


def test_a_layer_that_gains_nowhere_is_left_out_with_its_noise(chain: LoadedModel) -> None:
    built = build_problem(quantizing(chain, TIMES))
    assert built.quantizable == ("c1", "c3")
    assert built.never_quantized == ("c2",)
    (row,) = built.problem.noise.rows
    assert row.terms == {1: 9.0, 2: 1.0, 3: 5.0}
    # Where it is forbidden it can't gain either.
    item = quantizing(chain, forbidden={"c1": ["a"]}, pins={"c1": "b"})
    only_a = {"a": item.timings["a"], "b": timing(chain, "b", TIMES | {"c1": (8.0, None)})}
    assert build_problem(replace(item, timings=only_a)).quantizable == ("c2", "c3")


def test_without_noise_model_nothing_is_quantized_unless_it_may(chain: LoadedModel) -> None:
    assert build(chain).problem.quantizable == ()
    profile = profile_model(chain, None, Quantizable(layers=("c1", "c2")))
    free = build(chain, times=ALL_GAIN, profile=profile, unlimited_noise=True).problem
    assert free.quantizable == (1, 3)
    assert not free.noise.limits


def test_noise_without_a_limit_needs_permission(chain: LoadedModel) -> None:
    item = quantizing(chain, noise_limits={})
    assert "there is a noise model and no noise limit" in faults(item)
    free = build_problem(replace(item, unlimited_noise=True)).problem
    assert (free.quantizable, free.noise.limits) == ((1, 3, 5), False)


# -- noise ---------------------------------------------------------------------------------------


def test_masks_are_allowed_as_the_noise_model_predicts(chain: LoadedModel) -> None:
    item = quantizing(chain)
    built = build_problem(item)
    for mask in range(8):
        names = [name for bit, name in enumerate(CONVS) if mask >> bit & 1]
        predicted = item.noise[0].output("y").predict(names)
        assert built.problem.noise.allows(mask) == (predicted * 1.25 <= 2.5), names
    assert {mask for mask in range(8) if built.problem.noise.allows(mask)} == {0, 2, 4}


def test_rows_without_margin_and_with_a_share(chain: LoadedModel) -> None:
    built = build_problem(quantizing(chain))
    model = built.request.noise[0]
    assert built.problem.noise.rows[0].budget == (2.5 / 1.25) ** 2
    assert built.rows_for(model, share=0.5, with_margin=False)[0].budget == (2.5 * 0.5) ** 2
    (row,) = build_problem(quantizing(chain, noise_margin=False)).problem.noise.rows
    assert row.budget == 2.5**2
    (row,) = built.rows_for(model, {"y": 1.0})
    assert row.budget == pytest.approx(0.64)


def test_a_noise_model_without_margin_can_be_used_without_it(chain: LoadedModel) -> None:
    item = quantizing(chain, noise=[noise(chain, output={"margin": None})])
    assert "no margin makes predictions of 'y' safe" in faults(item)
    assert build_problem(replace(item, noise_margin=False)).problem.noise.rows[0].budget == 6.25


def test_refused_masks_are_brought_over(chain: LoadedModel) -> None:
    built = build_problem(quantizing(chain, TIMES))  # c1 and c3
    rows = built.rows_for(built.request.noise[0], {"y": 100.0})
    problem = built.with_noise(rows, [0b101, 0b110], of=CONVS)
    assert problem.noise.refused == {0b11}
    assert [problem.noise.allows(mask) for mask in range(4)] == [True, True, True, False]
    assert translated(0b11, ("p", "q"), ("q", "r", "p")) == 0b101
    assert translated(0b10, ("p", "q"), ("p",)) is None


def test_terms_of_the_same_layers_add_up(chain: LoadedModel) -> None:
    model = noise(chain, terms={"c1": 1.0, "c1 c2": 2.0, "c2 c1": 4.0})
    (row,) = noise_rows(model, {"y": 1.0}, ["c2", "c1"])
    assert row.terms == {2: 1.0, 3: 6.0}


def test_several_noise_models_all_count(chain: LoadedModel) -> None:
    """Only layers that all know; the rows of all; what no server or no noise model has is told."""
    unsigned = {"activation_type": "uint8"}
    other = noise(chain, ("c1", "c2"), {"c1": 1.0, "c2": 1.0}, quantization=unsigned)
    built = build_problem(quantizing(chain, noise=[noise(chain), other]))
    assert built.quantizable == ("c1", "c2")
    assert [row.terms for row in built.problem.noise.rows] == [
        {1: 9.0, 2: 4.0, 3: -2.0}, {1: 1.0, 2: 1.0},
    ]  # fmt: skip
    first, second = built.warnings
    assert "'c3' stay float: not all noise models know them" in first
    assert "learned with uint8 activations, int8 weights, which no server has" in second
    found = build_problem(quantizing(chain, noise=[other])).warnings
    assert [x.split(" quantizes")[0] for x in found[:2]] == ["server 'a'", "server 'b'"]


def test_layers_without_a_time_quantized_are_told(chain: LoadedModel) -> None:
    both = {"a": timing(chain, "a"), "b": timing(chain, "b", TIMES | {"c3": (16.0, None)})}
    (warning,) = build_problem(quantizing(chain, timings=both)).warnings
    assert warning.startswith("'c3' stay float on 'b', whose timing profile has no time")


def test_faults_of_noise_limits(chain: LoadedModel) -> None:
    found = faults(quantizing(chain, noise_limits={"z": 1.0, "y": -1.0}))
    assert "'z' is no output of the noise model" in found
    assert "a noise limit of -1.0 for 'y'" in found
    assert "'y' is limited, but there is no noise model" in faults(quantizing(chain, noise=[]))


# -- 8 bits --------------------------------------------------------------------------------------

MANY = """
    g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,2,2] z) <float[2,2,1,1] w = {1, 2, 3, 4}> {
      [conv] h = Conv(x, w) [relu] r = Relu(h) [pool] p = MaxPool<kernel_shape = [3, 3]>(r)
      [shape] s = Shape(r) [cast] f = Cast<to = 1>(s) [mean] m = ReduceMean<keepdims = 0>(f)
      [cat] k = Concat<axis = 1>(r, h) [split] q, unread = Split<axis = 1>(k)
      [sig] g1 = Sigmoid(q) [mul] u = Mul(g1, q) [soft] z = Softmax(p) [add] y = Add(u, m)
    }
"""
KINDS = ("conv", "relu", "pool", "shape", "cat", "sig", "mul", "soft", "add")


def eight_bit(model: LoadedModel, layers: Sequence[str]) -> set[str]:
    """What a plan has in 8 bits that quantizes these layers."""
    graph = build_layer_graph(model.proto)
    names = [*graph.inputs, *graph.source]
    nominal = Ranges(
        model_sha256=model.sha256, method="minmax", samples=1,
        ranges=dict.fromkeys(names, (-1.0, 1.0)),
    )  # fmt: skip
    rules = Assignment(default="a", quantized_layers=tuple(layers))
    return set(quantized_tensors(model.proto, graph, plan_from_assignment(
        model, rules, spec("a"), ranges=nominal
    )))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "layers"), [(CHAIN, LAYERS), (MANY, KINDS), (NETWORK, ("c1", "r1", "c2", "add", "c4"))]
)
def test_coding_layers_are_those_that_code_alone(
    tmp_path: Path, text: str, layers: tuple[str, ...]
) -> None:
    model = load(tmp_path, text)
    graph = build_layer_graph(model.proto)
    found = coding_layers(model.proto, graph, layers)
    for name in layers:
        assert {t for t, by in found.items() if name in by} == eight_bit(model, [name]), name
    for some in (layers[::2], layers[1::2]):
        assert {t for t, by in found.items() if set(by) & set(some)} == eight_bit(model, some)
    assert coding_layers(model.proto, graph, ()) == {}


def test_coding_layers_of_a_real_model() -> None:
    model = load_model(example_dir("super_resolution") / "espcn_x3.onnx")
    graph = build_layer_graph(model.proto)
    layers = [layer.name for layer in graph.layers if layer.op_type in ("Conv", "Relu")]
    found = coding_layers(model.proto, graph, layers)
    assert len(layers) > 4
    for name in layers:
        assert {t for t, by in found.items() if name in by} == eight_bit(model, [name]), name


@pytest.mark.parametrize("quantized", [(), ("c1",), ("c2",), ("c1", "c3")])
def test_what_crosses_in_8_bits_is_what_a_plan_codes(
    chain: LoadedModel, quantized: tuple[str, ...]
) -> None:
    built = build_problem(quantizing(chain))
    bits = dict(zip(built.quantizable, (1, 2, 4), strict=True))
    where = {"c1": "a", "r1": "b", "c2": "a", "add": "b", "c3": "b"}
    placed = Placement(
        tuple(int(where.get(name) == "b") for name in built.problem.layers),
        sum(bits[name] for name in quantized),
    )
    crossings = {
        (built.problem.flows[t].name, k, h): built.coded_bytes[t] if c else built.flow_bytes[t]
        for t, k, h, c, _ in evaluate(built.problem, placed).crossings
    }
    nominal = Ranges(
        model_sha256=chain.sha256, method="minmax", samples=1,
        ranges=dict.fromkeys("xabcdy", (-1.0, 1.0)),
    )  # fmt: skip
    rules = Assignment(layers=where, quantized_layers=quantized)
    plan = plan_from_assignment(chain, rules, built.request.servers, ranges=nominal)
    planned = {
        (plan.tensor(w.tensor).name, built.server_at[w.source], built.server_at[w.target]):
        plan.wire_bytes(w)
        for w in plan.wires
    }  # fmt: skip
    assert crossings == planned
    assert len(set(planned.values())) == (2 if quantized else 1)


def test_a_coded_tensor_has_a_quarter_of_the_bytes(chain: LoadedModel) -> None:
    built = build_problem(quantizing(chain, TIMES))  # c1 and c3
    problem = built.problem
    assert [flow.coded_by for flow in problem.flows] == [(1,), (1,), (), (), (5,), (5,)]
    assert built.coded_bytes.tolist() == [MIB / 4] * 6
    assert problem.coded_ms[1, 0, 1] == 4 + 3 + (100 + 5 + 4) / 4 + 0.5
    assert problem.coded_ms[2, 0, 1] == problem.transfer_ms[2, 0, 1]  # never in 8 bits
    assert built.codec_of(1, 0, 1, quantized=True) is None
    assert built.codec_of(1, 0, 1, quantized=False) == "as_is"
