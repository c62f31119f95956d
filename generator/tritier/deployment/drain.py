"""What is to go after a switch: which models are old, when nobody needs them any more."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tritier.deployment.addresses import Report
from tritier.deployment.client import TritonServer
from tritier.deployment.metrics import metric_value
from tritier.errors import ServerError

# The router's gauge of requests that it has begun and not answered, with a label `family`.
IN_FLIGHT = "tritier_router_in_flight"
# Of requests that go through a single plan, where nothing says how long they may take.
_DEADLINE_MS = 10_000
# Triton needs a moment after a deadline to hand the answer on.
_GRACE_S = 1.0
# The gauge is told a few times a second: it must have been 0 for longer than that.
_QUIET_S, _POLL_S = 1.0, 0.2
# A Python model's process ends within some seconds of its last request.
_GONE_S = 10.0


def stale_models(model: str, loaded: Collection[str], wanted: Collection[str]) -> list[str]:
    """Models of plans of `model` that are loaded and not wanted, in the order in which to unload
    them: entry ensembles, what apps no more reach, then stages before what they use."""
    pattern = re.compile(re.escape(model) + r"__([0-9a-f]{8}(__.+)?|whole)")
    found = [name for name in loaded if name not in wanted and pattern.fullmatch(name)]
    return sorted(found, key=lambda name: (_rank(model, name), name))


def _rank(model: str, name: str) -> int:
    if "__" not in name.removeprefix(f"{model}__"):
        return 0
    return 1 if name.endswith("__stage") else 2


class Drain:
    """Waits for the requests of what served before a switch. To be made before the switch.

    Triton's index and readiness say nothing of the old instance of a model that was loaded again.
    So the router's own gauge is asked, and where there is none, its longest deadline is waited for.
    """

    def __init__(self, router: str, before: Any | None, metrics_url: str | None) -> None:
        self._router = router
        self._has_old = before is not None
        parameters = before.parameters if before is not None else {}
        self._family = _text(parameters, "family_id")
        self.deadline_s = int(_text(parameters, "deadline_ms") or _DEADLINE_MS) / 1e3
        self._metrics_url = metrics_url
        self._has_gauge = self._in_flight() is not None

    def await_router(self, report: Report) -> None:
        """Wait until the old router has answered all that it had begun."""
        if not self._has_old:
            return
        started = time.monotonic()
        report(
            f"waiting for requests that {self._router} began before the switch, at most "
            f"{self.deadline_s + _GRACE_S:.0f} s"
        )
        quiet_since = started
        while (now := time.monotonic()) - started < self.deadline_s + _GRACE_S:
            if not self._has_gauge or self._in_flight():
                quiet_since = now
            elif now - quiet_since >= _QUIET_S:
                return
            time.sleep(_POLL_S)

    def unload(
        self,
        servers: Mapping[str, TritonServer],
        old: Mapping[str, Sequence[str]],
        entry: str,
        report: Report,
    ) -> list[str]:
        """Unload models by server, the entry's ensembles first; returns what went wrong.

        A request that is under way in an ensemble is answered although the ensemble and the models
        of its server are unloaded; but it may still call other servers, so those come when the
        entry has none.
        """
        failures: list[str] = []
        for name in sorted(old, key=lambda server: server != entry):
            server, found = servers[name], []
            for model in old[name]:
                report(f"{name}: unloading {model}")
                try:
                    server.unload(model)
                    found.append(model)
                except ServerError as error:
                    failures.append(str(error))
            if found and not self._await_gone(server, found):
                failures.append(
                    f"{name}: {len(found)} old models are still unloading; Triton ends them when "
                    "their last request ends"
                )
        return failures

    def _await_gone(self, server: TritonServer, names: Sequence[str]) -> bool:
        """Until nothing of it is unloading any more: the index lists that of models that the server
        sees in its folder; for pushed ones the server calls itself not ready until then."""
        deadline = time.monotonic() + self.deadline_s + _GONE_S
        while time.monotonic() < deadline:
            try:
                states = server.index()
                listed = [states.get(name) for name in names]
                if all(listed) and "UNLOADING" not in listed:
                    return True
                if server.is_ready():
                    return True
            except ServerError:
                return True  # it is gone as a whole
            time.sleep(_POLL_S)
        return False

    def _in_flight(self) -> float | None:
        if self._metrics_url is None or not self._family:
            return None
        return metric_value(self._metrics_url, IN_FLIGHT, {"family": self._family})


def _text(parameters: Any, name: str) -> str:
    return str(parameters[name].string_value) if name in parameters else ""
