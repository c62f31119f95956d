"""Cells of `baseline_grid` and what follows from their measurements; nothing here runs anything."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritier.workflow.compare_rounds import median_interval

UPLINKS_MB_S = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)
SLOWDOWNS = (1.0, 2.0, 4.0, 8.0, 16.0)
# Promised: never slower than the best baseline by more, and faster by so much in so many cells.
NEVER_WORSE, FASTER, SHARE = 0.03, 0.15, 0.25
FAMILIES = {
    "raw": "float tensors on the wire, no int8",
    "coded": "int8 layers and codecs within the same noise limit",
}
ALL = "all"  # the best baseline of both families
CELLS = len(UPLINKS_MB_S) * len(SLOWDOWNS)  # promises are about all of them
CLEARLY_SLOWER = 1.3


@dataclass(frozen=True)
class Cell:
    """The device's uplink in MB/s and its slow-down."""

    uplink_mb_s: float
    slowdown: float

    @property
    def name(self) -> str:
        """For files and progress."""
        return f"uplink_{self.uplink_mb_s:g}_slowdown_{self.slowdown:g}"

    @property
    def uplink_mib_s(self) -> float:
        """As servers files have it."""
        return self.uplink_mb_s * 1e6 / 2**20


def cells(uplinks: Iterable[float], slowdowns: Iterable[float]) -> list[Cell]:
    """Of equal slow-down together: that needs a restart, links can be changed."""
    return [Cell(u, s) for s, u in itertools.product(slowdowns, uplinks)]


@dataclass(frozen=True)
class Verdict:
    """The plan of a cell against the baselines of a family.

    `ratio` is the time of the best baseline over that of the plan: above 1 the plan is faster; the
    median over rounds of both in turn, with `low` to `high` as its 95 % interval, exactly 1 where
    the plan is that baseline.
    """

    best: str
    best_ms: float
    plan_ms: float
    ratio: float
    is_baseline: bool
    predicted_ratio: float
    n: int
    low: float
    high: float


def verdict(family: str, cell: Mapping[str, Any]) -> Verdict:
    """Of a measured cell: `variants` (name -> {plan, family, predicted_ms}), of which "plan" is
    what the planner says, and `times` (plan -> ms, round by round)."""
    variants, times = cell["variants"], cell["times"]
    own = variants["plan"]
    wanted = FAMILIES if family == ALL else (family,)
    rivals = {name: item for name, item in variants.items() if item["family"] in wanted}
    medians = {name: statistics.median(times[item["plan"]]) for name, item in rivals.items()}
    best = min(medians, key=lambda name: (medians[name], rivals[name]["plan"] != own["plan"]))
    rival = rivals[best]
    plan_times, rival_times = times[own["plan"]], times[rival["plan"]]
    same = rival["plan"] == own["plan"]
    ratios = [a / b for a, b in zip(rival_times, plan_times, strict=False)]
    low, high = (1.0, 1.0) if same else median_interval(ratios)
    return Verdict(
        best=best,
        best_ms=medians[best],
        plan_ms=statistics.median(plan_times),
        ratio=1.0 if same else statistics.median(ratios),
        is_baseline=same,
        predicted_ratio=min(x["predicted_ms"] for x in rivals.values()) / own["predicted_ms"],
        n=len(ratios),
        low=low,
        high=high,
    )


@dataclass(frozen=True)
class Outcome:
    """All cells of a family. `worst` is the least ratio, `faster` the share of cells in which the
    plan is faster than all baselines by the promised part, `same` that in which it is one.

    `surely_worse` and `perhaps_worse` are shares of cells whose interval is beyond what is promised
    as a whole, or in part; `surely_faster` and `perhaps_faster` likewise.
    """

    cells: int
    worst: float
    faster: float
    same: float
    median: float
    surely_worse: float
    perhaps_worse: float
    surely_faster: float
    perhaps_faster: float

    @property
    def never_worse(self) -> str:
        """Whether the plan is nowhere slower than promised."""
        return self._judged(self.perhaps_worse == 0, self.surely_worse > 0)

    @property
    def often_faster(self) -> str:
        """Whether it is faster in so many cells as promised."""
        return self._judged(self.surely_faster >= SHARE, self.perhaps_faster < SHARE)

    def _judged(self, kept: bool, missed: bool) -> str:
        """Promises are about all cells, and nothing is said where intervals leave it open."""
        if self.cells != CELLS:
            return f"undecided: {self.cells} of {CELLS} cells"
        return "kept" if kept else "missed" if missed else "undecided"


def outcome(verdicts: Sequence[Verdict]) -> Outcome:
    """Of at least one cell. Faster by 15 %: in 15 % less time."""

    def share(holds: Iterable[bool]) -> float:
        return sum(holds) / len(verdicts)

    worse, faster = 1 / (1 + NEVER_WORSE), 1 / (1 - FASTER)
    return Outcome(
        cells=len(verdicts),
        worst=min(item.ratio for item in verdicts),
        faster=share(item.ratio >= faster for item in verdicts),
        same=share(item.is_baseline for item in verdicts),
        median=statistics.median(item.ratio for item in verdicts),
        surely_worse=share(item.high < worse for item in verdicts),
        perhaps_worse=share(item.low < worse for item in verdicts),
        surely_faster=share(item.low >= faster for item in verdicts),
        perhaps_faster=share(item.high >= faster for item in verdicts),
    )


def worth_measuring(
    times: Mapping[str, Sequence[float]],
    plan: str,
    families: Mapping[str, Sequence[str]],
    slower: float = CLEARLY_SLOWER,
    always: Iterable[str] = (),
) -> list[str]:
    """Plans that need more rounds: the plan, those that are `always` kept, and in each family what
    is not slower than its best by that factor. The others keep the rounds that they have.

    The least time of each counts: one request that was slow by chance drops nothing. With less than
    2 times of each, nothing is dropped at all.
    """
    least = {name: min(values) for name, values in times.items()}
    kept = {plan, *always}
    for members in families.values():
        left = [name for name in members if name in least]
        best = min(least[name] for name in left)
        kept |= {name for name in left if least[name] <= slower * best or len(times[name]) < 2}
    return [name for name in times if name in kept]


def is_close(
    times: Mapping[str, Sequence[float]], plan: str, families: Mapping[str, Sequence[str]]
) -> bool:
    """Whether, in a family, another than the plan is so near that more rounds should tell."""
    for members in families.values():
        medians = {name: statistics.median(times[name]) for name in members}
        best = min(medians, key=lambda name: medians[name])
        if plan not in members and abs(medians[best] / statistics.median(times[plan]) - 1) < 0.06:
            return True
    return False


def heat(
    verdicts: Mapping[Cell, Verdict], uplinks: Sequence[float], slowdowns: Sequence[float]
) -> list[list[float]]:
    """Ratios, a row per slow-down, a column per uplink; NaN for a cell that is missing."""
    return [
        [
            verdicts[Cell(u, s)].ratio if Cell(u, s) in verdicts else float("nan")
            for u in uplinks
        ]
        for s in slowdowns
    ]  # fmt: skip
