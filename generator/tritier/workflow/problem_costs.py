"""What layers cost on servers, where they may stand, and what servers have: memory and power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from tritier.documents import (
    GENERATOR,
    RECEIVER,
    ModelProfile,
    NetworkState,
    Server,
    TensorProfile,
    TimingProfile,
)
from tritier.errors import UsageError
from tritier.graph import DTYPES
from tritier.planner.problem import INFINITE, Bools, Floats
from tritier.timing.durations import MIB
from tritier.workflow.problem_request import (
    Findings,
    Origin,
    PlanningRequest,
    first_matches,
    listed,
    matching,
)

_INT8_SHARE = 0.25  # of the bytes of float32 weights


@dataclass(frozen=True)
class LayerCosts:
    """Arrays [n, k] of a Problem, the generator first and the receiver last."""

    float_ms: Floats
    int8_ms: Floats
    float_bytes: Floats
    int8_bytes: Floats
    working_bytes: Floats


def allowed_servers(request: PlanningRequest, findings: Findings) -> Bools:
    """Where a layer may stand; [n, k]. A fault for each layer that may stand nowhere."""
    names, servers = request.layer_names, request.planned_servers
    layers = names[1:-1]
    allowed = np.ones((len(names), len(servers)), dtype=bool)
    at = {name: index for index, name in enumerate(names)}
    position = {name: index for index, name in enumerate(servers)}
    for layer, server in first_matches(request.pins, layers).items():
        if server in position:
            allowed[at[layer]] = np.arange(len(servers)) == position[server]
    for pattern, closed in request.forbidden.items():
        for layer in matching(pattern, layers):
            allowed[at[layer], [position[name] for name in closed if name in position]] = False
    entry = position.get(request.servers.entry.name)
    for end in (0, -1):
        allowed[end] = np.arange(len(servers)) == entry
    if stuck := [name for name in layers if servers and not allowed[at[name]].any()]:
        findings.faults.append(
            f"{listed(stuck)} may stand on no server: all that are planned with "
            f"({', '.join(servers)}) are forbidden or pins rule them out; lift one of these"
        )
    return allowed


def layer_costs(request: PlanningRequest, layers: Sequence[str], allowed: Bools) -> LayerCosts:
    """Costs of all layers. Of `layers` int8 is offered where it is allowed and gains (rule R7) or,
    with `int8_everywhere`, has a time.

    Weights that layers share count for each of them, and activations as in the whole model in its
    order: both are upper bounds.
    """
    names, servers = request.layer_names, request.planned_servers
    shape = (len(names), len(servers))
    float_ms, int8_ms = np.zeros(shape), np.full(shape, INFINITE)
    weights = np.array([0.0, *(layer.weight_bytes for layer in request.profile.layers), 0.0])
    alive = np.array([0.0, *alive_bytes(request.profile), 0.0])
    float_bytes, working = np.zeros(shape), np.zeros(shape)
    for k, server in enumerate(servers):
        timing = request.timings[server]
        times = {layer.name: layer for layer in timing.layers}
        for i, name in enumerate(names[1:-1], 1):
            layer = times[name]
            float_ms[i, k] = layer.float_ms
            gains = layer.gain_ms > 0 or request.int8_everywhere
            if name in layers and layer.int8_ms is not None and gains and allowed[i, k]:
                int8_ms[i, k] = layer.int8_ms
        instances = request.servers.server(server).instances  # each holds its own
        float_bytes[:, k] = weights * timing.memory.weight_factor * instances
        working[:, k] = alive * timing.memory.activation_factor * instances
    return LayerCosts(float_ms, int8_ms, float_bytes, float_bytes * _INT8_SHARE, working)


def alive_bytes(profile: ModelProfile) -> list[int]:
    """Bytes of the tensors that are alive while each layer runs: made before or by it, and needed
    by it or later. Tensors of unknown size don't count."""
    step = {layer.name: index for index, layer in enumerate(profile.layers)}
    step |= {GENERATOR: 0, RECEIVER: len(profile.layers) - 1}
    changes = [0] * (len(profile.layers) + 1)
    for tensor in profile.tensors:
        first = step[tensor.source]
        last = max((step[name] for name in tensor.consumers), default=first)
        changes[first] += tensor.bytes or 0
        changes[last + 1] -= tensor.bytes or 0
    return list(accumulate(changes))[:-1]


def crosses(tensor: TensorProfile) -> bool:
    """Whether a tensor is of a type that can go between servers at all."""
    return tensor.dtype in DTYPES.values()


