"""Exact latencies where there is a formula (docs/sharing.md, section 2). All times in ms.

- W. Pollaczek-Khinchine: the mean wait of M/G/1.
- A. K. Erlang 1909: the wait of M/D/1.
- J. W. Roberts, J. T. Virtamo 1991, after A. E. Eckberg 1979: N periodic streams of one period and
  one constant service time, with random phases.
- M. Reiser, S. S. Lavenberg 1980: mean value analysis of a closed network.
"""

from __future__ import annotations

import math

_BISECTIONS = 60


def mean_wait_mg1(per_ms: float, mean_ms: float, variance_ms2: float) -> float:
    """Mean wait of Poisson arrivals at one server: l E[S^2] / (2 (1 - l E[S])).

    ValueError if there is more to do than time.
    """
    load = per_ms * mean_ms
    _require_load(load)
    return per_ms * (variance_ms2 + mean_ms**2) / (2.0 * (1.0 - load))


def wait_share_md1(wait_ms: float, per_ms: float, service_ms: float) -> float:
    """Share of requests that wait at most so long, M/D/1:

    P(W <= t) = (1 - r) sum_{k=0}^{floor(t/s)} (-x_k)^k / k! e^{x_k}, with x_k = l (t - k s).

    The terms alternate: good for waits up to some 20 service times, which raises ValueError above.
    """
    load = per_ms * service_ms
    _require_load(load)
    if wait_ms < 0:
        return 0.0
    last = math.floor(wait_ms / service_ms)
    if last > 20:
        raise ValueError(f"a wait of {last} service times: the sum is good up to 20")
    total = math.fsum(
        (-1.0) ** k * x**k / math.factorial(k) * math.exp(x)
        for k in range(last + 1)
        for x in (per_ms * (wait_ms - k * service_ms),)
    )
    return (1.0 - load) * total


def wait_share_periodic(wait_ms: float, streams: int, period_ms: float, service_ms: float) -> float:
    """Share of requests that wait at most so long, for streams of one period and one constant
    service time with random phases. What a request finds is what the n = streams - 1 others left:

    P(W > x) = sum_{x < j <= n} C(n, j) ((j-x)/D)^j (1 - (j-x)/D)^(n-j) (D - n + x) / (D - j + x)

    with x and the period D in service times.
    """
    others, period, x = streams - 1, period_ms / service_ms, wait_ms / service_ms
    _require_load(streams / period)
    if wait_ms < 0:
        return 0.0
    above = 0.0
    for j in range(math.floor(x) + 1, others + 1):
        part = (j - x) / period
        ways = math.comb(others, j) * part**j * (1.0 - part) ** (others - j)
        above += ways * (period - others + x) / (period - j + x)
    return 1.0 - above


def quantile_periodic(
    share: float, streams: int, period_ms: float, service_ms: float, outside_ms: float = 0.0
) -> float:
    """The latency that so large a share of the requests of such streams does not pass."""
    low, high = 0.0, streams * service_ms
    if wait_share_periodic(0.0, streams, period_ms, service_ms) >= share:
        return service_ms + outside_ms
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        if wait_share_periodic(middle, streams, period_ms, service_ms) >= share:
            high = middle
        else:
            low = middle
    return high + service_ms + outside_ms


def mean_closed(customers: int, service_ms: float, think_ms: float) -> float:
    """Mean time at one station of customers that come back `think_ms` after each answer, by mean
    value analysis. Exact for exponential service times in turn, and for any that share the station
    at once (`sliced`)."""
    queue, time = 0.0, service_ms
    for n in range(1, customers + 1):
        time = service_ms * (1.0 + queue)
        queue = n * time / (time + think_ms)
    return time


def bound_closed(customers: int, service_ms: float, think_ms: float) -> float:
    """Mean time at the station that no schedule beats: max(s, N s - Z). Exact for constant times in
    order of arrival."""
    return max(service_ms, customers * service_ms - think_ms)


def _require_load(load: float) -> None:
    if load >= 1.0:
        raise ValueError(f"a load of {load:g}: latencies grow for ever from 1 on")
