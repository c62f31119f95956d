"""What protects a Triton server: its options, its environment, and the lab's own protection."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tritier.deployment import hidden_key
from tritier.deployment.access import ADMIN_KEY_NAME
from tritier.deployment.certificates import make_lab_certificates
from tritier.documents import Security, ServersSpec
from tritier.errors import InputError, ServerError
from tritier.files import write_file

# What changes a server or tells of others' requests. Inference, health and metadata stay open.
RESTRICTED = (
    "model-repository",
    "model-config",
    "logging",
    "trace",
    "shared-memory",
    "statistics",
)
# Headers of W3C trace context reach models as parameters of requests.
FORWARDED_HEADERS = "(?i)traceparent|tracestate"
# Pings of clients, also on idle connections, that the server takes; faster ones end a connection.
MIN_PING_INTERVAL_MS = 5000
_KEY_BYTES = 32
_TRIAL_VARIABLE = "TRITIER_TRIAL_KEY"
_TRIAL_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class LabProtection:
    """What a lab adds to the security of the servers file: a certificate authority of its own (TLS,
    or TLS with certificates of clients), and a random key for administrative APIs."""

    tls: bool = False
    mutual: bool = False
    admin_key: bool = False


def server_options(server: str, security: Security) -> list[str]:
    """Options of tritonserver. The key of administrative APIs is a placeholder in them, see
    `protected`. Raises InputError for a server without a certificate."""
    options = [
        f"--allow-http={'true' if security.http else 'false'}",
        f"--grpc-header-forward-pattern={FORWARDED_HEADERS}",
        f"--grpc-http2-min-recv-ping-interval-without-data={MIN_PING_INTERVAL_MS}",
        "--grpc-http2-max-pings-without-data=0",
        "--grpc-keepalive-permit-without-calls=1",
    ]
    if security.tls:
        if not security.server_cert or not security.server_key:
            raise InputError(
                f"security of server '{server}': a server with TLS needs server_cert and "
                "server_key; give them in servers.yaml"
            )
        options += [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={security.server_cert}",
            f"--grpc-server-key={security.server_key}",
        ]
        if security.mutual:
            options += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={security.ca}"]
    if security.restricted:
        names = ",".join(RESTRICTED)
        restriction = f"{names}:{ADMIN_KEY_NAME}={hidden_key.PLACEHOLDER}"
        options.append(f"--grpc-restricted-protocol={restriction}")
    return options


def protected(
    command: list[str],
    security: Security,
    python: str = sys.executable,
    script: str = hidden_key.__file__,
) -> list[str]:
    """The command line that starts `command` so that nobody sees the key in its arguments. `script`
    is where hidden_key.py lies on the machine where it runs."""
    if not security.restricted:
        return command
    source = (
        ["--key-file", security.admin_key_file]
        if security.admin_key_file
        else ["--key-variable", security.admin_key_variable or ""]
    )
    return [python, "-I", "-S", script, *source, "--", *command]


def hiding_obstacle() -> str | None:
    """Why a key can't be kept out of command lines on this machine, found by trying with one that
    opens nothing; None if it can."""
    program = ["/bin/sh", "-c", 'case "$1" in *@*) exit 1;; esac', "sh", hidden_key.PLACEHOLDER]
    done = subprocess.run(
        protected(program, Security(admin_key_variable=_TRIAL_VARIABLE)),
        env={_TRIAL_VARIABLE: secrets.token_hex(_KEY_BYTES)},
        capture_output=True,
        text=True,
        timeout=_TRIAL_TIMEOUT_S,
        check=False,
    )
    return None if done.returncode == 0 else done.stderr.strip() or "the program got no key"


def possible_protection(
    spec: ServersSpec, wanted: LabProtection
) -> tuple[LabProtection, str | None]:
    """What of `wanted` this machine allows, and a warning if that is less: a lab is for trying,
    and goes on without the key that it would make for itself.

    Raises ServerError if the servers file wants a key and it could not be hidden.
    """
    own = [name for name in spec.names if spec.security_of(name).restricted]
    if not (own or wanted.admin_key) or (obstacle := hiding_obstacle()) is None:
        return wanted, None
    if own:
        raise ServerError(
            f"{' and '.join(own)} can't be started with the key that servers.yaml wants: "
            f"{obstacle}. For a lab without it, take admin_key_file and admin_key_variable out of "
            "`security`"
        )
    warning = (
        "the lab runs WITHOUT a key of administrative APIs: everybody on this machine may load "
        f"models, that is code, into it; {obstacle}. --no-admin-key says that this is meant"
    )
    return replace(wanted, admin_key=False), warning


def peer_credentials(security: Mapping[str, Security], server: str) -> str | None:
    """Content of the file that TRITIER_TLS of a server names: how its proxies call the others, of
    all whose security this is; None without TLS. Raises InputError if the others' certificates have
    different names, of which proxies know one."""
    own = security[server]
    if not own.tls:
        return None
    names = {item.server_name for name, item in security.items() if name != server}
    if len(names) > 1:
        raise InputError(
            f"servers that '{server}' calls have different server_name; give all certificates the "
            "names of their urls, or one server_name in `security` of the file"
        )
    found = {
        "ca": own.ca,
        "cert": own.client_cert,
        "key": own.client_key,
        "server_name": next(iter(names), None),
    }
    return json.dumps({k: v for k, v in found.items() if v}, indent=2) + "\n"


def protect_lab(spec: ServersSpec, protection: LabProtection, folder: Path) -> dict[str, Security]:
    """Security of each server of a lab: that of the servers file, and what the lab adds.

    Certificates and the key are written below `folder`, for this user alone.
    """
    found = {name: spec.security_of(name) for name in spec.names}
    if protection.tls or protection.mutual:
        made = make_lab_certificates(folder / "certificates", spec.names)
        switches = Security(tls=True, mutual=protection.mutual, server_name=None)
        found = {
            name: switches.over(made[name]).over(own.model_copy(update={"server_name": None}))
            for name, own in found.items()
        }
    if protection.admin_key and not all(item.restricted for item in found.values()):
        file = folder / "admin.key"
        write_file(file, secrets.token_hex(_KEY_BYTES) + "\n", mode=0o600)
        key = Security(admin_key_file=str(file))
        found = {n: item if item.restricted else key.over(item) for n, item in found.items()}
    return found
