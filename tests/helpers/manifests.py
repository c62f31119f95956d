"""Exported manifests, read back; a key that stands twice is a fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.helpers.exported import strict_yaml

Objects = Mapping[str, Mapping[str, Any]]
# What selects pods in an export.
COMPONENT = "app.kubernetes.io/component"
# What of a ServingRuntime is of its pod, and what of a predictor is not.
_OF_RUNTIMES = ("containers", "volumes", "affinity", "tolerations")
_OF_SERVICES = ("model", "minReplicas", "maxReplicas", "deploymentStrategy")


def read_export(files: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Path -> object of the YAML files of an export, of which each has one."""
    return {path: strict_yaml(text) for path, text in files.items() if path.endswith(".yaml")}


def files_in(folder: Path) -> dict[str, str]:
    """Relative path -> text of all files of a folder."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def of_kind(objects: Objects, *kinds: str) -> Iterator[Mapping[str, Any]]:
    """Objects of some kinds, in their order."""
    return (data for data in objects.values() if data["kind"] in kinds)


def workloads(objects: Objects) -> dict[str, tuple[dict[str, str], dict[str, Any]]]:
    """Tier -> (labels of its pods, specification of the pod), whoever runs them."""
    found = {}
    for data in of_kind(objects, "Deployment"):
        template = data["spec"]["template"]
        labels = template["metadata"]["labels"]
        found[labels[COMPONENT]] = (labels, template["spec"])
    predictors = {
        data["spec"]["predictor"]["model"]["runtime"]: data["spec"]["predictor"]
        for data in of_kind(objects, "InferenceService")
    }
    for data in of_kind(objects, "ServingRuntime"):
        spec, rest = data["spec"], predictors[data["metadata"]["name"]]
        pod = {key: spec[key] for key in _OF_RUNTIMES if key in spec}
        pod |= {key: value for key, value in rest.items() if key not in _OF_SERVICES}
        found[spec["labels"][COMPONENT]] = (spec["labels"], pod)
    return found


def edges(objects: Objects) -> set[tuple[str, str]]:
    """(caller, called) for all tiers that may reach the gRPC port of another one."""
    found = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        called = policy["spec"]["podSelector"]["matchLabels"][COMPONENT]
        for rule in policy["spec"]["ingress"]:
            if "grpc" in [port["port"] for port in rule["ports"]]:
                for peer in rule["from"]:
                    labels = peer.get("podSelector", {}).get("matchLabels", {})
                    found |= {(labels[COMPONENT], called)} if COMPONENT in labels else set()
    return found
