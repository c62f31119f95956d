"""A lower bound of the latency of every placement, by the simulator's rules."""

from __future__ import annotations

import numpy as np

from tritier.planner.problem import Floats, Flow, Problem


def makespan_bound(problem: Problem, least: tuple[Floats, Floats] | None = None) -> float:
    """The longest chain of layers when each is placed at its best; infinite if none can be.

    Layers on a path run one after the other, and between two servers lies at least the time of the
    tensor. So the time by which a layer with a label can have ended is the largest over the tensors
    that it reads, of the least over the labels of their makers; a chain alone is never longer.

    `least` are the least times [m, k, k] that tensors need over links, as they are and in 8 bits
    (`least_transfers`); by default those of the problem.
    """
    plain, coded = least or (problem.transfer_ms, problem.coded_ms)
    times = _label_times(problem)
    reads: list[list[int]] = [[] for _ in problem.layers]
    for index, flow in enumerate(problem.flows):
        for reader in flow.consumers:
            reads[reader].append(index)
    ended: list[Floats] = []
    for layer, taken in enumerate(reads):
        begin = np.zeros(times.shape[1])
        for index in taken:
            flow = problem.flows[index]
            way = _way_ms(flow, layer, plain[index], coded[index])
            begin = np.maximum(begin, (ended[flow.source][:, None] + way).min(axis=0))
        ended.append(begin + times[layer])
    return max(float(row.min()) for row in ended)


def _label_times(problem: Problem) -> Floats:
    """Time of each layer by label: float on each server, then int8; [n, 2 k]."""
    count = len(problem.servers)
    times = np.full((len(problem.layers), 2 * count), np.inf)
    noise, every = problem.noise, (1 << len(problem.quantizable)) - 1
    looked_up = noise.limits and noise.is_tabulated
    # No choice of other layers makes up for the noise of some.
    never = {
        layer
        for layer, bit in problem.bit_of.items()
        if looked_up and not noise.between(1 << bit, every)
    }
    for layer, labels in enumerate(problem.labels):
        for server, quantized in labels:
            if layer in (0, len(problem.layers) - 1) and server != problem.entry:
                continue
            if quantized and layer in never:
                continue
            source = problem.int8_ms if quantized else problem.float_ms
            times[layer, server + count * quantized] = source[layer, server]
    return times


def _way_ms(flow: Flow, reader: int, plain: Floats, coded: Floats) -> Floats:
    """Least time of a tensor from each label of its maker to each of a reader; [2 k, 2 k]."""
    others = set(flow.coded_by) - {flow.source, reader}
    usual = np.minimum(plain, coded) if others else plain
    by_reader = coded if reader in flow.coded_by else usual
    by_source = coded if flow.source in flow.coded_by else usual
    both = coded if {reader, flow.source} & set(flow.coded_by) else usual
    return np.block([[usual, by_reader], [by_source, both]])
