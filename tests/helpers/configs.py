"""What generated config.pbtxt files say, read with Triton's own schema and nothing of tritier."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

Configs = dict[tuple[str, str], Any]
Crossing = tuple[str, str, str]


def read_configs(files: Mapping[str, bytes]) -> Configs:
    """(server, model) -> ModelConfig of every generated config."""
    configs: Configs = {}
    for path, data in files.items():
        if path.endswith("/config.pbtxt"):
            server, model, _ = path.split("/")
            configs[server, model] = text_format.Parse(
                data.decode(), model_config_pb2.ModelConfig()
            )
    return configs


def parameters(config: Any) -> dict[str, str]:
    """The parameters of a config."""
    return {key: value.string_value for key, value in config.parameters.items()}


def is_remote(config: Any) -> bool:
    """Whether the model calls another server."""
    return config.backend == "python" and "model_name" in config.parameters


def is_tensor(name: str) -> bool:
    """Whether a name is that of a plan tensor, not of a key, an acknowledgement or an ordering."""
    return name[:1] == "t" and name[1:].isdigit()


def crossings(configs: Configs) -> Counter[Crossing]:
    """How often each (tensor, from, to) is carried by some proxy, in one request.

    What comes back is what the proxy asks for, or else all that the other model has to give; a
    mailbox answers a put with an acknowledgement.
    """
    found: Counter[Crossing] = Counter()
    for (server, _), config in configs.items():
        if not is_remote(config):
            continue
        settings = parameters(config)
        target = settings["server"]
        named = settings.get("name_outputs") == "true"
        asks_for_all = not named and not settings["model_name"].endswith("__mailbox")
        answer = configs[target, settings["model_name"]] if asks_for_all else config
        ordering = json.loads(settings.get("ordering", "[]"))
        found.update((t.name, server, target) for t in config.input if t.name not in ordering)
        found.update((t.name, target, server) for t in answer.output)
    return Counter({row: count for row, count in found.items() if is_tensor(row[0])})


def unused_tensors(configs: Configs) -> list[str]:
    """Tensors of ensembles that no step and no output uses: Triton refuses such an ensemble."""
    unused = []
    for (server, name), config in configs.items():
        if config.platform != "ensemble":
            continue
        steps = config.ensemble_scheduling.step
        made = {tensor.name for tensor in config.input}
        made |= {target for step in steps for target in step.output_map.values()}
        used = {tensor.name for tensor in config.output}
        used |= {source for step in steps for source in step.input_map.values()}
        unused += [f"{server}/{name}: {tensor}" for tensor in sorted(made - used)]
    return unused
