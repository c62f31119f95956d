"""Plans whose int8 layers and coded wires make noise: predicted, measured and limited."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.helpers.models import load
from tests.helpers.planned import (
    Bench,
    hot,
    known,
    limit,
    mixed,
    noisy,
    ranges,
)
from tests.helpers.planning import (
    CHAIN,
)
from tritier.divider import WholeModel
from tritier.documents import Plan, WireNoise
from tritier.errors import InfeasibleError, InputError
from tritier.graph import LoadedModel
from tritier.noise import built_in
from tritier.timing.durations import MIB
from tritier.workflow.plan_noise import plan_noise
from tritier.workflow.planning import Planned, make_plan
from tritier.workflow.planning_goals import Goals
from tritier.workflow.planning_wires import with_one_wire
from tritier.workflow.problem_request import PlanningRequest


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


def test_wires_in_fp16_are_codecs_of_the_plan(chain: LoadedModel) -> None:
    wires: Any = {("a", "b"): ("as_is", "fp16")}
    found = make_plan(mixed(chain, wire_codecs=wires), Goals())
    codecs = {(wire.source, wire.target): wire.codec for wire in found.plan.wires}
    assert codecs == {("a", "b"): "fp16", ("b", "a"): "as_is"}
    sizes = {(x.source, x.target): x.bytes / x.tensors for x in found.report.links}
    assert sizes == {("a", "b"): MIB / 2, ("b", "a"): MIB}
    plain = make_plan(mixed(chain), Goals())
    assert found.report.figures.latency_ms < plain.report.figures.latency_ms


def test_wires_in_int8_take_their_ranges_along(chain: LoadedModel) -> None:
    wires: Any = {("a", "b"): ("as_is", "int8")}
    asking = mixed(chain, wire_codecs=wires, int8_tensors=("x",), ranges=ranges(chain))
    plan = make_plan(asking, Goals()).plan
    coded = {plan.tensor(wire.tensor).name: wire.codec for wire in plan.wires}
    assert coded == {"x": "int8", "b": "as_is", "d": "as_is", "y": "as_is"}


def of_noise(found: Planned) -> list[str]:
    """Warnings but those of what codecs cost, which these profiles don't know."""
    return [text for text in found.report.warnings if "timing profile" not in text]


def test_what_wires_lose_is_warned_of_where_it_is_not_measured(chain: LoadedModel) -> None:
    wires: Any = {("a", "b"): ("as_is", "fp16")}
    (warning,) = of_noise(make_plan(mixed(chain, wire_codecs=wires), Goals()))
    assert warning.startswith("'x', 'd' cross in fewer bits")
    assert make_plan(mixed(chain), Goals()).report.warnings == ()


def test_wires_that_make_a_plan_too_noisy_are_taken_back(chain: LoadedModel) -> None:
    """The one that makes the most noise alone first; layers are measured once."""
    wires: Any = {("a", "b"): ("as_is", "fp16")}
    bench = Bench(known(chain), {})
    alone = {"x": 2.0, "b": 0.5, "d": 0.1}
    seen = []

    def measure_plan(plan: Plan) -> dict[str, float]:
        coded = {plan.tensor(w.tensor).name for w in plan.wires if w.codec == "fp16"}
        seen.append((sorted(coded), bool(plan.quantized_layers)))
        return {"y": sum(alone[name] for name in coded)}

    check = replace(bench.check(), measure_plan=measure_plan)
    asking = noisy(chain, noise_limits={"y": 1.5}, wire_codecs=wires)
    unlimited = make_plan(asking, Goals())
    first = {
        unlimited.plan.tensor(w.tensor).name for w in unlimited.plan.wires if w.codec == "fp16"
    }
    assert "x" in first
    found = make_plan(asking, Goals(), check=check)
    coded = {found.plan.tensor(w.tensor).name for w in found.plan.wires if w.codec == "fp16"}
    assert "x" not in coded
    assert found.report.measured_noise["y"] <= 1.5
    assert of_noise(found) == []
    assert "x" in seen[0][0]
    assert (["x"], False) in seen
    assert len(bench.asked) == len(set(bench.asked))


