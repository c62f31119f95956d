"""What the simulator takes: components and messages between servers, as plain data.

`simulation_build` makes them from a placement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from tritier.documents import QUANTIZING
from tritier.planner.problem import MIB, Floats, Problem


class Moment(Enum):
    """What of a message another one waits for."""

    ISSUED = "its sender hands it over, and waits for nothing but the link"
    ARRIVED = "all of it is there"
    ACKNOWLEDGED = "its sender knows that it is there"


@dataclass(frozen=True)
class SimComponent:
    """Computes for `compute_ms` on a server, after the components `after` (of the same server) and
    all messages to it. At most `instances` requests are in it at once. `layers` are positions."""

    server: int
    compute_ms: float
    after: tuple[int, ...] = ()
    instances: int = 1
    layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class SimMessage:
    """Takes the link for `link_ms` and is there `delay_ms` later; after `ack_ms` its sender knows.

    It is issued when the components `sources` have ended and what `waits` names of other messages
    (by position) has happened. The components `targets` wait for it, and the app if `to_app`. A
    message with a `link_ms` of 0 waits for no other on its link. `kind` is 'call', 'put', 'answer'
    or 'fetch'; `tensors` are positions among the flows of the problem.
    """

    kind: str
    source_server: int
    target_server: int
    sources: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    link_ms: float = 0.0
    delay_ms: float = 0.0
    ack_ms: float = 0.0
    waits: tuple[tuple[int, Moment], ...] = ()
    to_app: bool = False
    bytes: float = 0.0
    tensors: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """All that one request makes happen. `entry` is a server; per server, `compute_watt` and
    `send_watt` are powers, and `parallel` is how many components may compute at once; left out:
    no power, one component."""

    servers: int
    entry: int
    components: tuple[SimComponent, ...]
    messages: tuple[SimMessage, ...] = ()
    compute_watt: tuple[float, ...] = ()
    send_watt: tuple[float, ...] = ()
    parallel: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("compute_watt", "send_watt", "parallel"):
            assert len(getattr(self, name)) in (0, self.servers), name
        assert all(x >= 1 for x in (*self.parallel, *(c.instances for c in self.components)))

    def slots(self, server: int) -> int:
        """How many components may compute at once there."""
        return self.parallel[server] if self.parallel else 1


@dataclass(frozen=True)
class LinkModel:
    """A link from one server to another: a message of B MiB is there, and its empty answer back,
    after round_trip_ms + 1000 B / bandwidth_mib_s + call_ms + copy_ms_per_mib B. Messages share
    the bandwidth; the rest only delays. A call costs call_ms once, not again for its answer."""

    bandwidth_mib_s: float
    round_trip_ms: float
    call_ms: float = 0.0
    copy_ms_per_mib: float = 0.0


@dataclass(frozen=True)
class ServingCost:
    """What serving a component costs a server besides computing its layers."""

    call_ms: float = 0.0
    tensor_ms: float = 0.0
    copy_ms_per_mib: float = 0.0


@dataclass(frozen=True, eq=False)
class CodingCost:
    """What a codec costs each of `m` tensors on each of `k` servers, in ms: `encoding_ms` [m, k]
    the component that makes it, `decoding_ms` [m, k] every one that reads it."""

    encoding_ms: Floats
    decoding_ms: Floats

    @property
    def crossing_ms(self) -> Floats:
        """Both ends of a way from server to server; [m, k, k]."""
        both: Floats = self.encoding_ms[:, :, None] + self.decoding_ms[:, None, :]
        return both


@dataclass(frozen=True, eq=False)
class Conditions:
    """What a simulation knows beyond the problem.

    - `links` [k][k]: link from server to server. Where there is none, each tensor takes the link
      for its time in the problem, and a message without tensors takes no time.
    - `float_bytes`, `coded_bytes` [m]: size of each tensor as it is and in 8 bits; needed with
      `links` and `serving`.
    - `serving` [k]; `parallel` [k]: how many components may compute at once, 1 if left out.
    - `instances`: of every component.
    - `making_ms`, `reading_ms` [m, k]: what the maker and each reader of a tensor do besides on a
      server, where it crosses the border of a component.
    - `crossing_bytes`: size of a tensor on a link, by (tensor, source, target), where it is neither
      as it is nor in the 8 bits of quantized layers.
    - `crossing_codecs`: the codec that it has there; `codings`: what codecs cost. A codec that is
      not in it costs nothing, nor do the 8 bits of quantized layers.
    """

    links: Sequence[Sequence[LinkModel | None]] | None = None
    float_bytes: Floats | None = None
    coded_bytes: Floats | None = None
    serving: Sequence[ServingCost] | None = None
    parallel: tuple[int, ...] = ()
    instances: int = 1
    making_ms: Floats | None = None
    reading_ms: Floats | None = None
    crossing_bytes: Mapping[tuple[int, int, int], float] = field(default_factory=dict)
    crossing_codecs: Mapping[tuple[int, int, int], str] = field(default_factory=dict)
    codings: Mapping[str, CodingCost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.links is not None or self.serving is not None:
            assert self.float_bytes is not None, "links and serving need the sizes of tensors"
            assert self.coded_bytes is not None, "links and serving need the sizes in 8 bits"

    def link(self, source: int, target: int) -> LinkModel | None:
        """The model of a link, if there is one."""
        return None if self.links is None else self.links[source][target]

    def bytes_of(self, tensor: int, coded: bool, source: int, target: int) -> float:
        """Size of a tensor from server to server, as it is on the same; 0 if it is not known."""
        known = self.crossing_bytes.get((tensor, source, target))
        if known is not None:
            return known
        sizes = self.coded_bytes if coded and source != target else self.float_bytes
        return 0.0 if sizes is None else float(sizes[tensor])

    def encoding_ms(self, tensor: int, coded: bool, source: int, targets: Iterable[int]) -> float:
        """What coding a tensor takes where it is made: once in each codec in which it leaves."""
        if not self.crossing_codecs:
            return 0.0
        costs = {self._coding(tensor, coded, source, target) for target in targets}
        return math.fsum(float(cost.encoding_ms[tensor, source]) for cost in costs if cost)

    def decoding_ms(self, tensor: int, coded: bool, source: int, target: int) -> float:
        """What decoding it takes each component that reads it on a server."""
        cost = self._coding(tensor, coded, source, target)
        return float(cost.decoding_ms[tensor, target]) if cost else 0.0

    def _coding(self, tensor: int, coded: bool, source: int, target: int) -> CodingCost | None:
        codec = self.crossing_codecs.get((tensor, source, target), "")
        return None if coded and codec in QUANTIZING else self.codings.get(codec)


def least_transfers(problem: Problem, conditions: Conditions) -> tuple[Floats, Floats]:
    """The least that each tensor needs over each link in ms, as it is and in 8 bits; each
    [m, k, k]. It may share a message, but not its way."""
    least = [problem.transfer_ms.copy(), problem.coded_ms.copy()]
    for times, sizes in zip(least, (conditions.float_bytes, conditions.coded_bytes), strict=True):
        for source in range(len(problem.servers)):
            for target in range(len(problem.servers)):
                link = conditions.link(source, target)
                if link is None or source == target or sizes is None:
                    continue
                mib = np.asarray(sizes) / MIB
                needed = mib * (1000.0 / link.bandwidth_mib_s + link.copy_ms_per_mib)
                needed += link.round_trip_ms / 2
                needed += link.call_ms if target != problem.entry else 0.0
                barred = np.isinf(times[:, source, target])
                times[:, source, target] = np.where(barred, np.inf, needed)
    return least[0], least[1]
