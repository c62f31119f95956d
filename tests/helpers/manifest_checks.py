"""What no schema sees of exported manifests: whether their names meet."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.helpers.manifests import Objects, of_kind, workloads

# RFC 1123, as Kubernetes wants it of what becomes a host name.
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


def name_faults(objects: Objects, readme: str) -> list[str]:
    """All names that do not meet; empty for a sound export. `readme` is its README.md."""
    checks: tuple[Callable[[Objects], Iterator[str]], ...] = (
        _names, _selectors, _ports, _mounts, _scaling, _peers, _kustomization, _ends,
    )  # fmt: skip
    return [fault for check in checks for fault in check(objects)] + list(_secrets(objects, readme))


def _names(objects: Objects) -> Iterator[str]:
    """Names are DNS labels, all objects but those of others are in one namespace."""
    spaces = set()
    for path, data in objects.items():
        if data["kind"] == "Kustomization":
            continue
        meta = data["metadata"]
        if not DNS_LABEL.fullmatch(meta["name"]):
            yield f"{path}: name {meta['name']!r} is no DNS label"
        for key, value in meta.get("labels", {}).items():
            if not LABEL_VALUE.fullmatch(value):
                yield f"{path}: label {key}: {value!r} can't be one"
        if data["kind"] == "Namespace":
            spaces.add(meta["name"])
        elif path != "time-slicing.yaml":
            spaces.add(meta.get("namespace", "none"))
    if len(spaces) != 1:
        yield f"namespaces: {sorted(spaces)}"


def _selectors(objects: Objects) -> Iterator[str]:
    """What selects pods selects those of exactly one tier."""
    labels = {name: tier[0] for name, tier in workloads(objects).items()}
    labels |= {x["metadata"]["name"]: x["metadata"]["labels"] for x in of_kind(objects, "Pod")}
    for path, data in objects.items():
        selector = _selector(data)
        if selector is None:
            continue
        found = [name for name, has in labels.items() if selector.items() <= has.items()]
        if len(found) != 1:
            yield f"{path}: selects {found}"


def _selector(data: Mapping[str, Any]) -> dict[str, str] | None:
    spec = data.get("spec", {})
    found: dict[str, str] | None = None
    if data["kind"] == "Service":
        found = spec["selector"]
    elif data["kind"] == "NetworkPolicy":
        found = spec["podSelector"]["matchLabels"]
    elif data["kind"] in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        found = spec["selector"]["matchLabels"]
    return found


def _ports(objects: Objects) -> Iterator[str]:
    """Names of ports are those of the container; probes ask its gRPC port."""
    for name, (_, pod) in workloads(objects).items():
        (container,) = pod["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for path in (x for x in objects if x.startswith(f"{name}/")):
            for used in _port_names(objects[path]):
                if used not in ports:
                    yield f"{path}: port {used!r}; the container has {sorted(ports)}"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe].get("grpc", {}).get("port", ports["grpc"])
            if asked != ports["grpc"]:
                yield f"{name}: {probe} asks port {asked}"


def _port_names(data: Mapping[str, Any]) -> list[str]:
    spec = data.get("spec", {})
    if data["kind"] == "Service":
        return [port["targetPort"] for port in spec["ports"]]
    if data["kind"] == "NetworkPolicy":
        return [port["port"] for rule in spec["ingress"] for port in rule["ports"]]
    if data["kind"] == "PodMonitor":
        return [end["port"] for end in spec["podMetricsEndpoints"]]
    return []


def _mounts(objects: Objects) -> Iterator[str]:
    """Volumes are there and mounted, and what they are made of is exported."""
    known = {(data["kind"], data["metadata"]["name"]) for data in objects.values()
             if data["kind"] != "Kustomization"}  # fmt: skip
    pods = {name: tier[1] for name, tier in workloads(objects).items()}
    pods |= {x["metadata"]["name"]: x["spec"] for x in of_kind(objects, "Pod")}
    for name, pod in pods.items():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        containers = [*pod["containers"], *pod.get("initContainers", [])]
        mounted = {mount["name"] for x in containers for mount in x["volumeMounts"]}
        if mounted != set(volumes):
            yield f"{name}: volumes {sorted(volumes)}, mounted {sorted(mounted)}"
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            config = volume.get("configMap", {}).get("name")
            for kind, used in (("PersistentVolumeClaim", claim), ("ConfigMap", config)):
                if used is not None and (kind, used) not in known:
                    yield f"{name}: {kind} {used!r} is not exported"


def _scaling(objects: Objects) -> Iterator[str]:
    """An autoscaler moves a workload that is there, that may have two pods, and that sets no
    number of its own."""
    names = {x["metadata"]["name"]: x["spec"] for x in of_kind(objects, "Deployment")}
    names |= {f"{x['metadata']['name']}-predictor": x["spec"]["predictor"]
              for x in of_kind(objects, "InferenceService")}  # fmt: skip
    scaled = [x["spec"]["scaleTargetRef"]["name"] for x in
              of_kind(objects, "HorizontalPodAutoscaler")]  # fmt: skip
    yield from (f"autoscaler of {x!r}, which is not there" for x in scaled if x not in names)
    for name, spec in names.items():
        strategy = spec.get("strategy", spec.get("deploymentStrategy", {})).get("type")
        if (name in scaled) != (strategy != "Recreate"):
            yield f"{name}: strategy {strategy}, {'scaled' if name in scaled else 'one pod'}"
        if (name in scaled) == (spec.get("replicas", spec.get("maxReplicas")) == 1):
            yield f"{name}: {'scaled' if name in scaled else 'one pod'}, and its number says else"


def _peers(objects: Objects) -> Iterator[str]:
    """Each tier knows all tiers by their Services, itself perhaps by loopback."""
    ports = {x["metadata"]["name"]: [p["port"] for p in x["spec"]["ports"]]
             for x in of_kind(objects, "Service")}  # fmt: skip
    for path, data in objects.items():
        if data["kind"] != "ConfigMap" or "peers.json" not in data["data"]:
            continue
        addresses = json.loads(data["data"]["peers.json"])
        if len(addresses) != len(ports):
            yield f"{path}: knows {sorted(addresses)}"
        for server, address in addresses.items():
            host, _, port = address.partition(":")
            own = data["metadata"]["annotations"]["tritier/server"] == server
            if int(port) not in ports.get(host, [8001] if own and host == "127.0.0.1" else []):
                yield f"{path}: {server} at {address}"


def _kustomization(objects: Objects) -> Iterator[str]:
    """All is applied but pods that are made by hand and what is of another namespace."""
    listed = objects["kustomization.yaml"]["resources"]
    wanted = {path for path in objects if not path.startswith("load/")} - {
        "kustomization.yaml", "time-slicing.yaml",
    }  # fmt: skip
    if sorted(listed) != sorted(wanted):
        yield f"kustomization.yaml: {sorted(set(listed) ^ wanted)} too many or missing"


def _ends(objects: Objects) -> Iterator[str]:
    """A pod has time for its hook and for Triton's own end."""
    for name, (_, pod) in workloads(objects).items():
        (container,) = pod["containers"]
        pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        (waits,) = (int(x.partition("=")[2]) for x in container["command"]
                    if x.startswith("--exit-timeout-secs="))  # fmt: skip
        if pod["terminationGracePeriodSeconds"] <= pause + waits:
            yield f"{name}: ends by force after {pod['terminationGracePeriodSeconds']} s"


def _secrets(objects: Objects, readme: str) -> Iterator[str]:
    """README.md makes every secret that is mounted, with all its keys; none is exported."""
    yield from (
        f"{x['metadata']['name']}: a Secret is exported" for x in of_kind(objects, "Secret")
    )
    for name, (_, pod) in workloads(objects).items():
        for volume in pod["volumes"]:
            if "secret" not in volume:
                continue
            secret = volume["secret"]
            made = re.search(rf"create secret generic {secret['secretName']} (.*)", readme)
            keys = re.findall(r"--from-file=(\w+)=", made[1]) if made else []
            if keys != [item["key"] for item in secret["items"]]:
                yield f"{name}: README.md makes {secret['secretName']} with {keys}"
