"""Triton models as values: what is to be generated, before any text is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tritier.documents.manifest import ModelKind, Optimisation

Dim = int | str


@dataclass(frozen=True)
class TritonTensor:
    """An input or output. `shape` is the whole shape, with the batch dimension if there is one."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    optional: bool = False


@dataclass(frozen=True)
class Step:
    """A step of an ensemble: tensor names of the model -> tensor names of the ensemble."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class TritonModel:
    """One folder of a model repository."""

    server: str
    name: str
    kind: ModelKind
    inputs: tuple[TritonTensor, ...]
    outputs: tuple[TritonTensor, ...]
    comment: str
    component: str | None = None
    max_batch_size: int = 0
    parameters: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class GenerateOptions:
    """What a user may choose about the generated repositories."""

    deadline_ms: int = 10_000
    mailbox_max_bytes: int = 256 * 1024 * 1024
    max_batch_size: int = 16
    with_whole: bool = False
    optimisation: Optimisation = "all"
    dims: Mapping[str, int] = field(default_factory=dict)
