"""Services of a compose file: one per server of the plan, and those of the tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tritier
from tritier.documents import NetworkState
from tritier.export.tiers import (
    ADMIN_KEY,
    PEERS_FILE,
    REPOSITORY_DIR,
    TLS_FILE,
    Tier,
    Tiers,
)

# Folder of the files with secrets, beside the compose file.
SECRETS = "secrets"
# Keys of files that the tool needs to call servers.
TOOL_KEYS = ("ca", "client_cert", "client_key", ADMIN_KEY)
# What Triton needs besides its exit timeout of 30 s.
_STOP_GRACE = "40s"
_MIB = 1 << 20


@dataclass(frozen=True)
class ComposeOptions:
    """What is chosen beside the servers file: shared memory of each container, in MiB, and measured
    links that are emulated between the containers."""

    shm_mib: int = 1024
    network: NetworkState | None = None


@dataclass(frozen=True)
class SecretFile:
    """A file that the user puts into the folder `secrets`: of one server, or the same for all.

    `name` is that of the file, `key` the one of `security` in the servers file, `origin` the path
    or the environment variable that the servers file names; it is shown and never written.
    """

    name: str
    key: str
    servers: tuple[str, ...]
    origin: str


def secret_files(tiers: Tiers) -> tuple[SecretFile, ...]:
    """The files with secrets of all servers, those that all have in common once."""
    found: dict[tuple[str, str], list[str]] = {}
    for tier in tiers.tiers:
        for secret in tier.secrets:
            origin = str(secret.path) if secret.path else f"${secret.variable}"
            found.setdefault((secret.key, origin), []).append(tier.server)
    names = {tier.server: tier.name for tier in tiers.tiers}
    return tuple(
        SecretFile(
            key if len(users) == len(names) > 1 else f"{names[users[0]]}_{key}",
            key,
            tuple(users),
            origin,
        )
        for (key, origin), users in found.items()
    )


def tier_service(
    tiers: Tiers, tier: Tier, secrets: tuple[SecretFile, ...], options: ComposeOptions
) -> dict[str, Any]:
    """The service of one server. Only the entry is reached from outside, at loopback."""
    service: dict[str, Any] = {
        "image": tier.image,
        "command": tier.command,
        **_confined(),
        "environment": {
            **tier.environment,
            "TRITIER_LOG": "${TRITIER_LOG:-failures}",
            "TRITIER_OTLP": "${TRITIER_OTLP:-}",
        },
        "volumes": [
            _mounted(f"./repositories/{tier.server}", REPOSITORY_DIR),
            _mounted("./config/peers.json", PEERS_FILE),
        ],
        "networks": ["plane"],
        # Tensors go between Triton and its Python models through /dev/shm.
        "shm_size": f"{options.shm_mib}m",
        "ulimits": {"memlock": -1, "stack": 64 * _MIB},
        "healthcheck": {
            "test": ["CMD", *tier.probe()],
            "interval": "10s",
            "timeout": "6s",
            "start_period": "120s",
            "retries": 6,
        },
        "restart": "unless-stopped",
        "stop_grace_period": _STOP_GRACE,
    }
    if tier.security.tls:
        service["volumes"].append(_mounted(f"./config/{tier.name}_tls.json", TLS_FILE))
    if resources := _resources(tier):
        service["deploy"] = {"resources": resources}
    mine = [item for item in secrets if tier.server in item.servers]
    if mine:
        service["secrets"] = [{"source": item.name, "target": item.key} for item in mine]
    if tier.is_entry:
        service |= _of_the_entry(tiers, tier)
    return service


def tool_service(name: str, secrets: tuple[SecretFile, ...]) -> dict[str, Any]:
    """A container for one command of the tool, `tool` or `loadtests`; it is not started with the
    others. The plan lies in /plan, where `tritier verify` writes what it found, the servers file in
    /data, which is writable and gone afterwards."""
    image = {"tool": "tritier", "loadtests": "loadtests"}[name]
    service: dict[str, Any] = {
        "image": f"${{TRITIER_{name.upper()}_IMAGE:-tritier/{image}:{tritier.__version__}}}",
        **_confined(),
        "tmpfs": ["/tmp", "/data:mode=1777"],  # noqa: S108 - of the container
        "working_dir": "/data",
        "volumes": [
            _mounted("./repositories", "/plan", read_only=name != "tool"),
            _mounted("./config/servers.yaml", "/data/servers.yaml"),
        ],
        "networks": ["plane"],
        "profiles": [name],
    }
    if mine := [item.name for item in secrets if item.key in TOOL_KEYS]:
        service["secrets"] = [{"source": name, "target": name} for name in mine]
    return service


def _confined() -> dict[str, Any]:
    """No root, no capabilities, nothing written but in memory."""
    return {
        "user": "${TRITIER_UID:-1000}:${TRITIER_GID:-1000}",
        "init": True,
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108 - of the container
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }


def _resources(tier: Tier) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if tier.memory_bytes is not None:
        found["limits"] = {"memory": f"{tier.memory_bytes}b"}
    if tier.needs_gpu:
        gpu = {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
        found["reservations"] = {"devices": [gpu]}
    return found


def _of_the_entry(tiers: Tiers, tier: Tier) -> dict[str, Any]:
    """It is published, and waits for the others: until they are ready, or, where a router may do
    without one of them, until they are started."""
    ports = [f"${{TRITIER_BIND:-127.0.0.1}}:${{TRITIER_PORT:-{tier.ports.grpc}}}:{tier.ports.grpc}"]
    if tier.ports.http is not None:
        http = tier.ports.http
        ports.append(f"${{TRITIER_BIND:-127.0.0.1}}:${{TRITIER_HTTP_PORT:-{http}}}:{http}")
    condition = "service_started" if tiers.repositories.family else "service_healthy"
    others = {x.name: {"condition": condition} for x in tiers.tiers if x.server in tier.calls}
    return {"ports": ports, **({"depends_on": others} if others else {})}


def _mounted(source: str, target: str, read_only: bool = True) -> dict[str, Any]:
    """A bind mount that fails if the source is not there, instead of making a folder."""
    place = {"type": "bind", "source": source, "target": target, "read_only": read_only}
    return {**place, "bind": {"create_host_path": False}}
