"""Group layers into components: few, large, each on one server, without a cycle (R1, R2).

First by levels: level(v) is the maximum over the predecessors u of level(u), plus one if u is on
another server. Layers of one server and level form a group; every edge between groups goes to a
higher level, so there is no cycle. That splits more than it must, so groups of one server are then
merged for as long as the merged graph stays without a cycle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Layers of one server that run together, in topological order."""

    server: str
    layers: tuple[str, ...]


def group_layers(
    order: Sequence[str],
    predecessors: Mapping[str, Sequence[str]],
    server_of: Mapping[str, str],
) -> list[Group]:
    """Components in topological order.

    `order` is a topological order of the layers, `predecessors` maps each layer to those that it
    needs, `server_of` to its server. Every layer is in exactly one group, the graph of the groups
    is acyclic, and no two groups of one server could be merged without making a cycle.
    """
    rough = _by_levels(order, predecessors, server_of)
    merger = _Merger(rough, predecessors, server_of)
    merger.merge_all()
    position = {layer: index for index, layer in enumerate(order)}
    return [
        Group(server_of[layers[0]], tuple(sorted(layers, key=position.__getitem__)))
        for layers in merger.in_topological_order(position)
    ]


def _by_levels(
    order: Sequence[str],
    predecessors: Mapping[str, Sequence[str]],
    server_of: Mapping[str, str],
) -> list[list[str]]:
    level: dict[str, int] = {}
    cells: dict[tuple[int, str], list[str]] = {}
    for layer in order:
        server = server_of[layer]
        level[layer] = max(
            (level[u] + (server_of[u] != server) for u in predecessors[layer]), default=0
        )
        cells.setdefault((level[layer], server), []).append(layer)
    return [cells[key] for key in sorted(cells, key=lambda key: key[0])]


class _Merger:
    """Merges groups, in the order of their levels, into earlier ones of the same server.

    Two groups may be merged iff no path leads from one to the other through a third, which would
    become a cycle. Merging only adds paths, so a pair that can't be merged never can: one pass is
    enough. Sets of groups are integers used as bit sets, for graphs of some thousand layers.
    """

    def __init__(
        self,
        rough: list[list[str]],
        predecessors: Mapping[str, Sequence[str]],
        server_of: Mapping[str, str],
    ) -> None:
        self._layers = {index: list(layers) for index, layers in enumerate(rough)}
        self._server = [server_of[layers[0]] for layers in rough]
        group_of = {layer: index for index, layers in enumerate(rough) for layer in layers}
        self._before = [0] * len(rough)  # direct predecessors
        for layer, index in group_of.items():
            for source in {group_of[u] for u in predecessors[layer]} - {index}:
                self._before[index] |= 1 << source
        self._ancestors = [0] * len(rough)
        for index in range(len(rough)):  # ascending levels are a topological order
            for source in _bits(self._before[index]):
                self._ancestors[index] |= self._ancestors[source] | 1 << source

    def merge_all(self) -> None:
        """Merge until no pair is left that can be."""
        of_server: dict[str, list[int]] = {}
        for index in list(self._layers):
            earlier = of_server.setdefault(self._server[index], [])
            target = self._choose(index, earlier)
            if target is None:
                earlier.append(index)
            else:
                self._merge(target, index)

    def in_topological_order(self, position: Mapping[str, int]) -> Iterator[list[str]]:
        """The layers of each group; groups that are free to swap stand by their first layer."""
        waiting = {
            index: min(position[layer] for layer in layers)
            for index, layers in self._layers.items()
        }
        done = 0
        while waiting:
            ready = [index for index in waiting if not self._before[index] & ~done]
            index = min(ready, key=waiting.__getitem__)
            del waiting[index]
            done |= 1 << index
            yield self._layers[index]

    def _choose(self, index: int, candidates: list[int]) -> int | None:
        """The group to merge `index` into: one that it reads from, else the first possible.

        A path can only lead from a candidate to `index`: what `index` leads to has a higher level,
        and groups of higher levels have not been merged into anything yet.
        """
        barred = 0
        for source in _bits(self._before[index]):
            barred |= self._ancestors[source]
        possible = [c for c in candidates if not barred >> c & 1]
        feeding = [c for c in possible if self._before[index] >> c & 1]
        return next(iter([*feeding, *possible]), None)

    def _merge(self, kept: int, gone: int) -> None:
        self._layers[kept] += self._layers.pop(gone)
        both = 1 << kept | 1 << gone
        for table in (self._before, self._ancestors):
            table[kept] = (table[kept] | table[gone]) & ~both
            table[gone] = 0
        for index in self._layers:
            for table in (self._before, self._ancestors):
                if table[index] & 1 << gone:
                    table[index] = table[index] & ~(1 << gone) | 1 << kept
            if self._ancestors[index] >> kept & 1:
                self._ancestors[index] |= self._ancestors[kept]


def _bits(value: int) -> Iterator[int]:
    while value:
        low = value & -value
        yield low.bit_length() - 1
        value ^= low
