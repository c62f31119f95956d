"""The lab: one real Triton per server on loopback, with emulated links between them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tritier.deployment import embedded, process
from tritier.deployment.access import lab_addresses
from tritier.deployment.client import TritonServer
from tritier.deployment.lab_restart import restarted
from tritier.deployment.links import relay_document, relay_pairs
from tritier.deployment.security import LabProtection, peer_credentials, protect_lab
from tritier.documents import LabProcess, LabServer, LabState, Security, Server, ServersSpec
from tritier.errors import ServerError
from tritier.files import write_file

Report = Callable[[str], None]
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0
_LOG_LINES = 8
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - POSIX shared memory, not a temporary file


@dataclass(frozen=True)
class _Planned:
    """A server that is about to be started: its ports (gRPC, HTTP, metrics), the addresses at which
    it reaches the others, and with what credentials."""

    server: Server
    ports: tuple[int, int, int]
    peers: dict[str, str]
    security: Security
    credentials: str | None


class Lab:
    """A lab in a folder: its state file, logs and backends. One lab at a time per folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._state_file = self._folder / "state.json"

    def state(self) -> LabState | None:
        """What is known of the lab that was started here; None if there is none."""
        return LabState.load(self._state_file) if self._state_file.is_file() else None

    def up(
        self,
        spec: ServersSpec,
        repositories: Path | None,
        report: Report = lambda _: None,
        protection: LabProtection | None = None,
    ) -> LabState:
        """Start all servers and relays; returns when every server is live.

        `repositories` is a folder that `generate` wrote: each server gets its own part.
        `protection` is what the lab adds to the security of the servers file, nothing by default.
        If a server fails to start, all that was started is stopped again and ServerError says why.
        """
        embedded.require_embedded()
        running = self.state()
        if running and self._running(running):
            raise ServerError(
                f"a lab is already up in {self._folder}: stop it with `tritier lab down`"
            )
        if running:
            self.down()
        with contextlib.ExitStack() as undo:
            undo.callback(self.down)
            state = self._start(spec, repositories, report, protection or LabProtection())
            self._wait(state, report)
            undo.pop_all()
        return state

    def down(self, report: Report = lambda _: None) -> bool:
        """Stop all processes of the lab by their own ids and remove what they left in /dev/shm.

        Returns False if there was no lab.
        """
        state = self.state()
        if state is None:
            return False
        for server in state.servers:
            report(f"stopping {server.name}")
            process.stop(server.process.pid, server.process.started_ticks, _STOP_TIMEOUT_S)
            _remove_shared_memory(server.shm_prefix)
        if state.relay is not None:
            process.stop(state.relay.pid, state.relay.started_ticks, _STOP_TIMEOUT_S)
        self._state_file.unlink()
        return True

    def restart(self, name: str, report: Report = lambda _: None) -> LabState:
        """Start a server again on its ports, also one that has died; returns when it is live, with
        nothing loaded. The others go on. Raises ServerError if no lab was started here or the
        server does not start, InputError for an unknown name.
        """
        state = self.state()
        if state is None:
            raise ServerError("no lab is up here: start one with `tritier lab up`")
        backends = self._folder / "backends"
        fresh = restarted(state, name, backends, _remove_shared_memory, report)
        servers = tuple(fresh if server.name == name else server for server in state.servers)
        state = state.model_copy(update={"servers": servers})
        self._save(state)
        self._wait(state.model_copy(update={"servers": (fresh,)}), report)
        return state

    def is_running(self, item: LabProcess) -> bool:
        """Whether that process of the lab still runs."""
        return process.is_running(item.pid, item.started_ticks)

    def _running(self, state: LabState) -> bool:
        return any(self.is_running(server.process) for server in state.servers)

    def _start(
        self,
        spec: ServersSpec,
        repositories: Path | None,
        report: Report,
        protection: LabProtection,
    ) -> LabState:
        ports = _ports(spec)
        security = protect_lab(spec, protection, self._folder)
        pairs = relay_pairs(spec)
        relay_ports = dict(zip(pairs, embedded.free_ports(len(pairs)), strict=True))
        backends = embedded.prepare_backends(self._folder / "backends")
        grpc_ports = {name: triple[0] for name, triple in ports.items()}
        state = LabState(servers=())
        if pairs:
            config = self._folder / "relay.json"
            write_file(config, json.dumps(relay_document(spec, grpc_ports, relay_ports), indent=2))
            log = self._folder / "logs" / "relay.log"
            report(f"starting the relay of {len(pairs)} links")
            relay = _start_relay(config, log)
            state = state.model_copy(update={"relay": relay, "relay_log_file": str(log)})
            self._save(state)
        for server in spec.servers:
            peers = {
                other: f"127.0.0.1:{relay_ports.get((server.name, other), port)}"
                for other, port in grpc_ports.items()
                # its own too: what a router sends to its own server
            }
            report(f"starting server '{server.name}'")
            credentials = peer_credentials(security, server.name)
            own = security[server.name]
            started = _Planned(server, ports[server.name], peers, own, credentials)
            item = self._start_server(started, repositories, backends)
            state = state.model_copy(update={"servers": (*state.servers, item)})
            self._save(state)
        return state

    def _save(self, state: LabState) -> None:
        """After each start: whatever happens next, `down` knows what to stop."""
        write_file(self._state_file, state.to_json())

    def _start_server(
        self, planned: _Planned, repositories: Path | None, backends: Path
    ) -> LabServer:
        name, ports = planned.server.name, planned.ports
        repository = (repositories / name).resolve() if repositories else None
        if repository is None or not repository.is_dir():
            # A server that the plan does not use, or that gets its models pushed.
            repository = self._folder / "empty" / name
            repository.mkdir(parents=True, exist_ok=True)
        log_file = self._folder / "logs" / f"{name}.log"
        log_file.parent.mkdir(parents=True, exist_ok=True)
        log_file.write_bytes(b"")
        item = embedded.EmbeddedServer(
            name=name,
            repository=repository,
            grpc_port=ports[0],
            http_port=ports[1],
            metrics_port=ports[2],
            log_file=log_file,
            backends=backends,
            shm_prefix=f"tritier_{secrets.token_hex(4)}_",
            environment=self._environment(planned),
            security=planned.security,
        )
        pid = embedded.start(item)
        return LabServer(
            name=name,
            process=_identity(pid),
            grpc_url=f"127.0.0.1:{ports[0]}",
            http_url=f"127.0.0.1:{ports[1]}" if planned.security.http else None,
            metrics_url=f"127.0.0.1:{ports[2]}",
            repository=str(repository),
            log_file=str(log_file),
            shm_prefix=item.shm_prefix,
            security=planned.security,
            environment=item.environment,
        )

    def _environment(self, planned: _Planned) -> dict[str, str]:
        """Where the server finds the others, and how it calls them; paths, no secrets."""
        name = planned.server.name
        peers_file = self._folder / "peers" / f"{name}.json"
        write_file(peers_file, json.dumps(planned.peers, indent=2))
        found = {
            "TRITIER_PEERS": str(peers_file),
            "TRITIER_SLOWDOWN": str(planned.server.slowdown),
        }
        if collector := os.environ.get("TRITIER_OTLP"):  # which `tritier compare` looks for
            found["TRITIER_OTLP"] = collector
        if planned.credentials is not None:
            file = self._folder / "certificates" / f"peers_of_{name}.json"
            write_file(file, planned.credentials, mode=0o600)
            found["TRITIER_TLS"] = str(file)
        return found

    def _wait(self, state: LabState, report: Report) -> None:
        addresses = lab_addresses(state)
        for server in state.servers:
            report(f"waiting for server '{server.name}'")
            with TritonServer(server.name, addresses[server.name]) as client:
                try:
                    alive = functools.partial(self.is_running, server.process)
                    client.wait_until_live(_START_TIMEOUT_S, alive)
                except ServerError as error:
                    tail = _tail(Path(server.log_file))
                    raise ServerError(f"{error}\nthe end of {server.log_file}:\n{tail}") from None


