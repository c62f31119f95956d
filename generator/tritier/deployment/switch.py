"""Change a family of plans without downtime: the new one beside the old, then the router, then the
old one away.

1. Every model of the new folder but the router is loaded; what a server has already stays.
2. Each plan is asked by its own name and must answer right.
3. The router is loaded with its new config. Triton keeps the old instance until the new one is
   ready, and the old one still answers what it has begun.
4. When the old router has no request any more, the old plans' entry ensembles are unloaded, and
   what only they used, on every server.

If anything fails before the new router has answered, what was loaded is unloaded again and the old
router is as it was. Where all is as it should be already, nothing is done but checking.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from tritier.deployment.addresses import Addresses, Push, Report
from tritier.deployment.client import TritonServer
from tritier.deployment.drain import Drain, stale_models
from tritier.deployment.loading import (
    config_json,
    config_to_load,
    digest_of,
    files_to_push,
    forget_failed,
)
from tritier.documents import WHOLE, ManifestModel
from tritier.errors import InputError, ServerError, TritierError
from tritier.repository import Repositories

# Asks a Triton model (name, id of its plan or None for the router, address) and raises
# CheckFailed or ServerError unless it answers right.
Check = Callable[[str, str | None, str], None]


class Cancelled(TritierError):
    """A newer need came before the router was switched; nothing has changed."""


@dataclass(frozen=True)
class SwitchOptions:
    """How a folder is deployed.

    - `check` asks each plan before the switch and the router after it.
    - `metrics_url`: of the entry's metrics (host:port), where the router may say how many requests
      it still has. Without it, draining takes as long as a request may.
    - `cancelled` is asked until the router is switched.
    """

    push: Push = "auto"
    check: Check | None = None
    metrics_url: str | None = None
    cancelled: Callable[[], bool] = lambda: False
    report: Report = lambda _: None


@dataclass(frozen=True)
class Switched:
    """What a deployment did. `before` is the family that served until then: None if there was none,
    or only a single plan; `warnings` are what could not be cleaned up."""

    family: str
    before: str | None
    loaded: tuple[str, ...]
    unloaded: tuple[str, ...]
    is_new_router: bool
    warnings: tuple[str, ...]
    took_s: float

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return bool(self.loaded or self.unloaded or self.is_new_router)


@dataclass
class _Seen:
    """A server before anything is done: which models it serves, and the configs of those that the
    new folder has too."""

    server: TritonServer
    loaded: frozenset[str] = frozenset()
    configs: dict[str, Any] = field(default_factory=dict)
    listed: frozenset[str] = frozenset()


def has_router(repositories: Repositories) -> bool:
    """Whether a folder is of several plans with a router."""
    return any(model.kind == "router" for model in repositories.manifest.models)


def switch(
    repositories: Repositories, addresses: Addresses, options: SwitchOptions | None = None
) -> Switched:
    """Deploy a folder with a router beside whatever is deployed, and switch to it.

    Raises what `options.check` raises, ServerError if a server fails, Cancelled. Then apps get what
    they got before.
    """
    run = _Switch(repositories, addresses, options or SwitchOptions())
    try:
        return run.run()
    finally:
        run.close()


def load_missing(
    repositories: Repositories,
    addresses: Addresses,
    names: Collection[str],
    push: Push = "auto",
    report: Report = lambda _: None,
) -> list[str]:
    """Load what these servers lack of a folder that is deployed, e.g. all when one was restarted.

    Other servers are not asked. Returns 'server/model' of what was loaded; raises ServerError, then
    what this call loaded is unloaded again.
    """
    run = _Switch(repositories, addresses, SwitchOptions(push=push, report=report), names)
    try:
        return run.load_missing()
    finally:
        run.close()


class _Switch:
    """One run of `switch`: connections, and what has been done so far."""

    def __init__(
        self,
        repositories: Repositories,
        addresses: Addresses,
        options: SwitchOptions,
        only: Collection[str] | None = None,
    ) -> None:
        """`only`: servers to look after, all if left out."""
        self._repositories, self._addresses, self._options = repositories, addresses, options
        self._report = options.report
        found = [
            model for model in repositories.manifest.models if only is None or model.server in only
        ]
        self._models = [model for model in found if model.kind != "router"]
        self._router = next(m for m in repositories.manifest.models if m.kind == "router")
        self._configs = {
            (m.server, m.name): config_to_load(
                repositories, m, addresses.urls, addresses.peers_known
            )
            for m in found
        }
        self._used = {model.server for model in found}
        if unknown := sorted(self._used - set(addresses.urls)):
            raise InputError(f"server '{unknown[0]}' has no address")
        self._seen = {
            name: _Seen(TritonServer(name, url))
            for name, url in addresses.urls.items()
            if only is None or name in only
        }
        self._new: list[ManifestModel] = []
        self._loaded: list[str] = []
        self._warnings: list[str] = []

    def close(self) -> None:
        for seen in self._seen.values():
            seen.server.close()

    def run(self) -> Switched:
        started = time.monotonic()
        self._survey()
        before = self._router_config()
        drain = Drain(self._router.name, before, self._options.metrics_url)
        try:
            self._load_models()
            self._check_plans()
            is_new_router = self._switch_router(before)
        except BaseException:
            self._roll_back()
            raise
        unloaded = self._unload_old(drain, is_new_router)
        return Switched(
            family=family_of(self._configs[self._router.server, self._router.name]) or "",
            before=family_of(before),
            loaded=tuple(self._loaded),
            unloaded=tuple(unloaded),
            is_new_router=is_new_router,
            warnings=tuple(self._warnings),
            took_s=time.monotonic() - started,
        )

    def load_missing(self) -> list[str]:
        """See the function of that name."""
        self._survey()
        try:
            self._load_models()
            if self._router.server in self._used and not self._is_there(self._router):
                self._load(self._router)
        except BaseException:
            self._roll_back()
            raise
        return self._loaded

    # -- before the switch --------------------------------------------------------------------

    def _survey(self) -> None:
        """See what is there. A server that the new folder does not use may be away."""
        wanted: dict[str, list[str]] = {name: [] for name in self._seen}
        for server, name in self._configs:
            wanted[server].append(name)
        for name, seen in list(self._seen.items()):
            try:
                seen.loaded = frozenset(seen.server.loaded())
                seen.configs = {x: seen.server.config(x) for x in wanted[name] if x in seen.loaded}
                if self._options.push == "auto":
                    seen.listed = frozenset(seen.server.index())
            except ServerError as error:
                if name in self._used:
                    raise
                self._warn(f"{name}: can't be reached, what it may still hold stays ({error})")
                seen.server.close()
                del self._seen[name]

    def _load_models(self) -> None:
        phases = (("stage",), ("entry",))
        first = [m for m in self._models if m.kind not in ("stage", "entry")]
        for phase in (first, *([m for m in self._models if m.kind in kinds] for kinds in phases)):
            with ThreadPoolExecutor(max(1, len(self._used))) as executor:
                jobs = [
                    executor.submit(self._load_all, [m for m in phase if m.server == name])
                    for name in sorted(self._used)
                ]
                # Every server ends its part before the first failure is raised: what it loaded
                # must be known to be unloaded again.
                wait(jobs)
            for job in jobs:
                job.result()

    def _load_all(self, models: list[ManifestModel]) -> None:
        for model in models:
            self._stop_if_cancelled()
            if not self._is_there(model):
                self._load(model)

    def _is_there(self, model: ManifestModel) -> bool:
        """Loaded already, from the same config and files."""
        found = self._seen[model.server].configs.get(model.name)
        wanted = self._configs[model.server, model.name]
        return found is not None and digest_of(found) == digest_of(wanted)

    def _load(self, model: ManifestModel) -> None:
        seen = self._seen[model.server]
        is_new = model.name not in seen.loaded
        self._report(f"{model.server}: {'loading' if is_new else 'loading again'} {model.name}")
        config = config_json(self._configs[model.server, model.name])
        # Only a name with the id of a plan says that what the server sees is what is meant.
        by_name = model.kind not in ("whole", "router") and model.name in seen.listed
        from_folder = self._options.push == "never" or (self._options.push == "auto" and by_name)
        files = None if from_folder else files_to_push(self._repositories, model)
        try:
            seen.server.load(model.name, config=config, files=files)
        except BaseException:
            forget_failed(seen.server, model.name)
            raise
        self._loaded.append(f"{model.server}/{model.name}")
        if is_new:
            self._new.append(model)

    def _check_plans(self) -> None:
        check = self._options.check
        if check is None:
            return
        url = self._addresses.urls[self._router.server]
        for model in self._models:
            if model.kind in ("entry", "whole"):
                self._stop_if_cancelled()
                self._report(f"checking the answers of {model.name}")
                check(model.name, WHOLE if model.kind == "whole" else model.plan, url)

    # -- the switch ---------------------------------------------------------------------------

    def _router_config(self) -> Any | None:
        """Config of what apps call now: a router, the entry ensemble of one plan, or nothing."""
        return self._seen[self._router.server].configs.get(self._router.name)

    def _switch_router(self, before: Any | None) -> bool:
        """Load the router unless it is there; returns whether it was not."""
        server, name = self._seen[self._router.server].server, self._router.name
        self._stop_if_cancelled()
        if self._is_there(self._router):
            self._check_router()
            return False
        now = server.config(name) if server.serves(name) else None
        if _text(now) != _text(before):
            raise ServerError(
                f"model '{name}' of server '{server.name}' was changed by somebody else while "
                "this folder was loaded: deploy again"
            )
        self._report(f"{server.name}: switching {name}")
        self._load(self._router)
        try:
            self._check_router()
        except BaseException:
            try:
                self._restore_router(before)
            except ServerError as error:
                # Then the new router serves, and needs what it was made for.
                self._new.clear()
                self._report(f"{name} can't be made what it was: {error}")
            raise
        return True

    def _check_router(self) -> None:
        if self._options.check is not None:
            self._report(f"checking the answers of {self._router.name}")
            url = self._addresses.urls[self._router.server]
            self._options.check(self._router.name, None, url)

    def _restore_router(self, before: Any | None) -> None:
        if before is None:
            return  # it is unloaded with what else is new
        server, name = self._seen[self._router.server].server, self._router.name
        self._report(f"{server.name}: back to what {name} was")
        # Files of the router suit any router; those of an ensemble are empty.
        files = {"file:1/.keep": b"", **files_to_push(self._repositories, self._router)}
        server.load(name, config=config_json(before), files=files)

    def _roll_back(self) -> None:
        for model in reversed(self._new):
            self._report(f"{model.server}: unloading {model.name} again")
            # The first failure is what the user must hear of.
            with contextlib.suppress(ServerError):
                self._seen[model.server].server.unload(model.name)

    # -- after the switch ---------------------------------------------------------------------

    def _unload_old(self, drain: Drain, is_new_router: bool) -> list[str]:
        """Failures are warnings: apps have the new plans already."""
        wanted = {name for _, name in self._configs}
        old = {
            name: found
            for name, seen in self._seen.items()
            if (found := stale_models(self._router.name, seen.loaded, wanted))
        }
        if not old:
            return []
        servers = {name: self._seen[name].server for name in old}
        unloaded = []
        try:
            if is_new_router:
                drain.await_router(self._report)
            for failure in drain.unload(servers, old, self._router.server, self._report):
                self._warn(failure)
            unloaded = [f"{server}/{name}" for server, names in old.items() for name in names]
        except ServerError as error:
            self._warn(str(error))
        return unloaded

    def _warn(self, text: str) -> None:
        self._warnings.append(text)
        self._report(text)

    def _stop_if_cancelled(self) -> None:
        if self._options.cancelled():
            raise Cancelled("a newer need came: this deployment was given up before the switch")


def family_of(config: Any | None) -> str | None:
    """Id of the family of a loaded router; None for nothing and for what is no router."""
    if config is None or "family_id" not in config.parameters:
        return None
    return str(config.parameters["family_id"].string_value)


def _text(config: Any | None) -> bytes:
    return b"" if config is None else bytes(config.SerializeToString(deterministic=True))
