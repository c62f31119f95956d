"""What calibration must not believe: shared links, unsteady times, other sizes, old steps."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.helpers.compared import compared, known_of, placed, with_bandwidth
from tests.helpers.models import load
from tests.helpers.planned import mixed
from tests.helpers.planning import CHAIN
from tritier.cli import main
from tritier.documents import (
    Comparison,
    Figure,
    LabState,
    Plan,
    PredictedMessage,
    TimelineEntry,
)
from tritier.errors import InputError
from tritier.graph import LoadedModel
from tritier.workflow.calibrate import corrected, sharing
from tritier.workflow.calibrate_lab import Stage
from tritier.workflow.calibrate_loop import Calibrator
from tritier.workflow.compare import Known, PlanPredictor, predict_plan
from tritier.workflow.compare_app import app_bytes, check_shapes
from tritier.workflow.compare_files import app_ms_written, written_prediction
from tritier.workflow.compare_measure import _collector, usual_count
from tritier.workflow.compare_spans import local_port

# c1 makes two tensors that two branches read on the other server at once.
BRANCHES = """
    g (float[1,1,512,512] x) => (float[1,1,512,512] y) <float[1,1,1,1] w1 = {1}> {
      [c1] a = Conv(x, w1) [r1] b = Relu(a) [c2] c = Conv(a, w1) [add] d = Add(c, b)
      [c3] y = Relu(d) }
