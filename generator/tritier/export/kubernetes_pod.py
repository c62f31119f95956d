"""The pod of a tier: Triton with its models, and what it may use of its machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritier.export.kubernetes_config import CHECKSUMS, config_mount, config_volume, digest
from tritier.export.kubernetes_options import (
    NODE_SERVER,
    NODE_TIER,
    Export,
    claim_name,
    labels,
    secret_name,
)
from tritier.export.kubernetes_scale import (
    cpu_count,
    deadline_s,
    memory_bytes,
    mib,
    scales,
    shm_bytes,
    volume_bytes,
)
from tritier.export.tiers import CONFIG_DIR, REPOSITORY_DIR, SECRETS_DIR, Tier

GPU = "nvidia.com/gpu"
CONTAINER = "triton"
# User and group `triton-server` of NVIDIA's images.
USER = 1000
# Until every node has taken the pod out of its Service, requests still come.
_PRE_STOP_S = 10
# Triton's own ways after the last request: unloading models, ending their processes.
_EXIT_MARGIN_S = 10
_MIN_EXIT_S = 30
# Where there may be several pods connections are renewed, as each stays with one pod.
_CONNECTION_AGE_MS = 60_000
# r-- for owner and group: the group is the pod's.
_SECRET_MODE = 0o440


def exit_timeout_s(export: Export, tier: Tier) -> int:
    """What Triton waits for requests in flight when it is told to end: the longest call."""
    return max(_MIN_EXIT_S, deadline_s(export.tiers.repositories, tier.server) + 5)


def command(export: Export, tier: Tier) -> list[str]:
    """The tier's command line, as it is in a cluster: the models of this plan by name, from their
    folder on the volume; ready although a model is loaded later on; time to finish requests."""
    names = [model.name for model in export.tiers.repositories.models_of(tier.server)]
    changed = {
        "--model-repository": [f"--model-repository={REPOSITORY_DIR}/{export.id}"],
        "--load-model": [f"--load-model={name}" for name in names],
        "--strict-readiness": ["--strict-readiness=false"],
        "--exit-timeout-secs": [f"--exit-timeout-secs={exit_timeout_s(export, tier)}"],
    }
    found: list[str] = []
    for option in tier.command:
        found += changed.pop(option.partition("=")[0], [option])
    assert not changed, f"options that a tier has no more: {sorted(changed)}"
    if scales(export, tier):
        found.append(f"--grpc-max-connection-age={_CONNECTION_AGE_MS}")
    return found


def pod_spec(export: Export, tier: Tier, container: str = CONTAINER) -> dict[str, Any]:
    """Specification of the pod."""
    grace = _PRE_STOP_S + exit_timeout_s(export, tier) + _EXIT_MARGIN_S
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": pod_security(),
        **placement(tier),
        "initContainers": [check_container(export, tier)],
        "containers": [triton_container(export, tier, container)],
        "volumes": volumes(export, tier),
    }


def pod_metadata(export: Export, tier: Tier) -> dict[str, Any]:
    """Labels by which the pod is found, and annotations that start it anew for another config."""
    return {
        "labels": {**labels(tier), "tritier/plan": export.id},
        "annotations": {"tritier/config": digest(export, tier)},
    }


def placement(tier: Tier) -> dict[str, Any]:
    """On nodes of its tier, rather on those of this server; GPU nodes are often tainted."""
    found: dict[str, Any] = {
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [_in(NODE_TIER, tier.label)]}]
                },
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "preference": {"matchExpressions": [_in(NODE_SERVER, tier.name)]},
                    }
                ],
            }
        }
    }
    if tier.needs_gpu:
        found["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    return found


def pod_security() -> dict[str, Any]:
    """As the restricted Pod Security Standard wants it. The group makes volumes readable."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """What a container may: nothing that it does not need."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }


