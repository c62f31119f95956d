"""Exported manifests, read back as anybody would, but for keys that stand twice: those are faults."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Objects = Mapping[str, Mapping[str, Any]]
# What selects pods in an export.
COMPONENT = "app.kubernetes.io/component"


class StrictLoader(yaml.SafeLoader):
    """Refuses a mapping with the same key twice, of which YAML readers keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{sorted(twice)} stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> list[Any]:
    """All documents of a text; yaml.YAMLError for what is no YAML and for keys that stand twice."""
    return [data for data in yaml.load_all(text, Loader=StrictLoader) if data is not None]  # noqa: S506


def read_export(files: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Path -> object of the YAML files of an export; each has one."""
    found = {}
    for path, text in files.items():
        if path.endswith(".yaml"):
            (found[path],) = read_yaml(text)
    return found


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
    """Name -> (labels of the pods, specification of the pod) of all tiers, whoever runs them."""
    found = {}
    for data in of_kind(objects, "Deployment"):
        template = data["spec"]["template"]
        found[data["metadata"]["name"]] = (template["metadata"]["labels"], template["spec"])
    services = {x["spec"]["predictor"]["model"]["runtime"]: x for x in
                of_kind(objects, "InferenceService")}  # fmt: skip
    for data in of_kind(objects, "ServingRuntime"):
        name = data["metadata"]["name"]
        own = {key: data["spec"][key] for key in ("containers", "volumes", "affinity", "tolerations")
               if key in data["spec"]}  # fmt: skip
        mine = {"model", "minReplicas", "maxReplicas", "deploymentStrategy"}
        predictor = services[name]["spec"]["predictor"]
        rest = {key: value for key, value in predictor.items() if key not in mine}
        found[name] = (data["spec"]["labels"], {**own, **rest})
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
