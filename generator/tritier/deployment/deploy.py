"""Load generated repositories into running servers, and unload them."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor, wait

from tritier.deployment.addresses import Addresses, Push, Report, find_addresses
from tritier.deployment.client import TritonServer
from tritier.deployment.loading import (
    config_json,
    files_to_push,
    forget_failed,
    parsed_config,
    with_addresses,
)
from tritier.deployment.switch import SwitchOptions, has_router, switch
from tritier.documents import ManifestModel
from tritier.errors import ServerError
from tritier.repository import Repositories

__all__ = ["Addresses", "Push", "Report", "deploy", "find_addresses", "undeploy"]


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
    ServerError names server and model. A folder with a router is switched to, without checking its
    answers: see `switch`.
    """
    if has_router(repositories):
        switch(repositories, addresses, SwitchOptions(push=push, report=report))
        return
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
        try:
            self._load_from(model, listed)
        except BaseException:
            if model not in self._loaded:
                forget_failed(self._servers[model.server], model.name)
            raise

    def _load_from(self, model: ManifestModel, listed: bool) -> None:
        server = self._servers[model.server]
        override = self._override(model)
        if self._push == "never" or (self._push == "auto" and listed):
            server.load(model.name, config=override)
            self._loaded.append(model)
            if self._push == "never" or self._is_this_plan(server, model):
                return
            server.unload(model.name)
        full = override or config_json(parsed_config(self._repositories, model))
        server.load(model.name, config=full, files=files_to_push(self._repositories, model))
        self._loaded.append(model)

    def _override(self, model: ManifestModel) -> str | None:
        """The config with the addresses of this deployment; None where the generated one will
        do."""
        if model.kind != "remote" or model.server in self._addresses.peers_known:
            return None
        generated = parsed_config(self._repositories, model)
        wanted = with_addresses(generated, model.kind, self._addresses.urls)
        return config_json(wanted) if wanted != generated else None

    def _is_this_plan(self, server: TritonServer, model: ManifestModel) -> bool:
        """A server may have a folder of the same name from another plan: the entry's name has no
        id."""
        parameters = server.config(model.name).parameters
        return bool(parameters["plan_id"].string_value == self._repositories.plan.id)


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
