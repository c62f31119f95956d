"""What is minimised: latency, energy and cost, each alone; latency and energy weighted, and all
their best compromises.

Latency is first minimised alone, then energy alone, in both cases with the other one as the second
aim (to one part in ten million of the first). T_max and E_max are the worse values of those two;
the weighted objective is w (T - T_min) / (T_max - T_min) + (1 - w) (E - E_min) / (E_max - E_min)
(design, section 6). The second aim of cost is latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

from tritier.planner.evaluate import Costs
from tritier.planner.problem import Weights
from tritier.planner.search import TIME_LIMIT_S, Search
from tritier.planner.solution import Solution

# What the second aim may cost of the first, as a share.
SECOND = 1e-7
# Money counts in millionths of a USD: solvers have absolute tolerances, too.
MILLIONTHS = 1e6
# Points closer than this, relatively, are one.
_SAME = 1e-6


class Aim(Enum):
    """One alone."""

    LATENCY = Weights(1.0, 0.0)
    ENERGY = Weights(0.0, 1.0)
    COST = Weights(0.0, 0.0, MILLIONTHS)


@dataclass(frozen=True)
class Extremes:
    """The placements of least latency and of least energy, and the ranges between them.

    A range is 0 where one placement is best in both.
    """

    fastest: Solution
    thriftiest: Solution

    @property
    def is_feasible(self) -> bool:
        """Whether there is any placement."""
        return self.fastest.costs is not None and self.thriftiest.costs is not None

    @property
    def latency_range_ms(self) -> tuple[float, float]:
        """(T_min, T_max)."""
        values = [costs.latency_ms for costs in self._costs()]
        return min(values), max(values)

    @property
    def energy_range_joule(self) -> tuple[float, float]:
        """(E_min, E_max)."""
        values = [costs.energy_joule for costs in self._costs()]
        return min(values), max(values)

    def weights(self, latency_weight: float) -> Weights:
        """The weighted objective without its constant. A range of 0 is left out, unless both are:
        then all weights mean the same placement."""
        (t_min, t_max), (e_min, e_max) = self.latency_range_ms, self.energy_range_joule
        per_ms = latency_weight / (t_max - t_min) if t_max - t_min > _SAME * t_max else 0.0
        per_joule = (1 - latency_weight) / (e_max - e_min) if e_max - e_min > _SAME * e_max else 0.0
        if per_ms == 0 and per_joule == 0:
            return Weights(1.0, 0.0)
        return Weights(per_ms, per_joule)

    def score(self, costs: Costs, latency_weight: float) -> float:
        """The weighted objective, 0 where both are best."""
        (t_min, _), (e_min, _) = self.latency_range_ms, self.energy_range_joule
        weights = self.weights(latency_weight)
        return weights.per_ms * (costs.latency_ms - t_min) + weights.per_joule * (
            costs.energy_joule - e_min
        )

    def _costs(self) -> tuple[Costs, Costs]:
        assert self.fastest.costs is not None
        assert self.thriftiest.costs is not None
        return self.fastest.costs, self.thriftiest.costs


def extremes(search: Search, *, time_limit_s: float = TIME_LIMIT_S) -> Extremes:
    """The ends of the front: least latency, then energy; and the other way round."""
    fastest, thriftiest = ends(search, [Aim.LATENCY, Aim.ENERGY], time_limit_s=time_limit_s)
    return Extremes(fastest, thriftiest)


def ends(
    search: Search, aims: Sequence[Aim], *, time_limit_s: float = TIME_LIMIT_S
) -> list[Solution]:
    """The placement of the least latency, energy or cost, and among those the one of the least
    energy, latency or latency; value and bound are of the first aim."""
    firsts = _solve(search, [aim.value for aim in aims], time_limit_s)
    if any(first.costs is None for first in firsts):
        return firsts
    seconds = [_second(aim, first) for aim, first in zip(aims, firsts, strict=True)]
    found = _solve(search, seconds, time_limit_s)
    return [
        _kept(first, second, aim.value)
        for aim, first, second in zip(aims, firsts, found, strict=True)
    ]


def _second(aim: Aim, first: Solution) -> Weights:
    """The first aim, and a little of the other."""
    assert first.costs is not None
    other = first.costs.energy_joule if aim is Aim.LATENCY else first.costs.latency_ms
    # where the first aim is 0, any share of the second will do
    share = SECOND * (abs(first.value) or 1.0) / abs(other) if other else 0.0
    return Weights(1.0, share) if aim is Aim.LATENCY else replace(aim.value, per_ms=share)


def _kept(first: Solution, second: Solution, weights: Weights) -> Solution:
    """The second, with value and bound of the first aim, unless it lost more than it may."""
    if second.costs is None:
        return first
    value = second.costs.value(weights)
    if value > first.value + 2 * SECOND * abs(first.value):
        return first
    return replace(first, placement=second.placement, costs=second.costs, value=value)


def solve_weighted(
    search: Search,
    latency_weight: float,
    *,
    known: Extremes | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> tuple[Solution, Extremes]:
    """The placement of least weighted latency and energy; `latency_weight` is from 0 to 1. `known`
    are the ends of the front, if they are known already."""
    if known is not None and latency_weight in (0, 1):
        aim = Aim.LATENCY if latency_weight else Aim.ENERGY
        return ends(search, [aim], time_limit_s=time_limit_s)[0], known
    known = known or extremes(search, time_limit_s=time_limit_s)
    if latency_weight == 1 or not known.is_feasible:
        return known.fastest, known
    if latency_weight == 0:
        return known.thriftiest, known
    return _solve(search, [known.weights(latency_weight)], time_limit_s)[0], known


@dataclass(frozen=True)
class FrontPoint:
    """A compromise that nothing beats in both. `supported` means that some weight prefers it."""

    costs: Costs
    solution: Solution
    supported: bool


def pareto_front(
    search: Search, bounded: int = 0, *, time_limit_s: float = TIME_LIMIT_S
) -> list[FrontPoint]:
    """All supported points, if each solve ends in time, from the fastest to the thriftiest, and up
    to `bounded` more: the least energy under limits of latency that share out the largest gaps.

    Supported points are found between two known ones by the weights of the line through them
    (Y. Aneja and K. Nair, "Bicriteria transportation problem", Management Science 25, 1979).
    """
    outer = extremes(search, time_limit_s=time_limit_s)
    if not outer.is_feasible:
        return []
    first, last = _point(outer.fastest), _point(outer.thriftiest)
    known = [first] if _same(first, last) else [first, last]
    pairs = [(first, last)] if len(known) == 2 else []
    while pairs:
        lines = [_line(a, b) for a, b in pairs]
        following = []
        solved = _solve(search, lines, time_limit_s)
        for (a, b), line, solution in zip(pairs, lines, solved, strict=True):
            if solution.costs is None:
                continue  # not found in time
            point, least = _point(solution), a.costs.value(line)
            if point.costs.value(line) < least - _SAME * abs(least) and not (
                _same(point, a) or _same(point, b)
            ):
                known.append(point)
                following += [(a, point), (point, b)]
        pairs = following
    known.sort(key=lambda point: point.costs.latency_ms)
    return _with_bounded(search, known, bounded, time_limit_s)


def _with_bounded(
    search: Search, known: list[FrontPoint], bounded: int, time_limit_s: float
) -> list[FrontPoint]:
    """More points, each in the middle of the largest gap that none was looked for in yet."""
    points, barren = list(known), set()
    for _ in range(bounded):
        gaps = [
            (b.costs.latency_ms - a.costs.latency_ms, index)
            for index, (a, b) in enumerate(pairwise(points))
            if (a.costs.latency_ms, b.costs.latency_ms) not in barren
        ]
        if not gaps:
            break
        _, index = max(gaps)
        left, right = points[index].costs.latency_ms, points[index + 1].costs.latency_ms
        limits = replace(search.problem.limits, latency_ms=(left + right) / 2)
        narrower = Search(replace(search.problem, limits=limits), search.order)
        found = narrower.solve(Weights(0.0, 1.0), time_limit_s=time_limit_s)
        beats = found.costs is not None and not any(_beaten(found.costs, p.costs) for p in points)
        if beats:
            assert found.costs is not None
            points.insert(index + 1, FrontPoint(found.costs, found, supported=False))
        else:
            barren.add((left, right))
    return points


def _beaten(costs: Costs, by: Costs) -> bool:
    return (
        by.latency_ms <= costs.latency_ms + _SAME * abs(costs.latency_ms)
        and by.energy_joule <= costs.energy_joule + _SAME * abs(costs.energy_joule)
    )  # fmt: skip


def _solve(search: Search, weights: Sequence[Weights], time_limit_s: float) -> list[Solution]:
    return search.solve_many(weights, time_limit_s=time_limit_s)


def _point(solution: Solution) -> FrontPoint:
    assert solution.costs is not None
    return FrontPoint(solution.costs, solution, supported=True)


def _line(a: FrontPoint, b: FrontPoint) -> Weights:
    """The weights for which both points are worth the same."""
    return Weights(
        a.costs.energy_joule - b.costs.energy_joule, b.costs.latency_ms - a.costs.latency_ms
    )


def _same(a: FrontPoint, b: FrontPoint) -> bool:
    return (
        abs(a.costs.latency_ms - b.costs.latency_ms) <= _SAME * abs(a.costs.latency_ms)
        and abs(a.costs.energy_joule - b.costs.energy_joule) <= _SAME * abs(a.costs.energy_joule)
    )  # fmt: skip
