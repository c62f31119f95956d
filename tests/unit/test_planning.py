"""Plans from documents: what they choose, what their reports say, and why there is none."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tests.helpers.models import load
from tests.helpers.planning import (
    ALL_GAIN,
    CHAIN,
    LAYERS,
    link,
    network,
    noise,
    request,
    timing,
)
from tests.helpers.problems import brute_force
from tritier.divider import WholeModel
from tritier.documents import LimitUse, NoiseModel, Objective, Plan, Ranges, TimingProfile
from tritier.errors import InfeasibleError, InputError, UsageError
from tritier.graph import LoadedModel
from tritier.noise import built_in
from tritier.planner.baselines import Baseline
from tritier.planner.evaluate import evaluate
from tritier.planner.problem import Weights
from tritier.planner.pulp_bottleneck import bottleneck_ms
from tritier.planner.simulate import latency_ms, throughput
from tritier.planner.solution import Status, without
from tritier.timing.durations import MIB
from tritier.workflow import planning_search
from tritier.workflow.plan_noise import plan_noise
from tritier.workflow.planning import NoiseCheck, Planned, make_plan, plan_built
from tritier.workflow.planning_figures import Predictor
from tritier.workflow.planning_goals import Goals
from tritier.workflow.planning_wires import with_one_wire
from tritier.workflow.problem import build_problem, replan
from tritier.workflow.problem_request import PlanningRequest

# 4 ms per MiB and 2 ms per message: a tensor's way takes 6 ms and what serving takes.
NEAR = network(link("a", "b", 250, 4), link("b", "a", 250, 4))
SLOW = {name: (10 * slow, None if fast is None else 10 * fast)
        for name, (slow, fast) in ALL_GAIN.items()}  # fmt: skip
FAST = {name: (slow / 10, None if fast is None else fast / 10)
        for name, (slow, fast) in ALL_GAIN.items()}  # fmt: skip
# Good on a: c2 and add. Good on b: c1 and c3. The best plan is no baseline.
ON_A = {"c1": (90.0, None), "r1": (3.0, None), "c2": (2.0, None), "add": (1.0, None),
        "c3": (90.0, None)}  # fmt: skip
ON_B = {"c1": (3.0, None), "r1": (1.0, None), "c2": (80.0, None), "add": (80.0, None),
        "c3": (3.0, None)}  # fmt: skip
# Quick, or thrifty.
HOT = {"compute_power_watt": 900.0}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


def asked(model: LoadedModel, a: Any = SLOW, b: Any = FAST, **changes: Any) -> PlanningRequest:
    """Two servers with layer times of their own, near to each other."""
    timings: dict[str, TimingProfile] = {"a": timing(model, "a", a), "b": timing(model, "b", b)}
    return request(model, **{"timings": timings, "network": NEAR, **changes})


def mixed(model: LoadedModel, **changes: Any) -> PlanningRequest:
    return asked(model, ON_A, ON_B, **changes)


def ranges(model: LoadedModel) -> Ranges:
    names = dict.fromkeys("xabcdy", (-4.0, 4.0))
    return Ranges(model_sha256=model.sha256, method="minmax", samples=1, ranges=names)


def known(model: LoadedModel) -> NoiseModel:
    """With samples that are as its terms say, of an input each."""
    squares = {"c1": 9.0, "c2": 4.0, "c3": 1.0, "c1 c2": 11.0, "c1 c3": 15.0, "c2 c3": 5.0}
    measured = [
        {"layers": names.split(), "use": "design", "noise": {"y": square**0.5}, "inputs": 1}
        for names, square in squares.items()
    ]
    return noise(model, measured=measured)


def noisy(model: LoadedModel, **changes: Any) -> PlanningRequest:
    """Noise of y, squared: c1 9, c2 4, c3 1, c1 c2 -2, c1 c3 5; the margin is 1.25."""
    given = {"noise": [known(model)], "noise_limits": {"y": 2.9}, "ranges": ranges(model)}
    return asked(model, **{**given, **changes})


def hot(model: LoadedModel) -> PlanningRequest:
    """Between latency and energy there is a choice."""
    found = mixed(model, uses_energy=True)
    powers = [
        server if server.name == "a" else server.model_copy(update=HOT)
        for server in found.servers.servers
    ]
    return replace(found, servers=found.servers.model_copy(update={"servers": tuple(powers)}))


def servers_of(plan: Plan) -> dict[str, str]:
    found = {layer: part.server for part in plan.components for layer in part.layers}
    return {layer: found[layer] for layer in LAYERS}


def limit(found: Planned, what: str) -> LimitUse:
    (item,) = [item for item in found.report.limits if item.what == what]
    return item


# ------------------------------------------------------------------------------ objectives


def test_the_quickest_plan_is_what_brute_force_finds(chain: LoadedModel) -> None:
    found = make_plan(mixed(chain), Goals())
    best, placement = brute_force(found.built.problem, Weights(1.0, 0.0))
    assert found.found.placement == placement
    assert servers_of(found.plan) == {"c1": "b", "r1": "b", "c2": "a", "add": "a", "c3": "b"}
    assert found.report.value == found.report.figures.sum_ms == pytest.approx(best)
    assert (found.report.status, found.report.gap) == ("proven optimal", 0.0)
    assert found.report.latency_weight is None


def test_energy_alone_and_weighted(chain: LoadedModel) -> None:
    problem = build_problem(hot(chain)).problem
    thrifty = make_plan(hot(chain), Goals(objective="energy"))
    best, _ = brute_force(problem, Weights(0.0, 1.0))
    assert thrifty.report.value == thrifty.report.figures.energy_joule == pytest.approx(best)
    quick = make_plan(hot(chain), Goals())
    assert thrifty.report.figures.energy_joule < quick.report.figures.energy_joule
    assert thrifty.report.figures.sum_ms > quick.report.figures.sum_ms
    for weight in (0.0, 0.3, 1.0):
        found = make_plan(hot(chain), Goals(objective="weighted", latency_weight=weight))
        assert found.report.latency_weight == weight
        ends = found.found.ends
        assert ends is not None
        best, _ = brute_force(problem, ends.weights(weight))
        costs = evaluate(problem, found.found.solution.placement)  # type: ignore[arg-type]
        assert costs.value(ends.weights(weight)) == pytest.approx(best)
    assert found.plan.components == quick.plan.components


def test_throughput_keeps_the_busiest_least_busy(chain: LoadedModel) -> None:
    found = make_plan(mixed(chain), Goals(objective="throughput"))
    placement = found.found.placement
    assert placement is not None
    costs = evaluate(found.built.problem, placement)
    assert found.report.value == pytest.approx(bottleneck_ms(costs))
    assert found.report.figures.bottleneck_ms == bottleneck_ms(costs)
    baselines = [item.figures.bottleneck_ms for item in found.report.baselines]
    assert found.report.figures.bottleneck_ms <= min(baselines)
    assert (found.report.alternatives, found.report.gains) == ((), ())


def test_makespan_is_simulated_and_has_a_bound(chain: LoadedModel) -> None:
    found = make_plan(mixed(chain), Goals(objective="makespan", search_s=0.2))
    report = found.report
    assert report.value == pytest.approx(report.figures.latency_ms)
    assert 0 < report.bound <= report.value
    summed = make_plan(mixed(chain), Goals())
    assert report.figures.latency_ms <= summed.report.figures.latency_ms * (1 + 1e-9)
    assert "local search" in report.method


@pytest.mark.parametrize("formulation", ["labels", "thesis"])
@pytest.mark.parametrize("objective", ["latency", "energy", "weighted"])
def test_integer_programs_agree(chain: LoadedModel, formulation: Any, objective: Any) -> None:
    """Both formulations, with the search and with each other."""
    goals = Goals(objective=objective, latency_weight=0.4, explain=False)
    expected = make_plan(hot(chain), goals)
    found = make_plan(hot(chain), replace(goals, formulation=formulation, solver="HiGHS"))
    assert found.report.value == pytest.approx(expected.report.value, rel=1e-5)
    assert found.report.figures == expected.report.figures
    assert "PuLP" in found.report.method


@pytest.mark.parametrize("objective", ["throughput", "makespan"])
def test_solver_and_formulation_are_not_for_every_objective(
    chain: LoadedModel, objective: Any
) -> None:
    with pytest.raises(UsageError, match=f"not for {objective}"):
        make_plan(mixed(chain), Goals(objective=objective, solver="HiGHS"))
    with pytest.raises(UsageError, match=f"not for {objective}"):
        make_plan(mixed(chain), Goals(objective=objective, formulation="thesis"))


# ------------------------------------------------------------------------------ reports


@pytest.mark.parametrize("objective", get_args(Objective))
def test_figures_are_those_of_evaluation_and_simulation(chain: LoadedModel, objective: Any) -> None:
    found = make_plan(mixed(chain, uses_energy=True), Goals(objective=objective, search_s=0.1))
    problem, placement, report = found.built.problem, found.found.placement, found.report
    assert placement is not None
    costs = evaluate(problem, placement)
    pipeline = Predictor(found.built, overlap=objective == "makespan").pipeline(placement)
    figures = report.figures
    assert figures.sum_ms == costs.latency_ms
    assert figures.energy_joule == costs.energy_joule
    assert figures.latency_ms == latency_ms(pipeline)
    assert figures.components == len(found.plan.components)
    assert found.plan.predictions is not None
    assert found.plan.predictions.latency_ms == figures.latency_ms
    assert found.plan.predictions.energy_joule == figures.energy_joule
    assert report.plan_id == found.plan.id
    for share, k in zip(report.servers, range(2), strict=True):
        assert share.compute_ms == costs.server_ms[k]
        assert share.energy_joule == costs.server_energy_joule[k]
        assert share.memory_bytes == round(costs.memory_bytes[k])
        assert share.layers == list(servers_of(found.plan).values()).count(share.server)
    assert sum(share.components for share in report.servers) == figures.components
    compute_ms = sum(share.compute_ms for share in report.servers)
    transfer_ms = sum(share.transfer_ms for share in report.links)
    assert compute_ms + transfer_ms == pytest.approx(figures.sum_ms)
    assert sum(share.tensors for share in report.links) == len(costs.crossings)
    assert sum(share.bytes for share in report.links) == MIB * len(costs.crossings)
    for entry in report.throughput:
        simulated = throughput(pipeline, entry.concurrency)
        assert entry.infer_per_s == simulated.infer_per_s
        assert entry.latency_ms == simulated.mean_ms
    assert [entry.concurrency for entry in report.throughput] == [1, 2, 4, 8]
    assert report.throughput[0].latency_ms == pytest.approx(figures.latency_ms)


def test_baselines_are_all_in_the_table(chain: LoadedModel) -> None:
    report = make_plan(mixed(chain, memory_mib={"b": 19.0}), Goals()).report
    table = {item.what: item for item in report.baselines}
    assert list(table) == ["all on a", "all on b, raw input", "best single cut to b, after 'add'"]
    assert not any(item.chosen for item in report.baselines)
    assert table["all on a"].figures.sum_ms == pytest.approx(184 + 1 + 0.5, abs=2)
    # Of c3's 16 bytes and 3 MiB of tensors, as a model takes twice and thrice, and 10 for nothing.
    assert table["all on b, raw input"].broken == ("memory of b: 19 MiB of 19",)
    assert all(
        report.figures.latency_ms < item.figures.latency_ms
        for item in report.baselines
        if not item.broken
    )


def test_a_baseline_that_nothing_beats_is_the_plan(chain: LoadedModel) -> None:
    found = make_plan(asked(chain), Goals())
    assert set(servers_of(found.plan).values()) == {"b"}
    assert [item.what for item in found.report.baselines if item.chosen] == ["all on b, raw input"]


def test_a_baseline_wins_where_the_simulation_prefers_it(
    chain: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule R8: what was solved has the least sum, and that is not what users wait for."""
    plain = make_plan(mixed(chain), Goals())
    original = Predictor.predict

    def predict(self: Predictor, placement: Any) -> Any:
        """As if what is all on one server were simulated to take no time."""
        found = original(self, placement)
        inner = set(placement.servers[1:-1])
        return replace(found, simulated_ms=0.5) if len(inner) == 1 else found

    monkeypatch.setattr(Predictor, "predict", predict)
    found = make_plan(mixed(chain), Goals())
    assert set(servers_of(found.plan).values()) == {"a"}
    assert found.found.solution.placement == plain.found.placement
    assert isinstance(found.found.baseline, Baseline)
    assert [item.what for item in found.report.baselines if item.chosen] == ["all on a"]
    # One that breaks a limit never does.
    strict = make_plan(mixed(chain, latency_ms=100.0), Goals())
    assert servers_of(strict.plan) == servers_of(plain.plan)


