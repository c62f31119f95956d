"""Shapes, percentiles and merged samples, whatever the numbers are."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.loads import job
from tritier.bench.locust_result import Run, load_result
from tritier.bench.locust_samples import FAILED, RIGHT, WRONG, Samples, Tag, percentile
from tritier.bench.locust_shapes import cut, level_at, levels_of

times_ms = st.lists(st.floats(0, 1e6), min_size=1, max_size=60)
rows = st.lists(
    st.tuples(
        st.floats(0, 30),
        st.floats(0, 5000),
        st.sampled_from((RIGHT, FAILED, WRONG)),
        st.builds(Tag, st.sampled_from(("", "low", "high")), st.sampled_from(("", "aaaaaaaa"))),
    ),
    max_size=40,
)


@settings(max_examples=examples(100), deadline=None)
@given(
    shape=st.sampled_from(("steps", "spike", "ramp")),
    low=st.integers(1, 500),
    more=st.integers(1, 500),
    duration_s=st.floats(0.5, 1e5),
    at=st.floats(0, 1),
)
def test_a_shape_fills_its_time_without_gaps(
    shape: str, low: int, more: int, duration_s: float, at: float
) -> None:
    levels = levels_of(shape, (low, low + more), duration_s)  # type: ignore[arg-type]
    assert (levels[0].start_s, levels[-1].end_s) == (0, duration_s)
    assert all(a.end_s == b.start_s for a, b in itertools.pairwise(levels))
    assert {low, low + more} <= {level.users for level in levels}
    assert all(low <= level.users <= low + more for level in levels)
    assert all(level.start_s < level.settled_s < level.end_s for level in levels)
    time_s = at * duration_s
    found = level_at(levels, time_s)
    assert (found is None) == (time_s >= duration_s)
    assert found is None or found.start_s <= time_s < found.end_s
    kept = cut(levels, time_s)
    assert (kept[-1].end_s if kept else 0) == time_s


@settings(max_examples=examples(200), deadline=None)
@given(times=times_ms, percent=st.integers(1, 100))
def test_a_percentile_is_the_least_time_that_so_many_kept(times: list[float], percent: int) -> None:
    ordered = sorted(times)
    found = percentile(ordered, percent)
    assert found in times
    assert sum(t <= found for t in times) * 100 >= percent * len(times)
    below = [t for t in times if t < found]
    assert len(below) * 100 < percent * len(times)
    assert found == np.percentile(times, percent, method="inverted_cdf") or math.isclose(
        (percent * len(times) / 100) % 1, 0, abs_tol=1e-6
    )


@settings(max_examples=examples(100), deadline=None)
@given(requests=rows, parts=st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_it_does_not_matter_who_asked(
    requests: list[tuple[float, float, int, Tag]], parts: list[int]
) -> None:
    """The document of one process and of several with the same requests is the same."""
    whole, several = Samples(), [Samples() for _ in range(4)]
    for (sent_s, ms, outcome, tag), part in zip(requests, parts, strict=False):
        for samples in (whole, several[part]):
            samples.add(sent_s, ms, outcome, tag, "failed" if outcome == FAILED else "")
    merged = Samples()
    for samples in several:
        merged.merge(Samples.from_data(samples.to_data()))
    run = Run(levels=job().levels, end_s=20.0, workers=1, locust="x")
    one, other = load_result(job(), whole, run), load_result(job(), merged, run)
    for found in (one, other):
        assert found.requests == len(requests)
        assert sum(found.answered_by.values()) == found.right
        for point in found.points:
            assert point.requests <= found.requests
    left, right = one.model_dump(), other.model_dump()
    assert left.pop("std_ms") == right.pop("std_ms") or math.isclose(
        one.std_ms or 0, other.std_ms or 0, rel_tol=1e-9
    )
    assert left == right
    assert sorted(whole.to_csv()) == sorted(merged.to_csv())
