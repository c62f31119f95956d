"""One model of a generated folder as a server gets it: its config for this deployment, its bytes.

A model that is loaded from here says in its config, in the parameter `tritier_files`, what it was
loaded from. So it can be told whether a server has it already.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from tritier.deployment.client import TritonServer
from tritier.documents import ManifestModel
from tritier.errors import InputError, ServerError
from tritier.repository import Repositories, parse_config

# Parameter of a loaded config: hash of the config and of the files that came with it.
DIGEST = "tritier_files"
# What model control accepts in one message.
_MAX_PUSH_BYTES = 2**31 - 1
# A model that does nothing; every server with the Python backend can load it.
_NOTHING = b"class TritonPythonModel:\n    pass\n"


def parsed_config(repositories: Repositories, model: ManifestModel) -> Any:
    """The generated config of a model."""
    text = (repositories.folder(model) / "config.pbtxt").read_text(encoding="utf-8")
    return parse_config(text, model.name)


def with_addresses(config: Any, kind: str, urls: Mapping[str, str]) -> Any:
    """A copy of a config in which proxies, and the router, call servers at these addresses."""
    changed = type(config)()
    changed.CopyFrom(config)
    parameters = changed.parameters
    if kind == "remote":
        parameters["url"].string_value = urls[parameters["server"].string_value]
        if "poison" in parameters:
            rows = json.loads(parameters["poison"].string_value)
            rows = [[name, urls[name], mailbox] for name, _, mailbox in rows]
            parameters["poison"].string_value = json.dumps(rows)
    if kind == "router":
        plans = json.loads(parameters["plans"].string_value)
        names = dict.fromkeys(name for plan in plans.values() for name in plan["servers"])
        known = {name: urls[name] for name in names}
        parameters["urls"].string_value = json.dumps(known, sort_keys=True)
    return changed


def config_to_load(
    repositories: Repositories,
    model: ManifestModel,
    urls: Mapping[str, str],
    peers_known: frozenset[str],
) -> Any:
    """The config with the addresses of this deployment and `DIGEST`. Servers in `peers_known` have
    the addresses of their peers from their environment: their configs stay as generated."""
    config = parsed_config(repositories, model)
    if model.server not in peers_known:
        config = with_addresses(config, model.kind, urls)
    digest = hashlib.sha256(config.SerializeToString(deterministic=True))
    folder = f"{model.server}/{model.name}/1/"
    for file in repositories.manifest.files:
        if file.path.startswith(folder):
            digest.update(f"\n{file.path} {file.sha256}".encode())
    config.parameters[DIGEST].string_value = digest.hexdigest()[:16]
    return config


def digest_of(config: Any) -> str:
    """What the model was loaded from; empty if nobody knows."""
    return str(config.parameters[DIGEST].string_value) if DIGEST in config.parameters else ""


def config_json(config: Any) -> str:
    """As model control takes it."""
    return str(json_format.MessageToJson(config))


def files_to_push(repositories: Repositories, model: ManifestModel) -> dict[str, bytes]:
    """The files of a model as model control takes them; InputError if they are too large."""
    folder = f"{model.server}/{model.name}/"
    files = {
        f"file:{file.path.removeprefix(folder)}": (repositories.path / file.path).read_bytes()
        for file in repositories.manifest.files
        if file.path.startswith(f"{folder}1/")
    }
    size = sum(len(data) for data in files.values())
    if size > _MAX_PUSH_BYTES:
        raise InputError(
            f"model '{model.name}' has {size} bytes, model control takes {_MAX_PUSH_BYTES}: copy "
            f"the folder '{model.server}' to the server and pass --push never"
        )
    return files


def forget_failed(server: TritonServer, name: str) -> None:
    """Make a server forget that a model could not be loaded.

    Triton 2.51 calls itself not ready for ever after a model failed to load, even when it is
    unloaded, and whoever asks for readiness takes the server out of service. What helps is to load
    something under that name and to unload it. Nothing is raised: the failure is what matters.
    """
    config = json.dumps({"name": name, "backend": "python", "max_batch_size": 0})
    with contextlib.suppress(ServerError):
        if not server.serves(name):  # else an earlier version of it still serves
            server.load(name, config=config, files={"file:1/model.py": _NOTHING})
            server.unload(name)
