"""The router on a real Triton: which plan answers, by when, and what is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.helpers.shared_models import load_flat
from tests.integration.router_stage import ROUTER, UNAVAILABLE, Stage

pytestmark = pytest.mark.integration

CLASSES = {
    "critical": {"plans": ["p2", "whole"], "deadline_ms": 5000},
    "normal": {"plans": ["p1", "p2", "whole"], "deadline_ms": 5000},
    "low": {"plans": ["p1"], "deadline_ms": 1000},
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    built = Stage.build(tmp_path_factory.mktemp("router"))
    try:
        yield built
    finally:
        built.close()


@pytest.fixture(autouse=True)
def fresh(stage: Stage) -> None:
    stage.well()
    stage.forget()


def wait_until(condition: Callable[[], bool], patience_s: float, what: str) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def ask_answers(stage: Stage) -> bool:
    try:
        stage.ask()
    except InferenceServerException:
        return False
    return True


class TestClasses:
    def test_each_class_has_its_plan(self, stage: Stage) -> None:
        stage.load_router(CLASSES, default_class="normal")
        for seed in range(5):
            stage.ask(seed=seed, of="critical")
        assert (stage.asked("p1"), stage.asked("p2"), stage.asked("whole")) == (0, 5, 0)
        before = stage.metric("tritier_router_requests_total", status="OK", plan="p1")
        stage.ask()
        assert stage.asked("p1") == 1
        wait_until(
            lambda: (
                stage.metric("tritier_router_requests_total", status="OK", plan="p1") == before + 1
            ),
            5,
            "the request is not counted",
        )

    def test_a_plan_is_asked_only_for_what_the_app_wants(self, stage: Stage) -> None:
        stage.load_router(CLASSES)
        for _ in range(3):  # over gRPC first, then by BLS
            stage.ask(outputs=["z"])
            stage.ask(outputs=["y", "z"])

    def test_a_plan_hears_of_deadline_request_and_attempt(self, stage: Stage) -> None:
        stage.load_router(CLASSES, default_class="normal")
        traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        for _ in range(2):
            stage.ask(timeout_us=2_000_000, parameters={"traceparent": traceparent})
        for parameters, timeout_us in stage.seen("p1"):
            if "tritier_probe" in parameters:
                continue
            left_s = int(parameters["tritier_deadline_ns"]) / 1e9 - time.monotonic()
            assert -1 < left_s < 2
            assert 0 < timeout_us < 2_000_000
            assert parameters["tritier_attempt"] == 1
            assert len(parameters["tritier_request"]) == 16
            assert parameters["traceparent"] == traceparent

    def test_large_tensors_both_ways(self, stage: Stage) -> None:
        stage.load_router(CLASSES)
        for seed in range(3):
            stage.ask(seed=seed, size=1_000_000)


class TestRefused:
    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"class": "urgent"}, r"'urgent'; allowed are critical, normal, low"),
            ({"class": 3}, r"'class' is 3; allowed are critical, normal, low"),
            ({"deadline_ms": -5}, r"'deadline_ms' is -5; allowed are whole milliseconds from 1"),
            ({"deadline_ms": "soon"}, r"'deadline_ms' is 'soon'"),
            ({"deadline_ms": True}, r"'deadline_ms' is 'True'"),
            ({"tritier_deadline_ns": "1"}, r"names that begin with 'tritier_'"),
        ],
    )
    def test_wrong_parameters(
        self, stage: Stage, parameters: dict[str, str | int], message: str
    ) -> None:
        stage.load_router(CLASSES)
        with pytest.raises(InferenceServerException, match=message) as caught:
            stage.ask(parameters=parameters)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert all(stage.asked(plan) == 0 for plan in stage.plans)

    @pytest.mark.parametrize(
        ("name", "shape", "kind", "dtype"),
        [
            ("x", [2, 3], "FP32", np.float32),
            ("x", [4], "FP64", np.float64),
            ("nonsense", [4], "FP32", np.float32),
        ],
    )
    def test_wrong_tensors(
        self, stage: Stage, name: str, shape: list[int], kind: str, dtype: type
    ) -> None:
        stage.load_router(CLASSES)
        item = triton.InferInput(name, shape, kind)
        item.set_data_from_numpy(np.zeros(shape, dtype))
        with pytest.raises(InferenceServerException) as caught:
            stage.client.infer(ROUTER, [item])
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"

    def test_a_router_with_wrong_parameters_does_not_load(self, stage: Stage) -> None:
        stage.load_router(CLASSES)
        with pytest.raises(InferenceServerException, match="names plans"):
            stage.load_router({"normal": {"plans": ["p9"]}})
        stage.ask()  # the old one stays


class TestEjection:
    def test_three_failures_eject_and_a_probe_brings_back(self, stage: Stage) -> None:
        stage.load_router(CLASSES, default_class="normal", retry_share="0")
        stage.script("p1", error=UNAVAILABLE)
        failed = sum(not ask_answers(stage) for _ in range(10))
        # Without retries the app sees two failures, less those that probes met: the one that
        # ejects the plan falls back at once.
        assert failed <= 2
        assert 1 <= stage.asked("p1") <= 3
        assert stage.asked("p2") == 10 - failed

        def ejected() -> float:
            return stage.metric("tritier_router_ejected", plan="p1")

        wait_until(lambda: ejected() == 1, 5, "no metric says that p1 is ejected")
        assert '"event": "ejected"' in stage.log()
        stage.script("p1")
        stage.forget()
        wait_until(lambda: ask_answers(stage) and stage.asked("p1") > 0, 10, "p1 did not return")
        wait_until(lambda: ejected() == 0, 5, "no metric says that p1 is back")

    def test_the_apps_fault_is_not_the_plans(self, stage: Stage) -> None:
        stage.load_router({"normal": {"plans": ["p1", "whole"]}})
        stage.script("p1", error="onnxruntime: bad value", code="INVALID_ARG")
        for _ in range(5):
            assert not ask_answers(stage)
        assert stage.asked("p1") == 5
        assert stage.asked("whole") == 0

    def test_failures_are_retried_within_the_budget(self, stage: Stage) -> None:
        stage.load_router(CLASSES, default_class="normal", eject_after="1000")
        stage.script("p1", error=UNAVAILABLE)
        answered = [ask_answers(stage) for _ in range(40)]
        assert all(answered[:10])  # the spare retries
        # From then on only what requests earn: a fifth of them.
        assert 1 <= sum(answered[20:]) <= 8
        assert stage.asked("p1") == 40

    def test_a_restricted_server_is_not_asked_again(self, stage: Stage) -> None:
        stage.load_router(CLASSES, default_class="normal")
        stage.script("p1", error="attempt 1: UNAVAILABLE after 1 ms: This protocol is restricted")
        with pytest.raises(InferenceServerException, match="restricted"):
            stage.ask()
        assert stage.asked("p2") == stage.asked("whole") == 0


class TestDeadlines:
    def test_the_fallback_answers_in_time_when_a_plan_hangs(self, stage: Stage) -> None:
        stage.load_router({"normal": {"plans": ["p1", "whole"], "deadline_ms": 2000}})
        stage.script("p1", seconds=30)
        assert stage.ask() < 2
        assert stage.asked("p1") == stage.asked("whole") == 1

    def test_every_request_ends_by_its_deadline(self, stage: Stage) -> None:
        stage.load_router(CLASSES, default_class="normal")
        stage.script("p1", seconds=5)
        started = time.monotonic()
        with pytest.raises(InferenceServerException, match="deadline exceeded after") as caught:
            stage.ask(of="low")
        assert time.monotonic() - started < 1.5
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        with pytest.raises(InferenceServerException, match="deadline exceeded"):
            stage.ask(of="low", parameters={"deadline_ms": 200})
        assert time.monotonic() - started < 2.5

    def test_a_short_deadline_of_the_app_ejects_nothing(self, stage: Stage) -> None:
        stage.load_router({"normal": {"plans": ["p1"], "deadline_ms": 5000}})
        stage.script("p1", seconds=0.3)
        for _ in range(5):
            with pytest.raises(InferenceServerException, match="deadline exceeded"):
                stage.ask(timeout_us=50_000)
        stage.ask()

    def test_a_slow_plan_is_hedged(self, stage: Stage) -> None:
        hedged = {"plans": ["p1", "whole"], "deadline_ms": 5000, "hedge": True}
        stage.load_router({"normal": hedged})
        for _ in range(30):
            stage.ask()
        stage.script("p1", seconds=3)
        took_s = stage.ask()
        assert took_s < 2.5
        assert stage.asked("whole") >= 1
        stage.load_router({"normal": {**hedged, "hedge": False}})  # the control
        stage.well()
        for _ in range(30):
            stage.ask()
        stage.script("p1", seconds=2)
        assert stage.ask() >= 2

    def test_an_abandoned_request_is_forgotten(self, stage: Stage) -> None:
        stage.load_router({"normal": {"plans": ["p1"]}}, max_in_flight="1")
        stage.script("p1", seconds=2)
        with pytest.raises(InferenceServerException):
            stage.ask(patience_s=0.2)  # the app gives up, which cancels its request
        stage.script("p1")
        wait_until(lambda: ask_answers(stage), 1.5, "the cancelled request keeps its place")

    def test_proxies_hear_of_an_abandoned_request(self, stage: Stage) -> None:
        """Triton does not tell them. Here this process listens as a proxy of p1 does."""
        heard: list[str] = []
        listener = load_flat("withdrawal", "shared").Listener("device", "p1", heard.append)
        try:
            stage.load_router({"normal": {"plans": ["p1"]}})
            stage.ask()
            assert heard == []  # the control: nobody gave up
            stage.forget()
            stage.script("p1", seconds=2)
            with pytest.raises(InferenceServerException):
                stage.ask(patience_s=0.2)
            wait_until(lambda: bool(heard), 1.5, "no proxy was told")
            assert heard[0] in [p.get("tritier_request") for p, _ in stage.seen("p1")]
        finally:
            listener.close()


class TestOverload:
    def test_the_excess_is_refused_at_once_and_low_classes_first(self, stage: Stage) -> None:
        one = {"plans": ["whole"], "deadline_ms": 5000}
        stage.load_router({"high": one, "low": one}, max_in_flight="10")
        stage.script("whole", seconds=1.0)
        refusals: list[tuple[float, str]] = []
        lock = threading.Lock()

        def ask(name: str) -> bool:
            started = time.monotonic()
            try:
                stage.ask(of=name)
            except InferenceServerException as error:
                with lock:
                    refusals.append((time.monotonic() - started, str(error)))
                return False
            return True

        with ThreadPoolExecutor(40) as pool:
            low = [pool.submit(ask, "low") for _ in range(20)]
            time.sleep(0.3)
            high = [pool.submit(ask, "high") for _ in range(3)]
            assert sum(item.result() for item in low) == 9
            assert sum(item.result() for item in high) == 1
        wait_until(
            lambda: stage.metric("tritier_router_rejected_total") == len(refusals),
            5,
            "rejections are not counted",
        )
        assert max(refusals)[0] < 0.9  # long before the others are answered
        assert all("UNAVAILABLE] REJECTED: overloaded" in text for _, text in refusals)

    def test_more_at_once_than_triton_has_bls_threads(self, stage: Stage) -> None:
        stage.load_router({"normal": {"plans": ["whole"]}}, max_in_flight="64")
        stage.ask()
        stage.script("whole", seconds=1.0)
        with ThreadPoolExecutor(60) as pool:
            started = time.monotonic()
            waiting = [pool.submit(stage.ask, seed=seed) for seed in range(60)]
            assert all(item.result() < 5 for item in waiting)
        assert time.monotonic() - started < 4


def test_the_router_is_reloaded_under_load(stage: Stage) -> None:
    one, two = ({"normal": {"plans": [plan, "whole"]}} for plan in ("p1", "p2"))
    stage.load_router(one)
    failures: list[str] = []
    answered = [0]
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                stage.ask(seed=answered[0])
                answered[0] += 1
            except (AssertionError, InferenceServerException) as error:
                failures.append(str(error))

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(load)
        for classes in (two, one, two):
            time.sleep(0.7)
            stage.load_router(classes)
        time.sleep(0.5)
        stage.forget()
        time.sleep(0.5)
        stop.set()
    assert not failures
    assert answered[0] > 20
    assert stage.asked("p2") > 0
    assert stage.asked("p1") == 0
