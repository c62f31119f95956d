"""Neighbours of a placement: other servers for some groups of layers, or other quantized layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from tritier.planner.problem import Placement, Problem

_T = TypeVar("_T")
# Largest number of groups that move at once, but for whole regions.
_LARGE = 40


class Moves:
    """Draws neighbours that may stand where they stand and keep the limit of noise; other limits
    are not looked at. `count` is the number of groups.

    A layer that is moved to where its mode is not offered changes its mode.
    """

    def __init__(
        self, problem: Problem, groups: Sequence[tuple[int, ...]], rng: np.random.Generator
    ) -> None:
        self._problem = problem
        self._groups = groups
        self._rng = rng
        self.count = len(groups)
        self._before = _read_from(problem, groups)
        self._after: list[list[int]] = [[] for _ in groups]
        for reader, sources in enumerate(self._before):
            for source in sources:
                self._after[source].append(reader)
        self._beside = [
            sorted(self._before[group].union(after)) for group, after in enumerate(self._after)
        ]
        self._labels = [frozenset(labels) for labels in problem.labels]
        self._offered = [
            sorted(set.intersection(*({k for k, _ in problem.labels[layer]} for layer in group)))
            for group in groups
        ]
        ends = {0, len(problem.layers) - 1}
        self._free = [
            index
            for index, group in enumerate(groups)
            if len(self._offered[index]) > 1 and ends.isdisjoint(group)
        ]

    def draw(self, placement: Placement) -> Placement | None:
        """A neighbour; None if what was drawn is not allowed or changes nothing."""
        kinds: list[Callable[[Placement], Placement | None]] = []
        if self._free:
            kinds += [self._one, self._region, self._branch, self._interval]
        if self._problem.quantizable:
            kinds.append(self._toggle)
        return self._choose(kinds)(placement) if kinds else None

    def _one(self, placement: Placement) -> Placement | None:
        group = self._choose(self._free)
        return self._move(placement, [group], self._target(placement, [group]))

    def _region(self, placement: Placement) -> Placement | None:
        """Groups of one server that hang together: some, or all of them."""
        first = self._choose(self._free)
        server = self._server(placement, first)
        whole = self._rng.random() < 0.25
        most = self.count if whole else int(self._rng.integers(2, _LARGE + 1))
        region, seen = [first], {first}
        for group in region:
            for other in self._beside[group]:
                joins = other not in seen and self._server(placement, other) == server
                if joins and len(region) < most:
                    seen.add(other)
                    region.append(other)
        return self._move(placement, region, self._target(placement, region))

    def _branch(self, placement: Placement) -> Placement | None:
        """A group and what reads from nothing else, and so on: some, or all of it."""
        first = self._choose(self._free)
        whole = self._rng.random() < 0.5
        most = self.count if whole else int(self._rng.integers(2, _LARGE + 1))
        branch, inside = [first], {first}
        for group in branch:
            for reader in self._after[group]:
                joins = reader not in inside and self._before[reader] <= inside
                if joins and len(branch) < most:
                    inside.add(reader)
                    branch.append(reader)
        return self._move(placement, branch, self._target(placement, branch))

    def _interval(self, placement: Placement) -> Placement | None:
        """Groups that follow each other in topological order."""
        first = int(self._rng.integers(len(self._free)))
        length = int(self._rng.integers(2, _LARGE + 1))
        groups = self._free[first : first + length]
        return self._move(placement, groups, self._target(placement, groups))

    def _toggle(self, placement: Placement) -> Placement | None:
        """One layer, or two, is quantized or no longer."""
        count = len(self._problem.quantizable)
        mask = placement.quantized ^ 1 << int(self._rng.integers(count))
        if self._rng.random() < 0.3:
            mask ^= 1 << int(self._rng.integers(count))
        return self._checked(placement.servers, mask)

    def _target(self, placement: Placement, groups: Iterable[int]) -> int:
        """Half of the time a server beside the groups, else any."""
        around = {self._server(placement, other) for g in groups for other in self._beside[g]}
        if around and self._rng.random() < 0.5:
            return self._choose(sorted(around))
        return int(self._rng.integers(len(self._problem.servers)))

    def _move(self, placement: Placement, groups: Iterable[int], target: int) -> Placement | None:
        servers = list(placement.servers)
        free = set(self._free)
        for group in groups:
            if group in free and target in self._offered[group]:
                for layer in self._groups[group]:
                    servers[layer] = target
        return self._checked(tuple(servers), placement.quantized)

    def _checked(self, servers: tuple[int, ...], mask: int) -> Placement | None:
        """The placement with modes that are offered, if noise allows them."""
        for layer, bit in self._problem.bit_of.items():
            if (servers[layer], bool(mask >> bit & 1)) not in self._labels[layer]:
                mask ^= 1 << bit
        return Placement(servers, mask) if self._problem.noise.allows(mask) else None

    def _server(self, placement: Placement, group: int) -> int:
        return placement.servers[self._groups[group][0]]

    def _choose(self, items: Sequence[_T]) -> _T:
        return items[int(self._rng.integers(len(items)))]


def _read_from(problem: Problem, groups: Sequence[tuple[int, ...]]) -> list[frozenset[int]]:
    """Groups that make what each reads."""
    group_of = {layer: index for index, group in enumerate(groups) for layer in group}
    found: list[set[int]] = [set() for _ in groups]
    for flow in problem.flows:
        for layer in flow.consumers:
            found[group_of[layer]].add(group_of[flow.source])
    return [frozenset(sources - {index}) for index, sources in enumerate(found)]