def test_the_noise_of_a_plan_is_that_of_its_wires(chain: LoadedModel) -> None:
    """Against the model computed with rounded values by hand; an exact plan has none."""
    wires: Any = {("a", "b"): ("as_is", "fp16")}
    plan = make_plan(mixed(chain, wire_codecs=wires), Goals()).plan
    shape = [dim if isinstance(dim, int) else 1 for dim in plan.tensor(plan.inputs[0]).shape]
    images = [{"x": np.full(shape, value, np.float32)} for value in (0.1, 0.7)]
    metric = built_in("mean_abs")
    noise = plan_noise(plan, chain, images, metric)
    assert 0 < noise["y"] < 0.01 * np.abs(WholeModel(chain.path, "all").run(images[0])["y"]).mean()
    coded = [{"x": image["x"].astype(np.float16).astype(np.float32)} for image in images]
    x_only = with_one_wire(plan, "x")
    assert not x_only.is_exact
    model = WholeModel(chain.path, "all")
    pairs = [(model.run(a), model.run(b)) for a, b in zip(images, coded, strict=True)]
    expected = np.mean([metric.of_input(a, b, 0)["y"] for a, b in pairs])
    assert plan_noise(x_only, chain, images, metric)["y"] == pytest.approx(expected, rel=1e-3)
    exact = make_plan(mixed(chain), Goals()).plan
    assert plan_noise(exact, chain, images, metric) == {"y": 0.0}


def test_quantized_layers_are_in_the_plan_with_their_ranges(chain: LoadedModel) -> None:
    found = make_plan(noisy(chain), Goals())
    # Of squared noise (2.9 / 1.25)^2 = 5.4 is allowed: c2 and c3 have 5, c1 has 9.
    assert found.plan.quantized_layers == ("c2", "c3")
    assert found.plan.ranges is not None
    assert set(found.plan.ranges) >= {"b", "c", "d"}
    assert found.report.figures.quantized_layers == 2
    assert found.report.figures.noise == {"y": pytest.approx(5**0.5)}
    used = limit(found, "noise of y with its margin")
    assert used.used == pytest.approx(1.25 * 5**0.5)
    assert used.limit == pytest.approx(2.9)
    assert found.plan.predictions is not None
    assert found.plan.predictions.noise == pytest.approx(5**0.5)
    (gain,) = [x for x in make_plan(noisy(chain, noise_limits={"y": 2.7}), Goals()).report.gains
               if x.what == "+10 % noise"]  # fmt: skip
    assert gain.sum_ms == pytest.approx(-0.3)  # c2, beside c3


def test_a_plan_with_quantized_layers_needs_ranges(chain: LoadedModel) -> None:
    with pytest.raises(InputError, match=r"'c2', 'c3' are to be quantized.*--ranges"):
        make_plan(noisy(chain, ranges=None), Goals())
    with pytest.raises(InputError, match="'c3' is to be quantized"):
        make_plan(noisy(chain, ranges=None, noise_limits={"y": 1.3}), Goals())


# ------------------------------------------------------------------------------ measured noise


def test_a_choice_that_is_measured_too_noisy_is_refused(chain: LoadedModel) -> None:
    bench = Bench(known(chain), {"c2 c3": 3.5})
    said: list[str] = []
    found = make_plan(
        noisy(chain, noise_limits={"y": 2.5}), Goals(), check=bench.check(), report=said.append
    )
    # Without a margin 6.25 is allowed: c2 and c3 are predicted with 5, and measured with 3.5^2.
    assert bench.asked[0] == "c2 c3"
    assert found.plan.quantized_layers == ("c3",)
    report = found.report
    assert report.measured_noise == {"y": pytest.approx(1.0)}
    assert report.noise_runs == len(bench.asked) == len(set(bench.asked))
    assert "measuring the noise of 2 int8 layers" in said
    assert found.plan.predictions is not None
    assert found.plan.predictions.noise == pytest.approx(1.0)
    (model,) = found.noise
    assert {frozenset(x.layers) for x in model.measured if x.use == "pick"} == {
        frozenset(layers.split()) for layers in bench.asked
    }


