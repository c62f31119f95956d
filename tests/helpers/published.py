"""Planning cases of the published system: recorded profiles as problems, and its plans.

`benchmarks.planner_fixture` tells where the figures are from. The links and machines that its
planner saw were measured and not kept. `SETTINGS` holds what reproduces its predictions best, by
least squares over the recorded plans (`benchmarks.planner_fit`):

- Compute: times were measured anew for each set of plans; the recorded ones are of another time.
  Scaled to fitted sums they give latency and energy of the plans to 0.04 % on average (0.2 % at
  most) for device and edge, and for all three; to 0.4 % for the device alone; to 0.9 % where the
  edge has two CPUs. Averages fit, medians don't: only with averages do the plans on three servers
  lead to the recorded sums of the edge (2.191 and 2.193 s; gain 1.124 and 1.123 s).
- The edge's int8 layers have times down to -64 ms: their measured gains are larger than what the
  correction leaves of their float times. The published plans count on that.
- int8: a plan with the loosest noise limit, which forbids nothing, quantizes all that gains. So
  when the plans were made, in the cloud only the first quantizable layer gained, by 3.2 ms (all
  together lost 7 ms when it was recorded); and with the edge of two CPUs, two did not gain on the
  device. Such layers are not offered as int8.
- Links: sizes are MiB. 5 / 20 / 100 MB/s at most were 4.5 / 17.5 / 26 to 29 MiB/s in effect. Each
  tensor pays the latency of its link, 134 to 135 ms between device and cloud where 55 were set.
- A server's power is that of one CPU times its CPUs: 5.833 W with one, 11.666 W with two.
- Noise: the constant of the regression counts as soon as a layer is quantized; with it all plans
  keep their limit.

What no plan shows is assumed: 5 ms between device and edge as set, edge and cloud like device and
cloud, and the bandwidth of edge to cloud like edge to device.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tritier.planner.noise_sets import NoiseLimit, NoiseRow
from tritier.planner.problem import Floats, Flow, Limits, Placement, Problem

FIXTURE = Path(__file__).parents[1] / "data" / "published_planner.json.gz"
MIB = 1 << 20
MB_S = 1e6 / MIB  # a megabyte per second in MiB/s
ALPHA = 4.0  # float32 by int8
SERVERS = ("device", "edge", "cloud")
Link = tuple[int, int]
Kind = Literal["average", "median"]
Coded = Literal["source", "consumers", "both", "never"]


@dataclass(frozen=True)
class Setting:
    """Servers, links and powers. `whole_s` and `gain_s` are, of each server, the time of the whole
    model and what it gains with all quantizable layers quantized; None takes what was recorded.
    `no_int8` are (server, quantizable layer by its bit) that are not offered as int8."""

    servers: tuple[str, ...]
    bandwidth_mib_s: Mapping[Link, float]
    latency_ms: Mapping[Link, float]
    compute_watt: tuple[float, ...] = (2.9165, 5.833, 35.0)
    send_watt: tuple[float, ...] = (3.507, 2.265, 0.014)
    whole_s: tuple[float, ...] | None = None
    gain_s: tuple[float, ...] | None = None
    no_int8: frozenset[Link] = frozenset()

    def first(self, count: int) -> Setting:
        """With the first servers only."""
        return replace(
            self,
            servers=self.servers[:count],
            whole_s=self.whole_s and self.whole_s[:count],
            gain_s=self.gain_s and self.gain_s[:count],
        )


def both_ways(device_edge: float, device_cloud: float, edge_cloud: float) -> dict[Link, float]:
    """A value per link that is the same in both directions."""
    values = {(0, 1): device_edge, (0, 2): device_cloud, (1, 2): edge_cloud}
    return values | {(b, a): x for (a, b), x in values.items()}


def uploads(*mib_s: float) -> dict[Link, float]:
    """Bandwidth of all links by the server that sends."""
    return {(a, b): x for a, x in enumerate(mib_s) for b in range(len(mib_s)) if a != b}


# As set for the recorded runs: MB/s that each server sends at most, ms one way.
NOMINAL = Setting(
    SERVERS, uploads(5 * MB_S, 20 * MB_S, 100 * MB_S), both_ways(5.0, 55.0, 50.0)
)  # fmt: skip
# What the published planner saw, by `Recorded.case`.
SETTINGS = {
    "Device": Setting(("device",), {}, {}, whole_s=(5.27026,), gain_s=(1.60190,)),
    "DeviceEdge-1cpu": Setting(
        SERVERS[:2],
        {(0, 1): 4.514, (1, 0): 17.431},
        {(0, 1): 5.0, (1, 0): 5.0},
        whole_s=(4.97400, 2.20255),
        gain_s=(1.36436, 1.13050),
    ),
    "DeviceEdge-2cpu": Setting(
        SERVERS[:2],
        {(0, 1): 4.507, (1, 0): 17.496},
        {(0, 1): 5.0, (1, 0): 5.0},
        compute_watt=(2.9165, 2 * 5.833),
        whole_s=(5.08629, 1.16155),
        gain_s=(2.50834, 0.59418),
        no_int8=frozenset({(0, 0), (0, 1)}),
    ),
    "DeviceEdgeCloud": Setting(
        SERVERS,
        {
            (0, 1): 4.514,
            (1, 0): 17.584,
            (0, 2): 4.559,
            (2, 0): 26.164,
            (1, 2): 17.5,
            (2, 1): 28.917,
        },
        {(0, 1): 5.0, (1, 0): 5.0, (0, 2): 135.3, (2, 0): 134.1, (1, 2): 135.0, (2, 1): 135.0},
        whole_s=(4.94503, 2.19300, 0.08232),
        gain_s=(1.35833, 1.12320, 0.00766),
        no_int8=frozenset((2, bit) for bit in range(1, 12)),
    ),
}


@cache
def fixture() -> dict[str, Any]:
    """The file as it is."""
    data: dict[str, Any] = json.loads(gzip.decompress(FIXTURE.read_bytes()))
    return data


def problem(
    model: str = "yolo11x-seg",
    setting: Setting = NOMINAL,
    *,
    max_noise: float | None = None,
    coded_by: Coded = "source",
    kind: Kind = "average",
    limits: Limits | None = None,
    clip: bool = False,
) -> Problem:
    """The problem of a recorded model, with the cost model of the published system.

    Layers have measured times, scaled so that they add up to the whole model; gains of quantized
    layers are scaled so that they add up to what all of them gain together. A tensor takes
    MiB / (MiB/s) + latency on each link, a quarter of its MiB if a layer of `coded_by` is
    quantized. `max_noise` None is no limit. Memory is that of weights, and of the inputs and
    outputs of the layer that runs. Gains on the edge are larger than the times that they are taken
    from: int8 layers have negative times there, as in the published system, unless `clip`.
    """
    data = fixture()["models"][model]
    quantizable = tuple(data["quantizable"])
    flows = _flows(data, coded_by)
    float_ms, int8_ms = _times(data, setting, kind)
    if clip:
        int8_ms = np.maximum(int8_ms, 0.0)
    weights, working = _memory(data)
    n, k = float_ms.shape
    allowed = np.ones((n, k), dtype=bool)
    allowed[[0, -1], 1:] = False
    mib = np.array([size for _, _, size in data["flows"]])
    held = np.repeat(weights[:, None], k, axis=1)
    int8_held = held.copy()
    int8_held[list(quantizable)] /= ALPHA
    return Problem(
        layers=tuple(data["layers"]),
        servers=setting.servers,
        entry=0,
        float_ms=float_ms,
        int8_ms=int8_ms,
        allowed=allowed,
        flows=flows,
        transfer_ms=transfers(mib, setting),
        coded_ms=transfers(mib / ALPHA, setting),
        compute_watt=np.array(setting.compute_watt[:k]),
        send_watt=np.array(setting.send_watt[:k]),
        float_bytes=held,
        int8_bytes=int8_held,
        working_bytes=np.repeat(working[:, None], k, axis=1),
        quantizable=quantizable,
        noise=_noise(data, max_noise),
        limits=limits or Limits(),
    )


def transfers(mib: Floats, setting: Setting) -> Floats:
    """Milliseconds of each tensor on each link, [m, k, k]; 0 on the diagonal."""
    count = len(setting.servers)
    found = np.zeros((len(mib), count, count))
    for a in range(count):
        for b in set(range(count)) - {a}:
            bandwidth, latency = setting.bandwidth_mib_s[a, b], setting.latency_ms[a, b]
            found[:, a, b] = 1000.0 * mib / bandwidth + latency
    return found


def _flows(data: Mapping[str, Any], coded_by: Coded) -> tuple[Flow, ...]:
    quantizable = set(data["quantizable"])
    flows = []
    for index, (source, consumers, _) in enumerate(data["flows"]):
        coders = {"source": [source], "consumers": consumers, "both": [source, *consumers]}
        kept = tuple(x for x in coders.get(coded_by, []) if x in quantizable)
        flows.append(Flow(f"t{index}", source, tuple(consumers), kept))
    return tuple(flows)


def _times(data: Mapping[str, Any], setting: Setting, kind: Kind) -> tuple[Floats, Floats]:
    """Milliseconds of each layer on each server, as float32 and as int8."""
    count, servers = len(data["layers"]), len(setting.servers)
    float_ms: Floats = np.zeros((count, servers))
    int8_ms = np.full((count, servers), math.inf)
    quantizable = data["quantizable"]
    for k, server in enumerate(setting.servers):
        times = data["times"][server][kind]
        raw = np.array(times["float_s"])
        gains = raw[quantizable] - np.array(times["int8_s"])
        whole = setting.whole_s[k] if setting.whole_s else times["whole_s"]
        float_ms[:, k] = 1000.0 * raw * (whole / raw.sum())
        scale = _gain(setting, times, k, gains.sum() * whole / raw.sum()) / gains.sum()
        int8_ms[quantizable, k] = float_ms[quantizable, k] - 1000.0 * gains * scale
    for k, bit in setting.no_int8:
        int8_ms[quantizable[bit], k] = math.inf
    return float_ms, int8_ms


def _gain(setting: Setting, times: Mapping[str, Any], server: int, otherwise: float) -> float:
    """Seconds that all quantizable layers gain together. yolo11m was not measured with those
    alone quantized: its gains are scaled like its times."""
    if setting.gain_s:
        return setting.gain_s[server]
    mixed: float | None = times["mixed_s"]
    return otherwise if mixed is None else float(times["whole_s"]) - mixed


def _memory(data: Mapping[str, Any]) -> tuple[Floats, Floats]:
    """Bytes of the weights of each layer, and of what it reads and makes."""
    weights: Floats = MIB * np.array(data["weights_mib"], dtype=np.float64)
    working = np.zeros(len(weights))
    for source, consumers, mib in data["flows"]:
        working[[source, *consumers]] += mib * MIB
    working[[0, -1]] = 0.0
    return weights, working


def _noise(data: Mapping[str, Any], max_noise: float | None) -> NoiseLimit:
    if max_noise is None:
        return NoiseLimit()
    terms = {int(mask): value for mask, value in data["noise"]["terms"].items()}
    row = NoiseRow("output", data["noise"]["constant"], terms, max_noise)
    return NoiseLimit(len(data["quantizable"]), (row,))


@dataclass(frozen=True)
class Recorded:
    """A plan as recorded: parameters, placement, and what was predicted.

    `cpus` of device, edge and cloud; 0 is a GPU. `generated_s` is the time that planning took.
    """

    scenario: str
    model: str
    latency_weight: float
    energy_weight: float
    max_noise: float
    cpus: tuple[float, ...]
    placement: Placement
    components: int
    latency_ms: float
    energy_joule: float
    device_energy_joule: float
    generated_s: float

    @property
    def case(self) -> str:
        """Key of `SETTINGS`: which machines and links it was planned for."""
        more = f"-{self.cpus[1]:g}cpu" if self.scenario == "DeviceEdge" else ""
        return self.scenario + more


def recorded_plans() -> list[Recorded]:
    """All of them, in the order of their files."""
    return [
        Recorded(
            scenario=item["scenario"],
            model=item["model"],
            latency_weight=item["latency_weight"],
            energy_weight=item["energy_weight"],
            max_noise=item["max_noise"],
            cpus=tuple(item["cpus"]),
            placement=Placement(_spread(item["runs"]), item["quantized"]),
            components=item["components"],
            latency_ms=1000.0 * item["latency_s"],
            energy_joule=item["energy_joule"],
            device_energy_joule=item["device_energy_joule"],
            generated_s=item["generated_s"],
        )
        for item in fixture()["plans"]
    ]


def _spread(runs: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(server for server, times in runs for _ in range(times))
