"""How many requests the router lets wait: what can be answered in time."""

from __future__ import annotations

import pytest

from tests.helpers.router import load_router

Pace = load_router().pace.Pace


def busy(pace: object, rate: int, seconds: float, start: float = 0.0, in_flight: int = 20) -> float:
    """So many answers per second with so many in flight; when it ends."""
    for number in range(int(rate * seconds)):
        pace.answered(in_flight, start + number / rate)  # type: ignore[attr-defined]
    return start + seconds


def test_nothing_is_refused_before_the_pace_was_seen() -> None:
    pace = Pace()
    assert pace.most(1.0, 0.0) is None
    busy(pace, 40, 0.9)
    assert pace.most(1.0, 0.95) is None


def test_what_waits_is_answered_within_a_part_of_the_budget() -> None:
    pace = Pace()
    end = busy(pace, 100, 3.0)
    assert pace.most(2.5, end) == pytest.approx(0.4 * 2.5 * 100, rel=0.05)
    assert pace.most(0.5, end) == pytest.approx(0.4 * 0.5 * 100, rel=0.05)
    assert pace.most(0.01, end) == 8  # a few may always come in


def test_quiet_times_say_nothing() -> None:
    """Few requests are answered because few come: a burst after that is let in."""
    pace = Pace()
    end = busy(pace, 5, 20.0, in_flight=2)
    assert pace.most(1.0, end) is None
    pace = Pace()
    for number in range(60):  # busy, but for one moment of each second
        pace.answered(1 if number % 10 == 0 else 20, number / 10)
    assert pace.most(1.0, 6.0) is None


def test_a_stall_does_not_lower_the_pace_and_is_forgotten() -> None:
    pace = Pace()
    end = busy(pace, 100, 3.0)
    end = busy(pace, 2, 3.0, end)  # servers die; what is in flight goes to another plan
    assert pace.most(1.0, end) == pytest.approx(40, rel=0.05)
    end = busy(pace, 30, 12.0, end)
    assert pace.most(1.0, end) == pytest.approx(12, abs=1)
    assert pace.most(1.0, end + 11.0) is None


def test_fewer_in_flight_that_are_answered_faster_raise_the_bound() -> None:
    """The bound of a slow plan lets so few in that no period is busy: it must not stay."""
    pace = Pace()
    end = busy(pace, 5, 3.0)
    assert pace.most(4.0, end) == 8
    end = busy(pace, 200, 2.1, end, in_flight=6)
    assert pace.most(4.0, end) == pytest.approx(0.4 * 4.0 * 200, rel=0.1)


def test_fewer_in_flight_that_are_answered_more_slowly_do_not_lower_it() -> None:
    pace = Pace()
    end = busy(pace, 100, 3.0)
    end = busy(pace, 5, 3.0, end, in_flight=2)
    assert pace.most(1.0, end) == pytest.approx(40, rel=0.05)


def test_other_plans_start_anew() -> None:
    pace = Pace()
    end = busy(pace, 5, 3.0)
    pace.start_anew()
    assert pace.most(1.0, end) is None
    end = busy(pace, 100, 3.0, end)
    assert pace.most(1.0, end) == pytest.approx(40, rel=0.05)
