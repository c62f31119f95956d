"""The pod through which models get onto a volume, and the text that says how."""

from __future__ import annotations

from typing import Any

from tritier.export.kserve import deployment_name
from tritier.export.kubernetes_config import CHECKSUMS, config_mount, config_volume
from tritier.export.kubernetes_options import CLIENT, NODE_TIER, Export, claim_name, secret_name
from tritier.export.kubernetes_pod import container_security, placement, pod_security
from tritier.export.kubernetes_yaml import Manifest
from tritier.export.tiers import CONFIG_DIR, REPOSITORY_DIR, Tier

# It ends by itself when nobody deletes it.
_LIFETIME_S = 6 * 3600


def loader_name(tier: Tier) -> str:
    """Name of the pod."""
    return f"{tier.name}-loader"


def loader(export: Export, tier: Tier) -> Manifest:
    """A pod that waits, with the volume of a tier, on the nodes of that tier."""
    container: dict[str, Any] = {
        "name": "loader",
        "image": tier.image,
        "command": ["sleep", str(_LIFETIME_S)],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": container_security(),
        "volumeMounts": [{"name": "models", "mountPath": REPOSITORY_DIR}, config_mount()],
    }
    data = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": loader_name(tier),
            "namespace": export.options.namespace,
            "labels": {
                "app.kubernetes.io/name": "tritier-loader",
                "app.kubernetes.io/component": tier.name,
            },
        },
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": pod_security(),
            **placement(tier),
            "containers": [container],
            "volumes": [
                {"name": "models", "persistentVolumeClaim": {"claimName": claim_name(tier)}},
                config_volume(tier),
            ],
        },
    }
    comment = "Not part of the kustomization: made to fill the volume, and deleted (README.md)."
    return Manifest(f"load/{tier.name}.yaml", data, comment, applied=False)


def readme(export: Export, manifests: list[Manifest]) -> str:
    """README.md of the exported folder: the steps, with its own names."""
    space, entry = export.options.namespace, export.tiers.entry
    steps = [
        ("Nodes", "Each tier runs on nodes that are marked for it.", _nodes(export)),
        (
            "Secrets",
            "From files that are in no export; FILE is the path of each.",
            _secrets(export),
        ),
        (
            "Models",
            "REPOS is the folder that `tritier generate` wrote. Its files go onto the volumes "
            "through pods\nthat are deleted afterwards; files of any size do.",
            _loading(export, manifests),
        ),
        ("All of it", "", _starting(export)),
    ]
    parts = [
        f"# {export.tiers.repositories.plan.model.name} on Kubernetes\n\n{export.header}\n"
        "docs/export_kubernetes.md says what these files are and what was tried.\n"
    ]
    for number, (title, text, lines) in enumerate((x for x in steps if x[2]), start=1):
        words = f"{text}\n\n" if text else ""
        parts.append(f"## {number}. {title}\n\n{words}{_console(lines)}")
    parts.append(
        f"Apps call `{entry.name}.{space}.svc:{entry.ports.grpc}` from pods that are marked "
        f"`{CLIENT}=true`, or\nfrom namespaces with that mark.\n"
    )
    return "\n".join(parts)


def _starting(export: Export) -> list[str]:
    space = export.options.namespace
    waits = [
        f"kubectl -n {space} rollout status {_workload(export, x)}" for x in export.tiers.tiers
    ]
    return ["kubectl apply -k .", *waits]


def _workload(export: Export, tier: Tier) -> str:
    return f"deployment/{deployment_name(tier) if export.options.kserve else tier.name}"


def _nodes(export: Export) -> list[str]:
    tiers = dict.fromkeys(tier.label for tier in export.tiers.tiers)
    return [f"kubectl label node NODE {NODE_TIER}={label}" for label in tiers]


def _secrets(export: Export) -> list[str]:
    made = [
        f"kubectl -n {export.options.namespace} create secret generic {secret_name(tier)} "
        + " ".join(f"--from-file={item.key}=FILE" for item in tier.secrets)
        for tier in export.tiers.tiers
        if tier.secrets
    ]
    return ["kubectl apply -f namespace.yaml", *made] if made else []


def _loading(export: Export, manifests: list[Manifest]) -> list[str]:
    space, folder = export.options.namespace, f"{REPOSITORY_DIR}/{export.id}"
    first = [m.path for m in manifests if m.kind in ("ConfigMap", "PersistentVolumeClaim")]
    lines = ["kubectl apply -f namespace.yaml"]
    lines += [f"kubectl apply -f {path}" for path in first if "/" in path]
    for tier in export.tiers.tiers:
        pod = loader_name(tier)
        lines += [
            f"kubectl apply -f load/{tier.name}.yaml",
            f"kubectl -n {space} wait --for=condition=Ready --timeout=10m pod/{pod}",
            f"tar -C REPOS/{tier.server} -cf - . | kubectl -n {space} exec -i {pod} -- "
            f"sh -c 'mkdir -p {folder} && tar -C {folder} --no-same-owner -xf -'",
            f"kubectl -n {space} exec {pod} -- "
            f"sh -c 'cd {folder} && sha256sum --check --quiet {CONFIG_DIR}/{CHECKSUMS}'",
            f"kubectl -n {space} delete pod {pod}",
        ]
    return lines


def _console(lines: list[str]) -> str:
    return "```console\n" + "".join(f"$ {line}\n" for line in lines) + "```\n"