def check_container(export: Export, tier: Tier) -> dict[str, Any]:
    """Ends well only if the volume holds every file of this plan, unchanged."""
    return {
        "name": "check-models",
        "image": tier.image,
        "command": ["sha256sum", "--check", "--quiet", "--strict", f"{CONFIG_DIR}/{CHECKSUMS}"],
        "workingDir": f"{REPOSITORY_DIR}/{export.id}",
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": container_security(),
        "volumeMounts": [_models_mount(), config_mount()],
    }


def triton_container(export: Export, tier: Tier, name: str = CONTAINER) -> dict[str, Any]:
    """Triton."""
    ports = [("grpc", tier.ports.grpc), ("metrics", tier.ports.metrics), ("http", tier.ports.http)]
    return {
        "name": name,
        "image": tier.image,
        "command": command(export, tier),
        "env": [{"name": key, "value": value} for key, value in tier.environment.items()],
        "ports": [
            {"name": key, "containerPort": port, "protocol": "TCP"} for key, port in ports if port
        ],
        "resources": resources(export, tier),
        **_probes(tier),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_PRE_STOP_S)]}}},
        "securityContext": container_security(),
        "volumeMounts": _mounts(tier),
    }


def resources(export: Export, tier: Tier) -> dict[str, Any]:
    """Memory is a limit where the servers file gives it. Cores are asked for and not limited: a
    quota stops short layers at random moments. GPUs are always both."""
    memory = mib(memory_bytes(export.tiers, tier))
    requests: dict[str, Any] = {"cpu": str(cpu_count(export.tiers, tier)), "memory": memory}
    limits: dict[str, Any] = {} if tier.memory_bytes is None else {"memory": memory}
    if tier.needs_gpu:
        requests[GPU] = limits[GPU] = "1"
    return {"requests": requests, **({"limits": limits} if limits else {})}


def volumes(export: Export, tier: Tier) -> list[dict[str, Any]]:
    """All volumes of the pod."""
    repositories = export.tiers.repositories
    shm = {"medium": "Memory", "sizeLimit": mib(shm_bytes(repositories, tier.server))}
    # Triton keeps there what is pushed through model control.
    scratch = {"sizeLimit": mib(volume_bytes(repositories, tier.server))}
    found: list[dict[str, Any]] = [
        {"name": "models", "persistentVolumeClaim": {"claimName": claim_name(tier)}},
        config_volume(tier),
        {"name": "shm", "emptyDir": shm},
        {"name": "tmp", "emptyDir": scratch},
    ]
    if tier.secrets:
        items = [{"key": item.key, "path": item.key} for item in tier.secrets]
        secret = {"secretName": secret_name(tier), "defaultMode": _SECRET_MODE, "items": items}
        found.append({"name": "secrets", "secret": secret})
    return found


def _mounts(tier: Tier) -> list[dict[str, Any]]:
    found = [
        _models_mount(),
        config_mount(),
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a place in the container
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
    ]
    if tier.secrets:
        found.append({"name": "secrets", "mountPath": SECRETS_DIR, "readOnly": True})
    return found


def _probes(tier: Tier) -> dict[str, Any]:
    """Triton opens its gRPC port when all models are loaded. A probe by gRPC has no certificate of
    a client, so with TLS a program asks instead."""
    if tier.security.tls:
        ready: Mapping[str, Any] = {"exec": {"command": tier.probe()}}
        live: Mapping[str, Any] = {"exec": {"command": tier.probe(live=True)}}
        pause, timeout = 15, 10
    else:
        ready = live = {"grpc": {"port": tier.ports.grpc}}
        pause, timeout = 5, 5
    return {
        "startupProbe": _probe(ready, period=pause, timeout=timeout, failures=600 // pause),
        "readinessProbe": _probe(ready, period=pause, timeout=timeout, failures=2),
        # Busy is not dead: a minute without an answer is.
        "livenessProbe": _probe(live, period=15, timeout=timeout, failures=4),
    }


def _probe(asks: Mapping[str, Any], period: int, timeout: int, failures: int) -> dict[str, Any]:
    return {
        **asks,
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _models_mount() -> dict[str, Any]:
    return {"name": "models", "mountPath": REPOSITORY_DIR, "readOnly": True}


def _in(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "operator": "In", "values": [value]}
