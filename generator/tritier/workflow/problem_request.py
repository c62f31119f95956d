"""What planning starts from: documents, limits and permissions; patterns and findings."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tritier.costs import PlanPrices
from tritier.documents import (
    GENERATOR,
    RECEIVER,
    ModelProfile,
    NetworkState,
    NoiseModel,
    Quantization,
    Ranges,
    ServersSpec,
    TimingProfile,
)
from tritier.errors import InputError
from tritier.graph import LayerGraph, LoadedModel

Origin = Literal["measured", "configured", "predicted"]
WireCodec = Literal["as_is", "fp16", "int8"]
WIRE_CODECS: tuple[WireCodec, ...] = ("as_is", "fp16", "int8")
_SHOWN = 3


@dataclass(frozen=True)
class PlanningRequest:
    """A model, what is known of it and of the servers, and what a plan must keep to.

    Layers and tensors may be named by shell patterns; an exact name goes before a pattern.

    - `timings` by server. A server without one is left out of the plan.
    - `network`: measured links; without it they are those of the servers file.
    - `noise`: a noise model for each quantization setting; layers are quantized only within
      `noise_limits` (output -> limit), with the margin of the noise model if `noise_margin`, or
      freely if `unlimited_noise`.
    - `pins` layer -> server, earlier patterns first; `forbidden` layer -> servers.
    - `local_tensors` must not leave the server that makes them ('the raw image stays on the
      device'); over `closed_links` (from, to) goes no tensor.
    - `wire_codecs` of a link (from, to): how tensors may cross there besides the 8 bits in which
      quantized layers have them; as is if left out. `int8` is for `int8_tensors` only, which must
      be in `ranges`: noise models don't know of it.
    - Limits, infinite if left out: joules of one inference, by all servers and by each; ms.
      `memory_mib` goes before that of the servers file.
    - `int8_everywhere`: also where it does not gain (else rule R7). `uses_energy`: energy is in the
      objective, so that powers must be known.
    - `prices`: what servers, electricity and egress cost; each server must have one, and its powers
      must be known where electricity is paid. `uses_money`: money is the objective.
    """

    model: LoadedModel
    graph: LayerGraph
    profile: ModelProfile
    servers: ServersSpec
    timings: Mapping[str, TimingProfile]
    network: NetworkState | None = None
    noise: Sequence[NoiseModel] = ()
    noise_limits: Mapping[str, float] = field(default_factory=dict)
    noise_margin: bool = True
    unlimited_noise: bool = False
    pins: Mapping[str, str] = field(default_factory=dict)
    forbidden: Mapping[str, Collection[str]] = field(default_factory=dict)
    local_tensors: Sequence[str] = ()
    closed_links: Collection[tuple[str, str]] = ()
    wire_codecs: Mapping[tuple[str, str], Collection[WireCodec]] = field(default_factory=dict)
    int8_tensors: Sequence[str] = ()
    ranges: Ranges | None = None
    energy_joule: float = math.inf
    server_energy_joule: Mapping[str, float] = field(default_factory=dict)
    latency_ms: float = math.inf
    memory_mib: Mapping[str, float] = field(default_factory=dict)
    int8_everywhere: bool = False
    uses_energy: bool = False
    prices: PlanPrices | None = None
    uses_money: bool = False

    @property
    def planned_servers(self) -> tuple[str, ...]:
        """Those with a timing profile, in the order of the servers file."""
        return tuple(name for name in self.servers.names if name in self.timings)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The generator, the model's layers in its order, the receiver."""
        return (GENERATOR, *(layer.name for layer in self.profile.layers), RECEIVER)

    @property
    def limits_energy(self) -> bool:
        """Whether the energy of all servers together matters."""
        return self.uses_energy or math.isfinite(self.energy_joule)

    @property
    def pays_egress(self) -> bool:
        """Whether bytes that leave some server are in what an inference costs."""
        return self.prices is not None and any(self.prices.egress.values())

    def pays_energy(self, server: str) -> bool:
        """Whether the electricity of a server is in what an inference costs."""
        prices = self.prices
        return prices is not None and server in prices.pays_energy and prices.usd_per_kwh > 0


@dataclass
class Findings:
    """Faults, which are reported all together, and warnings."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def raise_faults(self) -> None:
        """Raise InputError if there are any."""
        if self.faults:
            raise InputError(self.faults)


def matching(pattern: str, names: Collection[str]) -> list[str]:
    """The name itself if it is one, else all names that the pattern matches, in their order."""
    if pattern in names:
        return [pattern]
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def matched(patterns: Iterable[str], names: Collection[str]) -> set[str]:
    """All names that one of the patterns is or matches."""
    return {name for pattern in patterns for name in matching(pattern, names)}


def first_matches(patterns: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Name -> value: of the exact name, else of the first pattern that matches."""
    found: dict[str, str] = {}
    for pattern in sorted(patterns, key=lambda item: item not in names):  # stable
        for name in matching(pattern, names):
            found.setdefault(name, patterns[pattern])
    return found


def listed(names: Sequence[str]) -> str:
    """A few names for a message."""
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def settings_text(settings: Quantization) -> str:
    """Quantization settings for a message, e.g. `int8 activations, int8 weights per channel`."""
    parts = [
        f"{settings.activation_type} activations",
        f"{settings.weight_type} weights"
        + (" per channel" if settings.per_channel else "")
        + (" of 7 bits" if settings.reduce_range else ""),
    ]
    return ", ".join(parts)
