"""What a tier has in a cluster beside its pod."""

from __future__ import annotations

from typing import Any

from tritier.export.kubernetes_options import CLIENT, Export, claim_name, labels
from tritier.export.kubernetes_pod import pod_metadata, pod_spec
from tritier.export.kubernetes_scale import gib, one_pod_comment, scales, volume_bytes
from tritier.export.kubernetes_yaml import Manifest
from tritier.export.tiers import Tier

# What the adapter makes of Triton's queue metric (docs/export_kubernetes.md has its rule): how many
# requests wait in a pod, on average over the last minute.
WAITING_METRIC = "tritier_waiting_requests"
_WAITING_TARGET = "1"
_SCALE_DOWN_S = 300
_POD_SECURITY = "pod-security.kubernetes.io"


def namespace(export: Export) -> Manifest:
    """The namespace, in which pods that may do more than they need are refused."""
    levels = {f"{_POD_SECURITY}/{mode}": "restricted" for mode in ("enforce", "warn")}
    data = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": export.options.namespace, "labels": levels},
    }
    return Manifest("namespace.yaml", data)


def claim(export: Export, tier: Tier) -> Manifest:
    """The volume with the model repositories of a tier."""
    many = scales(export, tier)
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteMany" if many else "ReadWriteOnce"],
        "resources": {
            "requests": {"storage": gib(volume_bytes(export.tiers.repositories, tier.server))}
        },
    }
    if export.options.storage_class is not None:
        spec["storageClassName"] = export.options.storage_class
    data = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {**export.meta(tier), "name": claim_name(tier)},
        "spec": spec,
    }
    comment = (
        f"Models lie in the folder {export.id} of it; there is room for those of another plan. "
        + ("Pods on several nodes read it; `--max-replicas 1` needs ReadWriteOnce only."
           if many else "")
    )  # fmt: skip
    return Manifest(f"{tier.name}/persistent-volume-claim.yaml", data, comment)


def deployment(export: Export, tier: Tier) -> Manifest:
    """The pods of a tier."""
    many = scales(export, tier)
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    spec: dict[str, Any] = {
        # Where an autoscaler sets the number it is left out, or each `apply` would set it back.
        **({} if many else {"replicas": 1}),
        "revisionHistoryLimit": 3,
        "strategy": rolling if many else {"type": "Recreate"},
        "selector": {"matchLabels": labels(tier)},
        "template": {"metadata": pod_metadata(export, tier), "spec": pod_spec(export, tier)},
    }
    data = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": export.meta(tier),
        "spec": spec,
    }
    comment = "" if many else one_pod_comment(export, tier)
    return Manifest(f"{tier.name}/deployment.yaml", data, comment)


def service(export: Export, tier: Tier) -> Manifest:
    """The name and address by which others reach a tier."""
    ports: list[dict[str, Any]] = [
        {"name": "grpc", "port": tier.ports.grpc, "targetPort": "grpc", "protocol": "TCP"}
    ]
    if not tier.security.tls:
        ports[0]["appProtocol"] = "kubernetes.io/h2c"
    if tier.ports.http is not None:
        http = {"name": "http", "port": tier.ports.http, "targetPort": "http", "protocol": "TCP"}
        ports.append(http)
    data = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": export.meta(tier),
        "spec": {"type": "ClusterIP", "selector": labels(tier), "ports": ports},
    }
    return Manifest(f"{tier.name}/service.yaml", data)


def network_policy(export: Export, tier: Tier) -> Manifest:
    """Who may reach a tier: those that call it, and Prometheus its metrics. All else is refused."""
    callers = [export.tiers.tier(name) for name in export.tiers.callers(tier.server)]
    peers: list[dict[str, Any]] = [
        {"podSelector": {"matchLabels": labels(caller)}} for caller in callers
    ]
    if tier.is_entry:
        client = {"matchLabels": {CLIENT: "true"}}
        peers += [{"podSelector": client}, {"namespaceSelector": client}]
    calls = [_port("grpc")] + ([_port("http")] if tier.ports.http is not None else [])
    metrics = {"kubernetes.io/metadata.name": export.options.monitoring}
    ingress: list[dict[str, Any]] = [{"from": peers, "ports": calls}] if peers else []
    ingress.append(
        {"from": [{"namespaceSelector": {"matchLabels": metrics}}], "ports": [_port("metrics")]}
    )
    data = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": export.meta(tier),
        "spec": {
            "podSelector": {"matchLabels": labels(tier)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }
    names = [f"'{caller.server}'" for caller in callers]
    if tier.is_entry:
        names.append(f"pods, here or in other namespaces, that are marked {CLIENT}=true (there the "
                     "namespace carries the mark)")  # fmt: skip
    comment = f"Called by {', '.join(names) or 'nobody'}."
    return Manifest(f"{tier.name}/network-policy.yaml", data, comment)


def disruption_budget(export: Export, tier: Tier) -> Manifest:
    """How many pods may be moved at once, when a node is emptied."""
    data = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": export.meta(tier),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels(tier)}},
    }
    comment = (
        "One pod at a time."
        if scales(export, tier)
        else "There is one pod, and a node may still be emptied: the tier is away until it has "
        "started elsewhere. `minAvailable: 1` would stop `kubectl drain` for ever."
    )
    return Manifest(f"{tier.name}/pod-disruption-budget.yaml", data, comment)


def autoscaler(export: Export, tier: Tier, deployment_name: str) -> Manifest:
    """More pods when requests wait."""
    metric = {
        "type": "Pods",
        "pods": {
            "metric": {"name": WAITING_METRIC},
            "target": {"type": "AverageValue", "averageValue": _WAITING_TARGET},
        },
    }
    data = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": export.meta(tier),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": deployment_name,
            },
            "minReplicas": 1,
            "maxReplicas": export.options.max_replicas,
            "metrics": [metric],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": _SCALE_DOWN_S}},
        },
    }
    comment = (
        f"{WAITING_METRIC} is made of Triton's queue time by the Prometheus adapter, whose rule is "
        "in docs/export_kubernetes.md. New pods get connections as old ones are renewed."
    )
    return Manifest(f"{tier.name}/horizontal-pod-autoscaler.yaml", data, comment)


def pod_monitor(export: Export, tier: Tier) -> Manifest:
    """What Prometheus reads, where its operator is installed."""
    data = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": export.meta(tier),
        "spec": {
            "selector": {"matchLabels": labels(tier)},
            "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics", "interval": "15s"}],
        },
    }
    return Manifest(f"{tier.name}/pod-monitor.yaml", data)


def _port(name: str) -> dict[str, Any]:
    return {"port": name, "protocol": "TCP"}