def check_sizes(profile: ModelProfile) -> None:
    """Raise UsageError if the bytes of a tensor that may cross are unknown."""
    unknown = [x for x in profile.tensors if crosses(x) and x.bytes is None]
    if not unknown:
        return
    symbols = dict.fromkeys(
        dim
        for tensor in unknown
        if tensor.source == GENERATOR
        for dim in tensor.shape or ()
        if isinstance(dim, str)
    )
    what = f"the size of {listed([tensor.name for tensor in unknown])} is unknown"
    if symbols:
        raise UsageError(f"{what}: give it with {' '.join(f'--dim {x}=N' for x in symbols)}")
    raise UsageError(
        f"{what}, as it hangs on values, not on the sizes of inputs that --dim gives: a plan can't "
        "tell how long it takes to cross; leave that part out of the model"
    )


def memory_limits(request: PlanningRequest, findings: Findings) -> tuple[float, ...]:
    """Bytes for models on each server: the limit without what a server process takes anyway."""
    found = []
    for name in request.planned_servers:
        mib = request.memory_mib.get(name, request.servers.server(name).memory_mib)
        process = request.timings[name].memory.process_bytes
        found.append(INFINITE if mib is None else mib * MIB - process)
        if found[-1] <= 0:
            findings.faults.append(
                f"the memory limit of '{name}' is {mib:g} MiB, and a model that does nothing takes "
                f"{process / MIB:.1f} MiB there: allow more, or leave the server out"
            )
    return tuple(found) if any(map(math.isfinite, found)) else ()


@dataclass
class Powers:
    """Watts by server, 0 where a power is unknown, and where they come from."""

    compute_watt: list[float] = field(default_factory=list)
    send_watt: list[float] = field(default_factory=list)
    sources: dict[str, Origin] = field(default_factory=dict)


def powers(request: PlanningRequest, network: NetworkState | None, findings: Findings) -> Powers:
    """Measured powers before those of the servers file. An unknown one is a fault if energy is
    limited or in the objective, else a warning."""
    found = Powers()
    for name in request.planned_servers:
        server = request.servers.server(name)
        missing = []
        for what, key, watts, (watt, origin) in (
            ("computing", "compute_power_watt", found.compute_watt,
             _compute_watt(server, request.timings[name], network)),
            ("sending", "tx_other_power_watt", found.send_watt, _send_watt(server, network)),
        ):  # fmt: skip
            watts.append(watt or 0.0)
            if watt is None:
                missing.append((what, key))
            else:
                found.sources[f"power of {name} while {what}"] = origin
        if missing:
            _tell_unknown(request, name, missing, findings)
    return found


def _tell_unknown(
    request: PlanningRequest, name: str, missing: Sequence[tuple[str, str]], findings: Findings
) -> None:
    what = " and ".join(text for text, _ in missing)
    keys = " and ".join(key for _, key in missing)
    limited = math.isfinite(request.server_energy_joule.get(name, INFINITE))
    if request.limits_energy or limited or request.pays_energy(name):
        findings.faults.append(
            f"the power of '{name}' while {what} is unknown, but energy is limited, paid or to be "
            f"saved: give {keys} in the servers file"
        )
    else:
        findings.warnings.append(
            f"the power of '{name}' while {what} is unknown: its energy for that counts as 0; give "
            f"{keys} in the servers file"
        )


def _compute_watt(
    server: Server, timing: TimingProfile, network: NetworkState | None
) -> tuple[float | None, Origin]:
    """The power of the whole model's measured energy gives just that energy again."""
    energy = timing.energy
    if energy.compute_power_watt is not None and energy.compute_power_watt.source == "measured":
        return energy.compute_power_watt.value, "measured"
    whole = energy.whole_joule
    if whole is not None and whole.source == "measured" and timing.whole.median_ms > 0:
        return whole.value * 1e3 / timing.whole.median_ms, "measured"
    return _known_watt(server.name, "compute", server.compute_power_watt, network)


def _send_watt(server: Server, network: NetworkState | None) -> tuple[float | None, Origin]:
    return _known_watt(server.name, "tx_other", server.tx_other_power_watt, network)


def _known_watt(
    name: str, what: str, configured: float | None, network: NetworkState | None
) -> tuple[float | None, Origin]:
    """Counters that are read while a server is checked tell what it takes idle: only facts that
    are called after what they are for count."""
    state = network.server(name) if network else None
    for fact in state.power if state else ():
        if fact.what == what and fact.watt.source == "measured":
            return fact.watt.value, "measured"
    return configured, "configured"
