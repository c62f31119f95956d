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
    """One folder of a model repository. `plan` is `plan_id` in its config."""

    server: str
    name: str
    kind: ModelKind
    inputs: tuple[TritonTensor, ...]
    outputs: tuple[TritonTensor, ...]
    comment: str
    component: str | None = None
    plan: str | None = None
    max_batch_size: int = 0
    parameters: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class GenerateOptions:
    """What a user may choose about the generated repositories.

    - `max_in_flight`: requests that a router lets in at once.
    - `max_queue_size`: requests that may wait for a model that computes; 0 writes no queue policy,
      with which Triton's batcher stalls (docs/decisions/022).
    """

    deadline_ms: int = 10_000
    mailbox_max_bytes: int = 256 * 1024 * 1024
    max_batch_size: int = 16
    max_queue_size: int = 0
    max_in_flight: int = 64
    with_whole: bool = False
    optimisation: Optimisation = "all"
    dims: Mapping[str, int] = field(default_factory=dict)