def test_alternatives_and_front(chain: LoadedModel) -> None:
    found = make_plan(hot(chain), Goals(front=3))
    report = found.report
    # "on a only" is a baseline, and stands there
    assert [item.what for item in report.alternatives] == ["the nearest other placement"]
    assert all(item.figures.sum_ms >= report.figures.sum_ms for item in report.alternatives)
    points = [(item.figures.sum_ms, item.figures.energy_joule) for item in report.front]
    assert len(points) >= 3
    assert points == sorted(points)
    assert [joule for _, joule in points] == sorted((joule for _, joule in points), reverse=True)
    assert points[0][0] == pytest.approx(report.figures.sum_ms)
    best, _ = brute_force(found.built.problem, Weights(0.0, 1.0))
    assert points[-1][1] == pytest.approx(best)
    assert report.front[0].supported
    bare = make_plan(hot(chain), Goals(explain=False)).report
    assert (bare.alternatives, bare.gains, bare.front) == ((), (), ())
    assert bare.baselines == report.baselines


def test_planning_again_for_another_network_takes_over_what_stays(chain: LoadedModel) -> None:
    first = make_plan(asked(chain), Goals())
    slower = network(link("a", "b", 0.1, 400), link("b", "a", 0.1, 400))
    again = plan_built(replan(first.built, slower), Goals(), earlier=first)
    assert again.found.search.order == first.found.search.order
    assert again.built.problem.noise is first.built.problem.noise
    fresh = make_plan(asked(chain, network=slower), Goals())
    assert again.plan == fresh.plan
    assert again.report.figures == fresh.report.figures
    assert servers_of(again.plan) != servers_of(first.plan)


