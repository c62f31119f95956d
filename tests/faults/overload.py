"""Promise 5, the experiment: more requests than the servers can answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.plane import Plane
from tests.helpers.faults import resources_of
from tests.helpers.load import (
    Answer,
    Asker,
    between,
    closed_loop,
    goodput_per_s,
    open_loop,
    quantiles_ms,
    summary,
)

# The servers are slow enough that this machine's cores are not what is exhausted.
DEADLINE_MS = 2500
SLOWDOWN = 15.0
PLACEMENTS = {"edge": {"conv1": "edge", "relu1": "edge", "conv2": "edge", "relu2": "edge"}}
_RAMP_S = 1.0
# Where nothing is refused, what waits grows until deadlines pass: it is looked at after that.
_SETTLE_S = 3.0
_WORKERS = 12
_SENDERS = 384
_REFUSED = ("overloaded", "maximum queue size", "in flight")


@dataclass(frozen=True)
class Overload:
    """What was measured. Rates are per second."""

    peak: float
    offered: float
    goodput: float
    answers: list[Answer]
    not_sent: int
    rss_before_bytes: int
    rss_after_bytes: int

    @property
    def kept(self) -> float:
        """Goodput over the peak."""
        return self.goodput / self.peak

    @property
    def rejections(self) -> list[Answer]:
        """Requests that were refused because there were too many."""
        refused = (a for a in self.answers if not a.ok)
        return [a for a in refused if any(word in a.message for word in _REFUSED)]

    @property
    def growth_bytes(self) -> int:
        """Of resident memory of all servers."""
        return self.rss_after_bytes - self.rss_before_bytes

    def rejected_ms(self, quantile: float) -> float:
        """Quantile of the time that a rejection took; 0 without any."""
        return quantiles_ms(self.rejections, (quantile,)).get(quantile, 0.0)

    def waited_ms(self) -> float:
        """Median of the time until a request that was not refused was answered, or failed."""
        refused = {id(a) for a in self.rejections}
        taken = [a for a in self.answers if id(a) not in refused]
        return quantiles_ms(taken, (0.5,)).get(0.5, 0.0)

    def text(self) -> str:
        return (
            f"peak {self.peak:.1f}/s, offered {self.offered:.1f}/s, goodput {self.goodput:.1f}/s "
            f"({self.kept:.0%}), {len(self.rejections)} rejections (median "
            f"{self.rejected_ms(0.5):.1f} ms, p99 {self.rejected_ms(0.99):.1f} ms), "
            f"others after {self.waited_ms():.1f} ms (median), "
            f"{self.not_sent} not sent, memory {self.growth_bytes / 2**20:+.0f} MiB: "
            f"{summary(self.answers)}"
        )


def peak_per_s(asker: Asker, seconds: float) -> float:
    """Right answers per second with always some requests in flight."""
    with closed_loop(asker, _WORKERS) as load:
        time.sleep(_RAMP_S + seconds)
        end_s = time.monotonic()
    return goodput_per_s(load.answers, end_s - seconds, end_s)


def overload(
    plane: Plane, asker: Asker, peak: float, seconds: float, factor: float = 2.0
) -> Overload:
    """Send `factor` times the peak for some seconds."""
    with open_loop(asker, factor * peak, _SENDERS) as load:
        time.sleep(_SETTLE_S)
        begin_s = time.monotonic()
        before = _rss_bytes(plane)
        time.sleep(seconds)
        end_s = time.monotonic()
        after = _rss_bytes(plane)
    sent = _due_between(load.answers, begin_s, end_s)
    return Overload(
        peak=peak,
        offered=len(sent) / seconds,
        goodput=goodput_per_s(load.answers, begin_s, end_s),
        answers=between(load.answers, begin_s),
        not_sent=load.not_sent,
        rss_before_bytes=before,
        rss_after_bytes=after,
    )


def _due_between(answers: Sequence[Answer], from_s: float, to_s: float) -> list[Answer]:
    return [a for a in answers if from_s <= a.due_s < to_s]


def _rss_bytes(plane: Plane) -> int:
    return sum(resources_of(server).rss_bytes for server in plane.state.servers)
