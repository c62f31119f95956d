"""How servers are reached: every client of this tool is made here.

An `Address` is a text, host:port, that carries what a client needs to call there: certificates and
the key of the administrative APIs. So whoever passes addresses on, as all commands do, reaches
protected servers without knowing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tritier.deployment.certificates import LAB_MARK
from tritier.deployment.hidden_key import read_key
from tritier.documents import LabState, Security, ServersSpec
from tritier.errors import InputError

# The name in Triton's option; clients send it with Triton's prefix.
ADMIN_KEY_NAME = "tritier-admin"
ADMIN_HEADER = f"triton-grpc-protocol-{ADMIN_KEY_NAME}"
_OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


@dataclass(frozen=True)
class Access:
    """What a client needs to call a server. Holds paths; what they contain is read when a client
    is made."""

    server: str = ""
    ca: Path | None = None  # TLS, if it is given
    client_cert: Path | None = None
    client_key: Path | None = None
    server_name: str | None = None
    admin_key_file: Path | None = None
    admin_key_variable: str | None = None

    @property
    def restricted(self) -> bool:
        """Whether there is a key for administrative APIs."""
        return bool(self.admin_key_file or self.admin_key_variable)

    def admin_key(self) -> str:
        """The key; raises InputError if it can't be read."""
        try:
            return read_key(self.admin_key_file, self.admin_key_variable)
        except ValueError as error:
            raise InputError(f"server '{self.server}': {error}") from None


class Address(str):
    """host:port of a server, and how it is spoken to."""

    access: Access

    def __new__(cls, url: str, access: Access) -> Address:
        """The text, with `access`."""
        made = super().__new__(cls, url)
        made.access = access
        return made

    def __getnewargs__(self) -> tuple[str, Access]:  # type: ignore[override]
        """For copies, which would otherwise have no access."""
        return str(self), self.access


def address(server: str, url: str, security: Security) -> Address:
    """Address of a server that is protected like that.

    Raises InputError for a server elsewhere that is to be trusted by certificates of a lab, and for
    TLS without an authority, which would be none.
    """
    if security.tls and not security.ca:
        raise InputError(
            f"server '{server}' at {url}: tls needs `ca`, the certificates by which it is known"
        )

    def path(text: str | None) -> Path | None:
        return Path(text) if text else None

    access = Access(
        server=server,
        ca=path(security.ca) if security.tls else None,
        client_cert=path(security.client_cert),
        client_key=path(security.client_key),
        server_name=security.server_name,
        admin_key_file=path(security.admin_key_file),
        admin_key_variable=security.admin_key_variable,
    )
    if access.ca is not None and not is_loopback(url) and _is_of_a_lab(access.ca):
        raise InputError(
            f"server '{server}' at {url}: {access.ca} is a certificate authority that `tritier lab "
            "up` made for this machine alone; give one of your own as `ca`"
        )
    return Address(url, access)


def lab_addresses(lab: LabState | None) -> dict[str, Address]:
    """Server -> address, past the relays, of a running lab; empty without one."""
    servers = lab.servers if lab else ()
    return {item.name: address(item.name, item.grpc_url, item.security) for item in servers}


