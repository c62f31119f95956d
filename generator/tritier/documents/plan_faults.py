"""What must hold within a plan: rules R1 to R3, and codecs that suit their tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tritier.documents.codecs import QUANTIZING, suiting, suits
from tritier.documents.ranges import range_faults


def required_wires(
    servers_of: dict[str, str],
    components: Iterable[tuple[str, Iterable[str], Iterable[str]]],
    inputs: Iterable[str],
    outputs: Iterable[str],
    entry: str,
) -> list[tuple[str, str, str]]:
    """(tensor, from, to) of every passage that the components need, each once (rule R3).

    `servers_of` maps a component id to its server; `components` are (id, inputs, outputs) in
    order. Model inputs start on the entry, model outputs end there.
    """
    components = [(name, tuple(needs), tuple(makes)) for name, needs, makes in components]
    source = dict.fromkeys(inputs, entry)
    source.update({t: servers_of[name] for name, _, makes in components for t in makes})
    wanted = [(t, servers_of[name]) for name, needs, _ in components for t in needs]
    wanted += [(t, entry) for t in outputs]
    passages = {(t, source[t], target): None for t, target in wanted if source[t] != target}
    return sorted(passages, key=lambda wire: (int(wire[0][1:]), wire[1], wire[2]))


def plan_faults(data: dict[str, Any]) -> list[str]:
    """Faults of a plan's plain data; raises KeyError and the like if a field has a wrong shape."""
    faults = _name_faults(data) + _layer_faults(data["components"])
    faults = faults or _flow_faults(data) or _wire_faults(data) or _codec_faults(data)
    return faults + _quantization_faults(data)


def _name_faults(data: dict[str, Any]) -> list[str]:
    faults = []
    groups = {
        "servers": [s["name"] for s in data["servers"]],
        "components": [c["id"] for c in data["components"]],
        "tensors": [t["id"] for t in data["tensors"]],
    }
    lists = {
        **groups,
        "inputs": data["inputs"],
        "outputs": data["outputs"],
        "tensors, by name": [t["name"] for t in data["tensors"]],
        **{f"components: inputs of {c['id']}": c["inputs"] for c in data["components"]},
    }
    for key, names in lists.items():
        faults += [
            f"{key}: '{name}' stands {count} times; give it once"
            for name, count in Counter(names).items()
            if count > 1
        ]
    entries = [s["name"] for s in data["servers"] if s.get("entry")]
    if len(entries) != 1:
        faults.append(f"servers: {len(entries)} are the entry; set `entry` on exactly one")
    for component in data["components"]:
        if component["server"] not in groups["servers"]:
            faults.append(
                f"components: {component['id']} is on unknown server '{component['server']}'; "
                f"known are {', '.join(groups['servers'])}"
            )
        faults += [
            f"components: {component['id']} names unknown tensor '{tensor}'"
            for tensor in (*component["inputs"], *component["outputs"])
            if tensor not in groups["tensors"]
        ]
    faults += [
        f"{key}: unknown tensor '{tensor}'"
        for key in ("inputs", "outputs")
        for tensor in data[key]
        if tensor not in groups["tensors"]
    ]
    return faults


def _layer_faults(components: list[dict[str, Any]]) -> list[str]:
    counts = Counter(layer for component in components for layer in component["layers"])
    return [
        f"components: layer '{layer}' is in {count} components; rule R1 allows one"
        for layer, count in counts.items()
        if count > 1
    ]


def _flow_faults(data: dict[str, Any]) -> list[str]:
    """Every tensor has one source and components stand in topological order (rule R2)."""
    faults = []
    known = set(data["inputs"])
    for component in data["components"]:
        for tensor in component["inputs"]:
            if tensor not in known:
                faults.append(
                    f"components: {component['id']} needs '{tensor}' before any component made "
                    "it; rule R2 asks for components in topological order, without a cycle"
                )
        for tensor in component["outputs"]:
            if tensor in known:
                faults.append(f"components: {component['id']} makes '{tensor}', made before")
            known.add(tensor)
    faults += [f"outputs: nothing makes '{t}'" for t in data["outputs"] if t not in known]
    return faults + _loose_ends(data)


def _loose_ends(data: dict[str, Any]) -> list[str]:
    """Triton refuses an ensemble with a tensor that nothing uses, or with nothing to compute."""
    needed = {tensor for component in data["components"] for tensor in component["inputs"]}
    faults = [
        f"outputs: '{tensor}' is an input, which no component makes"
        for tensor in data["outputs"]
        if tensor in data["inputs"]
    ]
    faults += [f"inputs: no component needs '{t}'" for t in data["inputs"] if t not in needed]
    return faults + [
        f"components: {component['id']} makes '{tensor}', which nothing needs"
        for component in data["components"]
        for tensor in component["outputs"]
        if tensor not in needed and tensor not in data["outputs"]
    ]


def _wire_faults(data: dict[str, Any]) -> list[str]:
    components = data["components"]
    needed = required_wires(
        {c["id"]: c["server"] for c in components},
        [(c["id"], c["inputs"], c["outputs"]) for c in components],
        data["inputs"],
        data["outputs"],
        next(s["name"] for s in data["servers"] if s.get("entry")),
    )
    stated = Counter((w["tensor"], w["from"], w["to"]) for w in data.get("wires", ()))
    faults = [
        f"wires: '{wire[0]}' from {wire[1]} to {wire[2]} is needed and missing"
        for wire in needed
        if wire not in stated
    ]
    for wire, count in stated.items():
        text = f"wires: '{wire[0]}' from {wire[1]} to {wire[2]}"
        if wire not in needed:
            faults.append(f"{text} is needed by no component")
        elif count > 1:
            faults.append(f"{text} stands {count} times; rule R3 allows one")
    return faults


def _quantization_faults(data: dict[str, Any]) -> list[str]:
    known = {layer for component in data["components"] for layer in component["layers"]}
    faults = range_faults(data.get("ranges") or {})
    for layer, count in Counter(data.get("quantized_layers", ())).items():
        if layer not in known:
            faults.append(f"quantized_layers: '{layer}' is in no component")
        elif count > 1:
            faults.append(f"quantized_layers: '{layer}' stands {count} times; give it once")
    return faults


def _codec_faults(data: dict[str, Any]) -> list[str]:
    tensors = {tensor["id"]: tensor for tensor in data["tensors"]}
    ranges = data.get("ranges") or {}
    faults = []
    for wire in data.get("wires", ()):
        codec = wire.get("codec", "as_is")
        tensor = tensors[wire["tensor"]]
        text = f"wires: '{wire['tensor']}' from {wire['from']} to {wire['to']}: codec {codec}"
        if not suits(codec, tensor["dtype"]):
            allowed = ", ".join(suiting(tensor["dtype"]))
            faults.append(f"{text} does not suit {tensor['dtype']}; allowed are {allowed}")
        elif codec in QUANTIZING and tensor["name"] not in ranges:
            faults.append(f"{text} needs the range of '{tensor['name']}' in `ranges`")
    return faults
