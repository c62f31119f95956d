"""Exact latencies against tables and against each other."""

from __future__ import annotations

import math

import pytest

from tritier.costs.sharing_formulas import (
    bound_closed,
    mean_closed,
    mean_wait_mg1,
    quantile_periodic,
    wait_share_md1,
    wait_share_periodic,
)


def test_pollaczek_khinchine_of_known_queues() -> None:
    # M/M/1: r s / (1 - r); M/D/1 waits half as long.
    assert mean_wait_mg1(0.08, 10.0, 100.0) == pytest.approx(0.8 * 10 / 0.2)
    assert mean_wait_mg1(0.08, 10.0, 0.0) == pytest.approx(0.8 * 10 / 0.2 / 2)


def test_the_wait_of_md1_has_the_mean_of_pollaczek_khinchine() -> None:
    assert wait_share_md1(0.0, 0.05, 10.0) == pytest.approx(0.5)
    step = 0.05
    above = sum(1 - wait_share_md1((k + 0.5) * step, 0.05, 10.0) for k in range(3000)) * step
    assert above == pytest.approx(mean_wait_mg1(0.05, 10.0, 0.0), rel=1e-3)
    assert wait_share_md1(-1.0, 0.05, 10.0) == 0.0
    with pytest.raises(ValueError, match="good up to 20"):
        wait_share_md1(300.0, 0.05, 10.0)


def test_two_periodic_streams_by_hand() -> None:
    # The other's phase is even over the period: it hinders with probability s / T, evenly long.
    assert wait_share_periodic(0.0, 2, 100.0, 10.0) == pytest.approx(0.9)
    assert wait_share_periodic(4.0, 2, 100.0, 10.0) == pytest.approx(0.94)
    assert wait_share_periodic(10.0, 2, 100.0, 10.0) == pytest.approx(1.0)
    assert quantile_periodic(0.95, 2, 100.0, 10.0) == pytest.approx(15.0)
    assert quantile_periodic(0.5, 2, 100.0, 10.0, outside_ms=3.0) == pytest.approx(13.0)
    assert wait_share_periodic(5.0, 1, 100.0, 10.0) == 1.0


def test_many_periodic_streams_are_like_poisson_from_below() -> None:
    periodic = [wait_share_periodic(20.0, n, 10.0 * n / 0.8, 10.0) for n in (5, 20, 100)]
    assert periodic == sorted(periodic, reverse=True)
    assert periodic[-1] == pytest.approx(wait_share_md1(20.0, 0.08, 10.0), abs=0.05)
    assert periodic[-1] > wait_share_md1(20.0, 0.08, 10.0)


def test_closed_networks() -> None:
    assert mean_closed(1, 10.0, 25.0) == 10.0
    # Two customers that always wait: the second finds the first.
    assert mean_closed(2, 10.0, 0.0) == pytest.approx(20.0)
    assert mean_closed(3, 10.0, 10.0) == pytest.approx(22.0)
    for customers in range(1, 20):
        assert mean_closed(customers, 10.0, 25.0) >= bound_closed(customers, 10.0, 25.0)
    assert mean_closed(100, 10.0, 25.0) == pytest.approx(bound_closed(100, 10.0, 25.0), rel=1e-3)


@pytest.mark.parametrize("load", [1.0, 1.5])
def test_no_latency_above_full_load(load: float) -> None:
    with pytest.raises(ValueError, match="grow for ever"):
        mean_wait_mg1(load / 10, 10.0, 0.0)
    with pytest.raises(ValueError, match="grow for ever"):
        wait_share_md1(1.0, load / 10, 10.0)
    with pytest.raises(ValueError, match="grow for ever"):
        wait_share_periodic(1.0, 4, 40.0 / load, 10.0)
    assert math.isfinite(mean_wait_mg1(0.099, 10.0, 0.0))
