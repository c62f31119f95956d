"""Measured times taken back: layers, links, and loops that end for a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.helpers.compared import changed, compared, known_of, placed, with_bandwidth
from tests.helpers.models import load
from tests.helpers.planned import mixed
from tests.helpers.planning import CHAIN
from tritier.documents import Comparison, Plan, TimingProfile
from tritier.graph import LoadedModel
from tritier.workflow.calibrate import corrected, with_documents
from tritier.workflow.calibrate_loop import Calibration, Calibrator
from tritier.workflow.compare import Known, predict_plan


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


def times(timing: TimingProfile) -> dict[str, float]:
    return {layer.name: layer.float_ms for layer in timing.layers}


def test_layers_of_components_are_corrected_and_others_by_the_server(chain: LoadedModel) -> None:
    request = mixed(chain)
    known, plan = known_of(request), placed(request, "abbaa")
    truth = changed(known, a={"c1": 1.5, "add": 0.8, "c3": 0.8}, b={"r1": 2.0, "c2": 2.0})
    found = corrected(known, compared(plan, known, truth))
    a, b = times(found.timings["a"]), times(found.timings["b"])
    before_a, before_b = times(known.timings["a"]), times(known.timings["b"])
    assert a["c1"] == pytest.approx(1.5 * before_a["c1"])
    assert a["c3"] == pytest.approx(0.8 * before_a["c3"])
    whole_a = before_a["c1"] + before_a["add"] + before_a["c3"]
    wanted = 1.5 * before_a["c1"] + 0.8 * (before_a["add"] + before_a["c3"])
    assert a["c2"] == pytest.approx(wanted / whole_a * before_a["c2"])  # it ran on b
    assert b["c2"] == pytest.approx(2.0 * before_b["c2"])
    assert b["c3"] == pytest.approx(2.0 * before_b["c3"])
    assert [mark.plan_id for mark in found.timings["a"].calibrated_by or ()] == [plan.id]


def test_large_messages_correct_the_bandwidth_of_their_link(chain: LoadedModel) -> None:
    request = mixed(chain)
    known, plan = known_of(request), placed(request, "abbaa")
    assert known.network is not None
    truth = replace(known, network=with_bandwidth(known.network, "a", "b", 100))
    found = corrected(known, compared(plan, known, truth))
    assert found.network is not None
    there, back = found.network.link("a", "b"), found.network.link("b", "a")
    assert there is not None
    assert back is not None
    assert there.bandwidth_mib_s.value == pytest.approx(100)
    assert there.calibrated_by is not None
    assert back == known.network.link("b", "a")
    assert found.timings == known.timings


def test_what_is_within_the_spread_of_measurements_corrects_nothing(chain: LoadedModel) -> None:
    request = mixed(chain)
    known, plan = known_of(request), placed(request, "abbaa")
    truth = changed(known, a={"c1": 1.05}, b={"c2": 1.05})
    assert corrected(known, compared(plan, known, truth)).changed
    assert not corrected(known, compared(plan, known, truth, std_ms=50.0)).changed


class Servers:
    """Measures by what is true; `plans` are those that planning finds, in turn."""

    def __init__(self, truth: Known, plans: Sequence[Plan], more_ms: float = 0.0) -> None:
        self.truth, self.plans, self.more_ms = truth, plans, more_ms
        self.asked = 0
        self.std_ms = 0.0

    def best(self, _known: Known) -> Plan:
        self.asked += 1
        return self.plans[(self.asked - 1) % len(self.plans)]

    def measure(self, plan: Plan, known: Known, _number: int) -> Comparison:
        return compared(plan, known, self.truth, self.more_ms, self.std_ms)

    def calibrate(self, known: Known, iterations: int = 5) -> Calibration:
        return Calibrator(self.best, self.measure, 0.05, iterations).run(known)


def test_a_loop_ends_when_both_agree(chain: LoadedModel) -> None:
    request = mixed(chain)
    known, plan = known_of(request), placed(request, "abbaa")
    truth = changed(known, a={"c1": 1.5, "c3": 1.4}, b={"c2": 0.5})
    found = Servers(truth, [plan]).calibrate(known)
    assert found.outcome == "agrees"
    assert len(found.steps) == 2
    assert found.steps[0].error < -0.1
    assert found.steps[1].error == pytest.approx(0.0, abs=1e-9)
    assert predict_plan(plan, found.known).latency_ms == pytest.approx(
        predict_plan(plan, truth).latency_ms
    )


def test_what_no_part_explains_ends_a_loop(chain: LoadedModel) -> None:
    request = mixed(chain)
    known, plan = known_of(request), placed(request, "abbaa")
    found = Servers(known, [plan], more_ms=40.0).calibrate(known)
    assert found.outcome == "unexplained"
    assert "+40.00 ms of the request" in found.why
    assert len(found.steps) == 1


def test_unsteady_measurements_end_a_loop(chain: LoadedModel) -> None:
    request = mixed(chain)
    known, plan = known_of(request), placed(request, "abbaa")
    servers = Servers(changed(known, a={"c1": 2.0}), [plan])
    servers.std_ms = 60.0
    found = servers.calibrate(known)
    assert found.outcome == "unsteady"
    assert "is only known to" in found.why


def test_plans_that_take_turns_end_a_loop(chain: LoadedModel) -> None:
    request = mixed(chain)
    known = known_of(request)
    plans = [placed(request, "abbaa"), placed(request, "bbaab")]

    class Moody(Servers):
        """Every other time all takes twice as long."""

        def measure(self, plan: Plan, known: Known, number: int) -> Comparison:
            factors = dict.fromkeys(("c1", "r1", "c2", "add", "c3"), 2.0 if number % 2 else 0.5)
            truth = changed(self.truth, a=factors, b=factors)
            return compared(plan, known, truth)

    found = Moody(known, plans).calibrate(known, iterations=20)
    assert found.outcome == "flips"
    assert plans[1].id in found.why


def test_iterations_are_used_up(chain: LoadedModel) -> None:
    request = mixed(chain)
    known = known_of(request)
    plans = [placed(request, "abbaa"), placed(request, "bbaab")]
    truth = changed(known, a={"c1": 3.0, "c3": 0.3}, b={"c1": 0.4, "c3": 3.0})
    found = Servers(truth, plans).calibrate(known, iterations=1)
    assert found.outcome == "iterations"
    assert not found.agrees
    assert found.known.timings["a"].calibrated_by is not None


def test_corrected_documents_correct_no_more(chain: LoadedModel) -> None:
    request = mixed(chain)
    known, plan = known_of(request), placed(request, "abbaa")
    truth = changed(known, a={"c1": 1.5}, b={"c2": 0.5, "r1": 0.5})
    better = with_documents(known, corrected(known, compared(plan, known, truth)))
    assert not corrected(better, compared(plan, better, truth)).changed
