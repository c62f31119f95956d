"""Loads, windows and the search of a bench: all that is decided without measuring."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tritier.bench.figures import latency_figures
from tritier.bench.loads import (
    first_window,
    highest_that_keeps,
    most_window,
    next_window,
    parse_loads,
    spread_percent,
)


@given(count=st.integers(1, 500), limit=st.integers(-1, 500))
def test_the_search_finds_the_highest_that_keeps_the_limit(count: int, limit: int) -> None:
    tried: list[int] = []

    def keeps(index: int) -> bool:
        tried.append(index)
        return index <= limit

    found = highest_that_keeps(count, keeps)
    right = min(limit, count - 1)
    assert found == (None if right < 0 else right)
    assert len(tried) == len(set(tried)), "nothing is measured twice"
    assert len(tried) <= 2 + math.ceil(math.log2(count))


@given(pattern=st.lists(st.booleans(), min_size=1, max_size=60))
def test_a_search_among_any_levels_ends_at_one_that_keeps_the_limit(pattern: list[bool]) -> None:
    """Measured latencies need not grow with every load."""
    found = highest_that_keeps(len(pattern), pattern.__getitem__)
    assert (found is None) == (not pattern[0])
    assert found is None or pattern[found]


@given(first=st.integers(1, 40), length=st.integers(0, 60), step=st.integers(1, 20))
def test_a_range_has_both_ends_and_its_steps(first: int, length: int, step: int) -> None:
    loads = parse_loads(f"{first}:{first + length}:{step}", "--concurrency", whole=True)
    assert loads == tuple(sorted({*range(first, first + length + 1, step), first + length}))


@given(
    first=st.integers(1, 1000),
    steps=st.integers(0, 50),
    step=st.sampled_from([0.1, 0.25, 0.5, 2.5]),
)
def test_rates_meet_their_end(first: int, steps: int, step: float) -> None:
    """0.1 is not exact in floats: the end must come once, not once more beside itself."""
    loads = parse_loads(f"{first}:{round(first + steps * step, 6)}:{step}", "--request-rate", False)
    assert len(loads) == steps + 1
    assert loads[0] == first


@given(window=st.integers(1, 2000), most=st.integers(1, 2000))
def test_windows_grow_to_the_most_and_end(window: int, most: int) -> None:
    sizes = [window]
    while (larger := next_window(sizes[-1], most)) is not None:
        assert sizes[-1] < larger <= most
        sizes.append(larger)
    assert len(sizes) <= 13
    assert sizes[-1] == max(window, most)


@given(requests=st.integers(5, 500), load=st.integers(1, 256))
def test_a_window_has_what_was_asked_for_and_some_rounds(requests: int, load: int) -> None:
    assert first_window(requests, load, closed=True) == max(requests, 5 * load)
    assert first_window(requests, load, closed=False) == max(requests, 2 * load)


@given(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=300))
def test_figures_are_in_order(latencies: list[float]) -> None:
    found = latency_figures(latencies)
    assert found.p50_ms <= found.p90_ms <= found.p95_ms <= found.p99_ms
    slack = 1e-9 * max(latencies)
    assert min(latencies) - slack <= found.mean_ms <= max(latencies) + slack
    assert found.low_ms <= found.mean_ms + slack
    assert found.high_ms >= found.mean_ms - slack


@given(st.lists(st.floats(0.1, 1e4), min_size=2, max_size=10))
def test_the_spread_is_that_of_the_ends(values: list[float]) -> None:
    assert math.isclose(spread_percent(values), (max(values) / min(values) - 1) * 100, abs_tol=1e-6)


def test_the_interval_of_the_mean_holds_it_as_often_as_it_says() -> None:
    """Also where neighbours depend on each other, which a plain standard error forgets."""
    draw = np.random.default_rng(3)
    held = plain = 0
    for _ in range(300):
        noise, values = draw.normal(size=400), np.empty(400)
        value = 0.0
        for index in range(400):
            value = 0.7 * value + noise[index]
            values[index] = 20 + value
        found = latency_figures(values.tolist())
        held += found.low_ms <= 20 <= found.high_ms
        half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
        plain += abs(values.mean() - 20) <= half
    assert held / 300 > 0.88
    assert plain / 300 < 0.75, "the control: this is what the groups are for"


@given(requests=st.integers(1, 500), more=st.integers(0, 500), load=st.integers(1, 5000))
def test_windows_of_high_loads_may_always_grow(requests: int, more: int, load: int) -> None:
    window = first_window(requests, load, closed=True)
    most = most_window(requests, requests + more, window)
    if window == requests:
        assert most == requests + more, "what was asked for"
        return
    larger = next_window(window, most)
    assert larger is not None
    assert next_window(larger, most) is not None, "twice at least"
