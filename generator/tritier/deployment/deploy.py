"""Load generated repositories into running servers, and unload them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf import json_format

from tritier.deployment.client import TritonServer
from tritier.documents import LabState, ManifestModel, ServersSpec
from tritier.errors import InputError, ServerError
from tritier.repository import Repositories, parse_config

Push = Literal["auto", "always", "never"]
Report = Callable[[str], None]
# What model control accepts in one message.
_MAX_PUSH_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Addresses:
    """Where the servers of a plan are.

    `urls` are for deployment and apps. `peers_known` are servers whose environment names the
    addresses of their peers (those of the lab): their configs need none.
    """

    urls: Mapping[str, str]
    peers_known: frozenset[str]


def find_addresses(
    repositories: Repositories, spec: ServersSpec, lab: LabState | None
) -> Addresses:
    """Addresses from the servers file and, for those without a url there, from the lab.

    Raises InputError for a server that neither knows.
    """
    lab_urls = lab.urls if lab else {}
    urls, faults = {}, []
    for name in repositories.servers():
        if name not in spec.names:
            known = ", ".join(spec.names)
            faults.append(f"the plan uses server '{name}'; the servers file has {known}")
            continue
        url = lab_urls.get(name) or spec.server(name).url
        if url is None:
            faults.append(
                f"server '{name}' has no address: give it a url in the servers file or start the "
                "lab with `tritier lab up`"
            )
        else:
            urls[name] = url
    if faults:
        raise InputError(faults)
    return Addresses(urls, frozenset(lab_urls))


def deploy(
    repositories: Repositories,
    addresses: Addresses,
    push: Push = "auto",
    report: Report = lambda _: None,
) -> None:
    """Load every model and wait until each is ready: what computes or moves tensors first, then the
    ensembles that use it, the entry ensemble last. Servers load side by side.

    With `push` "auto" a server that sees the generated folder loads from there, to others the bytes
    are sent through model control. If one model fails, what was loaded is unloaded again and
    ServerError names server and model.
    """
    deployment = _Deployment(repositories, addresses, push, report)
    try:
        deployment.run()
    except BaseException:
        deployment.roll_back()
        raise
    finally:
        deployment.close()


class _Deployment:
    """One run of `deploy`: the connections, and what has been loaded so far."""

    def __init__(
        self, repositories: Repositories, addresses: Addresses, push: Push, report: Report
    ) -> None:
        self._repositories = repositories
        self._addresses = addresses
        self._push: Push = push
        self._report = report
        self._servers = {
            name: TritonServer(name, addresses.urls[name]) for name in repositories.servers()
        }
        self._loaded: list[ManifestModel] = []

    def run(self) -> None:
        indices = {
            name: set(server.index()) if self._push == "auto" else set()
            for name, server in self._servers.items()
        }
        with ThreadPoolExecutor(len(self._servers)) as executor:
            for phase in self._phases():
                jobs = [
                    executor.submit(self._load_all, [m for m in phase if m.server == name], index)
                    for name, index in indices.items()
                ]
                # Every server ends its part before the first failure is raised: what it loaded
                # must be known to be unloaded again.
                wait(jobs)
                for job in jobs:
                    job.result()

    def roll_back(self) -> None:
        for model in reversed(self._loaded):
            # The first failure is what the user must hear of.
            with contextlib.suppress(ServerError):
                self._servers[model.server].unload(model.name)

    def close(self) -> None:
        for server in self._servers.values():
            server.close()

    def _load_all(self, models: list[ManifestModel], index: set[str]) -> None:
        for model in models:
            self._load(model, model.name in index)

    def _phases(self) -> list[list[ManifestModel]]:
        models = self._repositories.manifest.models
        return [
            [model for model in models if model.kind not in ("stage", "entry")],
            [model for model in models if model.kind == "stage"],
            [model for model in models if model.kind == "entry"],
        ]

    def _load(self, model: ManifestModel, listed: bool) -> None:
        self._report(f"{model.server}: {model.name}")
        server = self._servers[model.server]
        config = _config_with_peers(self._repositories, self._addresses, model)
        override = json_format.MessageToJson(config) if config is not None else None
        if self._push == "never" or (self._push == "auto" and listed):
            server.load(model.name, config=override)
            self._loaded.append(model)
            if self._push == "never" or _is_this_plan(server, self._repositories, model):
                return
            server.unload(model.name)
        full = override or _config_json(self._repositories, model)
        server.load(model.name, config=full, files=_files(self._repositories, model))
        self._loaded.append(model)


def undeploy(
    repositories: Repositories, addresses: Addresses, report: Report = lambda _: None
) -> list[str]:
    """Unload every model, the entry's first; returns messages of servers that could not."""
    failures = []
    for name in reversed(repositories.servers()):
        with TritonServer(name, addresses.urls[name]) as server:
            for model in reversed(repositories.models_of(name)):
                report(f"{name}: {model.name}")
                try:
                    server.unload(model.name)
                except ServerError as error:
                    failures.append(str(error))
    return failures


def _is_this_plan(server: TritonServer, repositories: Repositories, model: ManifestModel) -> bool:
    """A server may have a folder of the same name from another plan: the entry's name has no id."""
    parameters = server.config(model.name).parameters
    return bool(parameters["plan_id"].string_value == repositories.plan.id)


def _config_with_peers(
    repositories: Repositories, addresses: Addresses, model: ManifestModel
) -> Any | None:
    """The config with the addresses of this deployment; None where the generated one will do."""
    if model.kind != "remote" or model.server in addresses.peers_known:
        return None
    config = _parsed(repositories, model)
    parameters = config.parameters
    before = config.SerializeToString(deterministic=True)
    parameters["url"].string_value = addresses.urls[parameters["server"].string_value]
    if "poison" in parameters:
        rows = json.loads(parameters["poison"].string_value)
        rows = [[name, addresses.urls[name], mailbox] for name, _, mailbox in rows]
        parameters["poison"].string_value = json.dumps(rows)
    return config if config.SerializeToString(deterministic=True) != before else None


def _parsed(repositories: Repositories, model: ManifestModel) -> Any:
    text = (repositories.folder(model) / "config.pbtxt").read_text(encoding="utf-8")
    return parse_config(text, model.name)


def _config_json(repositories: Repositories, model: ManifestModel) -> str:
    return str(json_format.MessageToJson(_parsed(repositories, model)))


def _files(repositories: Repositories, model: ManifestModel) -> dict[str, bytes]:
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
