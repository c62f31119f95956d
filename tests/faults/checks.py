"""What the promises say about the answers of a load, as assertions with figures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tests.faults.plane import SLACK_MS
from tests.helpers.load import Answer, between, summary


def check_right_and_in_time(answers: Sequence[Answer], deadline_ms: float) -> None:
    """No wrong answer, and every request has ended by its deadline."""
    assert answers
    assert not any(a.wrong for a in answers), summary(answers)
    late = [a for a in answers if a.ms > deadline_ms + SLACK_MS]
    assert not late, summary(late)


def check_only_in_flight_failed(
    answers: Sequence[Answer], fault_s: float, in_flight: int
) -> list[Answer]:
    """What failed was under way when the fault came; returns those."""
    failed = [a for a in answers if not a.ok]
    under_way = [a for a in failed if a.start_s <= fault_s <= a.end_s]
    assert len(failed) == len(under_way), summary(between(failed, fault_s))
    assert len(under_way) <= in_flight
    return under_way


def failures_sent_after(answers: Sequence[Answer], from_s: float) -> int:
    """For the controls: requests that were sent later and not answered."""
    return sum(not a.ok for a in between(answers, from_s))


def note(promise: str, **figures: object) -> None:
    """Append what was measured to the file that TRITIER_FAULT_FIGURES names, for the docs."""
    path = os.environ.get("TRITIER_FAULT_FIGURES")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"promise": promise, **figures}, default=str) + "\n")
