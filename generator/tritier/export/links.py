"""Measured links between containers: a service beside each server that shapes what it sends."""

from __future__ import annotations

import json
from typing import Any

import tritier
from tritier.documents import NetworkState
from tritier.errors import InputError
from tritier.export.tiers import CONFIG_DIR, Tier, Tiers

_FILE = f"{CONFIG_DIR}/links.json"
PROFILE = "links"


def link_shapes(tiers: Tiers, network: NetworkState) -> dict[str, list[dict[str, Any]]]:
    """Server -> what it sends to each other server: `peer` (host name), `bandwidth_mib_s` (MiB/s),
    and `delay_ms`, half of the measured round trip, as the answer's way has the other half.

    Only servers with measured links are in it. Raises InputError if there are none between these
    servers, or if a service has the name that one of these would get.
    """
    names = {tier.server: tier.name for tier in tiers.tiers}
    found: dict[str, list[dict[str, Any]]] = {}
    for link in network.links:
        if link.source in names and link.target in names:
            row = {
                "peer": names[link.target],
                "bandwidth_mib_s": link.bandwidth_mib_s.value,
                "delay_ms": link.round_trip_ms.value / 2,
            }
            found.setdefault(link.source, []).append(row)
    if not found:
        raise InputError(
            f"the network file has no link between {', '.join(names)}: measure them with `tritier "
            "monitor`, or leave --network out"
        )
    faults = [
        f"server '{tier.server}' would be the service '{tier.name}', which shapes the links of "
        "another: give the server another name"
        for tier in tiers.tiers
        if tier.name in {service_name(tiers.tier(server)) for server in found}
    ]
    if faults:
        raise InputError(faults)
    return found


def link_files(tiers: Tiers, shapes: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Relative path -> content of what each service of links reads."""
    return {
        _path(tiers.tier(server)): json.dumps(rows, indent=2) + "\n"
        for server, rows in shapes.items()
    }


def service_name(tier: Tier) -> str:
    """The service that shapes the links of a server."""
    return f"{tier.name}-links"


def link_service(tier: Tier) -> dict[str, Any]:
    """It shares the network of the server's container, is root there and may do nothing but shape;
    it is started with the profile `links`."""
    return {
        "image": f"${{TRITIER_LINKS_IMAGE:-tritier/links:{tritier.__version__}}}",
        "command": [_FILE],
        "network_mode": f"service:{tier.name}",
        "user": "0:0",
        "init": True,
        "read_only": True,
        "cap_drop": ["ALL"],
        "cap_add": ["NET_ADMIN"],
        "security_opt": ["no-new-privileges:true"],
        "volumes": [
            {
                "type": "bind",
                "source": f"./{_path(tier)}",
                "target": _FILE,
                "read_only": True,
                "bind": {"create_host_path": False},
            }
        ],
        # The network goes with the server's container.
        "depends_on": {tier.name: {"condition": "service_started", "restart": True}},
        "profiles": [PROFILE],
        "restart": "unless-stopped",
    }


def _path(tier: Tier) -> str:
    return f"config/{tier.name}_links.json"
