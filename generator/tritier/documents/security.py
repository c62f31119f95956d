"""How servers are protected and spoken to: paths of certificates and keys, never their contents."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from tritier.documents.base import Document

# Keys that look like the right place for the key itself, which no file of this project holds.
_LITERAL_KEYS = ("admin_key", "key", "api_key", "restricted_key", "secret", "token", "password")
_PATHS = ("ca", "server_cert", "server_key", "client_cert", "client_key", "admin_key_file")
# As `openssl rand -hex` makes keys; no name that a file would have.
_LIKE_A_KEY = re.compile(r"[0-9A-Fa-f]{32,}")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")


class Security(Document):
    """Of all servers, or of one: what a server leaves out holds as for all. Paths are relative to
    the servers file."""

    tls: bool | None = Field(
        default=None, description="gRPC is encrypted and servers prove who they are"
    )
    mutual: bool | None = Field(
        default=None, description="clients, also other servers and apps, need a certificate too"
    )
    ca: str | None = Field(default=None, description="certificates of the authorities, PEM file")
    server_cert: str | None = Field(default=None, description="certificate of the server, PEM file")
    server_key: str | None = Field(default=None, description="private key of the server, PEM file")
    client_cert: str | None = Field(
        default=None, description="certificate of this tool and of servers that call, PEM file"
    )
    client_key: str | None = Field(default=None, description="its private key, PEM file")
    server_name: str | None = Field(
        default=None, description="name in the server's certificate, if it is not that of its url"
    )
    admin_key_file: str | None = Field(
        default=None, description="file with the key of the administrative APIs"
    )
    admin_key_variable: str | None = Field(
        default=None, description="environment variable with that key, instead of a file"
    )
    http: bool | None = Field(
        default=None, description="also serve HTTP, which is neither encrypted nor restricted"
    )

    def over(self, other: Security) -> Security:
        """What is said here, and what it leaves out from `other`. A key from one place replaces
        one from the other."""
        mine = self.model_dump(exclude_none=True)
        theirs = other.model_dump(exclude_none=True)
        if self.admin_key_file or self.admin_key_variable:
            theirs = {k: v for k, v in theirs.items() if not k.startswith("admin_key")}
        return Security(**theirs | mine)

    def resolved(self, folder: Path) -> Security:
        """With paths that do not depend on the working directory."""
        paths = {name: getattr(self, name) for name in _PATHS}
        found = {name: str((folder / path).absolute()) for name, path in paths.items() if path}
        return self.model_copy(update=found)

    @property
    def restricted(self) -> bool:
        """Whether administrative APIs need a key."""
        return bool(self.admin_key_file or self.admin_key_variable)


def security_faults(data: Mapping[str, Any]) -> list[str]:
    """Faults of the security of a servers file's raw data; no value is shown, it may be a key."""
    common = _mapping(data.get("security"))
    faults = _literal_faults(common, "security")
    states = set()
    servers = data.get("servers")
    for index, server in enumerate(servers if isinstance(servers, list) else []):
        own = _mapping(_mapping(server).get("security"))
        faults += _literal_faults(own, f"servers[{index}].security")
        merged = {**common, **{k: v for k, v in own.items() if v is not None}}
        name = str(_mapping(server).get("name", index))
        faults += [fault for fault in _combined(merged, name) if fault not in faults]
        states.add(merged.get("tls") is True)
    if len(states) == 2:
        faults.append(
            "security: tls is on for some servers and off for others; they call each other with "
            "TLS or without it, so set it in `security` of the file"
        )
    return faults


def _literal_faults(item: Mapping[str, Any], where: str) -> list[str]:
    faults = [
        f"{where}.{name}: a key does not belong in this file; write it to a file that only you can "
        "read and give its path as admin_key_file, or the name of an environment variable as "
        "admin_key_variable"
        for name in _LITERAL_KEYS
        if name in item
    ]
    faults += [
        f"{where}.{name}: is the content of a file; give the path of the file"
        for name in _PATHS
        if "-----BEGIN" in str(item.get(name)) or "\n" in str(item.get(name))
    ]
    if _LIKE_A_KEY.fullmatch(str(item.get("admin_key_file"))):
        faults.append(f"{where}.admin_key_file: looks like the key; give the path of its file")
    variable = item.get("admin_key_variable")
    if isinstance(variable, str) and not _VARIABLE.fullmatch(variable):
        faults.append(
            f"{where}.admin_key_variable: is no name of an environment variable (A-Z, 0-9 and _); "
            "give the name of the variable that holds the key, not the key"
        )
    if item.get("admin_key_file") and item.get("admin_key_variable"):
        faults.append(f"{where}: has admin_key_file and admin_key_variable; give one of them")
    return faults


def _combined(item: Mapping[str, Any], server: str) -> list[str]:
    where = f"security of server '{server}'"
    faults = []
    for first, second in (("server_cert", "server_key"), ("client_cert", "client_key")):
        if bool(item.get(first)) != bool(item.get(second)):
            faults.append(f"{where}: {first} and {second} belong together; give both")
    if item.get("tls") is True:
        if not item.get("ca"):
            faults.append(f"{where}: tls needs `ca`, the certificates by which servers are known")
        if item.get("mutual") is True and not item.get("client_cert"):
            faults.append(f"{where}: mutual needs client_cert and client_key")
    elif item.get("mutual") is True:
        faults.append(f"{where}: mutual needs `tls: true`")
    return faults


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
