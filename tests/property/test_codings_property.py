"""Whatever codecs cost: solvers agree with brute force, and the sums with the components."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.compared import known_of, placed
from tests.helpers.examples import examples
from tests.helpers.models import load
from tests.helpers.planned import FAST, NEAR, SLOW, ranges
from tests.helpers.planning import ALL_GAIN, CHAIN, quantizing, request, timing
from tests.helpers.problems import brute_force
from tritier.documents import Plan
from tritier.graph import LoadedModel, build_layer_graph
from tritier.planner.evaluate import evaluate
from tritier.planner.problem import Placement, Weights
from tritier.planner.pulp_model import solve_pulp
from tritier.planner.search import solve
from tritier.workflow.coding import code_plan
from tritier.workflow.compare import predict_plan
from tritier.workflow.problem import build_problem
from tritier.workflow.problem_request import WIRE_CODECS, PlanningRequest

LINKS = (("a", "b"), ("b", "a"))
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


def drawn_codings(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Of fp16 and int8: some cheap, some dearer than any link."""
    keys = ("encoding_ms", "encoding_ms_per_mib", "decoding_ms", "decoding_ms_per_mib")
    return [
        {"codec": codec} | {key: float(rng.choice([0, 0.5, 4, 20]) * rng.random()) for key in keys}
        for codec in WIRE_CODECS[1:]
    ]


def drawn(model: LoadedModel, rng: np.random.Generator, **changes: Any) -> PlanningRequest:
    """Profiles with drawn costs of codecs; int8 layers within a limit of noise."""
    times = ((SLOW, FAST), (ALL_GAIN, ALL_GAIN))[int(rng.integers(2))]
    timings = {
        name: timing(model, name, of, codings=drawn_codings(rng))
        for name, of in zip("ab", times, strict=True)
    }
    asked = {"timings": timings, "network": NEAR, "int8_tensors": ["[xbd]"]}
    return quantizing(model, ranges=ranges(model), **{**asked, **changes})


def coded(plan: Plan, model: LoadedModel) -> Plan:
    graph = build_layer_graph(model.proto)
    return code_plan(plan, model, graph, wire_codec="fp16") if plan.wires else plan


@settings(max_examples=examples(15), deadline=None)
@given(SEEDS)
def test_solvers_find_what_brute_force_finds(chain: LoadedModel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = build_problem(drawn(chain, rng, wire_codecs=dict.fromkeys(LINKS, WIRE_CODECS)))
    weights = (Weights(1.0, 0.0), Weights(0.0, 1.0), Weights(0.7, 30.0))[seed % 3]
    best, _ = brute_force(problem.problem, weights)
    for found in (solve(problem.problem, weights), solve_pulp(problem.problem, weights)):
        assert found.placement is not None
        value = evaluate(problem.problem, found.placement).value(weights)
        assert found.value == pytest.approx(value, rel=1e-9)
        assert value == pytest.approx(best, rel=2e-6)


@settings(max_examples=examples(15), deadline=None)
@given(SEEDS)
def test_each_tensor_has_the_codec_that_is_quickest_with_coding(
    chain: LoadedModel, seed: int
) -> None:
    """Each codec by itself is a problem of its own; quantized layers know of none."""
    request = drawn(chain, np.random.default_rng(seed))
    several = build_problem(replace(request, wire_codecs=dict.fromkeys(LINKS, WIRE_CODECS)))
    alone = [
        build_problem(replace(request, wire_codecs=dict.fromkeys(LINKS, (codec,)))).problem
        for codec in WIRE_CODECS
    ]
    every = np.stack([problem.transfer_ms for problem in alone])
    assert several.problem.transfer_ms == pytest.approx(every.min(axis=0))
    paired = [bool(flow.coded_by) for flow in several.problem.flows]
    for problem in alone:
        assert (problem.coded_ms[paired] == several.problem.coded_ms[paired]).all()


@settings(max_examples=examples(15), deadline=None)
@given(SEEDS, st.lists(st.sampled_from("ab"), min_size=5, max_size=5))
def test_components_take_what_the_sums_count_for_codecs(
    chain: LoadedModel, seed: int, letters: list[str]
) -> None:
    """Where one component reads a tensor on a server, as in every plan of this model."""
    rng = np.random.default_rng(seed)
    free = request(chain, wire_codecs=dict.fromkeys(LINKS, ("fp16",)))
    timings = {n: timing(chain, n, codings=drawn_codings(rng)) for n in "ab"}
    paid = replace(free, timings=timings)
    plan = coded(placed(free, "".join(letters)), chain)
    placement = Placement((0, *("ab".index(letter) for letter in letters), 0))
    sums = [evaluate(build_problem(x).problem, placement).latency_ms for x in (free, paid)]
    figures = [predict_plan(plan, known_of(x)) for x in (free, paid)]
    times = [sum(part.ms for part in found.components) for found in figures]
    assert sums[1] - sums[0] == pytest.approx(times[1] - times[0], abs=1e-6)
    assert figures[1].messages == figures[0].messages
    assert figures[1].latency_ms >= figures[0].latency_ms - 1e-9
