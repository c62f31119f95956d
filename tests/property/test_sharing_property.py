"""What holds for any streams that share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tritier.costs.sharing_load import Arrivals, Discipline, Station, Stream, samples_of
from tritier.costs.sharing_simulate import simulate
from tritier.costs.sharing_sources import Effort

EFFORT = Effort(runs=12, requests=120, each=10)
disciplines = st.sampled_from(["fifo", "turns", "sliced"])
kinds = st.sampled_from(["periodic", "poisson"])


def drawn(count: int, kind: str, load: float, spread: float, at_once: int) -> list[Stream]:
    """Streams that take the load all together, of which the first have the same numbers whatever
    the count is."""
    interval = 10.0 * 6 / at_once / load
    service = samples_of(10.0, 10.0 * spread)
    service = service * 10.0 / service.mean()
    return [
        Stream(f"s{n}", service, Arrivals(kind, interval), source=n)  # type: ignore[arg-type]
        for n in range(count)
    ]


@settings(max_examples=examples(25), deadline=None)
@given(kinds, st.integers(1, 5), st.floats(0.2, 0.9), st.floats(1.0, 2.0), st.integers(1, 2))
def test_more_sharers_never_have_less_latency(
    kind: str, count: int, load: float, spread: float, at_once: int
) -> None:
    """In order of arrival: each request of a stream that is there in both cases."""
    station = Station(instances=at_once)
    few = simulate(drawn(count, kind, load, spread, at_once), station, EFFORT)
    # The horizon is the same for all counts from which each stream's part is the longer one.
    many = simulate(drawn(count + 1, kind, load, spread, at_once), station, EFFORT)
    for before, after in zip(few, many, strict=False):
        if before.size == after.size:
            assert np.percentile(after, 95) >= np.percentile(before, 95) - 1e-9
            assert after.sum() >= before.sum() - 1e-6


@settings(max_examples=examples(15), deadline=None)
@given(disciplines, st.integers(1, 6), st.floats(0.0, 30.0), st.floats(1.0, 2.0))
def test_more_closed_sharers_have_more_p95(
    discipline: Discipline, count: int, outside: float, spread: float
) -> None:
    def p95(sharers: int) -> float:
        items = [
            Stream(f"s{n}", samples_of(10.0, 10.0 * spread), Arrivals("closed", 0.0), outside,
                   source=n)
            for n in range(sharers)
        ]  # fmt: skip
        found = simulate(items, Station(discipline=discipline), Effort(8, 600, 30))
        return float(np.percentile(np.concatenate(found), 95))

    # By drawing only: the streams meet each other otherwise, so that numbers fall otherwise.
    assert p95(count + 1) >= 0.97 * p95(count)


@settings(max_examples=examples(20), deadline=None)
@given(disciplines, st.sampled_from(["periodic", "closed"]), st.floats(1.0, 2.0), st.floats(0, 20))
def test_one_sharer_takes_its_service_time(
    discipline: Discipline, kind: str, spread: float, outside: float
) -> None:
    service = samples_of(10.0, 10.0 * spread)
    # So far apart that it never meets itself.
    interval = 2.0 * float(service.max()) if kind == "periodic" else 0.0
    one = Stream("s", service, Arrivals(kind, interval), outside)  # type: ignore[arg-type]
    found = simulate([one], Station(discipline=discipline, switch_ms=1.0), EFFORT)[0] - outside
    allowed = np.sort(service)
    near = allowed[np.clip(np.searchsorted(allowed, found - 1e-6), 0, allowed.size - 1)]
    assert found == pytest.approx(near, abs=1e-5)


@settings(max_examples=examples(15), deadline=None)
@given(disciplines, kinds, st.integers(1, 5), st.floats(0.2, 0.8))
def test_the_same_seed_gives_the_same_and_nothing_is_faster_than_alone(
    discipline: Discipline, kind: str, count: int, load: float
) -> None:
    items = drawn(count, kind, load, 1.5, 1)
    station = Station(discipline=discipline)
    first, second = (simulate(items, station, EFFORT) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.tolist() == other.tolist()
        assert one.min() >= items[0].service_ms.min() - 1e-6
