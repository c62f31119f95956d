"""Whole requests, timed as an app sees them: several models in turn, so that a machine whose speed
changes is as fast, or slow, for all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tritier.documents import Duration, Latency

NS_PER_MS = 1e6
INTERVAL_FROM = 6  # values: a 95 % interval of a median needs as many


@dataclass
class Rounds:
    """Asks each of some things once a round: A, B, C, A, B, C, ...

    `asks` by name; each makes one request and returns when it is answered. `after`, if given, is
    called with the name after each request that counts, outside its time.
    """

    asks: Mapping[str, Callable[[], object]]
    after: Callable[[str, int], None] | None = None
    times_ns: dict[str, list[int]] = field(default_factory=dict)

    def run(
        self,
        rounds: int,
        warmup: int = 5,
        report: Callable[[str, float], None] = lambda _step, _share: None,
    ) -> dict[str, list[float]]:
        """Milliseconds of each request by name, in the order of rounds; `warmup` rounds before
        don't count."""
        self.times_ns = {name: [] for name in self.asks}
        for number in range(warmup + rounds):
            report("warming up" if number < warmup else "measuring", number / (warmup + rounds))
            for name, ask in self.asks.items():
                started = time.perf_counter_ns()
                ask()
                spent = time.perf_counter_ns() - started
                if number >= warmup:
                    self.times_ns[name].append(spent)
                    if self.after is not None:
                        self.after(name, number - warmup)
        return {name: [t / NS_PER_MS for t in times] for name, times in self.times_ns.items()}


def latency_of(times_ms: Sequence[float]) -> Latency:
    """Figures of at least one request."""
    found = np.array(times_ms)
    p90, p95, p99 = (float(x) for x in np.percentile(found, [90, 95, 99]))
    low, high = median_interval(times_ms)
    return Latency(
        n=len(found),
        mean_ms=float(found.mean()),
        std_ms=float(found.std(ddof=1)) if len(found) > 1 else 0.0,
        median_ms=float(np.median(found)),
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        low_ms=low,
        high_ms=high,
    )


def median_interval(times: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median by ranks (binomial, exactly): nothing is assumed of the
    distribution. Of less than 6 values no interval is that sure: it is from the least to the
    greatest then."""
    ordered = sorted(times)
    count = len(ordered)
    rank, below = 0, math.exp(-count * math.log(2))
    while below <= 0.025:  # the chance that the median is below the value of this rank
        rank += 1
        below += math.exp(
            math.lgamma(count + 1)
            - math.lgamma(rank + 1)
            - math.lgamma(count - rank + 1)
            - count * math.log(2)
        )
    rank = max(1, rank)
    return ordered[rank - 1], ordered[count - rank]


def interval_text(count: int, low_ms: float, high_ms: float, digits: int = 2) -> str:
    """An interval of a median for people, which says so where it is of too few values."""
    text = f"{low_ms:.{digits}f} to {high_ms:.{digits}f}"
    return text if count >= INTERVAL_FROM else f"{text}, least to greatest"


def duration_of(times_ms: Sequence[float]) -> Duration:
    """Figures of at least one time."""
    values = [max(0.0, value) for value in times_ms]
    return Duration(
        median_ms=statistics.median(values),
        mean_ms=statistics.fmean(values),
        std_ms=statistics.stdev(values) if len(values) > 1 else 0.0,
        n=len(values),
    )
