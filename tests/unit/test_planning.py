"""Plans from documents: what they choose, what they keep to, and what their reports say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.helpers.models import load
from tests.helpers.planned import (
    FAST,
    SLOW,
    asked,
    hot,
    limit,
    mixed,
    servers_of,
)
from tests.helpers.planning import (
    CHAIN,
    link,
    network,
    request,
    timing,
)
from tests.helpers.problems import brute_force
from tritier.costs import PlanPrices
from tritier.documents import Objective
from tritier.errors import InfeasibleError, UsageError
from tritier.graph import LoadedModel
from tritier.planner.baselines import Baseline
from tritier.planner.evaluate import evaluate
from tritier.planner.problem import Weights
from tritier.planner.pulp_bottleneck import bottleneck_ms
from tritier.planner.simulate import latency_ms, throughput
from tritier.timing.durations import MIB
from tritier.workflow.planning import make_plan, plan_built
from tritier.workflow.planning_figures import Predictor
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem import build_problem, replan


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


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
    prices = PlanPrices(usd_per_kwh=0.3, pays_energy=frozenset("ab"))
    asked = mixed(chain, uses_energy=True, prices=prices)
    found = make_plan(asked, Goals(objective=objective, search_s=0.1))
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
