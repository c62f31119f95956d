"""The plan: which component runs on which server, and what crosses which link.

A plan is complete: with the model that it names, a plan is all that the generator needs.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from tritier.documents.base import Document
from tritier.documents.codecs import WIRE_DTYPES, Codec
from tritier.documents.plan_faults import plan_faults
from tritier.documents.ranges import Range
from tritier.documents.servers import ExecutionProvider, Quantization, ServerName, Url

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
    quantization: Quantization | None = Field(
        default=None, description="of the quantized layers there; the defaults if left out"
    )


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
    codec: Codec = Field(default="as_is", description="how it is coded while it crosses")

    @classmethod
    def of(cls, tensor: str, source: str, target: str, codec: Codec = "as_is") -> Self:
        """A wire by the names of its ends (`from` is no name of an argument in Python)."""
        return cls.model_validate({"tensor": tensor, "from": source, "to": target, "codec": codec})


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
    quantized_layers: tuple[str, ...] = Field(
        default=(), description="layers that compute with 8-bit integers"
    )
    ranges: dict[str, Range] | None = Field(
        default=None,
        description="calibrated least and greatest value of what is quantized, by name in the "
        "model: activations of quantized layers, tensors with an int8 or uint8 wire",
    )
    predictions: Predictions | None = None

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Rules R1 to R3 as far as a plan alone can show them, and its id."""
        try:
            return plan_faults(data)
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
    def is_exact(self) -> bool:
        """Whether it computes what the model does: nothing is quantized, every wire is as is."""
        return not self.quantized_layers and all(wire.codec == "as_is" for wire in self.wires)

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

    def wire_dtype(self, wire: Wire) -> str:
        """Type of a tensor while it crosses a link."""
        codec = wire.codec
        return self.tensor(wire.tensor).dtype if codec == "as_is" else WIRE_DTYPES[codec]

    def wire_bytes(self, wire: Wire) -> int | None:
        """Bytes that one request sends over a wire; a symbolic leading size counts as 1, None if
        another size is symbolic."""
        shape = self.tensor(wire.tensor).shape
        if shape and isinstance(shape[0], str):
            shape = (1, *shape[1:])
        sizes = [dim for dim in shape if isinstance(dim, int)]
        if len(sizes) < len(shape):
            return None
        return math.prod(sizes) * np.dtype(self.wire_dtype(wire)).itemsize

    def with_predictions(self, predictions: Predictions) -> Self:
        """The same plan, of the same id, with other predictions."""
        return self.model_copy(update={"predictions": predictions})


def canonical_id(data: dict[str, Any]) -> str:
    """Plan id of a plan's data: hash of everything but the id itself and the predictions."""
    kept = {k: v for k, v in data.items() if k not in ("plan_id", "predictions")}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _dump(plan: Plan) -> dict[str, Any]:
    return plan.model_dump(mode="json", by_alias=True, exclude_none=True)
