"""The plan: which component runs on which server, and what crosses which link.

A plan is complete: with the model that it names, a plan is all that the generator needs.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from tritier.documents.base import Document
from tritier.documents.servers import ExecutionProvider, ServerName, Url

ComponentId = Annotated[str, Field(pattern=r"^c[0-9]{1,5}$")]
TensorId = Annotated[str, Field(pattern=r"^t[0-9]{1,6}$")]
Dim = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
DType = Literal[
    "bool", "uint8", "uint16", "uint32", "uint64",
    "int8", "int16", "int32", "int64", "float16", "float32", "float64",
]  # fmt: skip


class PlanModel(Document):
    """The model that the plan is for."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="what apps call it in Triton"
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the ONNX file")


class PlanServer(Document):
    """What the generator must know of a server."""

    name: ServerName
    entry: bool = False
    url: Url | None = None
    execution_provider: ExecutionProvider = "cpu"
    threads: int = Field(default=1, ge=1, le=1024)
    instances: int = Field(default=1, ge=1, le=64)


class PlanTensor(Document):
    """A tensor that is an input or output of the model or of a component."""

    id: TensorId = Field(description="its name in sub-models and configs")
    name: str = Field(min_length=1, description="its name in the model")
    dtype: DType
    shape: tuple[Dim, ...] = Field(description="sizes; a text is a symbolic size")


class Component(Document):
    """A sub-model: the layers that run together on one server."""

    id: ComponentId
    server: ServerName
    layers: tuple[str, ...] = Field(min_length=1, description="in the model's order")
    inputs: tuple[TensorId, ...] = Field(min_length=1)
    outputs: tuple[TensorId, ...] = Field(min_length=1)


class Wire(Document):
    """The passage of one tensor over one link."""

    tensor: TensorId
    source: ServerName = Field(alias="from")
    target: ServerName = Field(alias="to")
    codec: Literal["as_is"] = "as_is"

    @classmethod
    def of(cls, tensor: str, source: str, target: str) -> Self:
        """A wire by the names of its ends (`from` is no name of an argument in Python)."""
        return cls.model_validate({"tensor": tensor, "from": source, "to": target})


class Predictions(Document):
    """What the planner expects of the plan."""

    latency_ms: float | None = Field(default=None, ge=0)
    energy_joule: float | None = Field(default=None, ge=0)
    noise: float | None = Field(default=None, ge=0)


class Plan(Document):
    """Components on servers, and the wires between them."""

    title: ClassVar[str] = "plan"

    format: Literal["tritier/plan/1"] = "tritier/plan/1"
    plan_id: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{8}$",
        description="first 8 hex digits of the SHA-256 of the canonical form; computed if left out",
    )
    model: PlanModel
    servers: tuple[PlanServer, ...] = Field(min_length=1)
    inputs: tuple[TensorId, ...] = Field(min_length=1, description="of the model, in order")
    outputs: tuple[TensorId, ...] = Field(min_length=1, description="of the model, in order")
    tensors: tuple[PlanTensor, ...]
    components: tuple[Component, ...] = Field(min_length=1, description="in topological order")
    wires: tuple[Wire, ...] = ()
    quantized_layers: tuple[str, ...] = ()
    predictions: Predictions | None = None

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Rules R1 to R3 as far as a plan alone can show them, and its id."""
        try:
            return _plan_faults(data)
        except (AttributeError, KeyError, TypeError, ValueError):
            return []  # a field has a wrong shape, which is reported where it stands

    @model_validator(mode="after")
    def _check_id(self) -> Self:
        actual = canonical_id(_dump(self))
        if self.plan_id is None:
            object.__setattr__(self, "plan_id", actual)
        elif self.plan_id != actual:
            raise PydanticCustomError(
                "plan_id",
                "the content hashes to '{actual}': remove plan_id to have it computed again",
                {"actual": actual},
            )
        return self

    @property
    def id(self) -> str:
        """The plan id; always there, unlike the optional field of the document."""
        assert self.plan_id is not None
        return self.plan_id

    @property
    def entry(self) -> PlanServer:
        """The server where requests start and answers end."""
        return next(server for server in self.servers if server.entry)

    def server(self, name: str) -> PlanServer:
        """The server of that name; KeyError if there is none."""
        return {server.name: server for server in self.servers}[name]

    def tensor(self, tensor_id: str) -> PlanTensor:
        """The tensor of that id; KeyError if there is none."""
        return {tensor.id: tensor for tensor in self.tensors}[tensor_id]

    def producer(self, tensor_id: str) -> Component | None:
        """The component whose output the tensor is; None for an input of the model."""
        return next((c for c in self.components if tensor_id in c.outputs), None)

    def consumers(self, tensor_id: str) -> tuple[Component, ...]:
        """The components whose input the tensor is."""
        return tuple(c for c in self.components if tensor_id in c.inputs)

    def with_predictions(self, predictions: Predictions) -> Self:
        """The same plan, of the same id, with other predictions."""
        return self.model_copy(update={"predictions": predictions})


def canonical_id(data: dict[str, Any]) -> str:
    """Plan id of a plan's data: hash of everything but the id itself and the predictions."""
    kept = {k: v for k, v in data.items() if k not in ("plan_id", "predictions")}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


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


def _dump(plan: Plan) -> dict[str, Any]:
    return plan.model_dump(mode="json", by_alias=True, exclude_none=True)


def _plan_faults(data: dict[str, Any]) -> list[str]:
    components = data["components"]
    faults = _name_faults(data) + _layer_faults(components)
    return faults or _flow_faults(data) or _wire_faults(data)


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
