"""Settings of single configs: instances, parameters, paths and addresses of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from tritier.deployment.access import is_loopback
from tritier.doctor.fields import used_fields
from tritier.doctor.releases import ReleaseTable
from tritier.doctor.subjects import Subject
from tritier.documents import PortabilityFinding, ReleaseFacts

_AGAIN = "tritier generate, again"
_PEERS = "give it a url in servers.yaml and generate again, or set TRITIER_PEERS on that server"
# Fields that hold a path.
_PATHS = (
    "default_model_filename",
    "cc_model_filenames",
    "model_operations.op_library_filename",
    "input.label_filename",
    "output.label_filename",
    "model_warmup.inputs.input_data_file",
)
_LEVELS = (-1, 0, 1, 2)
# Which kind of instances the provider of a server asks for.
_KINDS = {"cpu": "KIND_CPU", "openvino": "KIND_CPU", "cuda": "KIND_GPU"}


def setting_findings(
    subject: Subject, table: ReleaseTable, facts: ReleaseFacts
) -> list[PortabilityFinding]:
    """Everything of one config that depends on the machine or on how its backend reads it."""
    found = [*_instance_findings(subject, facts), *_path_findings(subject)]
    if subject.backend == "onnxruntime":
        found += [*_runtime_findings(subject, table), *_accelerator_findings(subject, facts)]
    if subject.backend == "python":
        found += _address_findings(subject)
    return found


def _instance_findings(subject: Subject, facts: ReleaseFacts) -> Iterator[PortabilityFinding]:
    """KIND_GPU only where the plan has CUDA, and a kind that does not depend on the machine."""
    if subject.backend == "ensemble":
        return
    provider = subject.server.execution_provider if subject.server else "cpu"
    wanted = _KINDS[provider] if subject.backend == "onnxruntime" else "KIND_CPU"
    at = "instance_group.kind"
    groups = subject.config.instance_group
    kinds = sorted({_enum_name(group, "kind") for group in groups})
    if not kinds:
        why = "without a group Triton takes the GPUs that it finds, and 2 instances without one"
        yield subject.says("warning", "instance_group", why, _AGAIN)
    for kind in kinds:
        if kind in ("KIND_AUTO", "KIND_MODEL"):
            why = f"{kind} runs on whatever that machine has: the plan was made for {wanted}"
            yield subject.says("warning", at, why, f"write {wanted}")
        elif kind != wanted:
            why = f"{kind} does not fit the plan, which has this model on {provider}: {wanted}"
            yield subject.says("error", at, why, f"write {wanted}, or change servers.yaml and plan")
        elif kind == "KIND_GPU":
            why = f"needs an NVIDIA GPU and a driver for CUDA {facts.cuda}"
            yield subject.says("info", at, why, "start the container with --gpus all")


def _runtime_findings(subject: Subject, table: ReleaseTable) -> Iterator[PortabilityFinding]:
    """Parameters and level as Triton's own ONNX Runtime backend reads them."""
    for name, value in sorted(subject.config.parameters.items()):
        at, text = f"parameters.{name}", value.string_value
        if name not in table.onnxruntime_parameters:
            why = "is no parameter that the release table knows of the ONNX Runtime backend"
            yield subject.says("warning", at, why, "look it up, then add it to the table")
        elif name.endswith("_thread_count") and not text.isdecimal():
            why = f"is '{text}': the backend reads a whole number"
            yield subject.says("error", at, why, _AGAIN)
    level = subject.config.optimization.graph.level
    if level not in _LEVELS:
        why = f"is {level}: the ONNX Runtime backend knows {', '.join(map(str, _LEVELS))}"
        yield subject.says("error", "optimization.graph.level", why, _AGAIN)


