"""The router's small parts: parameters, checks, failures, budgets, estimates, choice."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.helpers.router import load_router

router = load_router()

PLANS = {
    "aaaa0000": {"model": "m__aaaa0000", "servers": ["device", "edge"]},
    "whole": {"model": "m__whole", "servers": ["device"]},
}
CLASSES = {
    "critical": {"plans": ["aaaa0000", "whole"], "deadline_ms": 500, "hedge": True},
    "normal": {"plans": ["whole"]},
}


def parameters(**changed: Any) -> dict[str, str]:
    """Parameters of a good router, with some changed."""
    good = {"plans": json.dumps(PLANS), "classes": json.dumps(CLASSES), "entry": "device"}
    return {**good, **changed}


class TestTable:
    def test_what_is_written_and_what_is_not(self) -> None:
        table = router.table.read_table(parameters(max_in_flight="20", deadline_ms="3000"))
        assert table.plans["aaaa0000"].servers == ("device", "edge")
        assert table.default_class == "critical"
        assert table.classes["critical"].deadline_s == 0.5
        assert table.classes["normal"].deadline_s == 3.0
        assert table.classes["critical"].hedge
        assert not table.classes["normal"].hedge
        assert table.probe_interval_s == 1.0
        assert (table.eject_after, table.retry_share, table.bls_calls) == (3, 0.2, 24)

    def test_the_first_class_may_take_all_and_the_next_ones_less(self) -> None:
        classes = {f"c{i}": {"plans": ["whole"]} for i in range(8)}
        table = router.table.read_table(
            parameters(classes=json.dumps(classes), max_in_flight="100")
        )
        most = [item.most_in_flight for item in table.classes.values()]
        assert most == [100, 90, 80, 70, 60, 50, 50, 50]

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"plans": "{}"}, "plans: there must be at least one"),
            ({"plans": "no"}, "plans: not JSON"),
            ({"plans": "[]"}, "plans: allowed is a JSON object"),
            ({"plans": '{"a": {"model": "m"}}'}, "plan 'a': allowed is"),
            ({"classes": '{"a": {"plans": ["b"]}}'}, r"names plans \['b'\]; known are aaaa0000"),
            ({"classes": '{"a": {"plans": []}}'}, "needs a list of plans"),
            ({"classes": '{"a": {"plans": ["whole"], "deadline_ms": 0}}'}, "deadline_ms is 0"),
            ({"default_class": "x"}, "'x' is no class; known are critical, normal"),
            ({"entry": ""}, "entry: the name of the server"),
            ({"eject_after": "0"}, "eject_after is '0'; allowed are whole numbers from 1"),
            ({"retry_share": "2"}, "retry_share is '2'; allowed are numbers from 0 to 1"),
            ({"max_in_flight": "many"}, "max_in_flight is 'many'"),
        ],
    )
    def test_faults_are_named(self, changed: dict[str, str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            router.table.read_table(parameters(**changed))


class Tensor:
    """An input as Triton hands it over."""

    def __init__(self, name: str, array: npt.NDArray[Any], shape: list[int] | None = None) -> None:
        self._name, self._array, self._shape = name, array, shape

    def name(self) -> str:
        return self._name

    def shape(self) -> list[int]:
        return self._shape or list(self._array.shape)

    def as_numpy(self) -> npt.NDArray[Any]:
        return self._array


class TestChecks:
    @pytest.fixture
    def checker(self) -> Any:
        config = {
            "max_batch_size": 4,
            "input": [
                {"name": "x", "data_type": "TYPE_FP32", "dims": ["-1", "3"]},
                {"name": "more", "data_type": "TYPE_INT64", "dims": ["1"], "optional": True},
            ],
            "output": [{"name": "y"}],
        }
        return router.checks.Checker(config, router.table.read_table(parameters()))

    def test_good_tensors(self, checker: Any) -> None:
        x = Tensor("x", np.zeros((2, 5, 3), np.float32))
        checker.tensors([x], ["y"])
        checker.tensors([x, Tensor("more", np.zeros((2, 1), np.int64))], [])

    @pytest.mark.parametrize(
        ("tensors", "outputs", "message"),
        [
            ([("z", (1, 1, 3), np.float32)], [], "'z' is unknown"),
            ([("x", (1, 1, 3), np.float32)] * 2, [], "given twice"),
            ([], [], r"\['x'\] are missing"),
            ([("x", (1, 1, 4), np.float32)], [], r"shape \[1, 1, 4\]; allowed is \[-1, -1, 3\]"),
            ([("x", (1, 3), np.float32)], [], "has shape"),
            ([("x", (5, 1, 3), np.float32)], [], "batch 5; allowed is 4"),
            ([("x", (1, 1, 3), np.float64)], [], "is of float64; allowed is float32"),
            ([("x", (1, 1, 3), np.float32)], ["w"], r"outputs \['w'\] are unknown; known are y"),
        ],
    )
    def test_bad_tensors(
        self, checker: Any, tensors: list[Any], outputs: list[str], message: str
    ) -> None:
        given = [Tensor(name, np.zeros(shape, dtype)) for name, shape, dtype in tensors]
        with pytest.raises(router.checks.Refused, match=message):
            checker.tensors(given, outputs)

    def test_fewer_bytes_than_the_shape_says(self, checker: Any) -> None:
        empty = Tensor("x", np.zeros(0, np.float32), [1, 1, 3])
        with pytest.raises(router.checks.Refused, match="0 bytes, too few"):
            checker.tensors([empty], [])

    def test_the_shortest_of_all_budgets_holds(self, checker: Any) -> None:
        def budget_s(timeout_us: int = 0, **given: Any) -> float:
            return float(checker.wanted(json.dumps(given), timeout_us).budget_s)

        assert budget_s() == 0.5
        assert budget_s(100_000) == 0.1
        assert budget_s(100_000, deadline_ms=50) == 0.05
        assert budget_s(deadline_ms="60") == 0.06
        assert budget_s(9_000_000, deadline_ms=9000) == 0.5
        assert checker.wanted('{"class": "normal"}', 0).budget_s == 10.0

    @pytest.mark.parametrize(
        ("given", "timeout_us", "message"),
        [
            ({"class": "x"}, 0, "'x'; allowed are critical, normal"),
            ({"class": ["critical"]}, 0, "allowed are critical, normal"),
            ({"deadline_ms": 0}, 0, "'deadline_ms' is 0"),
            ({"deadline_ms": True}, 0, "'deadline_ms' is 'True'"),
            ({"deadline_ms": 1.5}, 0, "'deadline_ms' is '1.5'"),
            ({"deadline_ms": "9" * 4000}, 0, "'deadline_ms' is '9{79}; allowed"),
            ({"class": "x" * 10**6}, 0, "'class' is 'x{79}; allowed"),
            ({"tritier_attempt": 1}, 0, "are ours"),
            ({}, 2**64 - 5, "timeout is"),
        ],
    )
    def test_bad_parameters(
        self, checker: Any, given: dict[str, Any], timeout_us: int, message: str
    ) -> None:
        with pytest.raises(router.checks.Refused, match=message):
            checker.wanted(json.dumps(given), timeout_us)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("INTERNAL", "in ensemble 'm', server 'e', component c0, plan p, attempt 1: UNAVAILABLE "
         "after 2 ms: failed to connect", "UNAVAILABLE"),
        ("INTERNAL", "in ensemble 'm', server 'e', attempt 1: DEADLINE_EXCEEDED after 9 ms: x",
         "DEADLINE_EXCEEDED"),
        ("INTERNAL", "attempt 2: INVALID_ARGUMENT after 2 ms: x", "INVALID_ARGUMENT"),
        ("INTERNAL", "in ensemble 'm', Stub process 'm_0_0' is not healthy.", "BROKEN"),
        ("UNAVAILABLE", "This protocol is restricted, expecting header 'k'", "REFUSED"),
        ("INTERNAL", "attempt 1: UNAVAILABLE after 1 ms: This protocol is restricted", "REFUSED"),
        ("UNAUTHENTICATED", "no", "REFUSED"),
        ("INTERNAL", "Model m - Error when running inference: Model 'm' is not ready.",
         "UNAVAILABLE"),
        ("INTERNAL", "onnxruntime: Got invalid dimensions", "INVALID_ARGUMENT"),
        ("INTERNAL", "mailbox of server 'c', plan p: deadline exceeded while", "DEADLINE_EXCEEDED"),
        ("INTERNAL", "in ensemble 'm', unexpected deadlock, at least one output", "SUBSET"),
        ("CANCELLED", "", "CANCELLED"),
        ("INTERNAL", "attempt 1: RESOURCE_EXHAUSTED after 0 ms: 2 calls are in flight",
         "RESOURCE_EXHAUSTED"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "DEADLINE_EXCEEDED"),
        ("UNKNOWN", "something", "INTERNAL"),
    ],
)  # fmt: skip
def test_failures_are_told_apart(code: str, text: str, kind: str) -> None:
    failure = router.failures.classify(code, text)
    assert failure.kind == kind
    ill = kind in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "BROKEN")
    assert failure.may_retry == (ill or kind == "RESOURCE_EXHAUSTED")
    assert failure.blames_plan == (ill or kind == "INTERNAL")


class TestBudgets:
    def test_retries_are_a_share_of_requests_and_some_spare_ones(self) -> None:
        tokens = router.budget.Tokens(0.2)
        assert [tokens.take() for _ in range(11)] == [True] * 10 + [False]
        taken = 0
        for _ in range(100):
            tokens.earn()
            taken += tokens.take()
        assert 18 <= taken <= 20

    def test_no_share_means_no_retries(self) -> None:
        assert not router.budget.Tokens(0.0).take()

    def test_only_so_many_are_let_in(self) -> None:
        admission = router.budget.Admission()
        assert admission.enter(2)
        assert admission.enter(2)
        assert not admission.enter(2)
        assert admission.enter(3)
        admission.leave()
        assert admission.count == 2

    def test_time_is_kept_for_the_fallback(self) -> None:
        attempt_s = router.budget.attempt_s
        assert attempt_s(2.0, None, False) == 2.0
        assert attempt_s(2.0, None, True) == 1.0
        assert attempt_s(2.0, 0.1, True) == pytest.approx(1.84)
        assert attempt_s(2.0, 5.0, True) == 1.0


class TestLatencies:
    def test_the_95th_percentile_of_what_was_seen(self) -> None:
        seen = router.latency.Latencies()
        for index in range(9):
            seen.add(index / 100, 0.0)
        assert seen.p95_s(0.0) is None
        for index in range(9, 100):
            seen.add(index / 100, 0.0)
        assert seen.p95_s(0.0) == pytest.approx(0.94, abs=0.08)

    def test_old_answers_are_forgotten(self) -> None:
        seen = router.latency.Latencies()
        for _ in range(20):
            seen.add(1.0, 0.0)
        assert seen.p95_s(30.0) == 1.0
        assert seen.p95_s(100.0) is None


class TestChoice:
    @pytest.fixture
    def parts(self) -> SimpleNamespace:
        table = router.table.read_table(parameters())
        health = router.health.Health(table.plans, 1, 1.0, lambda *_: None)
        latencies = {plan: router.latency.Latencies() for plan in table.plans}
        chooser = router.choice.Chooser(table.plans, health, latencies)
        return SimpleNamespace(
            chooser=chooser, health=health, latencies=latencies, of=table.classes["critical"]
        )

    def chosen(self, parts: SimpleNamespace, *tried: str, left_s: float = 1, again: bool = False):  # type: ignore[no-untyped-def]
        plan = parts.chooser.choose(parts.of, list(tried), left_s, 0.0, again)
        return plan.id if plan else None

    def test_in_order(self, parts: SimpleNamespace) -> None:
        assert self.chosen(parts) == "aaaa0000"
        assert self.chosen(parts, "aaaa0000") == "whole"
        assert self.chosen(parts, "aaaa0000", "whole") is None
        assert self.chosen(parts, "aaaa0000", "whole", again=True) == "aaaa0000"

    def test_what_is_ejected_is_left_out(self, parts: SimpleNamespace) -> None:
        parts.health.failed("aaaa0000", "x", 0.0)
        assert self.chosen(parts) == "whole"
        assert parts.chooser.fallback(parts.of, ["whole"]) is None
        parts.health.failed("whole", "x", 0.0)
        assert self.chosen(parts) == "whole"  # the last resort

    def test_a_plan_that_is_too_slow_for_what_is_left(self, parts: SimpleNamespace) -> None:
        for _ in range(20):
            parts.latencies["aaaa0000"].add(0.4, 0.0)
        assert self.chosen(parts, left_s=0.5) == "aaaa0000"
        assert self.chosen(parts, left_s=0.3) == "whole"


def test_zeros_for_a_probe() -> None:
    config = {
        "max_batch_size": 8,
        "input": [
            {"name": "x", "data_type": "TYPE_FP16", "dims": ["3", "-1"]},
            {"name": "y", "data_type": "TYPE_INT64", "dims": ["-1"], "optional": True},
        ],
    }
    [(name, array)] = router.probes.zeros(config, {})
    assert (name, array.shape, array.dtype) == ("x", (1, 3, 1), np.float16)
    [(_, array)] = router.probes.zeros(config, {"x": [3, 64]})
    assert array.shape == (1, 3, 64)
    text = {"input": [{"name": "t", "data_type": "TYPE_STRING", "dims": ["1"]}]}
    assert router.probes.zeros(text, {}) is None