def test_what_was_measured_stands_in_the_report(chain: LoadedModel) -> None:
    """A choice that is predicted a little above the limit may be measured below it."""
    bench = Bench(known(chain), {"c2 c3": 2.2, "c2": 2.3})
    found = make_plan(noisy(chain, noise_limits={"y": 2.21}), Goals(), check=bench.check())
    # Predicted is 2.236, above the limit and within 2 % of it.
    assert found.plan.quantized_layers == ("c2", "c3")
    assert found.report.measured_noise == {"y": 2.2}
    used = limit(found, "noise of y, measured")
    assert (used.used, used.limit, used.binding) == (2.2, 2.21, True)


@pytest.mark.parametrize("objective", ["energy", "weighted", "throughput", "makespan"])
def test_noise_is_measured_for_every_objective(chain: LoadedModel, objective: Any) -> None:
    bench = Bench(known(chain), {"c2 c3": 3.5})
    goals = Goals(objective=objective, search_s=0.1, explain=False)
    asking = noisy(chain, noise_limits={"y": 2.5}, uses_energy=True)
    found = make_plan(asking, goals, check=bench.check())
    assert found.report.measured_noise["y"] <= 2.5
    assert found.plan.quantized_layers != ("c2", "c3")


def test_measured_choices_that_all_are_too_noisy(chain: LoadedModel) -> None:
    """A limit of latency that needs int8, of which no choice is quiet enough."""
    free = make_plan(noisy(chain, noise_limits={"y": 1.3}), Goals())
    assert free.plan.quantized_layers == ("c3",)
    asking = noisy(chain, noise_limits={"y": 1.3}, latency_ms=free.report.figures.sum_ms + 0.1)
    told = dict.fromkeys(["c3", "c2", "c1", "c2 c3"], 9.0)
    with pytest.raises(InfeasibleError) as caught:
        make_plan(asking, Goals(), check=Bench(known(chain), told).check())
    text = str(caught.value)
    assert "latency, at most" in text
    assert re.search(r"noise of 'y', at most 1.3: |measured as too noisy: one of them", text)
    asking = replace(asking, noise_limits={"y": 2.4})
    with pytest.raises(InfeasibleError, match="--noise-runs"):
        make_plan(asking, Goals(), check=Bench(known(chain), told).check(runs=1))


def test_other_limits_that_conflict_are_named_when_noise_is_measured(chain: LoadedModel) -> None:
    bench = Bench(known(chain), {})
    with pytest.raises(InfeasibleError) as caught:
        make_plan(noisy(chain, latency_ms=0.5), Goals(), check=bench.check())
    assert "latency, at most 0.5 ms: " in str(caught.value)
    assert "noise" not in str(caught.value)
    assert bench.asked == []


def test_noise_is_measured_in_one_format_only(chain: LoadedModel) -> None:
    asking = noisy(chain, noise=[known(chain), known(chain)])
    with pytest.raises(InputError, match="2 noise models"):
        make_plan(asking, Goals(), check=Bench(known(chain), {}).check())


# ------------------------------------------------------------------------------ wires and layers

FP16: Any = {("a", "b"): ("as_is", "fp16")}


def wired(model: LoadedModel, noise_of_x: float, **changes: Any) -> PlanningRequest:
    """With what x loses in fp16. Squared noise of 5.38 is allowed, of which c2 and c3 take 5."""
    lost = WireNoise(tensor="x", codec="fp16", noise={"y": noise_of_x}, inputs=2)
    return noisy(model, noise=[known(model).with_wires([lost])], wire_codecs=FP16, **changes)


def coded(plan: Plan) -> set[str]:
    return {plan.tensor(wire.tensor).name for wire in plan.wires if wire.codec == "fp16"}


@pytest.mark.parametrize(
    ("noise_of_x", "codes", "layers"),
    [
        (0.5, {"x"}, ("c2", "c3")),  # both fit
        (1.8, {"x"}, ("c3",)),  # the wire is worth 3 ms, c2 in int8 0.3 ms
        (2.2, set(), ("c2", "c3")),  # c3 in int8, and what it makes in 8 bits, is worth more
        (2.5, set(), ("c2", "c3")),  # the wire alone is too noisy
    ],
)
def test_wires_and_layers_share_what_the_limit_allows(
    chain: LoadedModel, noise_of_x: float, codes: set[str], layers: tuple[str, ...]
) -> None:
    found = make_plan(wired(chain, noise_of_x), Goals())
    assert (coded(found.plan), found.plan.quantized_layers) == (codes, layers)
    squares = known(chain).output("y").predict(layers) ** 2 + bool(codes) * noise_of_x**2
    assert found.report.figures.noise["y"] == pytest.approx(squares**0.5)
    used = limit(found, "noise of y with its margin")
    assert used.used == pytest.approx(1.25 * squares**0.5)
    assert used.limit == pytest.approx(2.9)
    assert found.report.gap == 0
    assert of_noise(found) == []