"""


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


def message(component: str, ms: float = 20.0) -> PredictedMessage:
    return PredictedMessage.model_validate(
        {"kind": "put", "component": component, "from": "a", "to": "b", "bytes": 1 << 20,
         "ms": ms + 2, "link_ms": ms}
    )  # fmt: skip


def sent(component: str, start_ms: float, end_ms: float) -> TimelineEntry:
    return TimelineEntry(
        kind="send", name=f"put {component}", place=("a", "b"), start_ms=start_ms, end_ms=end_ms
    )


def test_messages_that_have_a_link_together_are_found() -> None:
    one, two, three = message("c1"), message("c2"), message("c3")
    apart = [(one, 0.0, 20.0), (two, 100.0, 120.0)]
    assert sharing(apart) == set()
    # One waits for the other in the simulation; on the link both are slow.
    assert sharing([(one, 0.0, 20.0), (two, 20.0, 40.0), (three, 90.0, 110.0)]) == {
        one.key, two.key
    }  # fmt: skip
    assert sharing(apart, [sent("c1", 0, 42), sent("c2", 5, 47)]) == {one.key, two.key}
    # What is still under way has left its link.
    assert sharing(apart, [sent("c1", 0, 22), sent("c2", 21, 43)]) == {one.key, two.key}
    assert sharing(apart, [sent("c1", 0, 22), sent("c2", 30, 52)]) == set()


def test_a_shared_link_is_not_corrected_by_what_its_messages_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tmp_path, BRANCHES.replace("\n    }", "}"))
    request = mixed(model)
    known, plan = known_of(request), placed(request, "aabbb")
    assert known.network is not None
    truth = replace(known, network=with_bandwidth(known.network, "a", "b", 125))
    # As if each message took twice its time because another one is beside it.
    comparison = compared(plan, known, truth)
    found = corrected(known, comparison)
    assert found.network != known.network  # alone, that says something of the bandwidth
    everything = {item.key for item in comparison.predicted.messages}
    monkeypatch.setattr("tritier.workflow.calibrate.sharing", lambda *_: everything)
    assert corrected(known, comparison).network == known.network


def test_sends_of_the_simulation_say_when_a_link_is_taken(chain: LoadedModel) -> None:
    request = mixed(chain)
    found = PlanPredictor(placed(request, "abbaa"), known_of(request))
    sends = found.sends()
    assert {item.key for item, _, _ in sends} == {m.key for m in found.figures().messages}
    for item, start_ms, end_ms in sends:
        assert end_ms - start_ms == pytest.approx(item.link_ms)


def test_a_corrected_figure_keeps_its_interval(chain: LoadedModel) -> None:
    request = mixed(chain)
    known, plan = known_of(request), placed(request, "abbaa")
    assert known.network is not None
    links = tuple(
        link.model_copy(update={"bandwidth_mib_s": Figure(value=250, low=240, high=260, n=9)})
        for link in known.network.links
    )
    known = replace(known, network=known.network.model_copy(update={"links": links}))
    assert known.network is not None
    truth = replace(known, network=with_bandwidth(known.network, "a", "b", 125))
    found = corrected(known, compared(plan, known, truth)).network
    link = found.link("a", "b") if found else None
    assert link is not None
    assert link.bandwidth_mib_s.low == pytest.approx(120)
    assert link.bandwidth_mib_s.high == pytest.approx(130)


def test_an_unsteady_measurement_does_not_agree(chain: LoadedModel) -> None:
    request = mixed(chain)
    known, plan = known_of(request), placed(request, "abbaa")
    found = Calibrator(
        lambda _: plan, lambda p, k, _: compared(p, k, known, std_ms=60.0), 0.05
    ).run(known)
    assert found.outcome == "unsteady"


def test_a_given_plan_that_agrees_is_not_the_best_one(chain: LoadedModel) -> None:
    request = mixed(chain)
    known = known_of(request)
    given, best = placed(request, "aabbb"), placed(request, "abbaa")

    def measure(plan: Plan, known: Known, _: int) -> Comparison:
        return compared(plan, known, known)

    found = Calibrator(lambda _: best, measure).run(known, given)
    assert [step.plan_id for step in found.steps] == [given.id, best.id]
    assert (found.outcome, found.plan.id) == ("agrees", best.id)
    same = Calibrator(lambda _: given, measure).run(known, given)
    assert [step.plan_id for step in same.steps] == [given.id]


def test_the_app_is_part_of_the_prediction(chain: LoadedModel, tmp_path: Path) -> None:
    request = mixed(chain)
    known, plan = known_of(request), placed(request, "abbaa")
    bare, whole = predict_plan(plan, known), predict_plan(plan, replace(known, app_ms=3.5))
    assert bare.app_ms is None
    assert whole.app_ms == 3.5
    assert whole.latency_ms == pytest.approx(bare.latency_ms + 3.5)
    x = np.zeros((1, 1, 512, 512), np.float32)
    assert app_bytes(known, [{"x": x}]) == (1 << 20, 1 << 20)
    # A prediction that waits is completed with the app's time that it has.
    path = tmp_path / "comparison.json"
    assert app_ms_written(path, plan) == (False, None)
    written_prediction(path, plan, whole)
    assert app_ms_written(path, plan) == (True, 3.5)
    assert app_ms_written(path, placed(request, "aabbb")) == (False, None)


def test_other_sizes_than_those_of_the_profiles_are_refused(tmp_path: Path) -> None:
    model = load(tmp_path, CHAIN)
    request = mixed(model)
    known, plan = known_of(request), placed(request, "abbaa")
    check_shapes(plan, known, [{"x": np.zeros((1, 1, 512, 512), np.float32)}])
    with pytest.raises(InputError, match="sent as \\[8, 1, 512, 512\\]"):
        check_shapes(plan, known, [{"x": np.zeros((8, 1, 512, 512), np.float32)}])
    timings = dict(known.timings)
    for name, size in (("a", 1), ("b", 8)):
        timings[name] = timings[name].model_copy(update={"dims": {"batch": size}})
    with pytest.raises(InputError, match="'batch' is 1 in one profile and 8"):
        check_shapes(plan, replace(known, timings=timings), [])


def test_requests_with_as_many_spans_as_most_have_count() -> None:
    assert usual_count([9, 9, 12, 9, 5]) == 9  # one was tried again, one lost some
    assert usual_count([9, 12]) == 12
    assert usual_count([]) == 0


def lab_with(url: str) -> Any:
    return cast("LabState", SimpleNamespace(servers=[SimpleNamespace(
        environment={"TRITIER_OTLP": url})]))  # fmt: skip


def test_why_there_are_no_traces_is_true() -> None:
    for url in ("http://127.0.0.1:no", "http://127.0.0.1:99999", "http://[127.0.0.1:4"):
        assert local_port(url) is None
    with _collector([lab_with("http://127.0.0.1:99999")]) as (collector, why):
        assert collector is None
        assert "no server sends any" in why
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _collector([lab_with(f"http://127.0.0.1:{port}")]) as (collector, why):
            assert collector is None
            assert f"port {port}" in why
            assert "no server sends any" not in why


def test_an_earlier_calibration_goes_as_a_whole(chain: LoadedModel, tmp_path: Path) -> None:
    for name in ("plan-1.json", "plan-2.json", "comparison-1.json", "plan.json", "network.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "repos-1").mkdir()
    (tmp_path / "repos-1" / "manifest.json").write_text("{}")
    Stage(tmp_path / "servers.yaml", None, tmp_path, []).clear(known_of(mixed(chain)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["network.json", "plan.json"]


def test_nothing_is_removed_before_the_inputs_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "calibrated" / "comparison-1.json"
    old.parent.mkdir()
    old.write_text("{}")
    command = ["calibrate", str(tmp_path / "no.onnx"), "--servers", "no.yaml", "--timing",
               "no.json", "--network", "no.json", "-o", str(old.parent)]  # fmt: skip
    with pytest.raises(SystemExit) as caught:
        main([*command, "--force"])
    assert caught.value.code == 3
    assert old.exists()
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 3
    assert "is not empty" in capsys.readouterr().err