def _ports(spec: ServersSpec) -> dict[str, tuple[int, int, int]]:
    """(gRPC, HTTP, metrics) port of each server; a url on loopback fixes the first."""
    fixed = {server.name: _fixed_port(server) for server in spec.servers}
    free = iter(embedded.free_ports(3 * len(fixed)))
    return {name: (port or next(free), next(free), next(free)) for name, port in fixed.items()}


def _fixed_port(server: Server) -> int | None:
    if server.url is None:
        return None
    host, _, port = server.url.rpartition(":")
    if host not in ("127.0.0.1", "localhost"):
        raise ServerError(
            f"server '{server.name}' has the url {server.url}; the lab starts servers on 127.0.0.1 "
            "only: leave the url out for the lab, or use `tritier deploy` with running servers"
        )
    return int(port)


def _start_relay(config: Path, log_file: Path) -> LabProcess:
    """Start the relay and wait for its word that it listens."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    with log_file.open("wb") as log, os.fdopen(reading, "rb") as answer:
        command = [sys.executable, "-m", "tritier.deployment.relay", str(config)]
        identity = _identity(process.spawn(command, os.environ, writing, log.fileno()))
        os.close(writing)
        first = answer.readline().strip()
    if first != b"ready":
        process.stop(identity.pid, identity.started_ticks, 1.0)
        raise ServerError(f"the relay did not start: {_tail(log_file)}")
    return identity


def _identity(pid: int) -> LabProcess:
    # One that has ended already has no ticks; `wait_until_live` finds that out.
    return LabProcess(pid=pid, started_ticks=process.start_ticks(pid) or 0)


def _remove_shared_memory(prefix: str) -> None:
    """A killed server leaves its regions behind; the prefix was made for this server alone."""
    for path in Path(_SHARED_MEMORY).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            path.unlink()


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:]) or "  (empty)"
