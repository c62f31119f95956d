"""Validates an exported folder for Kubernetes offline: one line per file, and whether names meet.

    python -m tests.helpers.validate_export DIR

Kinds of Kubernetes itself are checked by the strict schemas of kubernetes-validate (an unknown
field is an error), those of KServe and of Prometheus' operator by the schemas in tests/data/crds.
What KServe is to make a pod of is also checked as a Pod. The exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate.utils
import referencing
import yaml

from tests.helpers.exported import strict_yaml
from tests.helpers.manifest_checks import name_faults
from tests.helpers.manifests import files_in, of_kind, read_export, workloads

# The newest that the pinned package knows, and the oldest.
VERSIONS = ("1.33", "1.37")
CRDS = Path(__file__).resolve().parent.parent / "data" / "crds"
_CUSTOM = {
    "PodMonitor": "pod_monitor.json",
    "ServingRuntime": "serving_runtime.json",
    "InferenceService": "inference_service.json",
}
_KUSTOMIZATION = {"apiVersion", "kind", "resources"}
NATIVE = (
    f"kubernetes-validate {kubernetes_validate.utils.__version__}, strict, {' and '.join(VERSIONS)}"
)


def validator_of(kind: str) -> str:
    """What checks a kind, in words."""
    if kind in _CUSTOM:
        return f"jsonschema, tests/data/crds/{_CUSTOM[kind]}"
    return "its keys" if kind == "Kustomization" else NATIVE


def object_faults(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with one object by its schema."""
    kind = str(data.get("kind"))
    if kind == "Kustomization":
        return [f"unknown key {key}" for key in sorted(set(data) - _KUSTOMIZATION)]
    if kind in _CUSTOM:
        schema = json.loads((CRDS / _CUSTOM[kind]).read_text(encoding="utf-8"))
        errors = jsonschema.Draft202012Validator(schema).iter_errors(data)
        return [f"{error.json_path}: {error.message}" for error in errors]
    return native_faults(data)


def native_faults(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with an object of Kubernetes itself, in any of `VERSIONS`."""
    group = str(data["apiVersion"]).split("/")
    # As the package names its files: `networking.k8s.io/v1` is networkpolicy-networking-v1.json.
    name = "-".join([str(data["kind"]).lower(), *(part.split(".")[0] for part in group)])
    return [
        f"{version}: {error.json_path.removeprefix('$.')}: {error.message}"
        for version in VERSIONS
        for error in _validator(name, version).iter_errors(data)
    ]


@functools.cache
def _validator(name: str, version: str) -> jsonschema.Draft202012Validator:
    """As kubernetes_validate.validate makes it, which reads its 3 MB of definitions each time."""
    schema = _contents(f"{name}.json", version)
    return jsonschema.Draft202012Validator(schema, registry=_definitions(version))


@functools.cache
def _definitions(version: str) -> referencing.Registry[Any]:
    data = referencing.Resource.from_contents(_contents("_definitions.json", version))
    return data @ referencing.Registry()


def _contents(file: str, version: str) -> Any:
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    return kubernetes_validate.utils.schema_contents(f"{folder}/{file}", version)


def pod_faults(objects: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong with the pods that KServe is to make."""
    if not list(of_kind(objects, "ServingRuntime")):
        return []
    found = []
    for name, (labels, spec) in workloads(objects).items():
        meta = {"name": name, "labels": labels}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        found += [f"pod of {name}: {fault}" for fault in native_faults(pod)]
    return found


def report(folder: Path) -> tuple[list[str], bool]:
    """Lines for people, and whether all is well."""
    files = files_in(folder)
    lines: list[str] = []
    sound = True
    for path, text in files.items():
        if not path.endswith(".yaml"):
            continue
        try:
            data = strict_yaml(text)
        except (yaml.YAMLError, AssertionError) as error:  # the latter for keys that stand twice
            lines, sound = [*lines, f"{path}: {' '.join(str(error).split())}"], False
            continue
        faults = object_faults(data)
        sound = sound and not faults
        name = data.get("metadata", {}).get("name", "-")
        what = "; ".join(faults) or "OK"
        lines.append(f"{path}: {data['kind']} {name} [{validator_of(data['kind'])}]: {what}")
    if sound:
        objects = read_export(files)
        others = [*pod_faults(objects), *name_faults(objects, files["README.md"])]
        lines += [f"names: {fault}" for fault in others] or ["names, ports, mounts, secrets: OK"]
        sound = not others
    return lines, sound


def main(arguments: list[str]) -> int:
    """Print the report of the folder; 0 if all is well."""
    lines, sound = report(Path(arguments[0]))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