def test_sources_and_warnings_are_told(chain: LoadedModel) -> None:
    found = make_plan(asked(chain, network=network(link("a", "b", 250, 4))), Goals())
    assert found.report.sources["link a -> b"] == "measured"
    assert found.report.sources["times on b"] == "measured"
    (warning,) = found.report.warnings
    assert "b -> a" in warning


# ------------------------------------------------------------------------------ limits and gains


def test_limits_are_kept_and_told(chain: LoadedModel) -> None:
    free = make_plan(mixed(chain), Goals()).report.figures
    found = make_plan(
        mixed(
            chain,
            latency_ms=free.sum_ms * 1.005,
            energy_joule=50.0,
            server_energy_joule={"a": 9.0},
            memory_mib={"b": 40.0},
        ),
        Goals(),
    )
    costs = evaluate(found.built.problem, found.found.placement)  # type: ignore[arg-type]
    assert [item.what for item in found.report.limits] == [
        "latency", "energy", "energy of a", "memory of b",
    ]  # fmt: skip
    latency = limit(found, "latency")
    assert (latency.unit, latency.binding) == ("ms", True)
    assert latency.used == costs.latency_ms
    assert limit(found, "energy").used == costs.energy_joule
    assert not limit(found, "energy").binding
    assert limit(found, "energy of a").used == costs.server_energy_joule[0]
    memory = limit(found, "memory of b")
    assert (memory.unit, memory.limit) == ("MiB", 40.0)
    # What the user allows is for the server itself, too.
    assert memory.used == pytest.approx(costs.memory_bytes[1] / MIB + 10)