def _accelerator_findings(subject: Subject, facts: ReleaseFacts) -> Iterator[PortabilityFinding]:
    accelerators = subject.config.optimization.execution_accelerators
    at = "optimization.execution_accelerators"
    for item in accelerators.cpu_execution_accelerator:
        name = item.name
        if name == "openvino":
            why = f"whether the ONNX Runtime of {facts.release} has OpenVINO is not known"
            yield subject.says("warning", at, why, "try it there, or plan with provider cpu")
        else:
            why = f"'{name}' is no CPU accelerator of the ONNX Runtime backend; it knows openvino"
            yield subject.says("error", at, why, _AGAIN)
    for item in accelerators.gpu_execution_accelerator:
        if item.name not in ("cuda", "tensorrt"):
            why = f"'{item.name}' is no GPU accelerator of the backend; it knows cuda and tensorrt"
            yield subject.says("error", at, why, _AGAIN)


def _path_findings(subject: Subject) -> Iterator[PortabilityFinding]:
    """Absolute paths, which are of one machine."""
    fix = "take a path relative to the model's folder"
    for path, value in used_fields(subject.config):
        values = [value] if isinstance(value, str) else value
        if path in _PATHS:
            for text in values:
                if _is_absolute(text):
                    why = f"'{text}' is an absolute path of some machine"
                    yield subject.says("error", path, why, fix)
    for name, parameter in sorted(subject.config.parameters.items()):
        texts = [text for text in _texts(parameter.string_value) if _is_absolute(text)]
        for text in texts:
            why = f"'{text}' is an absolute path of some machine"
            yield subject.says("error", f"parameters.{name}", why, fix)


def _address_findings(subject: Subject) -> Iterator[PortabilityFinding]:
    """Addresses of other servers that are not there, or mean the container itself."""
    texts = {name: value.string_value for name, value in subject.config.parameters.items()}
    for server in _without_address(subject, texts):
        at = "parameters.urls" if subject.row.kind == "router" else "parameters.url"
        yield subject.says("warning", at, f"has no address of server '{server}'", _PEERS)
    for name in ("url", "urls", "poison"):
        for address in sorted(set(_addresses(name, texts.get(name, "")))):
            if address and is_loopback(address):
                why = f"{address} is this machine: in a container it is the container itself"
                yield subject.says("warning", f"parameters.{name}", why, _PEERS)


def _without_address(subject: Subject, texts: Mapping[str, str]) -> list[str]:
    """Servers that the model calls, and for which it has no address."""
    if subject.row.kind == "remote":
        return [] if texts.get("url") else [texts.get("server", "")]
    if subject.row.kind == "router":
        known, plans = _json(texts.get("urls")), _json(texts.get("plans"))
        called = {name for plan in plans.values() for name in plan.get("servers", ())}
        return sorted(called - set(known) - {subject.row.server})
    return []


def _json(text: str | None) -> dict[str, Any]:
    """A mapping in a parameter; an empty one for anything else."""
    try:
        data = json.loads(text or "")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _addresses(name: str, text: str) -> list[str]:
    """The addresses in a parameter of a proxy, of its poison list, or of the router."""
    if name == "url":
        return [text]
    try:
        data = json.loads(text)
    except ValueError:
        return []
    if isinstance(data, dict):
        return [str(value) for value in data.values()]
    return [str(row[1]) for row in data if isinstance(row, list) and len(row) > 1]


def _texts(value: str) -> Iterator[str]:
    """The texts in a parameter; those inside if it is JSON."""
    try:
        yield from _leaves(json.loads(value))
    except ValueError:
        yield value


def _leaves(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            yield from _leaves(item)
    elif isinstance(data, str):
        yield data


def _is_absolute(text: str) -> bool:
    return (
        text.startswith(("~/", "file:"))
        or (PurePosixPath(text).is_absolute() and len(text) > 1)
        or PureWindowsPath(text).is_absolute()
    )


def _enum_name(message: Any, field: str) -> str:
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    return str(descriptor.enum_type.values_by_number[getattr(message, field)].name)
