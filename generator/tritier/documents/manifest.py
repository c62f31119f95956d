"""`manifest.json`: what was generated, from what, and what every file must hash to."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.codecs import Codec
from tritier.documents.plan import ComponentId, TensorId

Optimisation = Literal["disabled", "basic", "extended", "all"]
ModelKind = Literal["component", "remote", "stage", "mailbox", "key", "entry", "whole"]


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


class Manifest(Document):
    """Written beside the repositories. It holds no clock and no absolute path (rule R6)."""

    title: ClassVar[str] = "manifest"

    format: Literal["tritier/manifest/1"] = "tritier/manifest/1"
    tool_version: str
    plan_id: str
    model: str
    model_sha256: str
    batching: Batching
    tolerances: tuple[Tolerance, ...]
    tensors: tuple[ManifestTensor, ...]
    wires: tuple[ManifestWire, ...]
    models: tuple[ManifestModel, ...]
    files: tuple[ManifestFile, ...]
