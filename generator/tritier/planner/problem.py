"""The placement problem as data (design, section 6): what every choice costs, and the limits.

A layer has a label: its server, and whether it is quantized there. Costs add up over the labels of
layers, and over the tensors that cross from the server of their source to those of their consumers,
each tensor at most once per link (R3). Nothing here depends on how the problem is solved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tritier.planner.noise_sets import NoiseLimit

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
INFINITE = math.inf
MIB = 2.0**20


@dataclass(frozen=True)
class Flow:
    """A tensor: the layer that makes it and those that read it, as positions among the layers.

    It crosses in 8 bits if one of `coded_by` is quantized: some of the source and the consumers.
    """

    name: str
    source: int
    consumers: tuple[int, ...]
    coded_by: tuple[int, ...] = ()


@dataclass(frozen=True)
class Limits:
    """What a placement may not exceed; what is infinite, or left out, is not limited."""

    energy_joule: float = INFINITE
    latency_ms: float = INFINITE
    server_energy_joule: tuple[float, ...] = ()
    memory_bytes: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Money:
    """What an inference is paid for, in USD, for `k` servers and `m` tensors.

    - `per_ms` [k]: a millisecond of computing; `per_joule` [k]: electricity, where it is paid.
    - `crossing`, `coded_crossing` [m, k, k]: a tensor that leaves for another server, as it is and
      in 8 bits; finite everywhere, 0 on the diagonal.
    """

    per_ms: Floats
    per_joule: Floats
    crossing: Floats
    coded_crossing: Floats


@dataclass(frozen=True, eq=False)
class Problem:
    """Layers, servers, tensors, what they cost and what is allowed.

    The first and the last layer are the generator and the receiver: they cost nothing and stay on
    the entry (R2). `n` layers stand in topological order, `k` servers, `m` tensors. Arrays:

    - `float_ms`, `int8_ms` [n, k]: time of a layer; infinite where int8 is not offered (R7).
    - `allowed` [n, k]: whether a layer may stand on a server.
    - `transfer_ms`, `coded_ms` [m, k, k]: time of a tensor from server to server, as it is and in
      8 bits; 0 on the diagonal, infinite where it may not go.
    - `compute_watt`, `send_watt` [k]: power while computing, and while sending to another server.
    - `float_bytes`, `int8_bytes` [n, k]: memory of weights, which adds up on a server.
    - `working_bytes` [n, k]: memory of activations while a layer runs; a server needs the largest.

    `quantizable` are layers in rising order; bit i of a mask of quantized layers stands for the
    i-th of them. `noise` limits which masks are allowed. `money` is needed if money counts.
    """

    layers: tuple[str, ...]
    servers: tuple[str, ...]
    entry: int
    float_ms: Floats
    int8_ms: Floats
    allowed: Bools
    flows: tuple[Flow, ...]
    transfer_ms: Floats
    coded_ms: Floats
    compute_watt: Floats
    send_watt: Floats
    float_bytes: Floats
    int8_bytes: Floats
    working_bytes: Floats
    quantizable: tuple[int, ...] = ()
    noise: NoiseLimit = field(default_factory=NoiseLimit)
    limits: Limits = field(default_factory=Limits)
    money: Money | None = None

    def __post_init__(self) -> None:
        """Check shapes: a wrong one is a fault of the program, not of a user."""
        n, k, m = len(self.layers), len(self.servers), len(self.flows)
        for name in ("float_ms", "int8_ms", "allowed", "float_bytes", "int8_bytes",
                     "working_bytes"):  # fmt: skip
            assert getattr(self, name).shape == (n, k), f"{name}: {getattr(self, name).shape}"
        for name in ("transfer_ms", "coded_ms"):
            assert getattr(self, name).shape == (m, k, k), f"{name}: {getattr(self, name).shape}"
        for name in ("compute_watt", "send_watt"):
            assert getattr(self, name).shape == (k,), f"{name}: {getattr(self, name).shape}"
        if self.money is not None:
            assert self.money.per_ms.shape == self.money.per_joule.shape == (k,)
            assert self.money.crossing.shape == self.money.coded_crossing.shape == (m, k, k)
        for name in ("server_energy_joule", "memory_bytes"):
            assert len(getattr(self.limits, name)) in (0, k), name
        assert list(self.quantizable) == sorted(set(self.quantizable))
        assert self.noise.count in (0, len(self.quantizable))
        for flow in self.flows:
            assert flow.source < flow.consumers[0], flow
            assert list(flow.consumers) == sorted(set(flow.consumers)), flow
            assert {flow.source, *flow.consumers}.issuperset(flow.coded_by), flow

    @cached_property
    def bit_of(self) -> dict[int, int]:
        """Bit of each quantizable layer in a mask."""
        return {layer: bit for bit, layer in enumerate(self.quantizable)}

    @cached_property
    def labels(self) -> tuple[tuple[tuple[int, bool], ...], ...]:
        """(server, quantized) that each layer may have, apart from noise."""
        quantizable = set(self.quantizable)
        return tuple(
            tuple(
                (server, mode)
                for mode in ((False, True) if layer in quantizable else (False,))
                for server in range(len(self.servers))
                if self.allowed[layer, server]
                and math.isfinite((self.int8_ms if mode else self.float_ms)[layer, server])
            )
            for layer in range(len(self.layers))
        )

    @property
    def has_rows(self) -> bool:
        """Whether something but noise is limited, which couples all layers."""
        limits = self.limits
        parts = (limits.energy_joule, limits.latency_ms, *limits.server_energy_joule)
        return any(math.isfinite(x) for x in (*parts, *limits.memory_bytes))


@dataclass(frozen=True)
class Weights:
    """A linear objective: what a millisecond, a joule and a USD are worth."""

    per_ms: float = 1.0
    per_joule: float = 0.0
    per_usd: float = 0.0


@dataclass(frozen=True)
class Placement:
    """A server for each layer (by position), and a mask of the layers that are quantized."""

    servers: tuple[int, ...]
    quantized: int = 0

    @classmethod
    def of(cls, problem: Problem, labels: Sequence[tuple[int, bool]]) -> Placement:
        """From the label of each layer."""
        mask = sum(1 << bit for layer, bit in problem.bit_of.items() if labels[layer][1])
        return cls(tuple(server for server, _ in labels), mask)
