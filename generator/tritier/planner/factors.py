"""The placement problem as a sum of small tables, one per layer and one per tensor.

A variable is a layer with more than one label. A tensor makes a table over its source and its
consumers. One with many consumers would make a huge table: it is told instead as a chain of states,
each of which says where the tensor is needed so far.

What a table costs is linear in the worth of a millisecond on each server: tables hold times, all in
one long array, which is multiplied when the worth is known. What crossings are paid for stands
beside their times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from tritier.planner.problem import Floats, Problem

Ints = npt.NDArray[np.int64]
# Consumers that a table holds beside its source; a tensor with more becomes a chain of states.
WIDEST = 4
# Numbers in the table between two states, and in any table of costs.
MOST_CELLS = 4_000_000
Label = tuple[int, bool]
_State = tuple[int, int, bool]


class TooWide(Exception):
    """The tables of a problem would not fit in memory: it needs an integer program."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A table over variables: `size` numbers from `start` in the long array."""

    scope: tuple[int, ...]
    start: int
    size: int
    shape: tuple[int, ...]
    bit: int | None = None  # of the quantizable layer whose label alone it is about


@dataclass(frozen=True, eq=False)
class Worth:
    """What is paid on each server, [k]: per millisecond of computing and of sending, per byte of
    weights; and for each quantizable layer that is quantized, [bits]. `per_usd` is what a USD that
    is paid for a crossing is worth."""

    compute: Floats
    send: Floats
    held: Floats
    fees: Floats
    per_usd: float = 0.0


