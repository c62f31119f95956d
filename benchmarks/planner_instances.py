"""Synthetic planning problems in the shape of the published scaling experiment.

A chain is one branch of layers. A random graph has five: a main branch, and four that leave it in
its first half and join it again in its second; on all of them some layers are also read two layers
further on. FLOPs and sizes of tensors are drawn from the recorded yolo11x-seg.

Server k computes 1e9 * 1000^k FLOPS at 3 + 2k W and sends at 2 + 2k W. Between servers whose
numbers differ by d a link has 30 - 5 (d - 1) MiB/s, but at least 2.5, and 5 + 10 (d - 1) ms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.helpers.published import Setting, fixture, transfers
from tritier.planner.problem import Flow, Problem

# Layers, the generator and the receiver counted, as published.
CHAINS = tuple(range(502, 1853, 150))
RANDOM = tuple(range(702, 1143, 110))
SERVERS = (1, 2, 3, 4, 5, 6)
INPUT_MIB = 4.5
SKIP, SKIPPED = 0.15, 2  # how likely a layer is also read further on, and how far
BRANCHES = 4
SEED = 42


@dataclass(frozen=True)
class Graph:
    """`edges` from source to reader, in topological order; of each layer FLOPs and MiB made."""

    edges: tuple[tuple[int, int], ...]
    flops: tuple[float, ...]
    mib: tuple[float, ...]


def chain(layers: int, servers: int, seed: int = SEED) -> Problem:
    """A chain of so many layers."""
    edges = [(index, index + 1) for index in range(layers - 1)]
    return problem(_drawn(layers, edges, np.random.default_rng(seed)), servers)


def random_graph(layers: int, servers: int, seed: int = SEED) -> Problem:
    """Five branches with skips; `layers` is one of `RANDOM`."""
    steps, rest = divmod(layers - RANDOM[0], 110)
    assert rest == 0, f"{layers} layers: must be one of {RANDOM}"
    draw = np.random.default_rng(seed)
    sizes = [500 + 50 * steps, *[50 + 15 * steps] * BRANCHES]
    edges = _branches(sizes, draw)
    return problem(_drawn(layers, _ordered(layers, edges), draw), servers)


def _branches(sizes: list[int], draw: np.random.Generator) -> set[tuple[int, int]]:
    """Edges; the generator is 0, the main branch follows, the receiver is last."""
    edges, start, main = set(), 1, sizes[0]
    for size in sizes:
        last = start + size - 1
        edges |= {(x, x + 1) for x in range(start, last)}
        skips = np.flatnonzero(draw.random(size) < SKIP) + start
        edges |= {(int(x), min(int(x) + SKIPPED, last)) for x in skips if x < last}
        if start > 1:
            edges.add((int(draw.integers(1, main // 2)), start))
            edges.add((last, int(draw.integers(main // 2 + 1, main + 1))))
        start = last + 1
    return edges | {(0, 1), (main, start)}


def _ordered(layers: int, edges: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """The edges with layers numbered in topological order; the receiver stays last."""
    missing, after = [0] * layers, [list[int]() for _ in range(layers)]
    for source, reader in sorted(edges):
        missing[reader] += 1
        after[source].append(reader)
    number: dict[int, int] = {}
    ready = [0]
    while ready:
        layer = ready.pop()
        number[layer] = len(number)
        for reader in after[layer]:
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    assert number[layers - 1] == layers - 1
    return sorted((number[a], number[b]) for a, b in edges)


def _drawn(layers: int, edges: list[tuple[int, int]], draw: np.random.Generator) -> Graph:
    recorded = fixture()["models"]["yolo11x-seg"]
    flops = draw.choice(np.array(recorded["flops"][1:-1]), layers)
    flops[[0, -1]] = 0.0
    mib = draw.choice(np.array([size for _, _, size in recorded["flows"]]), layers)
    mib[0] = INPUT_MIB
    return Graph(tuple(edges), tuple(flops.tolist()), tuple(mib.tolist()))


def setting(servers: int) -> Setting:
    """The servers and links of the published experiment."""
    pairs = [(a, b) for a in range(servers) for b in range(servers) if a != b]
    return Setting(
        tuple(f"s{k}" for k in range(servers)),
        {(a, b): max(30.0 - 5.0 * (abs(a - b) - 1), 2.5) for a, b in pairs},
        {(a, b): 5.0 + 10.0 * (abs(a - b) - 1) for a, b in pairs},
        tuple(3.0 + 2.0 * k for k in range(servers)),
        tuple(2.0 + 2.0 * k for k in range(servers)),
    )


def problem(graph: Graph, servers: int) -> Problem:
    """A graph on so many servers; nothing is quantizable and nothing limited."""
    where = setting(servers)
    n = len(graph.flops)
    readers: dict[int, list[int]] = {}
    for source, reader in graph.edges:
        readers.setdefault(source, []).append(reader)
    flows = tuple(Flow(f"t{a}", a, tuple(sorted(b))) for a, b in sorted(readers.items()))
    mib = np.array([graph.mib[flow.source] for flow in flows])
    times = transfers(mib, where)
    allowed = np.ones((n, servers), dtype=bool)
    allowed[[0, -1], 1:] = False
    nothing = np.zeros((n, servers))
    return Problem(
        layers=tuple(f"l{index}" for index in range(n)),
        servers=where.servers,
        entry=0,
        float_ms=1000.0 * np.outer(graph.flops, 1e-9 / 1000.0 ** np.arange(servers)),
        int8_ms=np.full((n, servers), np.inf),
        allowed=allowed,
        flows=flows,
        transfer_ms=times,
        coded_ms=times,
        compute_watt=np.array(where.compute_watt),
        send_watt=np.array(where.send_watt),
        float_bytes=nothing,
        int8_bytes=nothing,
        working_bytes=nothing,
    )
