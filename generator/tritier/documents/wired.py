"""A plan whose codecs have become part of its components: what is cut, generated and run.

On each wire with a codec the coded tensor takes the place of the tensor itself: its producer makes
it, those on the other side read it. Model inputs are coded by a component of its own on the entry,
and what comes to the entry as a model output is decoded by one; both hold no layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

from pydantic import Field, model_validator

from tritier.documents.codecs import WIRE_DTYPES, Codec
from tritier.documents.plan import Component, Plan, PlanTensor, Wire
from tritier.documents.plan_faults import required_wires


class WiredComponent(Component):
    """A component; without layers it only codes or decodes."""

    layers: tuple[str, ...] = ()


class WiredPlan(Plan):
    """It keeps the id of the plan from which it was made. Every wire is as is."""

    components: tuple[WiredComponent, ...] = Field(min_length=1)
    coded: dict[str, tuple[str, Codec]] = Field(
        default={}, description="coded tensor -> tensor and codec"
    )
    decoded: dict[str, str] = Field(
        default={}, description="model output after its wire -> the tensor before it"
    )

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:  # noqa: ARG003 - made from a checked plan
        """None: it is made from a plan that was checked."""
        return []

    @model_validator(mode="after")
    def _check_id(self) -> Self:
        """Nothing: the id is that of the plan from which it was made."""
        return self


def wire_up(plan: Plan) -> WiredPlan:
    """The plan with its codecs in its components; the same content if no wire has a codec."""
    if isinstance(plan, WiredPlan):
        return plan
    if all(wire.codec == "as_is" for wire in plan.wires):
        kept = {name: getattr(plan, name) for name in Plan.model_fields}
        same = tuple(WiredComponent(**c.model_dump()) for c in plan.components)
        return WiredPlan(**kept | {"components": same})
    return _Wiring(plan).build()


class _Wiring:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._entry = plan.entry.name
        self._codec: dict[tuple[str, str], Codec] = {
            (wire.tensor, wire.target): wire.codec for wire in plan.wires if wire.codec != "as_is"
        }
        self._tensors = {t.id: t for t in plan.tensors}
        self._numbers = iter(range(1 + max(int(t.id[1:]) for t in plan.tensors), 1_000_000))
        self._coded: dict[tuple[str, Codec], str] = {}
        self._decoded: dict[str, str] = {}

    def build(self) -> WiredPlan:
        for (tensor, _), codec in self._codec.items():
            if (tensor, codec) not in self._coded:
                self._coded[tensor, codec] = self._add(tensor, WIRE_DTYPES[codec], f" as {codec}")
        for tensor in self._plan.outputs:
            if (tensor, self._entry) in self._codec:
                self._decoded[tensor] = self._add(tensor, self._tensors[tensor].dtype, "")
                before = self._tensors[tensor]
                name = f"{before.name} before its wire"
                self._tensors[tensor] = before.model_copy(update={"name": name})
        components = list(self._components())
        outputs = tuple(self._decoded.get(t, t) for t in self._plan.outputs)
        passages = required_wires(
            {c.id: c.server for c in components},
            [(c.id, c.inputs, c.outputs) for c in components],
            self._plan.inputs,
            outputs,
            self._entry,
        )
        used = {t for c in components for t in (*c.inputs, *c.outputs)}
        kept = {name: getattr(self._plan, name) for name in Plan.model_fields}
        return WiredPlan(**kept | {
            "tensors": tuple(t for t in self._tensors.values() if t.id in used),
            "components": tuple(components),
            "outputs": outputs,
            "wires": tuple(Wire.of(*passage) for passage in passages),
            "coded": {new: (tensor, codec) for (tensor, codec), new in self._coded.items()},
            "decoded": {new: tensor for tensor, new in self._decoded.items()},
        })  # fmt: skip

    def _components(self) -> Iterator[WiredComponent]:
        plan = self._plan
        numbers = iter(range(1 + max(int(c.id[1:]) for c in plan.components), 100_000))
        coding = [t for t in plan.inputs if self._forms(t, ())]
        if coding:
            made = [form for t in coding for form in self._forms(t, ())]
            yield self._of_codecs(f"c{next(numbers)}", coding, made)
        for component in plan.components:
            outputs = [f for t in component.outputs for f in self._forms(t, plan.components)]
            yield WiredComponent(
                id=component.id,
                server=component.server,
                layers=component.layers,
                inputs=tuple(self._read(t, component.server) for t in component.inputs),
                outputs=tuple(outputs),
            )
            arriving = [t for t in component.outputs if t in self._decoded]
            if arriving:
                inputs = [self._coded[t, self._codec[t, self._entry]] for t in arriving]
                decoded = [self._decoded[t] for t in arriving]
                yield self._of_codecs(f"c{next(numbers)}", inputs, decoded)

    def _of_codecs(
        self, name: str, inputs: Iterable[str], outputs: Iterable[str]
    ) -> WiredComponent:
        return WiredComponent(
            id=name, server=self._entry, inputs=tuple(inputs), outputs=tuple(outputs)
        )

    def _forms(self, tensor: str, components: Iterable[Component]) -> list[str]:
        """What the producer makes of a tensor: itself if someone reads it so, and what is coded."""
        targets = {c.server for c in components if tensor in c.inputs}
        if components and tensor in self._plan.outputs:
            targets.add(self._entry)
        plain = any((tensor, target) not in self._codec for target in targets)
        coded = [new for (source, _), new in self._coded.items() if source == tensor]
        return [*([tensor] if plain else []), *coded]

    def _read(self, tensor: str, server: str) -> str:
        """The form in which a component on a server reads a tensor."""
        codec = self._codec.get((tensor, server))
        if codec is None:
            return tensor
        if server == self._entry and tensor in self._decoded:
            return self._decoded[tensor]
        return self._coded[tensor, codec]

    def _add(self, tensor: str, dtype: str, suffix: str) -> str:
        source = self._tensors[tensor]
        new = PlanTensor.model_validate(
            {"id": f"t{next(self._numbers)}", "name": source.name + suffix, "dtype": dtype,
             "shape": source.shape}
        )  # fmt: skip
        self._tensors[new.id] = new
        return new.id
