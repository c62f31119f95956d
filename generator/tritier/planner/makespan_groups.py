"""Groups of layers that a search for a short makespan moves together.

Two layers stay together if no sensible cut separates them: moving one of them over to the other
costs no more than the tensor between them. No group joins layers that a start keeps apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tritier.planner.problem import Floats, Placement, Problem

# A group is light if on no server it takes more than this share of the model's time there, or if
# nowhere it takes more than that share of the time of the tensor at its border.
_LIGHT_OF_MODEL = 0.001
_LIGHT_OF_TENSOR = 0.1


def contract(problem: Problem, starts: Sequence[Placement]) -> tuple[tuple[int, ...], ...]:
    """The groups, as positions of layers, by their first layers. Generator and receiver are alone,
    layers of a group may stand on the same servers, and each start has a group on one server."""
    contraction = _Contraction(problem, starts)
    while contraction.merge_some():
        pass
    return contraction.groups()


class _Contraction:
    def __init__(self, problem: Problem, starts: Sequence[Placement]) -> None:
        self._flows = problem.flows
        count = len(problem.layers)
        self._group = list(range(count))  # of each layer, named by its first layer
        self._ends = {0, count - 1}
        self._cost = _typical_ms(problem)
        times = np.where(np.isfinite(problem.float_ms), problem.float_ms, 0.0)
        self._ms = times.max(axis=1)
        self._share = (times / np.maximum(times.sum(axis=0), 1e-300)).max(axis=1)
        self._kind = [
            (problem.allowed[layer].tobytes(), *(start.servers[layer] for start in starts))
            for layer in range(count)
        ]

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """What was merged so far."""
        found: dict[int, list[int]] = {}
        for layer, group in enumerate(self._group):
            found.setdefault(group, []).append(layer)
        return tuple(tuple(layers) for layers in found.values())

    def merge_some(self) -> bool:
        """Merge pairs, none of which has a group in common; whether there were any."""
        entering: dict[int, float] = {}
        leaving: dict[int, float] = {}
        between: dict[tuple[int, int], float] = {}
        for flow, cost in zip(self._flows, self._cost, strict=True):
            source = self._group[flow.source]
            readers = {self._group[layer] for layer in flow.consumers} - {source}
            if readers:
                leaving[source] = leaving.get(source, 0.0) + cost
            for reader in readers:
                entering[reader] = entering.get(reader, 0.0) + cost
            if len(readers) == 1:
                pair = (source, readers.pop())
                between[pair] = between.get(pair, 0.0) + cost
        renamed: dict[int, int] = {}
        for (source, reader), cost in between.items():
            if {source, reader} & (renamed.keys() | self._ends):
                continue
            # What crosses if the source goes over to the reader, or the reader to the source.
            before = entering.get(source, 0.0) + leaving[source] - cost
            after = leaving.get(reader, 0.0) + entering[reader] - cost
            if self._stay_together(source, reader, before, cost, after):
                first = min(source, reader)
                renamed |= {source: first, reader: first}
        self._rename(renamed)
        return bool(renamed)

    def _stay_together(
        self, source: int, reader: int, before: float, cost: float, after: float
    ) -> bool:
        if self._kind[source] != self._kind[reader]:
            return False
        if before <= cost and after <= cost and min(before, after) < cost:
            return True
        return (before <= cost and self._is_light(source, cost)) or (
            after <= cost and self._is_light(reader, cost)
        )

    def _is_light(self, group: int, tensor_ms: float) -> bool:
        light = self._ms[group] <= _LIGHT_OF_TENSOR * tensor_ms
        return bool(light or self._share[group] <= _LIGHT_OF_MODEL)

    def _rename(self, renamed: dict[int, int]) -> None:
        for group, first in renamed.items():
            if group != first:
                self._share[first] += self._share[group]
                self._ms[first] += self._ms[group]
        self._group = [renamed.get(group, group) for group in self._group]


def _typical_ms(problem: Problem) -> Floats:
    """Time of each tensor over a link, on average over the links that it may take."""
    count = len(problem.servers)
    times = problem.transfer_ms[:, ~np.eye(count, dtype=bool)]
    usable = np.isfinite(times)
    total = np.where(usable, times, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(usable.sum(axis=1), 1), dtype=np.float64)