def test_gains_are_what_solving_again_brings(chain: LoadedModel) -> None:
    free = make_plan(mixed(chain), Goals())
    gains = {item.what: item for item in free.report.gains}
    assert {"+1 MiB/s on a -> b", "half the round trip of b -> a"} <= set(gains)
    better = network(link("a", "b", 251, 4), link("b", "a", 250, 4))
    again = plan_built(replan(free.built, better), Goals())
    gain = gains["+1 MiB/s on a -> b"]
    assert gain.sum_ms == pytest.approx(again.report.value - free.report.value)
    assert gain.sum_ms < 0
    assert all(item.sum_ms < 0 for item in free.report.gains)
    values = [item.sum_ms for item in free.report.gains]
    assert values == sorted(values)


def test_an_energy_limit_that_binds_is_tried_looser(chain: LoadedModel) -> None:
    full = make_plan(asked(chain), Goals(explain=False))
    most = full.report.servers[1].energy_joule / 1.05
    found = make_plan(asked(chain, server_energy_joule={"b": most}), Goals())
    (gain,) = [item for item in found.report.gains if item.what == "+10 % energy on b"]
    assert gain.sum_ms == pytest.approx(full.report.value - found.report.value)
    assert gain.sum_ms < 0


def test_a_memory_limit_that_binds_is_tried_looser(chain: LoadedModel) -> None:
    """A tenth of all that the user allows: 13.2 MiB, of which the server itself takes 10."""
    memory = {
        "weight_bytes": 1, "measured_bytes": 1, "weight_factor": MIB / 4.0,
        "activation_factor": 0.0001, "process_bytes": 10 * MIB,
    }  # fmt: skip
    timings = {"a": timing(chain, "a", SLOW), "b": timing(chain, "b", FAST, memory=memory)}
    full = make_plan(asked(chain, timings=timings), Goals(explain=False))
    assert full.report.servers[1].memory_bytes == pytest.approx(4 * MIB, rel=0.01)
    found = make_plan(asked(chain, timings=timings, memory_mib={"b": 13.2}), Goals())
    assert found.report.servers[1].layers < 5
    (gain,) = [item for item in found.report.gains if item.what == "+10 % memory on b"]
    assert gain.sum_ms == pytest.approx(full.report.value - found.report.value)
    assert gain.sum_ms < 0


