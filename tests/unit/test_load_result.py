"""From samples to the document of a load test."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.helpers.loads import job, settings
from tritier.bench.locust_result import Run, load_result
from tritier.bench.locust_samples import FAILED, RIGHT, WRONG, Samples, Tag
from tritier.documents.load import LoadResult, LoadTimes
from tritier.errors import InputError


def _run(**changed: Any) -> Run:
    values: dict[str, Any] = {
        "levels": job().levels, "end_s": 20.0, "workers": 2, "locust": "2.47.0",
    }  # fmt: skip
    return Run(**values | changed)


def _samples(*rows: tuple[float, float, int], tag: Tag | None = None) -> Samples:
    samples = Samples()
    for sent_s, ms, outcome in rows:
        samples.add(sent_s, ms, outcome, tag or Tag())
    return samples


def test_a_request_counts_where_it_was_sent_and_its_answer_where_it_came() -> None:
    """Levels from 0 to 10 s and from 10 to 20 s, of which the first second settles."""
    samples = _samples(
        (0.5, 100.0, RIGHT),  # while the first level settles
        (2.0, 100.0, RIGHT),
        (9.9, 3000.0, RIGHT),  # answered in the second level
        (15.0, 200.0, WRONG),
        (16.0, 5.0, FAILED),
        (19.9, 400.0, RIGHT),  # answered after the end
    )
    found = load_result(job(), samples, _run())
    first, second = found.points
    assert (first.t_s, first.length_s, first.users, first.requests) == (1.0, 9.0, 1, 2)
    assert first.per_s == pytest.approx(1 / 9)
    assert (first.p50_ms, first.p99_ms) == (100.0, 3000.0)
    assert (second.t_s, second.users, second.requests) == (11.0, 2, 3)
    assert (second.wrong, second.failures, second.p50_ms) == (1, 1, 400.0)
    assert second.per_s == pytest.approx(1 / 9)
    assert (found.requests, found.wrong, found.failures, found.right) == (6, 1, 1, 4)
    assert found.infer_per_s == pytest.approx(3 / 20)
    assert found.failure_share == pytest.approx(1 / 6)
    assert (found.users, found.settings.workers, found.settings.locust) == ((1, 2), 2, "2.47.0")


def test_inferences_count_the_batch() -> None:
    samples = _samples((1.0, 1.0, RIGHT))
    found = load_result(job(settings=settings(batch=8)), samples, _run())
    assert found.infer_per_s == pytest.approx(8 / 20)


def test_an_interrupted_test_has_what_there_was() -> None:
    samples = _samples((2.0, 10.0, RIGHT), (12.0, 10.0, RIGHT))
    found = load_result(job(), samples, _run(end_s=14.0, interrupted=True))
    assert (found.duration_s, found.interrupted) == (14.0, True)
    assert [(p.users, round(p.length_s, 6)) for p in found.points] == [(1, 9.0), (2, 3.6)]
    nothing = load_result(job(), Samples(), _run(end_s=0.0, interrupted=True))
    assert (nothing.points, nothing.requests, nothing.p50_ms) == ((), 0, None)


def test_classes_and_plans_have_points_of_their_own() -> None:
    samples = _samples((2.0, 10.0, RIGHT), tag=Tag("low", "aaaaaaaa"))
    samples.merge(_samples((3.0, 20.0, RIGHT), (4.0, 1.0, FAILED), tag=Tag("high", "")))
    found = load_result(job(), samples, _run(end_s=10.0))
    assert [(p.tags, p.requests, p.failures) for p in found.points] == [
        ({}, 3, 1),
        ({"class": "high"}, 2, 1),
        ({"class": "low"}, 1, 0),
        ({"plan": "unknown"}, 2, 1),
        ({"plan": "aaaaaaaa"}, 1, 0),
    ]
    assert found.answered_by == {"aaaaaaaa": 1, "unknown": 1}


def test_the_document_comes_back() -> None:
    samples = _samples((2.0, 10.0, RIGHT), (3.0, 1 / 3, RIGHT), tag=Tag("low"))
    samples.add(4.0, 1.0, FAILED, Tag(), "UNAVAILABLE: gone")
    found = load_result(job(plan_id="aaaaaaaa"), samples, _run(warnings=("slow",)))
    assert LoadResult.from_data(json.loads(found.to_json())) == found
    assert found.messages == ("1 x UNAVAILABLE: gone",)


def test_counts_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="fewer than"):
        LoadTimes.from_data({"requests": 1, "failures": 1, "wrong": 1})
