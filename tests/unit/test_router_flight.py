"""One request and its attempts: what is tried, in which order, and that there is one answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.router import load_router

parts = load_router()
Answer, Failure = parts.flight.Answer, parts.failures.Failure
_DOWN = Failure("UNAVAILABLE", "no route")

PLANS = {name: {"model": f"m__{name}", "servers": ["device"]} for name in ("a", "b", "whole")}
CLASSES = {
    "normal": {"plans": ["a", "b", "whole"], "deadline_ms": 400},
    "hedged": {"plans": ["a", "b"], "deadline_ms": 400, "hedge": True},
    "single": {"plans": ["a"], "deadline_ms": 400},
}


class Reply:
    """Where the answer goes."""

    traceparent = None

    def __init__(self) -> None:
        self.given: list[tuple[Any, Any]] = []
        self.came = threading.Event()
        self.cancelled = False

    def is_cancelled(self) -> bool:
        assert not self.given, "an answered request must not be asked"
        return self.cancelled

    def give(self, _flight: Any, attempt: Any, outcome: Any) -> None:
        self.given.append((attempt, outcome))
        self.came.set()


class Router:
    """What flights share, with plans that do what `script` says: an outcome, or a function."""

    def __init__(self, retry_share: float = 0.2, eject_after: int = 100) -> None:
        table = parts.table.read_table(
            {
                "plans": json.dumps(PLANS),
                "classes": json.dumps(CLASSES),
                "entry": "device",
                "retry_share": str(retry_share),
            }
        )
        self.classes = table.classes
        self.script: dict[str, Any] = {name: Answer([name]) for name in PLANS}
        self.asked: list[str] = []
        self.stopped: list[str] = []
        self.withdrawn: list[str] = []
        self.threads_left = True
        self.counts = {"retried": 0, "hedged": 0, "failed": 0}
        self.tokens = parts.budget.Tokens(retry_share)
        self.watch = parts.watch.Watch()
        self.health = parts.health.Health(table.plans, eject_after, 1.0, self._changed)
        self.latencies = {plan: parts.latency.Latencies() for plan in table.plans}
        chooser = parts.choice.Chooser(table.plans, self.health, self.latencies)
        self.choose, self.fallback = chooser.choose, chooser.fallback
        self.pool = ThreadPoolExecutor(8)

    def call(self, attempt: Any, _flight: Any) -> Any:
        self.asked.append(attempt.plan.id)
        attempt.stops_by(lambda: self.stopped.append(attempt.plan.id))
        outcome = self.script[attempt.plan.id]
        return outcome() if callable(outcome) else outcome

    def withdraw(self, _flight: Any, plan_id: str) -> None:
        self.withdrawn.append(plan_id)

    def run_elsewhere(self, job: Callable[..., None], *arguments: Any) -> None:
        if not self.threads_left:
            raise RuntimeError("can't start new thread")
        self.pool.submit(job, *arguments)

    def p95_s(self, plan: str, now: float) -> Any:
        return self.latencies[plan].p95_s(now)

    def span(self, *_: Any) -> Any:
        return SimpleNamespace(traceparent=None, end=lambda **_: None)

    def succeeded(self, attempt: Any, now: float) -> None:
        self.health.succeeded(attempt.plan.id, now)

    def failed(self, attempt: Any, failure: Any, now: float) -> None:
        self.counts["failed"] += 1
        self.health.failed(attempt.plan.id, failure.text, now)

    def retried(self, _attempt: Any) -> None:
        self.counts["retried"] += 1

    def hedged(self, _attempt: Any) -> None:
        self.counts["hedged"] += 1

    def fly(self, name: str = "normal", budget_s: float = 0.4) -> tuple[Reply, Any]:
        """Start a request of a class in another thread."""
        reply = Reply()
        wanted = SimpleNamespace(request_class=self.classes[name], budget_s=budget_s)
        flight = parts.flight.Flight(self, wanted, None, reply, time.monotonic())
        flight.start()
        return reply, flight

    def ask(self, name: str = "normal", budget_s: float = 0.4) -> tuple[str, Any]:
        """(plan, outcome) of the one answer."""
        reply, _ = self.fly(name, budget_s)
        assert reply.came.wait(2)
        time.sleep(0.01)
        [(attempt, outcome)] = reply.given
        return attempt.plan.id if attempt else "", outcome

    def _changed(self, _plan: str, is_ejected: bool, _reason: str) -> None:
        if is_ejected:
            self.watch.look_at_all()


def slow(seconds: float, outcome: Any) -> Callable[[], Any]:
    def wait() -> Any:
        time.sleep(seconds)
        return outcome

    return wait


@pytest.fixture
def router() -> Iterator[Router]:
    made = Router()
    yield made
    made.pool.shutdown(wait=False)
    made.watch.close(1)


def test_the_first_plan_answers(router: Router) -> None:
    assert router.ask() == ("a", Answer(["a"]))
    assert router.asked == ["a"]


def test_a_failure_goes_to_the_next_plan_and_no_further_than_two_retries(router: Router) -> None:
    router.script["a"] = _DOWN
    assert router.ask()[0] == "b"
    router.script["b"] = router.script["whole"] = _DOWN
    router.asked.clear()
    assert router.ask()[1] == _DOWN
    assert router.asked == ["a", "b", "whole"]
    assert router.counts["retried"] == 3
    router.asked.clear()
    assert router.ask("single")[1] == _DOWN
    assert router.asked == ["a", "a", "a"]


@pytest.mark.parametrize("kind", ["INVALID_ARGUMENT", "REFUSED", "INTERNAL"])
def test_what_is_never_tried_again(router: Router, kind: str) -> None:
    router.script["a"] = Failure(kind, "no")
    assert router.ask()[1].kind == kind
    assert router.asked == ["a"]
    assert router.counts["failed"] == (kind == "INTERNAL")


def test_no_budget_no_retry() -> None:
    router = Router(retry_share=0)
    router.script["a"] = _DOWN
    assert router.ask()[1] == _DOWN
    assert router.asked == ["a"]
    router.pool.shutdown(wait=False)
    router.watch.close(1)


def test_the_failure_that_ejects_falls_back_without_a_retry() -> None:
    router = Router(retry_share=0, eject_after=2)
    router.script["a"] = _DOWN
    assert router.ask()[1] == _DOWN
    assert router.ask()[0] == "b"
    assert router.ask()[0] == "b"
    assert router.asked == ["a", "a", "b", "b"]
    router.pool.shutdown(wait=False)
    router.watch.close(1)


def test_a_plan_that_hangs_leaves_time_for_the_next(router: Router) -> None:
    router.script["a"] = slow(0.6, Answer(["late"]))
    started = time.monotonic()
    assert router.ask()[0] == "b"
    assert time.monotonic() - started < 0.4
    assert router.counts["failed"] == 1
    assert router.stopped == ["a"]


def test_all_hang(router: Router) -> None:
    for plan in PLANS:
        router.script[plan] = slow(0.6, Answer([plan]))
    started = time.monotonic()
    plan, outcome = router.ask()
    assert time.monotonic() - started < 0.45
    assert outcome.kind == "DEADLINE_EXCEEDED"
    assert "plan a, plan b, plan whole" in outcome.text
    assert plan == "whole"


def test_a_deadline_that_is_too_short_for_the_plan_is_not_its_fault(router: Router) -> None:
    router.script["a"] = slow(0.1, Answer(["a"]))
    assert router.ask("single", budget_s=0.05)[1].kind == "DEADLINE_EXCEEDED"
    assert router.counts["failed"] == 0
    router.script["a"] = slow(0.5, Answer(["a"]))
    assert router.ask("single")[1].kind == "DEADLINE_EXCEEDED"
    assert router.counts["failed"] == 1


def test_a_slow_answer_is_hedged(router: Router) -> None:
    for _ in range(20):
        router.latencies["a"].add(0.02, time.monotonic())
        router.latencies["b"].add(0.02, time.monotonic())
    router.script["a"] = slow(0.2, Answer(["a"]))
    assert router.ask("hedged")[0] == "b"
    assert router.counts["hedged"] == 1
    assert router.stopped == ["a"]
    router.script["a"] = slow(0.06, Answer(["a"]))
    router.script["b"] = slow(0.2, Answer(["b"]))
    assert router.ask("hedged")[0] == "a"  # whoever is first
    router.script["a"], router.script["b"] = slow(0.1, Answer(["a"])), _DOWN
    assert router.ask("hedged")[0] == "a"  # a hedge that fails harms nobody


def test_a_plan_that_is_ejected_meanwhile_is_left_at_once(router: Router) -> None:
    router.script["a"] = slow(0.3, Answer(["late"]))
    reply, _ = router.fly(budget_s=0.4)
    time.sleep(0.03)
    started = time.monotonic()
    router.health.server_lost("a", "gone", started)
    router.watch.look_at_all()
    assert reply.came.wait(1)
    assert time.monotonic() - started < 0.1
    assert reply.given[0][0].plan.id == "b"
    assert router.counts["retried"] == 0


def test_a_cancelled_request_ends(router: Router) -> None:
    router.script["a"] = slow(0.4, Answer(["a"]))
    reply, flight = router.fly()
    time.sleep(0.02)
    reply.cancelled = True
    flight.look(time.monotonic())
    assert reply.came.wait(1)
    assert reply.given[0][1].kind == "CANCELLED"
    assert router.stopped == ["a"]


def test_proxies_hear_of_what_nobody_waits_for(router: Router) -> None:
    router.script["a"] = slow(0.3, Answer(["late"]))
    assert router.ask(budget_s=0.2)[0] == "b"
    assert router.withdrawn == ["a"]
    router.withdrawn.clear()
    router.script["a"] = Answer(["a"])
    assert router.ask()[0] == "a"
    assert router.withdrawn == []


def test_what_is_stopped_before_it_is_sent_is_stopped_all_the_same() -> None:
    stopped: list[str] = []
    attempt = parts.flight.Attempt(None, 1, 0.0, 1.0, None)
    attempt.stop()
    attempt.stops_by(lambda: stopped.append("now"))
    assert stopped == ["now"]

    def refuses() -> None:
        raise RuntimeError("no")

    attempt = parts.flight.Attempt(None, 1, 0.0, 1.0, None)
    attempt.stops_by(refuses)
    attempt.stop()  # the answer does not hang on it


def test_a_call_that_was_stopped_is_no_fault_of_its_plan(router: Router) -> None:
    for _ in range(20):
        router.latencies["a"].add(0.02, time.monotonic())
        router.latencies["b"].add(0.02, time.monotonic())
    # What a hedge that lost says once its proxies were told.
    router.script["a"] = slow(0.1, Failure("UNAVAILABLE", "a tensor will not come"))
    assert router.ask("hedged")[0] == "b"
    time.sleep(0.1)
    assert router.counts["failed"] == 0


def test_without_a_thread_there_is_an_answer_at_once(router: Router) -> None:
    router.threads_left = False
    assert router.ask()[1].kind == "REJECTED"
    time.sleep(0.05)
    assert not router.watch._due


def test_a_request_that_waits_for_a_thread_ends_by_its_deadline(router: Router) -> None:
    for _ in range(8):
        router.pool.submit(time.sleep, 0.3)
    started = time.monotonic()
    assert router.ask(budget_s=0.1)[1].kind == "DEADLINE_EXCEEDED"
    assert time.monotonic() - started < 0.25
    time.sleep(0.25)
    assert router.asked == []  # nothing is sent for it any more


def test_a_retry_is_looked_after_when_its_own_time_is_up(router: Router) -> None:
    """Not when the next look at the first attempt was due, which has failed."""
    now = time.monotonic()
    for plan, seconds in (("b", 0.005), ("whole", 0.2)):
        for _ in range(20):
            router.latencies[plan].add(seconds, now)
    router.script["a"], router.script["b"] = _DOWN, slow(1.0, Answer(["late"]))
    reply, flight = router.fly()
    assert reply.came.wait(2)
    assert reply.given[0][0].plan.id == "whole"
    second, third = flight.attempts[1:]
    assert second.deadline < flight.started + 0.2
    assert third.started < flight.started + 0.24


def test_one_answer_however_many_come(router: Router) -> None:
    """Attempts end while the watch looks, again and again: never two answers, never none."""
    draws = [0.0, 0.001, 0.002, 0.004, 0.008]
    replies = []
    for index in range(60):
        first, second = draws[index % 5], draws[index // 5 % 5]
        router.script["a"] = slow(first, Answer(["a"]) if index % 3 else _DOWN)
        router.script["b"] = slow(second, Answer(["b"]))
        reply, flight = router.fly("hedged", budget_s=0.2)
        flight._hedge_at = time.monotonic()
        router.watch.look_at_all()
        replies.append(reply)
    assert all(reply.came.wait(2) for reply in replies)
    time.sleep(0.05)
    assert all(len(reply.given) == 1 for reply in replies)
