"""The simulation against formulas, and turns as the rate limiter gives them."""

from __future__ import annotations

import numpy as np
import pytest

from tritier.costs.sharing_formulas import (
    bound_closed,
    mean_closed,
    mean_wait_mg1,
    wait_share_md1,
    wait_share_periodic,
)
from tritier.costs.sharing_load import Arrivals, Floats, Station, Stream, samples_of, utilisation
from tritier.costs.sharing_simulate import simulate
from tritier.costs.sharing_sources import Effort, Log
from tritier.costs.sharing_turns import Heap, Instance
from tritier.errors import InputError

CONSTANT = np.array([10.0])
DRAWN = np.random.default_rng(3).exponential(10.0, 20000)


def streams(count: int, arrivals: Arrivals, service: Floats = CONSTANT, outside: float = 0.0,
            model: str | None = None) -> list[Stream]:  # fmt: skip
    return [Stream(f"s{n}", service, arrivals, outside, source=n, model=model)
            for n in range(count)]  # fmt: skip


def pooled(items: list[Stream], station: Station, effort: Effort | None = None) -> Floats:
    return np.concatenate(simulate(items, station, effort))


def test_poisson_arrivals_wait_as_the_formulas_say() -> None:
    found = pooled(streams(1, Arrivals("poisson", 12.5)), Station())
    assert found.mean() == pytest.approx(10 + mean_wait_mg1(0.08, 10.0, 0.0), rel=0.03)
    for wait in (0.0, 10.0, 40.0):
        share = float((found <= 10 + wait + 1e-9).mean())
        assert share == pytest.approx(wait_share_md1(wait, 0.08, 10.0), abs=0.02)
    mean, variance = float(DRAWN.mean()), float(DRAWN.var())
    found = pooled(streams(4, Arrivals("poisson", 80.0), DRAWN), Station())
    assert found.mean() == pytest.approx(mean + mean_wait_mg1(0.05, mean, variance), rel=0.05)


def test_periodic_streams_wait_as_the_formula_says() -> None:
    found = pooled(streams(8, Arrivals("periodic", 100.0)), Station()) - 10
    for wait in (0.0, 5.0, 10.0, 20.0, 30.0):
        share = float((found <= wait + 1e-6).mean())
        assert share == pytest.approx(wait_share_periodic(wait, 8, 100.0, 10.0), abs=0.02)


def test_closed_streams_take_what_the_formulas_say() -> None:
    effort = Effort(runs=32, requests=1500, each=40)
    for count in (1, 4, 8):
        found = pooled(streams(count, Arrivals("closed", 0.0), outside=25.0), Station(), effort)
        assert found.mean() - 25 == pytest.approx(bound_closed(count, 10.0, 25.0), rel=1e-6)
    mean = mean_closed(5, float(DRAWN.mean()), 25.0)
    for discipline in ("fifo", "sliced"):
        found = pooled(streams(5, Arrivals("closed", 25.0), DRAWN),
                       Station(discipline=discipline), effort)  # fmt: skip
        assert found.mean() == pytest.approx(mean, rel=0.04)


def test_more_at_once_is_never_slower_and_slices_cost_their_changes() -> None:
    items = streams(6, Arrivals("periodic", 70.0))
    one, two = (pooled(items, Station(instances=n)).mean() for n in (1, 2))
    assert two < one
    plain = pooled(items, Station(discipline="sliced"))
    costly = Station(discipline="sliced", slice_ms=2.0, switch_ms=0.1)
    assert pooled(items, costly).mean() > plain.mean()
    assert utilisation(items, costly) == pytest.approx(60 / 70 * 1.05)
    alone = pooled(items[:1], costly)
    assert alone == pytest.approx(10.0)


def test_worst_phases_let_the_last_wait_for_all_others() -> None:
    found = simulate(streams(4, Arrivals("periodic", 100.0, "worst")), Station())
    assert [times.max() for times in found] == pytest.approx([10.0, 20.0, 30.0, 40.0])


def test_turns_of_equals_go_once_around_before_anybody_goes_twice() -> None:
    effort = Effort(runs=1, requests=1500, each=40)
    items = streams(8, Arrivals("closed", 0.0))
    found = pooled(items, Station(discipline="turns"), effort)
    assert found.mean() == pytest.approx(80.0, rel=0.02)
    # In every round in another order: some wait for more than one round, none for two.
    assert 80.0 < found.max() < 160.0
    assert pooled(items, Station(), effort).max() == pytest.approx(80.0)
    one = [Stream(x.name, x.service_ms, x.arrivals, source=x.source, model="one") for x in items]
    shared = pooled(one, Station(discipline="turns", model_instances=8), effort)
    assert shared.mean() == pytest.approx(80.0, rel=0.02)
    single = pooled(one, Station(discipline="turns"), effort)
    assert single.max() == pytest.approx(80.0)  # one instance: its queue is in order of arrival


def test_a_lower_priority_gets_fewer_turns() -> None:
    first, second = streams(2, Arrivals("closed", 0.0))
    third = Stream("third", CONSTANT, Arrivals("closed", 0.0), priority=2, source=2)
    found = simulate([first, second, third], Station(discipline="turns"))
    assert found[2].size == pytest.approx(found[0].size / 2, rel=0.1)


def test_the_heap_gives_the_least_and_orders_equals_like_the_server() -> None:
    heap, draw = Heap(), np.random.default_rng(1)
    items = [Instance("m", 1, done=int(x)) for x in draw.integers(0, 9, 60)]
    for item in items:
        heap.push(item)
    ranks = [heap.pop().rank for _ in items]
    assert ranks == sorted(ranks)
    for name in "abcdefgh":
        heap.push(Instance(name, 1))
    # What a program with libstdc++'s std::priority_queue printed for eight equals.
    assert "".join(heap.pop().model for _ in range(8)) == "acgfhebd"


def test_what_cannot_be_simulated_is_said() -> None:
    with pytest.raises(ValueError, match="more time than there is"):
        simulate(streams(10, Arrivals("periodic", 100.0)), Station())
    with pytest.raises(ValueError, match="no stream"):
        simulate([], Station())
    with pytest.raises(InputError, match="numbers above 0"):
        Arrivals("poisson", 0.0)


def test_samples_have_the_median_and_percentile_that_were_given() -> None:
    found = samples_of(20.0, 30.0)
    assert np.percentile(found, 50) == pytest.approx(20.0)
    assert np.percentile(found, 95) == pytest.approx(30.0, rel=0.02)
    assert samples_of(20.0).tolist() == [20.0]
    with pytest.raises(InputError, match="below the median"):
        samples_of(20.0, 10.0)


def test_only_requests_that_count_are_kept() -> None:
    """Those after the first third; memory does not grow with what is thrown away."""
    log = Log(90.0)
    for came in range(90):
        log.add(np.array([0]), np.array([float(came)]), np.array([came + 5.0]))
    assert len(log) == 51  # from 30 to 80
    (times,) = log.latencies(streams(1, Arrivals("closed", 0.0), outside=2.0))
    assert times.tolist() == [7.0] * 51
