"""Random problems with the shapes of graphs that few models have: wide tensors, and large graphs
that are not chains."""

from __future__ import annotations

import math

import numpy as np

from tritier.planner.noise_sets import NoiseLimit, NoiseRow
from tritier.planner.problem import Bools, Flow, Problem


def layered_problem(rng: np.random.Generator, layers: int) -> Problem:
    """Two servers, nothing quantized. Each layer reads one to three of the eight before it; a
    tenth of the tensors has a direction that it may not take, some layers are pinned."""
    readers: list[list[int]] = [[] for _ in range(layers)]
    for layer in range(1, layers):
        near = min(layer, 8)
        for back in rng.permutation(near)[: int(rng.integers(1, 4))]:
            readers[layer - 1 - int(back)].append(layer)
    flows = [
        Flow(f"t{source}", source, tuple(own or [layers - 1]))
        for source, own in enumerate(readers[:-1])
    ]
    problem = _problem(rng, flows, layers, 2, ())
    barred = rng.random(problem.transfer_ms.shape) < 0.1
    barred[:, range(2), range(2)] = False
    problem.transfer_ms[barred] = math.inf
    problem.coded_ms[barred] = math.inf
    return problem


def wide_problem(rng: np.random.Generator) -> Problem:
    """15 to 19 layers on two or three servers, up to four quantizable. A chain, in which one or two
    tensors have 6 to 12 consumers, and may be coded by any layer that makes or reads them."""
    layers = int(rng.integers(15, 20))
    chosen = tuple(sorted((rng.permutation(layers - 2)[: int(rng.integers(0, 5))] + 1).tolist()))
    wide = rng.permutation(layers - 12)[: int(rng.integers(1, 3))].tolist()
    flows = []
    for source in range(layers - 1):
        far = np.arange(source + 2, layers)
        count = int(rng.integers(5, 12)) if source in wide else int(rng.integers(0, 2))
        further = rng.permutation(far if source in wide else far[:1])[:count].tolist()
        consumers = (source + 1, *sorted(further))
        coders = [x for x in (source, *consumers) if x in chosen and rng.random() < 0.6]
        flows.append(Flow(f"t{source}", source, consumers, tuple(coders)))
    return _problem(rng, flows, layers, int(rng.integers(2, 4)), chosen)


def _problem(
    rng: np.random.Generator, flows: list[Flow], n: int, k: int, chosen: tuple[int, ...]
) -> Problem:
    """Times in whole milliseconds, of layers and of tensors alike, so that cuts pay."""
    float_ms = rng.integers(0, 60, (n, k)).astype(np.float64)
    float_ms[[0, -1]] = 0.0
    int8_ms = np.full((n, k), math.inf)
    int8_ms[list(chosen)] = np.round(float_ms[list(chosen)] * rng.uniform(0.2, 1.0))
    away = 1.0 - np.eye(k)
    plain = rng.integers(1, 40, (len(flows), k, k)) * away
    none = np.zeros((n, k))
    return Problem(
        layers=tuple(f"layer{i}" for i in range(n)),
        servers=("device", "edge", "cloud")[:k],
        entry=0,
        float_ms=float_ms,
        int8_ms=int8_ms,
        allowed=_allowed(rng, n, k),
        flows=tuple(flows),
        transfer_ms=plain,
        coded_ms=np.round(plain / 4),
        compute_watt=rng.integers(1, 40, k).astype(np.float64),
        send_watt=rng.integers(0, 5, k).astype(np.float64),
        float_bytes=none,
        int8_bytes=none,
        working_bytes=none,
        quantizable=chosen,
        noise=_noise(rng, len(chosen)),
    )


def _allowed(rng: np.random.Generator, n: int, k: int) -> Bools:
    allowed: Bools = np.ones((n, k), dtype=np.bool_)
    for layer in np.flatnonzero(rng.random(n) < 0.05):
        allowed[layer] = np.arange(k) == int(rng.integers(0, k))
    allowed[[0, -1]] = np.arange(k) == 0
    return allowed


def _noise(rng: np.random.Generator, count: int) -> NoiseLimit:
    """Any single layer is allowed, all together are not."""
    if not count:
        return NoiseLimit()
    terms = {1 << bit: float(rng.uniform(0.5, 1.0)) for bit in range(count)}
    budget = float(rng.uniform(0.4, 1.0)) * sum(terms.values())
    return NoiseLimit(count, (NoiseRow("output", 0.0, terms, max(budget, 1.0)),))
