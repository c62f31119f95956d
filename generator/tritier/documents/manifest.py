"""`manifest.json`: what was generated, from what, and what every file must hash to."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from tritier.documents.base import Document
from tritier.documents.codecs import Codec
from tritier.documents.family import PlanId
from tritier.documents.plan import ComponentId, TensorId

Optimisation = Literal["disabled", "basic", "extended", "all"]
ModelKind = Literal["component", "remote", "stage", "mailbox", "key", "entry", "whole", "router"]


# Keys of a manifest that say which kind it is.
_OF_ONE_PLAN = ("plan_id", "batching", "tolerances", "tensors", "wires")
_OF_A_FAMILY = ("family_id", "plans")


class ManifestFile(Document):
    """A generated file; the path is relative to the folder of the manifest."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str


class ManifestModel(Document):
    """A Triton model. Models of one server stand in the order in which they must be loaded."""

    server: str
    name: str
    kind: ModelKind
    component: ComponentId | None = None
    plan: str | None = Field(
        default=None,
        description="`plan_id` in its config, of one plan among several: the plan's, `whole` and "
        "hash of the whole model, or the id of the family for the router",
    )


class ManifestTensor(Document):
    """A row of the name table: a tensor's name in sub-models and its name in the model."""

    id: TensorId
    name: str


class ManifestWire(Document):
    """What crosses a link for one tensor of a plan."""

    tensor: TensorId
    name: str = Field(description="of the tensor in the model")
    source: str = Field(alias="from")
    target: str = Field(alias="to")
    codec: Codec
    dtype: str = Field(description="type on the wire")
    bytes: int | None = Field(
        default=None, ge=0, description="of one request, a batch of 1; left out if not known"
    )


class Batching(Document):
    """Whether requests are batched, and why not if they are not."""

    max_batch_size: int = Field(ge=0)
    reason: str


class Tolerance(Document):
    """What rule R4 allows: |split - whole| <= absolute + relative * |whole| + share_of_noise *
    noise. The whole model has the plan's quantized layers and codecs; the noise is the greatest
    difference, in the same output over all inputs, of that model from the original one."""

    optimisation: Optimisation = Field(description="ONNX Runtime's graph optimisation level")
    absolute: float = Field(ge=0)
    relative: float = Field(ge=0)
    share_of_noise: float = Field(default=0.0, ge=0)
    reason: str


class ManifestPlan(Document):
    """One plan among several."""

    id: PlanId
    file: str
    entry: str = Field(description="the Triton model that runs the whole plan")
    batching: Batching
    tolerances: tuple[Tolerance, ...]
    tensors: tuple[ManifestTensor, ...]
    wires: tuple[ManifestWire, ...]


class Manifest(Document):
    """Written beside the repositories. It holds no clock and no absolute path (rule R6).

    Of one plan, or of a family of plans: then it has `family_id` and `plans`, and what is said of
    one plan stands there.
    """

    title: ClassVar[str] = "manifest"

    format: Literal["tritier/manifest/1"] = "tritier/manifest/1"
    tool_version: str
    plan_id: str | None = Field(default=None, description="of the only plan")
    family_id: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{8}$",
        description="hash of what the router goes by: plans, classes, deadlines",
    )
    model: str
    model_sha256: str
    batching: Batching | None = None
    tolerances: tuple[Tolerance, ...] = ()
    tensors: tuple[ManifestTensor, ...] = ()
    wires: tuple[ManifestWire, ...] = ()
    plans: tuple[ManifestPlan, ...] | None = Field(default=None, min_length=1)
    models: tuple[ManifestModel, ...]
    files: tuple[ManifestFile, ...]

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """It is of one plan or of a family, and whole."""
        has_own = [key for key in _OF_ONE_PLAN if data.get(key) is not None]
        has_family = [key for key in _OF_A_FAMILY if data.get(key) is not None]
        if has_own and has_family:
            return [f"{has_own[0]} is of one plan and {has_family[0]} of a family: it has both"]
        wanted, found = (_OF_A_FAMILY, has_family) if has_family else (_OF_ONE_PLAN, has_own)
        return [f"{key}: is missing" for key in wanted if key not in found]

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        """Again for what was left out, whose defaults would hide it."""
        given = {key: True for key in self.model_fields_set if getattr(self, key) is not None}
        if faults := self.cross_faults(given):
            raise ValueError("; ".join(faults))
        return self

    @model_serializer(mode="wrap")
    def _of_its_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the keys of the other kind."""
        data: dict[str, Any] = handler(self)
        others = _OF_A_FAMILY if self.plans is None else _OF_ONE_PLAN
        return {key: value for key, value in data.items() if key not in others}
