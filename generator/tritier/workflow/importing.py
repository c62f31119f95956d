"""A plan that the system of the thesis recorded becomes a Tritier plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritier.documents import Codec, Plan, Predictions, Ranges, ServersSpec, read_data
from tritier.documents.thesis_plan import ThesisPlan
from tritier.errors import InputError, UsageError, did_you_mean
from tritier.graph import LayerGraph, LoadedModel, build_layer_graph
from tritier.workflow.coding import code_plan
from tritier.workflow.plan import plan_from_groups
from tritier.workflow.recorded import fit_to_model, ordered_groups

_KEYS_SHOWN = 5


def read_recorded_plans(path: Path) -> dict[str, ThesisPlan]:
    """All plans of a file by key; a file of one plan has its stem as key.

    Raises InputError with the faults of all plans.
    """
    found, faults = {}, []
    for key, data in _recorded_data(path).items():
        try:
            found[key] = ThesisPlan.from_data(data)
        except InputError as error:
            faults += [f"{key}: {fault}" for fault in error.faults]
    if faults:
        raise InputError(faults, str(path))
    return found


def read_recorded_plan(path: Path, key: str | None = None) -> ThesisPlan:
    """One plan of a file: the only one, or that whose key is `key` or alone has it as a part.

    Raises UsageError if `key` is missing or does not fit exactly one, InputError for a bad file or
    plan. The other plans of the file are not looked at.
    """
    items = _recorded_data(path)
    chosen = _choose(list(items), key, path)
    return ThesisPlan.from_data(
        items[chosen], str(path) if len(items) == 1 else f"{path}: {chosen}"
    )


def import_plan(
    recorded: ThesisPlan,
    model: LoadedModel,
    servers: ServersSpec,
    numbers: Mapping[str, str] | None = None,
    name: str | None = None,
    ranges: Ranges | None = None,
    as_float: bool = False,
) -> Plan:
    """The recorded components, unchanged, as a plan for a model.

    `numbers` maps recorded server numbers to names; the others go, in the order of the servers
    file, the entry first, to 0, 1 and so on. Layers are quantized, with `ranges`, as recorded
    unless `as_float`; predictions (ms, joule) are left out where that makes another plan of it.
    Raises InputError with all that does not fit the model or the servers.
    """
    graph = build_layer_graph(model.proto)
    fit = fit_to_model(recorded, graph)
    quantizes = bool(recorded.quantized_nodes or fit.int8_tensors)
    server_of = map_servers(recorded, servers, numbers or {})
    faults = [*_server_faults(recorded, servers, server_of, numbers or {}), *fit.faults]
    if quantizes and not as_float and ranges is None:
        faults.append(
            "the recorded plan quantizes layers, which needs calibrated ranges: make them with "
            "`tritier ranges` and pass --ranges, or pass --float to import it without quantization"
        )
    if faults:
        raise InputError(faults)
    groups = ordered_groups(recorded, fit, graph, server_of)
    plan = plan_from_groups(model, graph, groups, servers, name)
    if not quantizes:
        return plan.with_predictions(_predictions(recorded))
    if as_float:
        return plan
    coded = _quantized(plan, model, graph, recorded, fit.int8_tensors, ranges)
    return coded.with_predictions(_predictions(recorded))


def map_servers(
    recorded: ThesisPlan, servers: ServersSpec, numbers: Mapping[str, str]
) -> dict[str, str]:
    """Recorded server number -> server, as far as `numbers` and the servers file give one."""
    others = [name for name in servers.names if name != servers.entry.name]
    by_default = {str(index): name for index, name in enumerate([servers.entry.name, *others])}
    both = {**by_default, **numbers}
    return {number: both[number] for number in recorded.servers if number in both}


def _quantized(
    plan: Plan,
    model: LoadedModel,
    graph: LayerGraph,
    recorded: ThesisPlan,
    int8_tensors: tuple[str, ...],
    ranges: Ranges | None,
) -> Plan:
    """The plan with layers and wires quantized as recorded: not, as without a record, also the
    wires of what quantized layers read."""
    made = {t for name in recorded.quantized_nodes for t in graph.by_name[name].outputs}
    codecs: dict[str, Codec] = {}
    for name in dict.fromkeys(plan.tensor(wire.tensor).name for wire in plan.wires):
        if name not in int8_tensors:
            codecs[name] = "as_is"
        elif name not in made:  # what quantized layers make has a codec by itself, int8 or uint8
            codecs[name] = "int8"
    layers = tuple(dict.fromkeys(recorded.quantized_nodes))
    return code_plan(plan, model, graph, layers, ranges, wire_codecs=codecs)


def _predictions(recorded: ThesisPlan) -> Predictions:
    seconds = recorded.latency_value
    return Predictions(
        latency_ms=None if seconds is None else seconds * 1000,
        energy_joule=recorded.energy_value,
    )


def _server_faults(
    recorded: ThesisPlan,
    servers: ServersSpec,
    server_of: Mapping[str, str],
    numbers: Mapping[str, str],
) -> list[str]:
    known = servers.names
    faults = [
        f"--server {number}={name}: unknown server{did_you_mean(name, known)}; known are "
        f"{', '.join(known)}"
        for number, name in numbers.items()
        if name not in known
    ]
    if faults:
        return faults
    faults = [
        f"server '{number}' of the recorded plan is mapped to none: the servers file has "
        f"{len(known)}; add one, or pass --server {number}=NAME"
        for number in recorded.servers
        if number not in server_of
    ]
    for name in dict.fromkeys(server_of.values()):
        sharing = [number for number, other in server_of.items() if other == name]
        if len(sharing) > 1:
            faults.append(
                f"servers {' and '.join(sharing)} of the recorded plan are both mapped to {name}: "
                "give each its own with --server NUMBER=NAME"
            )
    entry = servers.entry.name
    for what, (key, _) in (
        ("inputs start", recorded.generator),
        ("outputs end", recorded.receiver),
    ):
        if server_of.get(key.server, entry) != entry:
            faults.append(
                f"the {what} on server '{key.server}', mapped to {server_of[key.server]}; rule R2 "
                f"wants them on the entry: pass --server {key.server}={entry}"
            )
    return faults


def _recorded_data(path: Path) -> dict[str, Any]:
    """Key -> plain data of each plan."""
    data = read_data(path)
    if not isinstance(data, dict) or not data:
        raise InputError(
            "is neither a recorded plan nor a mapping of keys to such plans", str(path)
        )
    if str(data.get("format", "")).startswith("tritier/"):
        raise InputError("is a document of Tritier already, which needs no import", str(path))
    if "plan_dict" in data or "model_name" in data:
        return {path.stem: data}
    return {str(key): value for key, value in data.items()}


def _choose(keys: list[str], wanted: str | None, path: Path) -> str:
    """The key that is meant."""
    if wanted is None:
        if len(keys) == 1:
            return keys[0]
        raise UsageError(
            f"{path} holds {len(keys)} plans: pick one with --key; --list shows the keys"
        )
    if wanted in keys:
        return wanted
    fitting = [key for key in keys if wanted in key]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        hint = did_you_mean(wanted, keys)
        raise UsageError(f"--key {wanted}: fits no plan of {path}{hint}; --list shows the keys")
    shown = "".join(f"\n  {key}" for key in fitting[:_KEYS_SHOWN])
    more = "" if len(fitting) <= _KEYS_SHOWN else f"\n  and {len(fitting) - _KEYS_SHOWN} more"
    raise UsageError(
        f"--key {wanted}: fits {len(fitting)} plans of {path}; give more of the key:{shown}{more}"
    )
