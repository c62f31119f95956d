"""The profile of a model: what each layer computes and holds, and what flows between layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.plan import Dim, PlanModel
from tritier.errors import InputError, did_you_mean

GENERATOR = "generator"
RECEIVER = "receiver"
Count = Annotated[int, Field(ge=0)]


class LayerProfile(Document):
    """One layer. A figure that hangs on a symbolic size is left out."""

    name: str = Field(min_length=1)
    op_type: str = Field(min_length=1)
    flops: Count | None = Field(
        default=None, description="floating-point operations; a multiply-add counts as 2"
    )
    weight_bytes: Count = Field(description="initializers and constants that it needs")
    output_bytes: Count | None = None
    quantizable: bool = False


class TensorProfile(Document):
    """A tensor that depends on a model input."""

    name: str = Field(min_length=1)
    dtype: str | None = Field(default=None, description="numpy's or, where it has none, ONNX's")
    shape: tuple[Dim, ...] | None = Field(default=None, description="a text is a symbolic size")
    bytes: Count | None = None
    source: str = Field(description=f"a layer, or '{GENERATOR}' for an input of the model")
    consumers: tuple[str, ...] = Field(
        description=f"layers in the model's order; '{RECEIVER}' last if it is a model output"
    )


class SharedWeight(Document):
    """A constant that more than one layer needs."""

    name: str
    bytes: Count
    layers: tuple[str, ...] = Field(min_length=2)


class ProfileTotals(Document):
    """Of the whole model."""

    flops: Count | None = Field(default=None, description="left out if a layer's are unknown")
    known_flops: Count = Field(description="sum over the layers whose FLOPs are known")
    weight_bytes: Count = Field(description="shared constants counted once")
    activation_peak_bytes: Count | None = None
    layers: Count
    constant_nodes: Count = Field(description="nodes that depend on no model input")
    dropped_nodes: Count = Field(description="nodes on which no model output depends")


class ModelProfile(Document):
    """Layers in the model's order, and tensors: inputs first, then in the order of their layers."""

    title: ClassVar[str] = "model profile"

    format: Literal["tritier/profile/1"] = "tritier/profile/1"
    model: PlanModel
    dims: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default={}, description="symbolic sizes of the model and the numbers that were put there"
    )
    layers: tuple[LayerProfile, ...] = Field(min_length=1)
    tensors: tuple[TensorProfile, ...] = Field(min_length=1)
    shared_weights: tuple[SharedWeight, ...] = ()
    totals: ProfileTotals

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Names that are twice or unknown, flow against the order, and wrong sums."""
        try:
            return _name_faults(data) or [*_flow_faults(data), *_sum_faults(data)]
        except (AttributeError, KeyError, TypeError, ValueError):
            return []  # a field has a wrong shape, which is reported where it stands

    @property
    def quantizable_layers(self) -> tuple[str, ...]:
        """Names of the layers that may be quantized, in order."""
        return tuple(layer.name for layer in self.layers if layer.quantizable)


def weight_bytes(profile: ModelProfile, layers: Collection[str]) -> int:
    """Bytes of the constants of a set of layers that run together: what they share counts once.

    Raises InputError for a name that is no layer of the profile.
    """
    chosen = _known_layers(profile, layers)
    total = sum(layer.weight_bytes for layer in profile.layers if layer.name in chosen)
    for shared in profile.shared_weights:
        uses = sum(1 for name in shared.layers if name in chosen)
        total -= shared.bytes * max(uses - 1, 0)
    return total


def activation_peak_bytes(profile: ModelProfile, layers: Collection[str]) -> int | None:
    """The most bytes of activations alive at once while a set of layers runs in the model's order.

    A tensor made outside the set lives from the start to its last use in the set; one made inside
    lives from its creation to its last use, or to the end if it is needed outside. Buffers that a
    runtime reuses in place, and its scratch memory, are not known here. None if a size is unknown.
    Raises InputError for a name that is no layer of the profile.
    """
    chosen = _known_layers(profile, layers)
    order = [layer.name for layer in profile.layers if layer.name in chosen]
    step = {name: index for index, name in enumerate(order)}
    changes = [0] * (len(order) + 1)  # bytes that come before a step, minus those gone before it
    for tensor in profile.tensors:
        uses = [step[name] for name in tensor.consumers if name in step]
        made_inside = tensor.source in step
        if not uses and not made_inside:
            continue
        if tensor.bytes is None:
            return None
        first = step[tensor.source] if made_inside else 0
        leaves = made_inside and len(uses) < len(tensor.consumers)
        last = len(order) - 1 if leaves else max(uses, default=first)
        changes[first] += tensor.bytes
        changes[last + 1] -= tensor.bytes
    return _highest(changes)


def _highest(changes: Iterable[int]) -> int:
    level = peak = 0
    for change in changes:
        level += change
        peak = max(peak, level)
    return peak


def _known_layers(profile: ModelProfile, layers: Collection[str]) -> set[str]:
    chosen = set(layers)
    known = [layer.name for layer in profile.layers]
    unknown = sorted(chosen.difference(known))
    if unknown:
        raise InputError(
            [f"'{name}' is no layer of the profile{did_you_mean(name, known)}" for name in unknown]
        )
    return chosen


def _name_faults(data: dict[str, Any]) -> list[str]:
    faults = []
    for key in ("layers", "tensors", "shared_weights"):
        counts = Counter(item["name"] for item in data.get(key, ()))
        faults += [f"{key}: '{name}' stands {n} times" for name, n in counts.items() if n > 1]
    names = {item["name"] for item in data["layers"]}
    faults += [
        f"layers: '{name}' is the name of an end of the model; rename the layer"
        for name in (GENERATOR, RECEIVER)
        if name in names
    ]
    for tensor in data["tensors"]:
        if tensor["source"] not in names | {GENERATOR}:
            faults.append(f"tensors: the source of '{tensor['name']}' is no layer")
        unknown = [c for c in tensor["consumers"] if c not in names | {RECEIVER}]
        faults += [f"tensors: the consumer '{c}' of '{tensor['name']}' is no layer"
                   for c in unknown]  # fmt: skip
    for shared in data.get("shared_weights", ()):
        unknown = [name for name in shared["layers"] if name not in names]
        faults += [f"shared_weights: '{name}' of '{shared['name']}' is no layer"
                   for name in unknown]  # fmt: skip
    return faults


def _flow_faults(data: dict[str, Any]) -> list[str]:
    """Tensors whose source and consumers don't stand in the model's order."""
    place = {layer["name"]: index for index, layer in enumerate(data["layers"])}
    place |= {GENERATOR: -1, RECEIVER: len(place)}
    faults = []
    for tensor in data["tensors"]:
        places = [place[name] for name in (tensor["source"], *tensor["consumers"])]
        if any(a >= b for a, b in pairwise(places)):
            faults.append(
                f"tensors: source and consumers of '{tensor['name']}' must stand in the order of "
                "the layers, each once"
            )
    return faults


def _sum_faults(data: dict[str, Any]) -> list[str]:
    totals, layers = data["totals"], data["layers"]
    flops = [layer.get("flops") for layer in layers]
    known = sum(value for value in flops if value is not None)
    weights = sum(layer["weight_bytes"] for layer in layers)
    weights -= sum(w["bytes"] * (len(w["layers"]) - 1) for w in data.get("shared_weights", ()))
    wanted = {
        "layers": len(layers),
        "known_flops": known,
        "flops": None if None in flops else known,
        "weight_bytes": weights,
    }
    return [
        f"totals.{key}: {totals.get(key)} does not agree with the layers, which give {value}"
        for key, value in wanted.items()
        if totals.get(key) != value
    ]