class Factors:
    """All tables of a problem; raises TooWide if they would be too large.

    `domains` has the number of labels of each layer and, after those, of each state.

    A number of the long array costs `time` x the worth of a millisecond on its server, plus `held`
    x the worth of a byte there, or `paid` x the worth of a USD; it is infinite where `forbidden`.
    """

    def __init__(self, problem: Problem) -> None:
        self.labels = problem.labels
        self.domains = [len(labels) for labels in self.labels]
        self.factors: list[Factor] = []
        self._time: list[Floats] = []
        self._held: list[Floats] = []
        self._paid: list[Floats] | None = None if problem.money is None else [np.zeros(0)]
        self._server: list[Ints] = []
        self._length = 0
        self._layers(problem)
        self._computing = self._length
        self._tensors(problem)
        self.time = np.concatenate(self._time)
        self.held = np.concatenate(self._held)
        self.paid = None if self._paid is None else np.concatenate(self._paid)
        self.server = np.concatenate(self._server)
        self.forbidden = ~np.isfinite(self.time)
        self.time = np.where(self.forbidden, 0.0, self.time)
        self.any_forbidden = bool(self.forbidden.any())

    def costs(self, worths: Sequence[Worth]) -> Floats:
        """The long array for each worth; [worths, size]."""
        split = self._computing
        found = np.empty((len(worths), self._length))
        for row, worth in zip(found, worths, strict=True):
            row[:split] = self.time[:split] * worth.compute[self.server[:split]]
            row[:split] += self.held * worth.held[self.server[:split]]
            row[split:] = self.time[split:] * worth.send[self.server[split:]]
            if worth.per_usd and self.paid is not None:
                row[split:] += self.paid * worth.per_usd
        if self.any_forbidden:
            found[:, self.forbidden] = np.inf
        return found

    def _layers(self, problem: Problem) -> None:
        for layer, labels in enumerate(self.labels):
            servers = np.array([server for server, _ in labels], dtype=np.int64)
            modes = np.array([mode for _, mode in labels], dtype=bool)
            times = np.where(
                modes, problem.int8_ms[layer, servers], problem.float_ms[layer, servers]
            )
            held = np.where(
                modes, problem.int8_bytes[layer, servers], problem.float_bytes[layer, servers]
            )
            self._held.append(held)
            self._add((layer,), times, servers, problem.bit_of.get(layer))

    def _tensors(self, problem: Problem) -> None:
        alike: dict[tuple[object, ...], list[int]] = {}
        for index, flow in enumerate(problem.flows):
            if len(flow.consumers) > WIDEST:
                self._chain(problem, index)
                continue
            members = (flow.source, *flow.consumers)
            places = tuple(members.index(layer) for layer in flow.coded_by)
            key = (places, *(self.labels[layer] for layer in members))
            alike.setdefault(key, []).append(index)
        for indices in alike.values():
            self._direct(problem, indices)

    def _direct(self, problem: Problem, indices: list[int]) -> None:
        """Tables of tensors whose sources and consumers have the same labels."""
        first = problem.flows[indices[0]]
        members = (first.source, *first.consumers)
        places = [members.index(layer) for layer in first.coded_by]
        grid = np.indices([len(self.labels[layer]) for layer in members]).reshape(len(members), -1)
        servers = [
            np.array([server for server, _ in self.labels[layer]], dtype=np.int64)[choice]
            for layer, choice in zip(members, grid, strict=True)
        ]
        coded = np.zeros(grid.shape[1], dtype=bool)
        for place in places:
            modes = np.array([mode for _, mode in self.labels[members[place]]], dtype=bool)
            coded |= modes[grid[place]]
        source = servers[0]
        kinds = _crossing_costs(problem)
        totals = [np.zeros((len(indices), grid.shape[1])) for _ in kinds]
        for target in range(len(problem.servers)):
            needed = np.zeros(grid.shape[1], dtype=bool)
            for server in servers[1:]:
                needed |= server == target
            needed &= source != target
            for total, (plain, small) in zip(totals, kinds, strict=True):
                costs = plain[indices][:, source, target]
                if places:
                    costs = np.where(coded, small[indices][:, source, target], costs)
                total += np.where(needed, costs, 0.0)
        for number, index in enumerate(indices):
            flow = problem.flows[index]
            scope = (flow.source, *flow.consumers)
            self._add_tensor(scope, [total[number] for total in totals], source)

    def _chain(self, problem: Problem, index: int) -> None:
        """States between consumers: (server of the source, other servers in need, in 8 bits)."""
        flow = problem.flows[index]
        count = len(problem.servers)
        bits = (False, True) if flow.coded_by else (False,)
        states = [
            (source, needed, coded)
            for source, needed, coded in product(range(count), range(1 << count), bits)
            if not needed >> source & 1
        ]
        widest = max(len(self.labels[layer]) for layer in flow.consumers)
        if len(states) ** 2 * widest > MOST_CELLS:
            raise TooWide(f"tensor '{flow.name}' has {len(flow.consumers)} consumers")
        number = {state: i for i, state in enumerate(states)}

        def after(state: _State, layer: int, label: Label) -> _State:
            source, needed, coded = state
            needed |= 1 << label[0] if label[0] != source else 0
            return source, needed, coded or (layer in flow.coded_by and label[1])

        before: list[_State] = [
            (server, 0, flow.source in flow.coded_by and mode)
            for server, mode in self.labels[flow.source]
        ]
        variable = flow.source
        for layer in flow.consumers[:-1]:
            labels = self.labels[layer]
            table = np.full((len(before), len(labels), len(states)), np.inf)
            for (i, state), (j, label) in product(enumerate(before), enumerate(labels)):
                table[i, j, number[after(state, layer, label)]] = 0.0
            self.domains.append(len(states))
            made = len(self.domains) - 1
            zeros = np.zeros(table.size, dtype=np.int64)
            self._add_tensor((variable, layer, made), [table.ravel()], zeros)
            variable, before = made, states
        layer = flow.consumers[-1]
        ends = [after(state, layer, x) for state in before for x in self.labels[layer]]
        totals = [
            np.array([_passage((small if state[2] else plain)[index], state) for state in ends])
            for plain, small in _crossing_costs(problem)
        ]
        sources = np.array([source for source, _, _ in ends], dtype=np.int64)
        self._add_tensor((variable, layer), totals, sources)

    def _add_tensor(self, scope: Sequence[int], totals: Sequence[Floats], sources: Ints) -> None:
        """A table of times and, if it is known, of what is paid besides."""
        if self._paid is not None:
            self._paid.append(totals[1] if len(totals) > 1 else np.zeros(len(totals[0])))
        self._add(scope, totals[0], sources)

    def _add(
        self, scope: Sequence[int], times: Floats, servers: Ints, bit: int | None = None
    ) -> None:
        """A table; variables of one label only are left out of its scope."""
        free = tuple(v for v in scope if self.domains[v] > 1)
        shape = tuple(self.domains[v] for v in free)
        self.factors.append(Factor(free, self._length, len(times), shape, bit))
        self._time.append(times)
        self._server.append(servers)
        self._length += len(times)


def _crossing_costs(problem: Problem) -> list[tuple[Floats, Floats]]:
    """What tensors cost from server to server, as they are and in 8 bits: time, and money where it
    is known; [m, k, k] each."""
    found = [(problem.transfer_ms, problem.coded_ms)]
    if problem.money is not None:
        found.append((problem.money.crossing, problem.money.coded_crossing))
    return found


def _passage(costs: Floats, state: _State) -> float:
    """Of a tensor in a state; `costs` [k, k]."""
    source, needed, _ = state
    return float(sum(costs[source, k] for k in range(len(costs)) if needed >> k & 1))
