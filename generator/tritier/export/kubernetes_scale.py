"""How much a tier needs in a cluster, and whether several pods of it may run side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import model_config_pb2

from tritier.deployment.loading import parsed_config
from tritier.documents import ManifestModel
from tritier.export.kubernetes_options import Export
from tritier.export.tiers import Tier, Tiers
from tritier.repository import Repositories

_MIB = 1 << 20
_GIB = 1 << 30
# What a Python model's process takes of /dev/shm before any tensor, with room to spare.
_MODEL_SHM_BYTES = 8 * _MIB
_BASE_SHM_BYTES = 64 * _MIB
# Requests whose tensors may lie in /dev/shm at once, per Python model.
_IN_FLIGHT = 8
# Of Triton itself, beside models; only where the servers file gives no memory.
_TRITON_BYTES = 512 * _MIB
_PYTHON_KINDS = ("remote", "mailbox", "key", "router")
_COMPUTING_KINDS = ("component", "whole")
_DEADLINE_MS = 10_000
_SIZES = {
    "TYPE_BOOL": 1, "TYPE_UINT8": 1, "TYPE_INT8": 1, "TYPE_UINT16": 2, "TYPE_INT16": 2,
    "TYPE_FP16": 2, "TYPE_BF16": 2, "TYPE_UINT32": 4, "TYPE_INT32": 4, "TYPE_FP32": 4,
}  # fmt: skip


def scales(export: Export, tier: Tier) -> bool:
    """Whether there may be several pods of a tier."""
    return export.options.max_replicas > 1 and one_pod_reason(export.tiers, tier) is None


def one_pod_comment(export: Export, tier: Tier) -> str:
    """Why a tier has one pod."""
    return one_pod_reason(export.tiers, tier) or "With --max-replicas 1 there is one pod."


def one_pod_reason(tiers: Tiers, tier: Tier) -> str | None:
    """Why there must never be two pods of a tier, as a sentence; None if there may be several."""
    kinds = {model.kind for model in tiers.repositories.models_of(tier.server)}
    if "mailbox" in kinds:
        return (
            "Tensors wait for each other in the mailbox of this server, in the memory of one pod. "
            "With two pods a tensor and the component that waits for it could reach different "
            "ones, and requests would fail by their deadline: so there is never more than one."
        )
    if not kinds & set(_COMPUTING_KINDS):
        return (
            "No model computes here, so no request ever queues, which is what more pods would be "
            "started by: so there is one."
        )
    if "router" in kinds and own_address(tier) == tier.address:
        return (
            "The router calls plans through this server's own address, and with TLS that is the "
            "name of the Service, behind which may be another pod, whose clock is another: so "
            "there is one. With `server_name` in the servers file it calls its own pod."
        )
    return None


def own_address(tier: Tier) -> str:
    """Where a server reaches itself: in its pod, except where its certificate forbids that."""
    if tier.security.tls and not tier.security.server_name:
        return tier.address
    return f"127.0.0.1:{tier.ports.grpc}"


def cpu_count(tiers: Tiers, tier: Tier) -> int:
    """Cores that the servers file gives: threads of an instance, times instances."""
    return tier.threads * tiers.spec.server(tier.server).instances


def memory_bytes(tiers: Tiers, tier: Tier) -> int:
    """Memory of a pod: what the servers file says and /dev/shm, which counts as memory of the pod;
    without a figure there, an estimate: twice the ONNX models, and what Triton takes."""
    shm = shm_bytes(tiers.repositories, tier.server)
    if tier.memory_bytes is not None:
        return tier.memory_bytes + shm
    return 2 * onnx_bytes(tiers.repositories, tier.server) + _TRITON_BYTES + shm


def onnx_bytes(repositories: Repositories, server: str) -> int:
    """Size of all ONNX models of a server; all else in its repository is small."""
    return sum(
        file.bytes
        for file in repositories.manifest.files
        if file.path.startswith(f"{server}/") and file.path.endswith(".onnx")
    )


def volume_bytes(repositories: Repositories, server: str) -> int:
    """Size of the volume: the models of this plan and of the next one side by side, and a GiB."""
    return 2 * onnx_bytes(repositories, server) + _GIB


def shm_bytes(repositories: Repositories, server: str) -> int:
    """Size of /dev/shm: Python models exchange tensors with Triton there, and what waits in a
    mailbox stays there. Sizes that are not fixed count as 1."""
    total = _BASE_SHM_BYTES
    for model, config in _configs(repositories, server):
        if model.kind not in _PYTHON_KINDS:
            continue
        total += _MODEL_SHM_BYTES
        total += _IN_FLIGHT * sum(_bytes(x) for x in (*config.input, *config.output))
        if model.kind == "mailbox":
            total += int(config.parameters["max_bytes"].string_value)
    return total


def deadline_s(repositories: Repositories, server: str) -> int:
    """The longest that a call of a server, or of its router, may take, in whole seconds."""
    found = [_DEADLINE_MS]
    for _, config in _configs(repositories, server):
        if "deadline_ms" in config.parameters:
            found.append(int(config.parameters["deadline_ms"].string_value))
    return math.ceil(max(found) / 1000)


def mib(size: int) -> str:
    """Bytes, rounded up to MiB, as Kubernetes writes it."""
    return f"{math.ceil(size / _MIB)}Mi"


def gib(size: int) -> str:
    """Bytes, rounded up to GiB, as Kubernetes writes it."""
    return f"{math.ceil(size / _GIB)}Gi"


def _configs(repositories: Repositories, server: str) -> Iterator[tuple[ManifestModel, Any]]:
    for model in repositories.models_of(server):
        yield model, parsed_config(repositories, model)


def _bytes(tensor: Any) -> int:
    name = model_config_pb2.DataType.Name(tensor.data_type)
    return math.prod(max(int(dim), 1) for dim in tensor.dims) * _SIZES.get(name, 8)