def spec_address(spec: ServersSpec, server: str) -> Address | None:
    """Address that the servers file has for a server; None if it has none."""
    url = spec.server(server).url
    return None if url is None else address(server, url, spec.security_of(server))


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine itself."""
    return url.rpartition(":")[0] in _LOOPBACK


def access_of(url: str) -> Access:
    """What an address carries; nothing for a plain text."""
    return url.access if isinstance(url, Address) else Access()


def connect(url: str, admin: bool = False, own: bool = False) -> triton.InferenceServerClient:
    """A client of the server at an address. With `admin` it sends the key of the administrative
    APIs with every call, so that it must not be used for anybody else's requests. With `own` it has
    a connection of its own; else gRPC lets clients of a process share one.

    Raises InputError if a certificate or the key can't be read.
    """
    access = access_of(url)
    key = _AdminKey(access.admin_key()) if admin and access.restricted else None
    more: list[tuple[str, Any]] = [_OWN_CONNECTION] if own else []
    if access.ca is not None and access.server_name:
        more.append(("grpc.ssl_target_name_override", access.server_name))
    # Any option replaces the client's own options: they are given again.
    options = [*_message_sizes(), *more] if more else None
    if access.ca is None:
        client = triton.InferenceServerClient(url, channel_args=options)
    else:
        client = triton.InferenceServerClient(url, creds=_credentials(access), channel_args=options)
    if key is not None:
        client.register_plugin(key)
    return client


def open_channel(url: str) -> grpc.Channel:
    """A bare channel on a connection of its own, for requests whose bytes are made beforehand. It
    sends no key.

    Raises InputError if a certificate can't be read.
    """
    access = access_of(url)
    options: list[tuple[str, Any]] = [*_message_sizes(), _OWN_CONNECTION]
    if access.ca is None:
        return grpc.insecure_channel(url, options)
    if access.server_name:
        options.append(("grpc.ssl_target_name_override", access.server_name))
    return grpc.secure_channel(url, _credentials(access), options)


def explained(error: InferenceServerException, url: str) -> str:
    """Status and message of a failed call, and what to do about one of protection."""
    status = f"{error.status()} " if error.status() else ""
    text = f"{status}{error.message()}".strip()
    hint = _hint(text, access_of(url))
    return f"{text}; {hint}" if hint else text


def is_of_protection(error: InferenceServerException, url: str) -> bool:
    """Whether a call failed for a reason that lasts: certificates, TLS here and not there, key."""
    return bool(_hint(str(error.message()), access_of(url)))


class _AdminKey:
    """A plugin of tritonclient that adds the key to calls."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: Any) -> None:
        request.headers = {**(request.headers or {}), ADMIN_HEADER: self._key}


def _hint(text: str, access: Access) -> str:
    if "protocol is restricted" in text:
        if access.restricted:
            return "the key of admin_key_file or admin_key_variable is not that of this server"
        return "give its key: admin_key_file or admin_key_variable of `security` in servers.yaml"
    closed = any(part in text for part in ("Socket closed", "Connection reset"))
    ended = "; if it has ended, its log says why"
    if access.ca is None:
        what = "if this server uses TLS, set tls and ca in `security` of servers.yaml"
        return what + ended if closed else ""
    if closed or "CERTIFICATE_REQUIRED" in text:
        shown = access.client_cert or "none: set client_cert and client_key in servers.yaml"
        return (
            f"the server may not accept the client's certificate ({shown}), which needs an "
            f"authority that it knows, the right purpose and a date that holds{ended}"
        )
    return next((hint(access) for part, hint in _TLS_HINTS.items() if part in text), "")


# What gRPC's messages contain -> what to do. The first that is found counts.
_TLS_HINTS: Mapping[str, Callable[[Access], str]] = {
    "has expired": lambda _: (
        "the server's certificate, or its authority's, has expired: renew it and restart the "
        "server (`tritier lab down` and `up` in a lab)"
    ),
    "not yet valid": lambda _: (
        "the server's certificate is not valid yet: compare the clocks of both machines"
    ),
    "certificate purpose": lambda _: "the server's certificate is not one for servers (serverAuth)",
    "CERTIFICATE_VERIFY_FAILED": lambda access: (
        f"the server's certificate is not signed by {access.ca} (`ca` of servers.yaml)"
    ),
    "Hostname Verification": lambda _: (
        "the server's certificate has another name: set server_name in servers.yaml"
    ),
    "WRONG_VERSION_NUMBER": lambda _: (
        "this server does not use TLS: set `tls: false` or start it with TLS"
    ),
    "create security handshaker": lambda access: (
        f"a file is damaged or client_key is not that of client_cert: ca {access.ca}, client_cert "
        f"{access.client_cert}, client_key {access.client_key}"
    ),
    "andshake failed": lambda _: (
        "the TLS handshake failed: check ca, client_cert and client_key of servers.yaml"
    ),
}


def _credentials(access: Access) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(access, "ca", access.ca),
        private_key=_pem(access, "client_key", access.client_key),
        certificate_chain=_pem(access, "client_cert", access.client_cert),
    )


def _pem(access: Access, key: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    where = f"server '{access.server}': {key} {path}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{where}: can't be read: {error.strerror}") from None
    if b"-----BEGIN" not in data:
        raise InputError(f"{where}: is no PEM file (-----BEGIN ...)")
    return data


def _is_of_a_lab(ca: Path) -> bool:
    try:
        return LAB_MARK.encode() in ca.read_bytes()
    except OSError:
        return False  # which is told when a client is made


def _message_sizes() -> list[tuple[str, int]]:
    limit = 2**31 - 1
    return [
        ("grpc.max_send_message_length", limit),
        ("grpc.max_receive_message_length", limit),
    ]
