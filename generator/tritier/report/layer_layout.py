"""A layered layout: every edge points down, boxes do not overlap and no edge crosses a box.

As Sugiyama, Tagawa and Toda (1981) do it: nodes get ranks, long edges get a bend in each rank that
they pass, ranks are ordered by barycentres so that few edges cross, and `layer_columns` finds
where each stands from left to right.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tritier.report.layer_columns import Grid, columns

Edge = tuple[int, int]
Point = tuple[float, float]

SWEEPS = 12
_BEND_WIDTH = 6.0


@dataclass(frozen=True)
class Spacing:
    """Sizes in units of the scene."""

    box_width: float = 150.0
    box_height: float = 36.0
    column_gap: float = 18.0
    rank_gap: float = 26.0
    margin: float = 16.0


@dataclass(frozen=True)
class Layout:
    """Upper left corners of the boxes, and the points of each edge from its source down to its
    target; ranks count from 0 at the top."""

    corners: tuple[Point, ...]
    paths: tuple[tuple[Point, ...], ...]
    ranks: tuple[int, ...]
    width: float
    height: float


def layered_layout(nodes: int, edges: Sequence[Edge], spacing: Spacing | None = None) -> Layout:
    """Place the nodes 0 to `nodes` - 1 of a directed acyclic graph; the same input gives the same
    layout. Equal edges share a path.

    Raises ValueError when the graph has a cycle.
    """
    space = spacing or Spacing()
    ranks = _ranks(nodes, edges)
    grid, chains = _grid(nodes, edges, ranks, space)
    _order(grid)
    centres = columns(grid)
    half = space.box_width / 2
    left = min((centre - grid.widths[i] / 2 for i, centre in enumerate(centres)), default=0.0)
    xs = [centre - left + space.margin for centre in centres]
    tops = [space.margin + rank * (space.box_height + space.rank_gap) for rank in grid.ranks]
    right = max((x + grid.widths[i] / 2 for i, x in enumerate(xs)), default=space.margin)
    return Layout(
        corners=tuple((xs[i] - half, tops[i]) for i in range(nodes)),
        paths=tuple(_path(chains[edge], xs, tops, space.box_height) for edge in edges),
        ranks=tuple(ranks),
        width=right + space.margin,
        height=max(tops, default=0.0) + space.box_height + space.margin,
    )


def _ranks(nodes: int, edges: Sequence[Edge]) -> list[int]:
    """As high as possible; then nodes with more edges down than up go down to their targets, which
    makes those edges short."""
    above: list[list[int]] = [[] for _ in range(nodes)]
    below: list[list[int]] = [[] for _ in range(nodes)]
    for source, target in dict.fromkeys(edges):
        above[target].append(source)
        below[source].append(target)
    order = _topological(above, below)
    ranks = [0] * nodes
    for node in order:
        ranks[node] = max((ranks[source] + 1 for source in above[node]), default=0)
    for node in reversed(order):
        if len(below[node]) > len(above[node]):
            ranks[node] = min(ranks[target] for target in below[node]) - 1
    return ranks


def _topological(above: list[list[int]], below: list[list[int]]) -> list[int]:
    missing = [len(sources) for sources in above]
    order = [node for node, count in enumerate(missing) if not count]
    for node in order:
        for target in below[node]:
            missing[target] -= 1
            if not missing[target]:
                order.append(target)
    if len(order) < len(above):
        raise ValueError("a graph with a cycle has no layered layout")
    return order


def _grid(
    nodes: int, edges: Sequence[Edge], ranks: list[int], space: Spacing
) -> tuple[Grid, dict[Edge, list[int]]]:
    """The ranks with a bend for each edge in each rank that it passes; each edge as a chain."""
    grid = Grid(ranks=list(ranks), widths=[space.box_width] * nodes, gap=space.column_gap,
                nodes=nodes)  # fmt: skip
    chains: dict[Edge, list[int]] = {}
    for source, target in dict.fromkeys(edges):
        chain = [source]
        for rank in range(ranks[source] + 1, ranks[target]):
            chain.append(len(grid.ranks))
            grid.ranks.append(rank)
            grid.widths.append(_BEND_WIDTH)
        chain.append(target)
        chains[source, target] = chain
    grid.connect(chains.values())
    return grid, chains


def _order(grid: Grid) -> None:
    """Order each rank by barycentres, down and up in turn; the order with the fewest crossings
    stays."""
    grid.rows = _first_rows(grid)
    best, fewest = [list(row) for row in grid.rows], _crossings(grid)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        rows = grid.rows if down else grid.rows[::-1]
        for fixed, row in pairwise(rows):
            _sort_row(row, fixed, grid.above if down else grid.below)
        if (found := _crossings(grid)) < fewest:
            best, fewest = [list(row) for row in grid.rows], found
    grid.rows = best


def _first_rows(grid: Grid) -> list[list[int]]:
    """In the order in which a depth-first search from the top finds them: chains stay together."""
    rows: list[list[int]] = [[] for _ in range(max(grid.ranks, default=-1) + 1)]
    seen = [False] * len(grid.ranks)
    for start in sorted(range(len(grid.ranks)), key=lambda node: (grid.ranks[node], node)):
        stack = [start]
        while stack:
            node = stack.pop()
            if seen[node]:
                continue
            seen[node] = True
            rows[grid.ranks[node]].append(node)
            stack += reversed(grid.below[node])
    return rows


def _sort_row(row: list[int], fixed: list[int], neighbours: list[list[int]]) -> None:
    """By the mean place of the neighbours in the fixed row; who has none keeps its place."""
    place = {node: index for index, node in enumerate(fixed)}
    middles: dict[int, float] = {}
    for index, node in enumerate(row):
        near = neighbours[node]
        middles[node] = sum(place[x] for x in near) / len(near) if near else float(index)
    row.sort(key=middles.__getitem__)


def _crossings(grid: Grid) -> int:
    """Pairs of edges between neighbouring ranks that cross."""
    place = [0] * len(grid.ranks)
    for row in grid.rows:
        for index, node in enumerate(row):
            place[node] = index
    total = 0
    for row in grid.rows:
        passed: list[int] = []
        for node in row:
            ends = sorted(place[target] for target in grid.below[node])
            total += sum(len(passed) - bisect_right(passed, end) for end in ends)
            for end in ends:
                insort(passed, end)
    return total


def _path(chain: list[int], xs: list[float], tops: list[float], height: float) -> tuple[Point, ...]:
    """From the lower side of the first to the upper side of the last, straight down past each rank
    between: sideways only where no box is."""
    first, *bends, last = chain
    points = [(xs[first], tops[first] + height)]
    for bend in bends:
        points += [(xs[bend], tops[bend]), (xs[bend], tops[bend] + height)]
    points.append((xs[last], tops[last]))
    return _without_needless(points)


def _without_needless(points: list[Point]) -> tuple[Point, ...]:
    """Points in the middle of a vertical piece say nothing."""
    kept = [points[0]]
    for point, after in pairwise(points[1:]):
        if not (kept[-1][0] == point[0] == after[0]):
            kept.append(point)
    return (*kept, points[-1])
