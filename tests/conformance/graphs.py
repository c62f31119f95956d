"""Layer graphs of real models, as bare figures, and random variations of planning for them.

Two graphs are those of the recorded models (`tests.helpers.published`), two of exported models
(`benchmarks.graph_fixture` made their file). A variation draws all that a planner is told besides
the graph: servers, times, links, powers, quantized layers, noise, pins and weights.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tests.helpers import published
from tritier.planner.noise_sets import NoiseLimit, NoiseRow
from tritier.planner.problem import Bools, Floats, Flow, Problem, Weights

FIXTURE = Path(__file__).parents[1] / "data" / "yolo11_graphs.json.gz"
MIB = float(2**20)
RECORDED = ("yolo11x-seg", "yolo11m")
EXPORTED = ("yolo11n export", "yolo11m export")
GRAPHS = (*RECORDED, *EXPORTED)
# Powers of ten between which links are faster or slower than 10 MiB/s.
LINK_RANGE = (-2.0, 2.0)


@dataclass(frozen=True, eq=False)
class Graph:
    """Tensors as (source, consumers), `mib` of each [m]; `base_ms` of each layer on a server of
    speed 1, [n]; `weight_bytes` [n]. Layers that may be quantized are positions."""

    tensors: tuple[tuple[int, tuple[int, ...]], ...]
    mib: Floats
    base_ms: Floats
    weight_bytes: Floats
    quantizable: tuple[int, ...]


@cache
def graph(name: str) -> Graph:
    """One of `GRAPHS`."""
    return _recorded(name) if name in RECORDED else _exported(name.removesuffix(" export"))


def _recorded(name: str) -> Graph:
    """Times are those that were measured on the device."""
    data = published.fixture()["models"][name]
    return Graph(
        tuple((source, tuple(consumers)) for source, consumers, _ in data["flows"]),
        np.array([size for _, _, size in data["flows"]]),
        1000.0 * np.array(data["times"]["device"]["average"]["float_s"]),
        MIB * np.array(data["weights_mib"]),
        tuple(data["quantizable"]),
    )


def _exported(name: str) -> Graph:
    """Times are those of 10 GFLOPS, and of passing 2 GiB/s of what a layer makes."""
    data = json.loads(gzip.decompress(FIXTURE.read_bytes()))[name]
    mib = np.array([size for _, _, size in data["flows"]]) / MIB
    base_ms = np.array(data["flops"]) / 1e7
    for (source, _, _), size in zip(data["flows"], mib, strict=True):
        base_ms[source] += size / 2.048
    base_ms[[0, -1]] = 0.0
    return Graph(
        tuple((source, tuple(consumers)) for source, consumers, _ in data["flows"]),
        mib,
        base_ms,
        np.array(data["weight_bytes"], dtype=np.float64),
        tuple(data["quantizable"]),
    )


def variation(
    base: Graph, seed: int, *, servers: int | None = None, quantizable: int | None = None
) -> tuple[Problem, Weights]:
    """A random problem on a graph, with 2 to 4 servers and 0 to 12 quantizable layers if not given.

    Layers take other shares of the time on each server; links differ by factors of 10 000 at most,
    in each direction on its own; in every second variation any layer that makes or reads a tensor
    codes it, else its source alone. Noise may fall when a layer is added.
    """
    rng = np.random.default_rng(seed)
    n = len(base.base_ms)
    k = servers or 2 + seed % 3
    most = min(12, len(base.quantizable))
    wanted = int(rng.integers(0, most + 1)) if quantizable is None else quantizable
    chosen = tuple(sorted(rng.permutation(base.quantizable)[:wanted].tolist()))
    float_ms = _times(rng, base, k)
    int8_ms = np.full((n, k), math.inf)
    int8_ms[list(chosen)] = float_ms[list(chosen)] * rng.uniform(0.2, 1.0, (wanted, k))
    plain, coded = _transfers(rng, base, k)
    weights = np.repeat(base.weight_bytes[:, np.newaxis], k, axis=1)
    problem = Problem(
        layers=tuple(f"layer{i}" for i in range(n)),
        servers=("device", "edge", "cloud", "remote")[:k],
        entry=0,
        float_ms=float_ms,
        int8_ms=int8_ms,
        allowed=_allowed(rng, n, k),
        flows=_flows(base, chosen, by_any=seed % 2 == 1),
        transfer_ms=plain,
        coded_ms=coded,
        compute_watt=rng.uniform(1.0, 40.0, k),
        send_watt=rng.uniform(0.0, 5.0, k),
        float_bytes=weights,
        int8_bytes=weights / 4,
        working_bytes=np.zeros((n, k)),
        quantizable=chosen,
        noise=_noise(rng, wanted),
    )
    share = float(rng.choice([0.0, 0.5, 1.0]))
    return problem, Weights(1.0 - share, 100.0 * share)


def _times(rng: np.random.Generator, base: Graph, k: int) -> Floats:
    """The entry is the slowest on the whole, but not for every layer."""
    speed = np.r_[1.0, rng.uniform(1.0, 30.0, k - 1)]
    own = rng.lognormal(0.0, 1.0, (len(base.base_ms), k))
    times: Floats = base.base_ms[:, np.newaxis] / speed * own
    return times


def _transfers(rng: np.random.Generator, base: Graph, k: int) -> tuple[Floats, Floats]:
    """As they are and in 8 bits, [m, k, k]."""
    ms_per_mib = 100.0 / 10.0 ** rng.uniform(*LINK_RANGE, (k, k))
    latency_ms = 10.0 ** rng.uniform(-1.0, 2.0, (k, k))
    away = 1.0 - np.eye(k)
    mib = base.mib[:, np.newaxis, np.newaxis]
    return (mib * ms_per_mib + latency_ms) * away, (mib / 4 * ms_per_mib + latency_ms) * away


def _allowed(rng: np.random.Generator, n: int, k: int) -> Bools:
    """Each second time up to four layers are pinned, and as many may not be on some server."""
    allowed: Bools = np.ones((n, k), dtype=np.bool_)
    if rng.random() < 0.5:
        pinned, barred = rng.integers(1, n - 1, (2, int(rng.integers(1, 5))))
        allowed[barred, rng.integers(0, k, len(barred))] = False
        allowed[pinned] = np.eye(k, dtype=np.bool_)[rng.integers(0, k, len(pinned))]
    allowed[[0, -1]] = np.arange(k) == 0
    return allowed


def _flows(base: Graph, chosen: Sequence[int], *, by_any: bool) -> tuple[Flow, ...]:
    found = []
    for index, (source, consumers) in enumerate(base.tensors):
        around = (source, *consumers) if by_any else (source,)
        coded_by = tuple(layer for layer in around if layer in chosen)
        found.append(Flow(f"t{index}", source, consumers, coded_by))
    return tuple(found)


def _noise(rng: np.random.Generator, count: int) -> NoiseLimit:
    """One row of single layers and pairs; some pairs cancel each other, in every second row."""
    if not count:
        return NoiseLimit()
    low = float(rng.choice([0.0, -0.15]))
    terms = {1 << bit: float(rng.uniform(0.1, 1.0)) for bit in range(count)}
    for a in range(count):
        terms |= {1 << a | 1 << b: float(rng.uniform(low, 0.1)) for b in range(a)}
    budget = float(rng.uniform(0.0, 1.0)) * sum(terms.values())
    return NoiseLimit(count, (NoiseRow("output", 0.05, terms, max(budget, 0.0)),))