@pytest.mark.parametrize("objective", ["energy", "weighted", "throughput", "makespan"])
def test_codecs_are_weighed_for_every_objective(chain: LoadedModel, objective: Any) -> None:
    goals = Goals(objective=objective, search_s=0.1, explain=False, latency_weight=0.7)
    for noise_of_x in (1.8, 2.5):
        asking = wired(chain, noise_of_x, uses_energy=True)
        found = make_plan(asking, goals)
        assert found.report.figures.noise["y"] * 1.25 <= 2.9 + 1e-9
        assert found.report.bound <= found.report.value * (1 + 1e-9)
        assert coded(found.plan) <= ({"x"} if noise_of_x == 1.8 else set())


def test_the_front_and_a_weight_of_all_or_nothing(chain: LoadedModel) -> None:
    """The ends of a weighted objective are those of latency and of energy alone."""
    asking = replace(hot(chain), noise=wired(chain, 1.8).noise, noise_limits={"y": 2.9},
                     wire_codecs=FP16, ranges=ranges(chain))  # fmt: skip
    for weight, objective in ((1.0, "latency"), (0.0, "energy")):
        goals = Goals(objective="weighted", latency_weight=weight, explain=False)
        alone = make_plan(asking, Goals(objective=objective, explain=False)).report.figures  # type: ignore[arg-type]
        found = make_plan(asking, goals).report.figures
        assert (found.sum_ms, found.energy_joule) == pytest.approx(
            (alone.sum_ms, alone.energy_joule)
        )


@pytest.mark.parametrize("formulation", ["labels", "thesis"])
def test_programs_weigh_the_same_codecs(chain: LoadedModel, formulation: Any) -> None:
    asking = wired(chain, 1.8)
    best = make_plan(asking, Goals(explain=False)).report.figures.sum_ms
    goals = Goals(solver="highs", formulation=formulation, explain=False)
    assert make_plan(asking, goals).report.figures.sum_ms == pytest.approx(best)


def test_limits_that_need_a_codec_that_is_too_noisy_are_infeasible(chain: LoadedModel) -> None:
    quick = make_plan(wired(chain, 0.5), Goals()).report.figures.sum_ms
    asking = wired(chain, 2.2, latency_ms=quick + 0.5)
    with pytest.raises(InfeasibleError, match="latency, at most"):
        make_plan(asking, Goals())


def test_what_a_wire_loses_is_measured_once_and_then_weighed(chain: LoadedModel) -> None:
    """Nothing is known: the whole plan is too noisy, so the wire is measured alone, and int8 layers
    give way."""
    bench = Bench(known(chain), {})
    runs: list[tuple[set[str], int]] = []

    def measure_plan(plan: Plan) -> dict[str, float]:
        runs.append((coded(plan), len(plan.quantized_layers)))
        layers = known(chain).output("y").predict(plan.quantized_layers) ** 2
        return {"y": (layers + 1.8**2 * ("x" in coded(plan))) ** 0.5, "other": 1.0}

    check = replace(bench.check(), measure_plan=measure_plan)
    asking = noisy(chain, noise_limits={"y": 2.3}, wire_codecs=FP16)
    found = make_plan(asking, Goals(), check=check)
    assert (coded(found.plan), found.plan.quantized_layers) == ({"x"}, ("c3",))
    assert runs == [({"x"}, 2), ({"x"}, 0), ({"x"}, 1)]
    assert found.report.measured_noise["y"] == pytest.approx((1 + 1.8**2) ** 0.5)
    (model,) = found.noise
    (wire,) = model.wires
    assert (wire.tensor, wire.codec) == ("x", "fp16")
    assert wire.noise == {"y": pytest.approx(1.8)}
    again = make_plan(replace(asking, noise=found.noise), Goals(), check=check)
    assert again.plan.quantized_layers == ("c3",)
    assert len(runs) == 4  # the plan, to be sure
