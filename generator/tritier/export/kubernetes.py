"""A folder of manifests for Kubernetes: for each tier one folder, one object a file."""

from __future__ import annotations

from tritier.export.kserve import deployment_name, inference_service, serving_runtime
from tritier.export.kubernetes_config import config_map
from tritier.export.kubernetes_loader import loader, readme
from tritier.export.kubernetes_objects import (
    autoscaler,
    claim,
    deployment,
    disruption_budget,
    namespace,
    network_policy,
    pod_monitor,
    service,
)
from tritier.export.kubernetes_options import Export, KubernetesOptions
from tritier.export.kubernetes_scale import scales
from tritier.export.kubernetes_yaml import Manifest
from tritier.export.tiers import Tier, Tiers
from tritier.export.yaml_text import yaml_text

KUSTOMIZATION = "kustomization.yaml"


def kubernetes_files(tiers: Tiers, options: KubernetesOptions | None = None) -> dict[str, str]:
    """Relative path -> content of the whole folder."""
    export = Export(tiers, options or KubernetesOptions())
    found = manifests(export)
    files = {item.path: item.text(export.header) for item in found}
    files[KUSTOMIZATION] = _kustomization(export, found)
    files["README.md"] = readme(export, found)
    return files


def manifests(export: Export) -> list[Manifest]:
    """All objects, in the order in which they stand in the kustomization."""
    found = [namespace(export)]
    for tier in export.tiers.tiers:
        found += _of_tier(export, tier)
    return found + [loader(export, tier) for tier in export.tiers.tiers]


def _of_tier(export: Export, tier: Tier) -> list[Manifest]:
    found = [Manifest(f"{tier.name}/config-map.yaml", config_map(export, tier))]
    found.append(claim(export, tier))
    if export.options.kserve:
        found += [serving_runtime(export, tier), inference_service(export, tier)]
    else:
        found.append(deployment(export, tier))
    found += [
        service(export, tier),
        network_policy(export, tier),
        disruption_budget(export, tier),
        pod_monitor(export, tier),
    ]
    if scales(export, tier):
        name = deployment_name(tier) if export.options.kserve else tier.name
        found.append(autoscaler(export, tier, name))
    return found


def _kustomization(export: Export, found: list[Manifest]) -> str:
    data = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [item.path for item in found if item.applied],
    }
    return yaml_text(export.header, data)
