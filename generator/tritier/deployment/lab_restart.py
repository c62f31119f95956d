"""Start one server of a lab again: on its ports, with its peers, its folder and its protection."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from tritier.deployment import embedded, process
from tritier.documents import LabProcess, LabServer, LabState
from tritier.errors import InputError, did_you_mean

_STOP_TIMEOUT_S = 15.0


def restarted(
    state: LabState,
    name: str,
    backends: Path,
    clean_up: Callable[[str], None],
    report: Callable[[str], None],
) -> LabServer:
    """Stop a server, if it still runs, and start it again; it is not live yet, and empty.

    `clean_up` removes what the server of that prefix left in shared memory. The former log stays
    beside the new one. Raises InputError for an unknown name.
    """
    known = [server.name for server in state.servers]
    if name not in known:
        raise InputError(
            f"server '{name}' is not in the lab{did_you_mean(name, known)}; known are "
            f"{', '.join(known)}"
        )
    old = next(server for server in state.servers if server.name == name)
    report(f"stopping server '{name}'")
    process.stop(old.process.pid, old.process.started_ticks, _STOP_TIMEOUT_S)
    clean_up(old.shm_prefix)
    log_file = Path(old.log_file)
    with contextlib.suppress(FileNotFoundError):
        os.replace(log_file, log_file.with_suffix(".log.before"))
    server = embedded.EmbeddedServer(
        name=name,
        repository=Path(old.repository),
        grpc_port=_port(old.grpc_url),
        http_port=_port(old.http_url) if old.http_url else embedded.free_ports(1)[0],
        metrics_port=_port(old.metrics_url),
        log_file=log_file,
        backends=backends,
        shm_prefix=f"tritier_{secrets.token_hex(4)}_",
        environment=old.environment,
        security=old.security,
    )
    report(f"starting server '{name}'")
    pid = embedded.start(server)
    identity = LabProcess(pid=pid, started_ticks=process.start_ticks(pid) or 0)
    return old.model_copy(update={"process": identity, "shm_prefix": server.shm_prefix})


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
