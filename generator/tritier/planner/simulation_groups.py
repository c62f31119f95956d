"""Components that let servers work beside each other.

`group_layers` makes few, large components. That costs least to serve, but a component starts when
its last input is there and sends when its last layer is computed: a branch on the device that is
joined there with one of the cloud would wait for it. Smaller components do not.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence

from tritier.planner.problem import Placement, Problem
from tritier.planner.simulate import latency_ms
from tritier.planner.simulation_build import PipelineBuilder
from tritier.planner.simulation_graph import Conditions

Groups = tuple[tuple[int, ...], ...]
# A latency that is longer by this share counts as the same.
_SAME = 1e-9


class Overlapping:
    """Finds components that overlap, for many placements of one problem."""

    def __init__(self, problem: Problem) -> None:
        self.before, after = _neighbours(problem)
        inner = range(1, len(problem.layers) - 1)
        self._forth = [(layer, tuple(self.before[layer])) for layer in inner]
        self._back = [(layer, tuple(after[layer])) for layer in reversed(inner)]

    def groups(self, servers: Sequence[int]) -> Groups:
        """Layers of one server before which, and after which, lie as many changes of server.

        Such a layer waits for no tensor of another server that only later layers need, and keeps no
        tensor back that earlier layers made. `servers` [n]; generator and receiver are in no group.
        """
        done, left = _changes(self._forth, servers), _changes(self._back, servers)
        # From one layer to the next the first never falls and the second never rises, and where
        # both stay the server does: the groups form no circle.
        found: dict[tuple[int, int, int], list[int]] = {}
        for layer, _ in self._forth:
            found.setdefault((done[layer], -left[layer], servers[layer]), []).append(layer)
        return tuple(tuple(found[key]) for key in sorted(found))


def best_groups(
    problem: Problem, placement: Placement, conditions: Conditions | None = None
) -> tuple[Groups, float]:
    """The components with the least simulated latency of those tried, and that latency in ms.

    Tried are the few large ones, and the overlapping ones, of which those are merged that need not
    be apart. Of equal ones the fewer.
    """
    builder = PipelineBuilder(problem, conditions)

    def latency(groups: Groups) -> float:
        return latency_ms(builder.build(placement, groups))

    large = builder.groups(placement)
    overlapping = Overlapping(problem)
    small, before = overlapping.groups(placement.servers), overlapping.before
    least = latency(small)
    for first, second in itertools.combinations(small, 2):
        # By now they may be parts of larger ones.
        one = next(group for group in small if first[0] in group)
        other = next(group for group in small if second[0] in group)
        if one == other or placement.servers[one[0]] != placement.servers[other[0]]:
            continue
        rest = [group for group in small if group not in (one, other)]
        merged = _ordered([*rest, tuple(sorted(one + other))], before)
        if merged and (value := latency(merged)) <= least * (1 + _SAME):
            small, least = merged, value
    usual = latency(large)
    return (large, usual) if usual <= least * (1 + _SAME) else (small, least)


def _neighbours(problem: Problem) -> tuple[list[set[int]], list[set[int]]]:
    """What each layer reads from, and what reads from it, without generator and receiver."""
    before: list[set[int]] = [set() for _ in problem.layers]
    after: list[set[int]] = [set() for _ in problem.layers]
    for flow in problem.flows:
        for reader in flow.consumers:
            if flow.source != 0 and reader != len(problem.layers) - 1:
                before[reader].add(flow.source)
                after[flow.source].add(reader)
    return before, after


def _changes(rows: Sequence[tuple[int, tuple[int, ...]]], servers: Sequence[int]) -> list[int]:
    """The most changes of server on a path to each layer; rows are (layer, those before it)."""
    most = [0] * len(servers)
    for layer, sources in rows:
        server, found = servers[layer], 0
        for source in sources:
            changes = most[source] + (servers[source] != server)
            if changes > found:
                found = changes
        most[layer] = found
    return most


def _ordered(groups: Sequence[tuple[int, ...]], before: Sequence[set[int]]) -> Groups | None:
    """In topological order, by first layers where that is free; None if they form a circle."""
    group_of = {layer: index for index, group in enumerate(groups) for layer in group}
    needs = [{group_of[x] for layer in group for x in before[layer]} for group in groups]
    feeds: list[list[int]] = [[] for _ in groups]
    for index, sources in enumerate(needs):
        sources.discard(index)
        for source in sources:
            feeds[source].append(index)
    missing = [len(sources) for sources in needs]
    ready = [(group[0], i) for i, group in enumerate(groups) if not missing[i]]
    heapq.heapify(ready)
    found = []
    while ready:
        _, index = heapq.heappop(ready)
        found.append(groups[index])
        for reader in feeds[index]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, (groups[reader][0], reader))
    return tuple(found) if len(found) == len(groups) else None
