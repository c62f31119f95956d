"""Which links are emulated, as the relay's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritier.documents import ServersSpec

Pair = tuple[str, str]


def relay_pairs(spec: ServersSpec) -> list[Pair]:
    """Ordered pairs (caller, called) that need a relay: those with a link in either direction,
    since an answer crosses the link of the opposite pair."""
    stated = {(link.source, link.target) for link in spec.links}
    return [
        (k, h)
        for k in spec.names
        for h in spec.names
        if k != h and ((k, h) in stated or (h, k) in stated)
    ]


def relay_document(
    spec: ServersSpec, grpc_ports: Mapping[str, int], relay_ports: Mapping[Pair, int]
) -> dict[str, Any]:
    """Configuration of `tritier.deployment.relay`. A link that is not in the file is not shaped."""
    stated = {(link.source, link.target): link for link in spec.links}
    links = []
    for pair in relay_ports:
        link = stated.get(pair)
        links.append(
            {
                "name": _name(pair),
                "bandwidth_mib_s": link.bandwidth_mib_s if link else None,
                "latency_ms": link.latency_ms if link else 0.0,
            }
        )
    relays = [
        {
            "listen_port": port,
            "target_port": grpc_ports[called],
            "forward_link": _name((caller, called)),
            "reverse_link": _name((called, caller)),
        }
        for (caller, called), port in relay_ports.items()
    ]
    return {"links": links, "relays": relays}


def _name(pair: Pair) -> str:
    return f"{pair[0]}->{pair[1]}"
