"""The load generator of the fault suite: it must not hide what it measures."""

from __future__ import annotations

import threading
import time
from typing import cast

import pytest

from tests.faults.soak import Soak
from tests.helpers.faults import Resources
from tests.helpers.load import (
    Answer,
    Asker,
    between,
    closed_loop,
    goodput_per_s,
    open_loop,
    quantiles_ms,
    summary,
)


class _Fake:
    """Answers after a while, in place of a server."""

    def __init__(self, takes_s: float = 0.0, fails: bool = False) -> None:
        self._takes_s, self._fails = takes_s, fails
        self.most, self._now = 0, 0
        self._lock = threading.Lock()

    def ask(self, number: int = 0, due_s: float | None = None) -> Answer:  # noqa: ARG002
        if self._fails:
            raise RuntimeError("broken")
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        start_s = time.monotonic()
        time.sleep(self._takes_s)
        with self._lock:
            self._now -= 1
        return Answer(due_s or start_s, start_s, time.monotonic(), "OK")


def _asker(fake: _Fake) -> Asker:
    return cast(Asker, fake)


def _answer(start_s: float, end_s: float, status: str = "OK", wrong: bool = False) -> Answer:
    return Answer(start_s, start_s, end_s, status, wrong=wrong)


def test_a_closed_loop_has_no_more_in_flight_than_workers() -> None:
    fake = _Fake(0.01)
    with closed_loop(_asker(fake), 3) as load:
        load.wait_for(lambda answers: len(answers) >= 9, 5)
    assert fake.most == 3
    assert all(answer.ok for answer in load.answers)


def test_an_open_loop_does_not_wait_for_answers_and_counts_what_it_could_not_send() -> None:
    with open_loop(_asker(_Fake(0.3)), 100, senders=5) as load:
        time.sleep(0.25)
    assert len(load.answers) == 5
    assert 5 <= load.not_sent <= 25


def test_a_sender_that_breaks_fails_the_test() -> None:
    with pytest.raises(RuntimeError, match="broken"), closed_loop(_asker(_Fake(fails=True)), 1):
        time.sleep(0.02)


def test_goodput_counts_right_answers_when_they_come() -> None:
    answers = [
        _answer(0, 1.5),
        _answer(0, 2.5),
        _answer(1, 1.6, "UNAVAILABLE"),
        _answer(1, 1.7, wrong=True),
    ]
    assert goodput_per_s(answers, 1, 3) == 1.0
    assert goodput_per_s(answers, 2, 3) == 1.0
    assert len(between(answers, 1)) == 2
    assert quantiles_ms(answers, (1.0,)) == {1.0: 2500.0}
    assert quantiles_ms([]) == {}
    assert "4 answers" in summary(answers)
    assert "1 wrong" in summary(answers)


@pytest.mark.parametrize(("step", "faulty"), [(0, False), (1, True)])
def test_a_soak_tells_flat_from_growing(step: int, faulty: bool) -> None:
    rows = [(float(i), Resources(10**8 + 10**7 * i * step, 50, 5, 0, 9)) for i in range(40)]
    soak = Soak({"edge": rows})
    assert bool(soak.faults()) == faulty
    assert "edge" in soak.text()
