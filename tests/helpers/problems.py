"""Small random placement problems with everything that a problem may hold, and brute force."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tritier.planner.evaluate import Costs, evaluate, violations
from tritier.planner.noise_sets import NoiseLimit, NoiseRow
from tritier.planner.problem import (
    INFINITE,
    Bools,
    Floats,
    Flow,
    Limits,
    Money,
    Placement,
    Problem,
    Weights,
)

MIB = float(2**20)


def random_problem(
    rng: np.random.Generator,
    *,
    layers: int | None = None,
    servers: int | None = None,
    quantizable: int | None = None,
    with_rows: bool = False,
    with_noise: bool = True,
) -> Problem:
    """A problem of 5 to 7 layers (the first and the last on the entry, free), 2 or 3 servers and up
    to 3 quantizable layers, if not given. Each inner layer is on a path from first to last.

    Some layers are pinned or forbidden somewhere, have no int8 on some servers or a slow one, and
    some tensors can't go somewhere. `with_rows` draws limits of latency, energy and memory around
    what a random placement needs, so that some bind and some can't be kept; `with_noise` draws
    limits of noise, not all monotone.
    """
    n = layers or int(rng.integers(5, 8))
    k = servers or int(rng.integers(2, 4))
    inner = np.arange(1, n - 1)
    wanted = int(rng.integers(0, 4)) if quantizable is None else quantizable
    chosen = sorted(int(i) for i in rng.permutation(inner)[:wanted])
    flows = _flows(rng, n, chosen)
    transfer_ms, coded_ms = _transfers(rng, flows, k)
    float_ms, int8_ms = _times(rng, n, k, chosen)
    entry = int(rng.integers(0, k))
    weights = _free_ends(np.round(rng.uniform(0, 40, (n, 1)) * MIB, -3) * np.ones((1, k)))
    problem = Problem(
        layers=tuple(f"layer{i}" for i in range(n)),
        servers=("device", "edge", "cloud", "remote", "distant", "last")[:k],
        entry=entry,
        float_ms=float_ms,
        int8_ms=int8_ms,
        allowed=_allowed(rng, n, k, entry),
        flows=flows,
        transfer_ms=transfer_ms,
        coded_ms=coded_ms,
        compute_watt=rng.uniform(1, 30, k).round(2),
        send_watt=rng.uniform(0, 5, k).round(2),
        float_bytes=weights,
        int8_bytes=weights / 4,
        working_bytes=_free_ends(np.round(rng.uniform(0, 30, (n, k)) * MIB, -3)),
        quantizable=tuple(chosen),
        noise=random_noise(rng, len(chosen)) if with_noise else NoiseLimit(len(chosen)),
    )
    return replace(problem, limits=random_limits(rng, problem)) if with_rows else problem


def with_money(rng: np.random.Generator, problem: Problem) -> Problem:
    """With prices: of machine time on some servers, of electricity on the others, of egress from
    some. Some tensors cost the same in 8 bits."""
    k, m = len(problem.servers), len(problem.flows)
    rented = rng.random(k) < 0.6
    size = rng.uniform(1e4, 1e7, (m, 1, 1)).round()
    coded = np.where(rng.random((m, 1, 1)) < 0.8, size / 4, size)
    coded[[not flow.coded_by for flow in problem.flows]] = size[[
        not flow.coded_by for flow in problem.flows
    ]]  # fmt: skip
    per_byte = np.where(rng.random(k) < 0.6, rng.uniform(0.01, 0.2, k), 0.0) / 1e9
    leaving = np.where(np.eye(k, dtype=bool), 0.0, per_byte[:, None])
    money = Money(
        per_ms=np.where(rented, rng.uniform(0, 4, k), 0.0) / 3.6e6,
        per_joule=np.where(rented, 0.0, 0.3) / 3.6e6,
        crossing=size * leaving,
        coded_crossing=coded * leaving,
    )
    return replace(problem, money=money)


def tiny_problem() -> Problem:
    """Five layers, two servers, every kind of limit, written by hand: two convolutions, the second
    of which reads what the first makes, and their sum. What `conv1` makes crosses in 8 bits if it
    is quantized."""
    float_ms = np.array([[0, 0], [40, 8], [30, 6], [4, 2], [0, 0]], dtype=np.float64)
    int8_ms = np.full((5, 2), INFINITE)
    int8_ms[1], int8_ms[2, 0] = (22, 5), 18
    weights = np.array([[0, 0], [8, 8], [4, 4], [0, 0], [0, 0]]) * MIB
    image, first, second, answer = 12.0, 20.0, 9.0, 3.0
    transfer_ms = np.array([[[0, x], [x / 2, 0]] for x in (image, first, second, answer)])
    coded_ms = transfer_ms.copy()
    coded_ms[1] /= 4
    return Problem(
        layers=("generator", "conv1", "conv2", "add", "receiver"),
        servers=("device", "edge"),
        entry=0,
        float_ms=float_ms,
        int8_ms=int8_ms,
        allowed=np.array([[1, 0], [1, 1], [1, 1], [1, 1], [1, 0]], dtype=bool),
        flows=(
            Flow("image", 0, (1,)),
            Flow("first", 1, (2, 3), (1,)),
            Flow("second", 2, (3,)),
            Flow("answer", 3, (4,)),
        ),
        transfer_ms=transfer_ms,
        coded_ms=coded_ms,
        compute_watt=np.array([3.0, 9.0]),
        send_watt=np.array([1.5, 2.0]),
        float_bytes=weights,
        int8_bytes=weights / 4,
        working_bytes=np.array([[0, 0], [6, 6], [5, 5], [2, 2], [0, 0]]) * MIB,
        quantizable=(1, 2),
        noise=NoiseLimit(2, (NoiseRow("sum", 0.01, {1: 0.05, 2: 0.06, 3: 0.02}, 0.08),)),
        limits=Limits(
            energy_joule=0.5,
            latency_ms=120.0,
            server_energy_joule=(0.3, INFINITE),
            memory_bytes=(INFINITE, 16 * MIB),
        ),
    )


def random_noise(rng: np.random.Generator, count: int) -> NoiseLimit:
    """Up to two outputs with terms of one to three layers, some negative, and refused masks."""
    if not count or rng.random() < 0.2:
        return NoiseLimit(count)
    low = float(rng.choice([0.0, 0.0, -0.6]))  # half of the limits are monotone
    rows = []
    for output in range(int(rng.integers(1, 3))):
        terms = {1 << bit: round(float(rng.uniform(low, 1.0)), 3) for bit in range(count)}
        for size in (2, 3):
            for bits in itertools.combinations(range(count), size):
                if rng.random() < 0.5:
                    terms[sum(1 << b for b in bits)] = round(float(rng.uniform(low, 0.5)), 3)
        row = NoiseRow(f"output{output}", float(rng.choice([0.0, 0.1, -0.1])), terms, 0.0)
        loads = [row.load(mask) for mask in range(1 << count)]
        budget = float(np.quantile(loads, rng.uniform(0.2, 1.0)))
        rows.append(replace(row, budget=max(budget, 0.0)))
    refused = [mask for mask in range(1, 1 << count) if rng.random() < 0.15]
    return NoiseLimit(count, tuple(rows), frozenset(refused if rng.random() < 0.3 else ()))


def random_limits(rng: np.random.Generator, problem: Problem) -> Limits:
    """Limits around what a random placement needs; each is drawn or left out."""
    for _ in range(20):
        labels = [
            choices[int(rng.integers(len(choices)))] if choices else (problem.entry, False)
            for choices in problem.labels
        ]
        costs = evaluate(problem, Placement.of(problem, labels))
        if math.isfinite(costs.latency_ms):
            break

    def limit(value: float, chance: float) -> float:
        drawn = rng.random() < chance and math.isfinite(value)
        return value * float(rng.uniform(0.85, 1.3)) if drawn else INFINITE

    count = len(problem.servers)
    energy, memory = costs.server_energy_joule, costs.memory_bytes
    each = [limit(energy[k], 0.4) for k in range(count)] if rng.random() < 0.5 else []
    held = [limit(memory[k] + MIB, 0.4) for k in range(count)] if rng.random() < 0.5 else []
    return Limits(
        energy_joule=limit(costs.energy_joule, 0.3),
        latency_ms=limit(costs.latency_ms, 0.3),
        server_energy_joule=tuple(each),
        memory_bytes=tuple(held),
    )


def placements(problem: Problem) -> Iterator[tuple[Placement, Costs]]:
    """Every labelling of the layers, with its costs, whatever the limits."""
    for labels in itertools.product(*problem.labels):
        placement = Placement.of(problem, labels)
        yield placement, evaluate(problem, placement)


def feasible_placements(problem: Problem) -> list[tuple[Placement, Costs]]:
    """Every placement that keeps all limits, with its costs."""
    return [
        (placement, costs)
        for placement, costs in placements(problem)
        if not violations(problem, placement, costs)
    ]


def brute_force(problem: Problem, weights: Weights) -> tuple[float, Placement | None]:
    """The least value and a placement that has it; infinite and None if nothing is feasible."""
    best: tuple[float, Placement | None] = (math.inf, None)
    for placement, costs in feasible_placements(problem):
        value = costs.value(weights)
        if value < best[0]:
            best = (value, placement)
    return best


def _flows(rng: np.random.Generator, n: int, quantizable: list[int]) -> tuple[Flow, ...]:
    readers: list[list[int]] = [[] for _ in range(n)]
    for layer in range(1, n):
        count = min(layer, int(rng.integers(1, 4)))
        for source in rng.permutation(layer)[:count]:
            readers[int(source)].append(layer)
    for layer in range(1, n - 1):
        if not readers[layer]:
            readers[layer].append(n - 1)
    flows: list[Flow] = []
    for source in range(n - 1):
        split = int(rng.integers(0, len(readers[source]) + 1))
        parts = [part for part in (readers[source][:split], readers[source][split:]) if part]
        for part in parts or [[n - 1]]:
            around = [i for i in (source, *part) if i in quantizable]
            kind = rng.random()
            by = [] if kind < 0.4 else [i for i in around if kind > 0.7 or i == source]
            name = f"tensor{len(flows)}"
            flows.append(Flow(name, source, tuple(part), tuple(by)))
    return tuple(flows)


def _transfers(rng: np.random.Generator, flows: tuple[Flow, ...], k: int) -> tuple[Floats, Floats]:
    shape = (len(flows), k, k)
    size = rng.uniform(0, 40, (len(flows), 1, 1))
    rtt = np.broadcast_to(rng.uniform(0, 10, (k, k)), shape)
    slow = np.broadcast_to(rng.uniform(0.1, 1, (k, k)), shape)
    plain = (rtt + size * slow).round(3)
    coded = np.minimum(plain, (rtt + size * slow / 4).round(3))
    barred = rng.random(shape) < 0.06
    plain[barred] = INFINITE
    coded[barred & (rng.random(shape) < 0.5)] = INFINITE
    for index, flow in enumerate(flows):
        if not flow.coded_by:
            coded[index] = plain[index]
    for times in (plain, coded):
        times[:, range(k), range(k)] = 0.0
    return plain, coded


def _times(
    rng: np.random.Generator, n: int, k: int, quantizable: list[int]
) -> tuple[Floats, Floats]:
    speed = rng.uniform(0.2, 1.5, (1, k))
    plain = _free_ends(
        (rng.uniform(0, 40, (n, 1)) * speed * rng.uniform(0.8, 1.2, (n, k))).round(3)
    )
    int8 = np.full((n, k), INFINITE)
    for layer in quantizable:
        offered = rng.random(k) < 0.8
        int8[layer, offered] = (plain[layer] * rng.uniform(0.3, 1.15, k)).round(3)[offered]
    return plain, int8


def _allowed(rng: np.random.Generator, n: int, k: int, entry: int) -> Bools:
    allowed = rng.random((n, k)) > 0.05
    for layer in range(1, n - 1):
        if rng.random() < 0.1:
            allowed[layer] = np.arange(k) == int(rng.integers(0, k))
        allowed[layer, int(rng.integers(0, k))] = True
    allowed[[0, n - 1]] = np.arange(k) == entry
    return allowed


def _free_ends(values: Floats) -> Floats:
    values[[0, -1]] = 0.0
    return values
