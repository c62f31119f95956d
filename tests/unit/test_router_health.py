"""Plans that fail are left out, are probed, and return."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.router import load_router

health = load_router().health


class Plans:
    """One plan under a health, and what was told of it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool, str]] = []
        self.health = health.Health(["p"], 3, 1.0, lambda *news: self.told.append(news))

    def fail(self, times: int = 1, now: float = 0.0) -> None:
        for _ in range(times):
            self.health.failed("p", "x", now)

    def due(self, now: float, idle_s: float | None = None) -> bool:
        return bool(self.health.probe_due("p", now, idle_s))


@pytest.fixture
def plans() -> Plans:
    return Plans()


def test_three_failures_in_a_row_eject(plans: Plans) -> None:
    plans.fail(2)
    plans.health.succeeded("p", 0.0)
    plans.fail(2)
    assert plans.health.is_closed("p")
    plans.fail()
    assert not plans.health.is_usable("p")
    assert [(plan, out) for plan, out, _ in plans.told] == [("p", True)]
    plans.fail(5)
    assert len(plans.told) == 1  # it is told once


def test_backoff_doubles_up_to_ten_seconds(plans: Plans) -> None:
    plans.fail(3)
    now, waits = 0.0, []
    for _ in range(6):
        start = now
        while not plans.due(now):
            now += 0.5
        waits.append(now - start)
        plans.health.probe_failed("p", "still", now)
    assert waits == [1, 2, 4, 8, 10, 10]


def test_a_probe_that_is_answered_brings_back(plans: Plans) -> None:
    plans.fail(3)
    assert not plans.due(0.5)
    assert plans.due(1.0)
    plans.health.succeeded("p", 1.0)
    assert plans.health.is_trusted("p")
    assert plans.told[-1][:2] == ("p", False)
    assert not plans.due(1.0)


def test_a_relapse_waits_longer_than_the_first_time(plans: Plans) -> None:
    plans.fail(3)
    plans.health.succeeded("p", 1.0)
    plans.fail(3, now=2.0)
    assert not plans.due(3.5)
    assert plans.due(4.0)
    plans.health.succeeded("p", 4.0)
    plans.fail(3, now=100.0)  # long after: as the first time
    assert plans.due(101.0)


def test_half_open_takes_one_request(plans: Plans) -> None:
    plans.fail(3)
    plans.health.probe_refused("p", 1.0)
    assert plans.health.is_usable("p")
    assert plans.health.claim("p")
    assert not plans.health.is_usable("p")
    assert not plans.health.claim("p")
    plans.fail(now=1.5)
    assert plans.health.state("p") == health.OPEN
    plans.health.probe_refused("p", 4.0)
    assert plans.health.claim("p")
    plans.health.succeeded("p", 4.5)
    assert plans.health.is_closed("p")


def test_a_trial_that_nobody_ends_is_given_again(plans: Plans) -> None:
    plans.fail(3)
    plans.health.probe_refused("p", 1.0)
    assert plans.health.claim("p")
    assert plans.due(2.0)
    plans.health.probe_refused("p", 2.0)
    assert plans.health.claim("p")


def test_a_lost_server_ejects_at_once_and_its_return_is_probed_at_once(plans: Plans) -> None:
    plans.health.server_lost("p", "server 'edge' is not ready", 0.0)
    assert not plans.health.is_usable("p")
    assert plans.told == [("p", True, "server 'edge' is not ready")]
    assert not plans.due(100.0)  # as long as the server is not there
    plans.health.succeeded("p", 1.0)  # an answer that was on its way
    assert not plans.health.is_usable("p")
    plans.health.servers_ready("p", 101.0)
    assert plans.due(101.0)


def test_a_silent_plan_is_probed_now_and_then(plans: Plans) -> None:
    assert not plans.due(1000.0)
    assert plans.due(1000.0, idle_s=10.0)
    plans.health.probe_sent("p", 1000.0)
    assert not plans.due(1005.0, idle_s=10.0)
    plans.health.succeeded("p", 1008.0)
    assert not plans.due(1012.0, idle_s=10.0)
    plans.health.probe_failed("p", "x", 1020.0)
    plans.health.probe_failed("p", "x", 1020.0)
    plans.health.probe_failed("p", "x", 1020.0)
    assert not plans.health.is_usable("p")


def test_answers_are_remembered(plans: Plans) -> None:
    known: Any = plans.health
    assert not known.answered_since("p", 0.0)
    known.succeeded("p", 5.0)
    assert known.answered_since("p", 5.0)
    assert not known.answered_since("p", 5.1)
