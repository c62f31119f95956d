"""Promise 7, the experiment: hours in short, what servers hold while they are asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.faults.plane import Plane
from tests.helpers.faults import Resources, resources_of
from tests.helpers.load import Answer, Asker, open_loop, summary

DEADLINE_MS = 4000
_MIB = 1024**2
# What may grow for other reasons than a leak: caches of allocators, threads that are made when
# requests first overlap.
RSS_SLACK_BYTES, RSS_SLACK = 24 * _MIB, 0.03
FDS_SLACK, SHM_SLACK = 8, 0


@dataclass
class Soak:
    """What was measured: resources of each server over time, and the answers."""

    samples: dict[str, list[tuple[float, Resources]]] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)

    @property
    def failed(self) -> list[Answer]:
        return [a for a in self.answers if not a.ok]

    def growth(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Server -> what -> mean in the second quarter of the time and in the last.

        In the first, processes take what they will keep.
        """
        return {
            name: {
                what: (_mean(rows, what, 0.25, 0.5), _mean(rows, what, 0.75, 1.0))
                for what in ("rss_bytes", "fds", "shm_entries")
            }
            for name, rows in self.samples.items()
        }

    def faults(self) -> list[str]:
        """What is not flat."""
        found = []
        for name, row in self.growth().items():
            for what, (before, after) in row.items():
                slack = {
                    "rss_bytes": max(RSS_SLACK_BYTES, RSS_SLACK * before),
                    "fds": FDS_SLACK,
                    "shm_entries": SHM_SLACK,
                }[what]
                if after - before > slack:
                    found.append(f"{name}: {what} went from {before:.0f} to {after:.0f}")
        return found

    def text(self) -> str:
        rows = [
            f"{name}: memory {row['rss_bytes'][0] / _MIB:.0f} -> {row['rss_bytes'][1] / _MIB:.0f} "
            f"MiB, descriptors {row['fds'][0]:.0f} -> {row['fds'][1]:.0f}, /dev/shm "
            f"{row['shm_entries'][0]:.0f} -> {row['shm_entries'][1]:.0f}"
            for name, row in self.growth().items()
        ]
        return "; ".join([*rows, f"{len(self.failed)} failed: {summary(self.answers)}"])


def soak(plane: Plane, asker: Asker, rate_per_s: float, seconds: float, every_s: float) -> Soak:
    """Ask at a rate for some seconds and look at the servers now and then."""
    found = Soak({server.name: [] for server in plane.state.servers})
    with open_loop(asker, rate_per_s) as load:
        end_s = time.monotonic() + seconds
        while (now := time.monotonic()) < end_s:
            for server in plane.state.servers:
                found.samples[server.name].append((now, resources_of(server)))
            time.sleep(every_s)
    assert load.not_sent == 0, f"{load.not_sent} requests were not sent: the rate is too high"
    found.answers = load.answers
    return found


def _mean(
    rows: Sequence[tuple[float, Resources]], what: str, from_part: float, to_part: float
) -> float:
    chosen = rows[int(len(rows) * from_part) : max(1, int(len(rows) * to_part))]
    return sum(float(getattr(row, what)) for _, row in chosen) / max(1, len(chosen))