def test_fewer_components(chain: LoadedModel) -> None:
    free = make_plan(mixed(chain), Goals())
    assert free.report.figures.components == 3
    for objective in ("latency", "throughput", "makespan"):
        goals = Goals(objective=objective, max_components=2, search_s=0.1)
        found = make_plan(mixed(chain), goals)
        assert len(found.plan.components) == found.report.figures.components <= 2
        assert found.report.value >= found.report.bound
        if objective == "throughput":
            assert found.report.value == pytest.approx(found.report.figures.bottleneck_ms)
        if objective == "makespan":
            assert found.report.value == pytest.approx(found.report.figures.latency_ms)
    assert make_plan(mixed(chain), Goals(max_components=3)).plan.id == free.plan.id


def test_fewer_components_may_take_more_crossings(tmp_path: Path) -> None:
    """The last layer reads the input, too: on the entry it is a component more, and fewer tensors
    cross than where the layer before it is."""
    text = """
        g (float[1,1,512,512] x) => (float[1,1,512,512] y) {
          [n1] a = Neg(x) [n2] b = Relu(a) [n3] c = Neg(b) [add] y = Add(c, x)
        }
    """
    model = load(tmp_path, text)
    pairs = [(a, b) for a in "abc" for b in "abc" if a != b]
    times = dict.fromkeys(("n1", "n2", "n3", "add"), (1.0, None))
    asking = request(
        model, "abc", times, pins={"n1": "a", "n2": "b", "n3": "c"},
        timings={name: timing(model, name, times, borders=[]) for name in "abc"},
        network=network(*(link(a, b, 100, 4) for a, b in pairs), names="abc"),
    )  # fmt: skip
    free = make_plan(asking, Goals(explain=False))
    assert [part.server for part in free.plan.components] == ["a", "b", "c", "a"]
    few = make_plan(asking, Goals(explain=False, max_components=3))
    assert [part.server for part in few.plan.components] == ["a", "b", "c"]
    assert len(few.plan.wires) > len(free.plan.wires)
    assert few.report.bound == free.report.value < few.report.value


def test_too_few_components_for_pins(chain: LoadedModel) -> None:
    pinned = mixed(chain, pins={"c1": "b", "c2": "a", "c3": "b"})
    with pytest.raises(InfeasibleError, match=r"--max-components 1: .* the fewest found are 3"):
        make_plan(pinned, Goals(max_components=1))
    assert len(make_plan(pinned, Goals(max_components=3)).plan.components) == 3


# ------------------------------------------------------------------------------ wires and int8


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


def test_what_wires_lose_is_warned_of_where_it_is_not_measured(chain: LoadedModel) -> None:
    wires: Any = {("a", "b"): ("as_is", "fp16")}
    (warning,) = make_plan(mixed(chain, wire_codecs=wires), Goals()).report.warnings
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
    assert found.report.warnings == ()
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


