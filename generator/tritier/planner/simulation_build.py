"""From a placement to what it does in the data plane: components and messages.

Follows the ways of tensors in `docs/data_plane.md`. The entry calls each remote component: one
message with all that it owns and only that component on its server needs, and one answer with all
that comes back. Everything else that leaves a component goes into a mailbox, in one message for
each server where it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tritier.planner.components import group_layers
from tritier.planner.evaluate import quantized_layers
from tritier.planner.problem import MIB, Placement, Problem
from tritier.planner.simulation_codecs import Coding, Decoding, serving_ms, with_coding
from tritier.planner.simulation_graph import (
    Conditions,
    Moment,
    Pipeline,
    SimComponent,
    SimMessage,
)

# Stand for what makes the model's inputs and takes its outputs where components could stand.
_INPUTS, _APP = -1, -2


class PipelineBuilder:
    """Builds the pipelines of many placements of one problem."""

    def __init__(self, problem: Problem, conditions: Conditions | None = None) -> None:
        self._problem = problem
        self._conditions = conditions or Conditions()
        count = len(problem.layers)
        before: list[set[int]] = [set() for _ in range(count)]
        for flow in problem.flows:
            for reader in flow.consumers:
                before[reader].add(flow.source)
        self._before = [sorted(sources - {0}) for sources in before]
        ends = [(f, flow.source, x) for f, flow in enumerate(problem.flows) for x in flow.consumers]
        self._ends = np.array(ends, dtype=np.int64).reshape(-1, 3).T
        self._grouped: tuple[tuple[int, ...], tuple[tuple[int, ...], ...]] | None = None

    def groups(self, placement: Placement) -> tuple[tuple[int, ...], ...]:
        """The components of a placement, as positions of layers, in topological order. The
        generator and the receiver are in none: they stand for the app."""
        if self._grouped is None or self._grouped[0] != placement.servers:
            self._grouped = (placement.servers, self._group(placement.servers))
        return self._grouped[1]

    def build(
        self, placement: Placement, groups: Sequence[Sequence[int]] | None = None
    ) -> Pipeline:
        """The pipeline of a placement; `groups` are its components, if they are known."""
        groups = self.groups(placement) if groups is None else groups
        problem, conditions = self._problem, self._conditions
        ways = _Ways(self._leaving(placement, groups), placement, groups, problem.entry)
        components, messages = with_coding(
            _components(problem, conditions, placement, groups, ways),
            _Messages(problem, conditions, ways).build(),
            _coding(ways, conditions),
            conditions,
        )
        return Pipeline(
            servers=len(problem.servers),
            entry=problem.entry,
            components=components,
            messages=messages,
            compute_watt=tuple(problem.compute_watt.tolist()),
            send_watt=tuple(problem.send_watt.tolist()),
            parallel=conditions.parallel,
        )

    def _group(self, servers: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """As `group_layers` does. Layers that read from nothing but one bundle of layers of their
        server are always in its component; to bundle them first is several times as fast."""
        bundle_of = list(range(len(servers)))
        bundles: dict[int, list[int]] = {}
        for layer in range(1, len(servers) - 1):
            read = {bundle_of[source] for source in self._before[layer]}
            if len(read) == 1 and servers[layer] == servers[first := read.pop()]:
                bundle_of[layer] = first
                bundles[first].append(layer)
            else:
                bundles[layer] = [layer]
        before = {
            str(first): [str(bundle_of[source]) for source in self._before[first]]
            for first in bundles
        }
        server_of = {str(first): str(servers[first]) for first in bundles}
        found = group_layers(list(before), before, server_of)
        return tuple(
            tuple(sorted(x for first in group.layers for x in bundles[int(first)]))
            for group in found
        )

    def _leaving(self, placement: Placement, groups: Sequence[Sequence[int]]) -> list[_Way]:
        """The ways of all tensors that are read elsewhere than where they are made."""
        flows, servers = self._problem.flows, placement.servers
        component = np.full(len(servers), _INPUTS)
        component[-1] = _APP
        for index, group in enumerate(groups):
            component[list(group)] = index
        tensors, sources, readers = self._ends
        leaves = component[sources] != component[readers]
        takers = component[readers[leaves]].tolist()
        found: dict[int, set[int]] = {}
        for tensor, taker in zip(tensors[leaves].tolist(), takers, strict=True):
            found.setdefault(tensor, set()).add(taker)
        quantized = quantized_layers(self._problem, placement.quantized)
        ways = []
        for tensor, taken in found.items():
            flow = flows[tensor]
            by_server: dict[int, list[int]] = {}
            for taker in sorted(taken - {_APP}):
                by_server.setdefault(servers[groups[taker][0]], []).append(taker)
            maker, coded = int(component[flow.source]), not quantized.isdisjoint(flow.coded_by)
            server = servers[flow.source]
            ways.append(_Way(tensor, maker, server, by_server, _APP in taken, coded))
        return ways


def pipeline_of(
    problem: Problem,
    placement: Placement,
    conditions: Conditions | None = None,
    groups: Sequence[Sequence[int]] | None = None,
) -> Pipeline:
    """The pipeline of one placement; see `PipelineBuilder`."""
    return PipelineBuilder(problem, conditions).build(placement, groups)


@dataclass(frozen=True)
class _Way:
    """A tensor that leaves its component: who makes it, and who reads it on each server."""

    tensor: int
    maker: int
    server: int
    readers: dict[int, list[int]]
    to_app: bool
    coded: bool


class _Ways:
    """The ways of all tensors of a placement, sorted into messages.

    By component: `server`, `after` (those of its server that it waits for), `called` (what its
    call carries), `returned` (what the entry needs of it), `fetched` (whether the entry gets that
    from a mailbox). `put`: what goes from a component into the mailbox of a server.
    """

    def __init__(
        self,
        ways: Sequence[_Way],
        placement: Placement,
        groups: Sequence[Sequence[int]],
        entry: int,
    ) -> None:
        self.entry = entry
        self.ways = ways
        self.server = [placement.servers[group[0]] for group in groups]
        self.after: list[set[int]] = [set() for _ in groups]
        self.called: list[list[_Way]] = [[] for _ in groups]
        self.returned: list[list[_Way]] = [[] for _ in groups]
        self.put: dict[tuple[int, int], list[_Way]] = {}
        for way in ways:
            for target in way.readers:
                self._sort(way, target)
            if way.to_app and way.server != entry and entry not in way.readers:
                self.returned[way.maker].append(way)
        # Apps may ask for some outputs only. What others wait for must be computed all the same.
        several = sum(way.to_app for way in ways) > 1
        feeds = {way.maker for way in ways if set(way.readers) - {entry}}
        self.fetched = [
            several and c in feeds and bool(self.returned[c]) for c in range(len(groups))
        ]

    def _sort(self, way: _Way, target: int) -> None:
        """How the components on one server get it."""
        readers = way.readers[target]
        if target == way.server:
            for reader in readers:
                self.after[reader] |= {way.maker} - {_INPUTS}
        elif target == self.entry:
            self.returned[way.maker].append(way)
        elif way.server == self.entry and len(readers) == 1:
            self.called[readers[0]].append(way)
        else:
            self.put.setdefault((way.maker, target), []).append(way)


def _components(
    problem: Problem,
    conditions: Conditions,
    placement: Placement,
    groups: Sequence[Sequence[int]],
    ways: _Ways,
) -> tuple[SimComponent, ...]:
    quantized = quantized_layers(problem, placement.quantized)
    border: list[list[float]] = [[] for _ in groups]  # bytes of each input and output
    cut_ms = [0.0] * len(groups)
    for way in ways.ways:
        for component, sizes, added_ms in _ends_of(way, ways, conditions):
            border[component] += sizes
            cut_ms[component] += added_ms
    found = []
    for index, group in enumerate(groups):
        server = ways.server[index]
        as_float = [layer for layer in group if layer not in quantized]
        as_int8 = [layer for layer in group if layer in quantized]
        compute_ms = float(problem.float_ms[as_float, server].sum())
        compute_ms += float(problem.int8_ms[as_int8, server].sum()) + cut_ms[index]
        compute_ms += serving_ms(conditions, server, border[index])
        after = tuple(sorted(ways.after[index]))
        found.append(SimComponent(server, compute_ms, after, conditions.instances, tuple(group)))
    return tuple(found)


def _ends_of(
    way: _Way, ways: _Ways, conditions: Conditions
) -> Iterator[tuple[int, list[float], float]]:
    """(component, bytes of each form that it makes or reads, ms that this adds) at a border: for
    another memory layout, and for codecs."""

    def size(target: int) -> float:
        return conditions.bytes_of(way.tensor, way.coded, way.server, target)

    if way.maker != _INPUTS:
        targets = {*way.readers, *([ways.entry] if way.to_app else [])}
        making = conditions.making_ms
        added = float(making[way.tensor, way.server]) if making is not None and way.readers else 0.0
        added += conditions.encoding_ms(way.tensor, way.coded, way.server, targets)
        yield way.maker, sorted({size(target) for target in targets}), added
    reading = conditions.reading_ms
    for target, readers in way.readers.items():
        is_made = way.maker != _INPUTS
        added = float(reading[way.tensor, target]) if is_made and reading is not None else 0.0
        if not (way.to_app and target == ways.entry):  # else one component decodes for all there
            added += conditions.decoding_ms(way.tensor, way.coded, way.server, target)
        for reader in readers:
            yield reader, [size(target)], added


def _coding(ways: _Ways, conditions: Conditions) -> Coding:
    """Inputs and outputs of the model that cross a link in another form than they are."""
    entry = ways.entry
    inputs: dict[int, tuple[float, ...]] = {}
    outputs: dict[int, dict[int, Decoding]] = {}
    inputs_ms = 0.0
    for way in ways.ways:
        plain = conditions.bytes_of(way.tensor, way.coded, way.server, way.server)
        if way.maker == _INPUTS:
            sizes = {
                conditions.bytes_of(way.tensor, way.coded, entry, target) for target in way.readers
            }
            if forms := sorted(sizes - {plain}):
                inputs[way.tensor] = (plain, *forms)
                inputs_ms += conditions.encoding_ms(way.tensor, way.coded, entry, way.readers)
        elif way.to_app and way.server != entry:
            size = conditions.bytes_of(way.tensor, way.coded, way.server, entry)
            if size != plain:
                readers = tuple(way.readers.get(entry, ()))
                found = outputs.setdefault(way.maker, {})
                decoding_ms = conditions.decoding_ms(way.tensor, way.coded, way.server, entry)
                found[way.tensor] = Decoding((size, plain), readers, decoding_ms)
    return Coding(entry, inputs, outputs, inputs_ms)


class _Messages:
    """All messages of a placement, in the order of the components that make or take them."""

    def __init__(self, problem: Problem, conditions: Conditions, ways: _Ways) -> None:
        self._problem = problem
        self._conditions = conditions
        self._ways = ways
        self._puts: dict[int, list[int]] = {}  # servers into whose mailboxes a component puts
        for maker, target in ways.put:
            self._puts.setdefault(maker, []).append(target)
        names: list[tuple[str, int, int]] = [("put", _INPUTS, h) for h in self._targets(_INPUTS)]
        for index, server in enumerate(ways.server):
            if server != ways.entry:
                names.append(("call", index, server))
                names += [("fetch", index, server)] * ways.fetched[index]
            names += [("put", index, target) for target in self._targets(index)]
            if ways.returned[index]:
                names.append(("answer", index, ways.entry))
        self._position = {name: position for position, name in enumerate(names)}

    def build(self) -> tuple[SimMessage, ...]:
        make = {"put": self._put, "call": self._call, "fetch": self._fetch, "answer": self._answer}
        return tuple(make[kind](index, target) for kind, index, target in self._position)

    def _targets(self, maker: int) -> list[int]:
        return sorted(self._puts.get(maker, ()))

    def _put(self, maker: int, target: int) -> SimMessage:
        source = self._ways.entry if maker == _INPUTS else self._ways.server[maker]
        carried = self._ways.put[maker, target]
        readers = sorted({reader for way in carried for reader in way.readers[target]})
        sources = () if maker == _INPUTS else (maker,)
        return self._message("put", source, target, carried, sources, tuple(readers))

    def _call(self, index: int, server: int) -> SimMessage:
        ways = self._ways
        carried = ways.called[index]
        sources = sorted({way.maker for way in carried} - {_INPUTS})
        waits = []
        # A call also waits until what it will wait for there has been sent, or called for, unless
        # that call answers: steps of an ensemble must use each other's outputs (decision 002).
        for (maker, target), boxed in ways.put.items():
            if target != server or not any(index in way.readers[target] for way in boxed):
                continue
            if maker == _INPUTS or ways.server[maker] == ways.entry:
                waits.append(self._position["put", maker, target])
            else:
                waits += self._silent(maker)
        for maker in sorted(ways.after[index]):
            waits += self._silent(maker)
        issued = tuple((w, Moment.ISSUED) for w in sorted(set(waits)))
        return self._message(
            "call", ways.entry, server, carried, tuple(sources), (index,), waits=issued
        )

    def _silent(self, maker: int) -> list[int]:
        """The call of a component, if nothing comes back by it."""
        ways = self._ways
        if ways.returned[maker] and not ways.fetched[maker]:
            return []
        return [self._position["call", maker, ways.server[maker]]]

    def _fetch(self, index: int, server: int) -> SimMessage:
        call = self._position["call", index, server]
        waits = ((call, Moment.ISSUED),)
        return self._message("fetch", self._ways.entry, server, [], waits=waits)

    def _answer(self, index: int, target: int) -> SimMessage:
        """What comes back, when all that the component puts elsewhere has arrived there; from its
        mailbox, when it was asked for."""
        ways = self._ways
        carried = ways.returned[index]
        server = ways.server[index]
        if ways.fetched[index]:
            waits = [(self._position["fetch", index, server], Moment.ARRIVED)]
        else:
            puts = [self._position["put", index, h] for h in self._targets(index)]
            waits = [(put, Moment.ACKNOWLEDGED) for put in puts]
        readers = sorted({r for way in carried for r in way.readers.get(target, ())})
        return self._message(
            "answer", server, target, carried, (index,), tuple(readers), waits=tuple(waits)
        )

    def _message(
        self,
        kind: str,
        source: int,
        target: int,
        carried: Sequence[_Way],
        sources: tuple[int, ...] = (),
        targets: tuple[int, ...] = (),
        waits: tuple[tuple[int, Moment], ...] = (),
    ) -> SimMessage:
        size = sum(
            self._conditions.bytes_of(way.tensor, way.coded, source, target) for way in carried
        )
        link = self._conditions.link(source, target)
        if link is None:
            problem = self._problem
            link_ms = sum(
                float(
                    (problem.coded_ms if w.coded else problem.transfer_ms)[w.tensor, source, target]
                )
                for w in carried
            )
            delay_ms = ack_ms = 0.0
        else:
            link_ms = 1000.0 * size / MIB / link.bandwidth_mib_s
            ack_ms = link.round_trip_ms / 2
            delay_ms = ack_ms + link.copy_ms_per_mib * size / MIB
            delay_ms += link.call_ms if kind != "answer" else 0.0
        return SimMessage(
            kind, source, target, sources, targets, link_ms, delay_ms, ack_ms, waits,
            to_app=kind == "answer" and any(way.to_app for way in carried),
            bytes=size, tensors=tuple(way.tensor for way in carried),
        )  # fmt: skip
