"""Where the nodes of a layered layout stand from left to right.

As Brandes and Köpf (2001) do it: nodes are aligned with a middle neighbour to blocks, which stand
upright, four times (from above and from below, from the left and from the right); the mean of the
two middle places of the four is each node's. Blocks are set by longest paths over all neighbours
in a row, so that none overlap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

Segment = tuple[int, int]


@dataclass
class Grid:
    """Nodes and bends (those from `nodes` on) in ranks. `rows` are the ranks in their order from
    left to right, `above` and `below` the neighbours in the next ranks."""

    ranks: list[int]
    widths: list[float]
    gap: float
    nodes: int
    rows: list[list[int]] = field(default_factory=list)
    above: list[list[int]] = field(default_factory=list)
    below: list[list[int]] = field(default_factory=list)

    def connect(self, chains: Iterable[list[int]]) -> None:
        """Fill `above` and `below`, by chains of one node or bend per rank."""
        self.above = [[] for _ in self.ranks]
        self.below = [[] for _ in self.ranks]
        for chain in chains:
            for upper, lower in pairwise(chain):
                self.below[upper].append(lower)
                self.above[lower].append(upper)

    def apart(self, left: int, right: int) -> float:
        """Least distance of the centres of two neighbours in a row."""
        return (self.widths[left] + self.widths[right]) / 2 + self.gap

    def is_bend(self, node: int) -> bool:
        """Whether it is a bend of a long edge."""
        return node >= self.nodes


def columns(grid: Grid) -> list[float]:
    """The centre of each node and bend; neighbours in a row keep their order and a gap."""
    if not grid.rows:
        return []
    conflicts = _conflicts(grid)
    found = []
    for from_above in (True, False):
        for from_left in (True, False):
            roots = _blocks(grid, conflicts, from_above=from_above, from_left=from_left)
            found.append(_compacted(grid, roots, from_left=from_left))
    aligned = _aligned(grid, found)
    # Tenths are fine enough to draw, and make equal places equal.
    return [
        round((low + high) / 2, 1)
        for low, high in (sorted(x)[1:3] for x in zip(*aligned, strict=True))
    ]


def _conflicts(grid: Grid) -> set[Segment]:
    """Segments that cross one between two bends: the long edge is to stay straight."""
    found: set[Segment] = set()
    place = _places(grid)
    for row in grid.rows[1:]:
        scanned = left_limit = 0
        for index, node in enumerate(row):
            inner = next((x for x in grid.above[node] if grid.is_bend(x)), None)
            inner = inner if grid.is_bend(node) else None
            if inner is None and index < len(row) - 1:
                continue
            right_limit = len(grid.ranks) if inner is None else place[inner]
            for lower in row[scanned : index + 1]:
                for upper in grid.above[lower]:
                    outside = not left_limit <= place[upper] <= right_limit
                    if outside and not (grid.is_bend(upper) and grid.is_bend(lower)):
                        found.add((upper, lower))
            scanned, left_limit = index + 1, right_limit
    return found


def _places(grid: Grid) -> list[int]:
    place = [0] * len(grid.ranks)
    for row in grid.rows:
        for index, node in enumerate(row):
            place[node] = index
    return place


def _blocks(grid: Grid, conflicts: set[Segment], *, from_above: bool, from_left: bool) -> list[int]:
    """The block of each node, by its first node."""
    place = _places(grid)
    root = list(range(len(grid.ranks)))
    taken = [False] * len(grid.ranks)
    for row in grid.rows if from_above else reversed(grid.rows):
        limit = -1 if from_left else len(grid.ranks)
        for node in row if from_left else reversed(row):
            near = sorted(
                (grid.above if from_above else grid.below)[node],
                key=place.__getitem__,
            )
            middles = near[(len(near) - 1) // 2 : len(near) // 2 + 1]
            for other in middles if from_left else reversed(middles):
                free = limit < place[other] if from_left else place[other] < limit
                segment = (other, node) if from_above else (node, other)
                if free and not taken[other] and segment not in conflicts:
                    taken[other] = True
                    root[node] = root[other]
                    limit = place[other]
                    break
    return root


def _compacted(grid: Grid, root: list[int], *, from_left: bool) -> list[float]:
    """Blocks as far to one side as they can stand, then drawn near to those at their other side."""
    after: dict[int, dict[int, float]] = {block: {} for block in dict.fromkeys(root)}
    before: dict[int, dict[int, float]] = {block: {} for block in after}
    for row in grid.rows:
        for left, right in pairwise(row):
            a, b = (root[left], root[right]) if from_left else (root[right], root[left])
            distance = max(grid.apart(left, right), after[a].get(b, 0.0))
            after[a][b] = before[b][a] = distance
    place: dict[int, float] = {}
    order = _in_order(after, before)
    for block in order:
        place[block] = max((place[x] + gap for x, gap in before[block].items()), default=0.0)
    for block in reversed(order):
        limit = min((place[x] - gap for x, gap in after[block].items()), default=place[block])
        place[block] = max(place[block], limit)
    sign = 1.0 if from_left else -1.0
    return [sign * place[block] for block in root]


def _in_order(after: dict[int, dict[int, float]], before: dict[int, dict[int, float]]) -> list[int]:
    missing = {block: len(found) for block, found in before.items()}
    order = [block for block, count in missing.items() if not count]
    for block in order:
        for other in after[block]:
            missing[other] -= 1
            if not missing[other]:
                order.append(other)
    assert len(order) == len(after), "blocks of a layout cannot stand in a circle"
    return order


def _aligned(grid: Grid, found: list[list[float]]) -> list[list[float]]:
    """The four placements, shifted to that of the smallest width: those from the left at its left
    side, those from the right at its right side."""
    ends = [_ends(grid, places) for places in found]
    low, high = min(ends, key=lambda pair: pair[1] - pair[0])
    shifted = []
    for index, places in enumerate(found):
        shift = low - ends[index][0] if index % 2 == 0 else high - ends[index][1]
        shifted.append([x + shift for x in places])
    return shifted


def _ends(grid: Grid, places: list[float]) -> tuple[float, float]:
    halves = [width / 2 for width in grid.widths]
    return (
        min(x - half for x, half in zip(places, halves, strict=True)),
        max(x + half for x, half in zip(places, halves, strict=True)),
    )