class Bench:
    """Measures nothing: what it is told, else what the noise model predicts."""

    def __init__(self, model: NoiseModel, told: Mapping[str, float]) -> None:
        self._model, self._told = model, told
        self.asked: list[str] = []

    def __call__(self, layers: Collection[str]) -> Mapping[str, float]:
        self.asked.append(" ".join(layers))
        predicted = self._model.output("y").predict(list(layers))
        return {"y": self._told.get(self.asked[-1], predicted)}

    def check(self, runs: int = 6) -> NoiseCheck:
        return NoiseCheck(self, inputs=2, runs=runs)


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


# ------------------------------------------------------------------------------ infeasible


def refused(asking: PlanningRequest, goals: Goals | None = None) -> str:
    with pytest.raises(InfeasibleError) as caught:
        make_plan(asking, goals or Goals())
    assert caught.value.exit_code == 5
    return str(caught.value)


INFEASIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "latency, at most": ({"latency_ms": 7.0}, "latency_ms"),
    "energy, at most": ({"energy_joule": 0.001}, "energy_joule"),
    "energy of 'a', at most": ({"server_energy_joule": {"a": 0.0001}}, "server_energy_joule"),
    "memory of 'a', at most": ({"memory_mib": {"a": 12.0, "b": 12.0}}, "memory_mib"),
    "noise of 'y', at most": ({"noise_limits": {"y": 1.0}, "latency_ms": 13.8}, "noise_limits"),
}


@pytest.mark.parametrize("name", INFEASIBLE)
def test_what_is_said_to_be_enough_is(chain: LoadedModel, name: str) -> None:
    """The named value, typed in as it is printed, makes a plan; a bit less does not."""
    changes, key = INFEASIBLE[name]
    goals = Goals(explain=False)
    asking = noisy(chain, **changes)
    text = refused(asking, goals)
    (line,) = [line for line in text.splitlines() if name in line]
    printed = re.search(r": ([0-9.e+-]+)( \w+)? is enough$", line)
    assert printed is not None, text
    enough = float(printed[1])
    given = changes[key]

    def changed(value: float) -> dict[str, Any]:
        return {key: {**given, next(iter(given)): value} if isinstance(given, dict) else value}

    make_plan(replace(asking, **changed(enough)), goals)
    assert name in refused(replace(asking, **changed(enough * 0.9999)), goals)


def test_limits_that_conflict_are_named_together(chain: LoadedModel) -> None:
    text = refused(asked(chain, latency_ms=30.0, memory_mib={"b": 10.5}))
    assert text.splitlines()[0].startswith("no plan keeps all limits")
    assert [line.split(",")[0] for line in text.splitlines()[1:-1]] == [
        "  - latency", "    with memory of 'b'",
    ]  # fmt: skip
    assert text.splitlines()[-1] == "loosen one of them, or add a server"
    # A limit that has nothing to do with it is not named.
    assert "energy" not in refused(asked(chain, latency_ms=0.1, energy_joule=99.0))


def test_conflicts_that_are_apart_are_all_named(chain: LoadedModel) -> None:
    text = refused(asked(chain, latency_ms=2.0, energy_joule=0.0001))
    assert all(line.startswith("  - ") for line in text.splitlines()[1:-1])
    assert len(text.splitlines()) == 4
    assert text.endswith("loosen one of each group (-), or add a server")


def test_pins_against_tensors_that_must_stay(chain: LoadedModel) -> None:
    text = refused(asked(chain, pins={"c1": "b", "r1": "b"}, closed_links=[("a", "b")]))
    assert "pins and forbidden servers: enough if 2 layers may stand elsewhere" in text
    assert "with tensors that stay local, or closed links" in text
    text = refused(asked(chain, pins={"c3": "b"}, local_tensors=("y",)))
    assert "enough if 1 layer may stand elsewhere" in text
    text = refused(asked(chain, pins={"c3": "b"}, latency_ms=0.5))
    assert "local" not in text


def test_a_search_that_ended_too_early_says_so(
    chain: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: Any) -> Any:
        return without(0.0, "none", Status.UNKNOWN), Weights(), None

    monkeypatch.setattr(planning_search, "_solved", nothing)
    assert "--time-limit" in refused(asked(chain))
