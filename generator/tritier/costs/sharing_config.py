"""Settings with which sharing takes place: Triton's instance groups and rate limiter, and the time
slicing of NVIDIA's Kubernetes device plugin (docs/sharing.md, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tritier.costs.sharing import copies_of
from tritier.documents.sharing import SharingMachine, SharingScenario
from tritier.errors import InputError

# What the rate limiter counts: turns on the accelerator.
RESOURCE = "turn"
GPU = "nvidia.com/gpu"
_KINDS = ("KIND_CPU", "KIND_GPU")


def instance_group(kind: str, count: int, priority: int | None, turns: int = 1) -> str:
    """The `instance_group` of a config.pbtxt: `count` instances, each of which takes `turns` of the
    resource while it runs. A priority of 2 gets half the chances of a priority of 1; None is no
    limit at all."""
    if kind not in _KINDS:
        raise InputError(f"instance kind '{kind}': allowed are {', '.join(_KINDS)}")
    limiter = ""
    if priority is not None:
        limiter = (
            f"\n    rate_limiter {{\n"
            f'      resources [ {{ name: "{RESOURCE}" count: {turns} }} ]\n'
            f"      priority: {priority}\n"
            "    }"
        )
    text = f"instance_group [\n  {{\n    kind: {kind}\n    count: {count}{limiter}\n  }}\n]\n"
    parse_fragment(text)
    return text


def server_flags(resources: Mapping[str, int]) -> list[str]:
    """Options of tritonserver that turn the rate limiter on and say how much there is."""
    counts = [f"--rate-limit-resource={name}:{count}" for name, count in resources.items()]
    return ["--rate-limit=execution_count", *counts]


def settings_of(scenario: SharingScenario, machine: SharingMachine, sharers: int) -> dict[str, str]:
    """Files (name -> text) that set so many sharers up on a machine: an instance group for each
    model's config.pbtxt, options of tritonserver, and for time slicing the device plugin's.

    With turns each sharer's copy of a model is an instance; one for all sharers is one instance. In
    order of arrival there is an instance for each request that runs at once. With slices the
    accelerator itself takes turns, among processes: each has one instance of its own. Only turns
    need the rate limiter.
    """
    limited = scenario.discipline == "turns"
    sliced = scenario.discipline == "sliced"
    count = 1 if sliced else copies_of(scenario, machine, sharers)
    files = {
        f"{model.name}/instance_group.pbtxt": instance_group(
            machine.kind, count, model.priority if limited else None
        )
        for model in scenario.models
    }
    if limited:
        flags = server_flags({RESOURCE: machine.at_once})
        files["tritonserver_options.txt"] = "\n".join(flags) + "\n"
    replicas = sharers * len(scenario.models)
    if sliced and machine.kind == "KIND_GPU" and replicas > 1:
        files["device_plugin.yaml"] = device_plugin(replicas)
        files["config_map.yaml"] = config_map(replicas, "time-slicing", "nvidia-device-plugin")
    return files


def parse_fragment(text: str) -> Any:
    """Part of a config.pbtxt as Triton reads it; InputError, with line and column, if it can't."""
    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise InputError(f"the instance group is not valid: {error}") from None


def device_plugin(replicas: int, resource: str = GPU) -> str:
    """The config file of NVIDIA's Kubernetes device plugin: each GPU stands for so many.

    A pod that asks for more than one would not get more time: it is refused.
    """
    if replicas < 2:
        raise InputError(
            f"time slicing for {replicas}: needs at least 2 replicas; leave it out for one"
        )
    return yaml.safe_dump(_device_plugin(replicas, resource), sort_keys=False)


def config_map(replicas: int, name: str, namespace: str, resource: str = GPU) -> str:
    """The same in a ConfigMap, as the plugin's Helm chart and the GPU operator take it."""
    data = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"any": device_plugin(replicas, resource)},
    }
    return yaml.dump(data, Dumper=_Readable, sort_keys=False)


def _device_plugin(replicas: int, resource: str) -> dict[str, Any]:
    slicing = {
        "failRequestsGreaterThanOne": True,
        "resources": [{"name": resource, "replicas": replicas}],
    }
    return {"version": "v1", "sharing": {"timeSlicing": slicing}}


class _Readable(yaml.SafeDumper):
    """Texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Readable.add_representer(str, _text)
