"""The inventory of servers: addresses, and the last known state of each, kept over checks."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tritier.deployment.access import lab_addresses, spec_address
from tritier.documents import (
    Figure,
    LabState,
    LinkState,
    NetworkState,
    PowerFacts,
    Server,
    ServersSpec,
    ServerState,
)
from tritier.errors import InputError
from tritier.network.contact import Contact
from tritier.network.requirements import find_problems

# What stays of an earlier check where nothing newer is known.
_KEPT = ("seen_at", "triton", "host_seen_at", "host", "clock_offset_ms")


@dataclass(frozen=True)
class Merged:
    """A state after a check, and the names that came, went or changed (old, new)."""

    state: NetworkState
    joined: tuple[str, ...]
    left: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]


def server_urls(spec: ServersSpec, lab: LabState | None) -> dict[str, str]:
    """Name -> address of every server: the running lab's, else that of the servers file.

    Raises InputError for servers without an address or with that of another.
    """
    lab_urls = lab_addresses(lab)
    found = {name: lab_urls.get(name) or spec_address(spec, name) for name in spec.names}
    faults = [
        f"server '{name}' has no address: give it a url in the servers file or start the lab with "
        "`tritier lab up`"
        for name, url in found.items()
        if url is None
    ]
    for url, count in Counter(filter(None, found.values())).items():
        if count > 1:
            names = " and ".join(f"'{name}'" for name, other in found.items() if other == url)
            faults.append(f"{names} have the same url {url}: each server is a Triton of its own")
    if faults:
        raise InputError(faults)
    return {name: url for name, url in found.items() if url is not None}


def merge(
    previous: NetworkState,
    spec: ServersSpec,
    contacts: Mapping[str, Contact],
    new_id: Callable[[], str] = lambda: secrets.token_hex(4),
) -> Merged:
    """The state after a check of every server of `spec`.

    What could not be found out this time stays as it was. Servers that are no longer in the
    servers file leave, with their links; one that answers under a new name at the address and on
    the host of a server that left is that server, renamed.
    """
    old = {server.name: server for server in previous.servers}
    gone = {name: server for name, server in old.items() if name not in spec.names}
    renamed: dict[str, str] = {}
    taken = {server.id for server in previous.servers}
    servers = []
    for server in spec.servers:
        found = contacts[server.name]
        before = old.get(server.name)
        if before is None and (before := _same_server(gone.values(), found)) is not None:
            del gone[before.name]
            renamed[before.name] = server.name
        identity = before.id if before else _unused_id(taken, new_id)
        servers.append(_server_state(server, identity, before, found))
    links = _links(previous.links, renamed, spec.names)
    return Merged(
        NetworkState(servers=tuple(servers), links=links),
        joined=tuple(
            name for name in spec.names if name not in old and name not in renamed.values()
        ),
        left=tuple(gone),
        renamed=tuple(renamed.items()),
    )


def _same_server(gone: Iterable[ServerState], found: Contact) -> ServerState | None:
    """The server that left and is meant by a new name."""
    host = found.agent.host.host if found.agent else None
    for server in gone:
        if server.url == found.url and server.host is not None and server.host.host == host:
            return server
    return None


def _unused_id(taken: set[str], new_id: Callable[[], str]) -> str:
    identity = new_id()
    while identity in taken:
        identity = new_id()
    taken.add(identity)
    return identity


def _server_state(
    server: Server, identity: str, before: ServerState | None, found: Contact
) -> ServerState:
    findings = find_problems(server, found)
    power = found.agent.power if found.agent else _measured(before)
    state = ServerState(
        name=server.name,
        id=identity,
        url=found.url,
        state=found.state,
        checked_at=found.at,
        power=power or configured_power(server),
        problems=findings.problems,
        warnings=findings.warnings,
    )
    update: dict[str, Any] = {key: getattr(before, key) for key in _KEPT} if before else {}
    if found.triton is not None:
        update |= {"seen_at": found.at, "triton": found.triton}
    if found.agent is not None:
        update |= {"host_seen_at": found.at, "host": found.agent.host}
        update |= {"clock_offset_ms": found.agent.clock_offset_ms}
    return state.model_copy(update=update)


def _measured(before: ServerState | None) -> tuple[PowerFacts, ...]:
    """Without what came from an earlier servers.yaml, which may say something else by now."""
    power = before.power if before else ()
    return tuple(item for item in power if item.watt.source != "configured")


def configured_power(server: Server) -> tuple[PowerFacts, ...]:
    """The powers that servers.yaml gives: while computing, keeping a tensor and sending one."""
    given = {
        "compute": server.compute_power_watt,
        "tx_self": server.tx_self_power_watt,
        "tx_other": server.tx_other_power_watt,
    }
    return tuple(
        PowerFacts(what=what, watt=Figure(value=watt, source="configured"))
        for what, watt in given.items()
        if watt is not None
    )


def _links(
    links: tuple[LinkState, ...], renamed: Mapping[str, str], names: tuple[str, ...]
) -> tuple[LinkState, ...]:
    ends = [(renamed.get(x.source, x.source), renamed.get(x.target, x.target)) for x in links]
    return tuple(
        link.model_copy(update={"source": source, "target": target})
        for link, (source, target) in zip(links, ends, strict=True)
        if source in names and target in names
    )
