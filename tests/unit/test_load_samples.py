"""Samples of a load test: figures are exact, and nothing is lost between processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tritier.bench import locust_samples
from tritier.bench.locust_samples import (
    FAILED,
    OTHER_MESSAGES,
    RIGHT,
    WRONG,
    Samples,
    Tag,
    figures,
    percentile,
)


def _figures(samples: Samples) -> dict[str, Any]:
    return figures(np.array(samples.ms), np.array(samples.outcome, np.uint8))


def test_percentiles_are_times_of_requests() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert [percentile(ordered, p) for p in (1, 50, 90, 95, 99, 100)] == [1, 50, 90, 95, 99, 100]
    assert percentile([7.125], 50) == 7.125
    # 0.07 * 100 is above 7 as a float: a rank that is computed with it is one too high.
    assert percentile(ordered, 7) == 7
    # Locust would say 150 and 100 here.
    assert percentile([99.987, 147.256], 99) == 147.256
    assert percentile([99.987, 147.256], 50) == 99.987


def test_failures_and_wrong_answers_have_no_times() -> None:
    samples = Samples()
    for ms, outcome in ((10.0, RIGHT), (20.0, RIGHT), (1.0, FAILED), (900.0, WRONG)):
        samples.add(0.0, ms, outcome, Tag())
    found = _figures(samples)
    assert (found["requests"], found["failures"], found["wrong"]) == (4, 1, 1)
    assert (found["mean_ms"], found["p50_ms"], found["p99_ms"], found["max_ms"]) == (15, 10, 20, 20)
    assert found["std_ms"] == pytest.approx(np.std([10, 20], ddof=1))


def test_without_right_answers_there_are_no_times() -> None:
    samples = Samples()
    samples.add(0.0, 5.0, FAILED, Tag(), "UNAVAILABLE")
    assert _figures(samples) == {"requests": 1, "failures": 1, "wrong": 0}


def test_merged_processes_keep_their_tags_apart() -> None:
    one, two = Samples(), Samples()
    one.add(0.0, 1.0, RIGHT, Tag("low", "a"))
    two.add(0.0, 2.0, RIGHT, Tag("high", "b"))
    two.add(0.0, 3.0, RIGHT, Tag("low", "a"))
    one.merge(Samples.from_data(two.to_data()))
    names = {number: tag for tag, number in one.tags.items()}
    assert [(names[t].request_class, ms) for t, ms in zip(one.tag, one.ms, strict=True)] == [
        ("low", 1.0), ("high", 2.0), ("low", 3.0),
    ]  # fmt: skip


def test_what_is_taken_is_gone() -> None:
    samples = Samples()
    samples.add(0.0, 1.0, FAILED, Tag(), "why")
    taken = samples.take()
    assert (len(taken), taken.messages["why"]) == (1, 1)
    assert (len(samples), samples.tags, samples.messages) == (0, {}, {})
    samples.add(0.0, 1.0, RIGHT, Tag("x"))
    assert len(taken) == 1


def test_different_messages_are_bounded() -> None:
    samples = Samples()
    for number in range(100):
        samples.add(0.0, 1.0, FAILED, Tag(), f"after {number} ms" + "x" * 1000)
    assert len(samples.messages) == locust_samples._MESSAGES + 1
    assert sum(samples.messages.values()) == 100
    assert samples.messages[OTHER_MESSAGES] == 100 - locust_samples._MESSAGES
    assert max(map(len, samples.messages)) <= 300


@pytest.mark.parametrize(
    "change",
    [
        {"ms": b"\0" * 8},
        {"ms": b"\0" * 7},
        {"tag": b"\7\0" * 2},
        {"outcome": b"\1\3"},
        {"tags": [["a"]]},
        {"tags": None},
        {"messages": {"x": "y"}},
        {"messages": 3},
        {"sent_s": None},
    ],
)
def test_damaged_samples_are_refused(change: dict[str, Any]) -> None:
    samples = Samples()
    for _ in range(2):
        samples.add(0.0, 1.0, RIGHT, Tag("a"))
    data = samples.to_data()
    Samples.from_data(data)
    with pytest.raises(ValueError, match=r".+"):
        Samples.from_data(data | change)


def test_requests_as_csv() -> None:
    samples = Samples()
    samples.add(2.0, 1.5, WRONG, Tag("low", "abc"))
    samples.add(1.0, 2.5, RIGHT, Tag())
    assert samples.to_csv().splitlines() == [
        "sent_s,ms,outcome,class,plan",
        "1.000000,2.500000,right,,",
        "2.000000,1.500000,wrong,low,abc",
    ]
