"""What flows between the components of a plan: the tensors that one makes for a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tritier.documents import ModelProfile, Plan, Wire

INPUTS, OUTPUTS = "inputs", "outputs"


@dataclass(frozen=True)
class Parcel:
    """A tensor of a flow. `codec` is None where it crosses no link; None is a figure not known."""

    tensor: str
    name: str
    shape: str
    readers: tuple[str, ...]
    codec: str | None
    bytes: int | None
    ms: float | None = None


@dataclass(frozen=True)
class Flow:
    """All that a component, or the inputs of the model, makes for those of one server."""

    source: str
    source_server: str
    target_server: str
    parcels: tuple[Parcel, ...]

    @property
    def crosses(self) -> bool:
        """Whether it goes over a link."""
        return self.source_server != self.target_server

    @property
    def targets(self) -> tuple[str, ...]:
        """Who reads any of it, each once."""
        return tuple(dict.fromkeys(reader for parcel in self.parcels for reader in parcel.readers))

    @property
    def bytes(self) -> int | None:
        """Of one request; None if a size is not known."""
        found = [parcel.bytes for parcel in self.parcels]
        return None if None in found else sum(size for size in found if size is not None)

    @property
    def ms(self) -> float | None:
        """Each tensor by itself, added up; None if one is not known."""
        found = [parcel.ms for parcel in self.parcels]
        return None if None in found else sum(value for value in found if value is not None)


def plan_flows(
    plan: Plan, profile: ModelProfile | None, wire_ms: Mapping[tuple[str, str, str], float]
) -> tuple[Flow, ...]:
    """In the order of their sources, and for each first what stays on its server."""
    homes = {part.id: part.server for part in plan.components}
    homes |= {INPUTS: plan.entry.name, OUTPUTS: plan.entry.name}
    makers = dict.fromkeys(plan.inputs, INPUTS)
    makers |= {tensor: part.id for part in plan.components for tensor in part.outputs}
    wires = {(wire.tensor, wire.target): wire for wire in plan.wires}
    found: dict[tuple[str, str], list[Parcel]] = {}
    for tensor in plan.tensors:
        maker = makers.get(tensor.id)
        readers: dict[str, list[str]] = {}
        for part in plan.consumers(tensor.id):
            readers.setdefault(part.server, []).append(part.id)
        if tensor.id in plan.outputs:
            readers.setdefault(plan.entry.name, []).append(OUTPUTS)
        for server, names in readers.items():
            if maker is not None:
                wire = wires.get((tensor.id, server))
                parcel = _parcel(plan, tensor.id, tuple(names), wire, profile, wire_ms)
                found.setdefault((maker, server), []).append(parcel)
    place = {name: index for index, name in enumerate(homes)} | {INPUTS: -1}
    order = sorted(found, key=lambda key: (place[key[0]], key[1] != homes[key[0]]))
    return tuple(Flow(maker, homes[maker], server, tuple(found[maker, server]))
                 for maker, server in order)  # fmt: skip


def _parcel(
    plan: Plan, tensor_id: str, readers: tuple[str, ...], wire: Wire | None,
    profile: ModelProfile | None, wire_ms: Mapping[tuple[str, str, str], float],
) -> Parcel:  # fmt: skip
    tensor = plan.tensor(tensor_id)
    sizes = {} if profile is None else {x.name: x.bytes for x in profile.tensors}
    shape = " x ".join(str(size) for size in tensor.shape) or "scalar"
    kind = f"{tensor.dtype} {shape}"
    if wire is None:
        return Parcel(tensor_id, tensor.name, kind, readers, None, sizes.get(tensor.name))
    size = plan.wire_bytes(wire)
    if size is None and (whole := sizes.get(tensor.name)) is not None:
        items = np.dtype(plan.wire_dtype(wire)).itemsize, np.dtype(tensor.dtype).itemsize
        size = whole * items[0] // items[1]
    ms = wire_ms.get((wire.tensor, wire.source, wire.target))
    return Parcel(tensor_id, tensor.name, kind, readers, wire.codec, size, ms)
