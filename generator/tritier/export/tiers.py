"""What runs in containers: one tier per server of a plan, with all that its Triton needs.

Compose files and Kubernetes manifests are written from this alone. Paths in containers are those
below; files with secrets lie in a folder of their own, by the name of their key in `security`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tritier
from tritier.deployment.loading import parsed_config
from tritier.deployment.options import serving_options
from tritier.deployment.security import peer_credentials, protected, server_options
from tritier.documents import Security, Server, ServersSpec
from tritier.errors import InputError
from tritier.export.names import dns_labels
from tritier.repository import Repositories

# Places in the containers.
REPOSITORY_DIR = "/models"
CONFIG_DIR = "/etc/tritier"
SECRETS_DIR = "/run/secrets"
PROGRAMS_DIR = "/opt/tritier"
PEERS_FILE = f"{CONFIG_DIR}/peers.json"
TLS_FILE = f"{CONFIG_DIR}/tls.json"
IMAGE = f"tritier/tritonserver:{tritier.__version__}"
GRPC_PORT, METRICS_PORT, HTTP_PORT = 8001, 8002, 8000
ADMIN_KEY = "admin_key"
# Keys of `security` with files that a server reads, when it is its own TLS and when it calls.
_OWN_FILES = ("server_cert", "server_key")
_CALL_FILES = ("client_cert", "client_key")
_EXIT_TIMEOUT_S = 30
_MIB = 1 << 20


@dataclass(frozen=True)
class Ports:
    """What a tier listens on, in its container; HTTP is off unless the servers file wants it."""

    grpc: int = GRPC_PORT
    metrics: int = METRICS_PORT
    http: int | None = None


@dataclass(frozen=True)
class SecretSource:
    """A file that only a server may read: where it is on this machine, or the environment variable
    that holds its content, and what it is called in the container."""

    key: str
    path: Path | None = None
    variable: str | None = None

    @property
    def target(self) -> str:
        """Path in the container."""
        return f"{SECRETS_DIR}/{self.key}"


@dataclass(frozen=True)
class Tier:
    """One server of a plan as a container.

    `server` is its name in the plan, `name` the same as a DNS label, `repository` the folder on
    this machine whose models it loads, `calls` the servers that its proxies, mailboxes and router
    call, `memory_bytes` the limit of the servers file. `security` has paths of this machine.
    """

    server: str
    name: str
    label: str
    is_entry: bool
    repository: Path
    image: str
    ports: Ports
    calls: tuple[str, ...]
    needs_gpu: bool
    threads: int
    memory_bytes: int | None
    security: Security

    @property
    def address(self) -> str:
        """host:port by which the other containers call it."""
        return f"{self.name}:{self.ports.grpc}"

    @property
    def secrets(self) -> tuple[SecretSource, ...]:
        """The files that it needs, in a fixed order; empty without TLS and key."""
        found = []
        if self.security.tls:
            keys = ["ca", *_OWN_FILES, *_CALL_FILES]
            paths = {key: getattr(self.security, key) for key in keys}
            found = [SecretSource(key, Path(path)) for key, path in paths.items() if path]
        if self.security.admin_key_file:
            found.append(SecretSource(ADMIN_KEY, path=Path(self.security.admin_key_file)))
        elif self.security.admin_key_variable:
            found.append(SecretSource(ADMIN_KEY, variable=self.security.admin_key_variable))
        return tuple(found)

    @property
    def inside(self) -> Security:
        """Its security with the paths of the container."""
        return in_container(self.security)

    @property
    def command(self) -> list[str]:
        """The whole command line of the container: tritonserver, started so that a key of the
        administrative APIs is not among its visible arguments. All models of its repository are
        loaded when it starts, and it can be deployed to afterwards. It holds no secret."""
        options = [
            "tritonserver",
            f"--id={self.server}",
            f"--model-repository={REPOSITORY_DIR}",
            "--load-model=*",
            *serving_options(_EXIT_TIMEOUT_S),
            f"--backend-config=python,shm-region-prefix-name=tritier_{self.name}_",
            "--grpc-address=0.0.0.0",
            f"--grpc-port={self.ports.grpc}",
            "--metrics-address=0.0.0.0",
            f"--metrics-port={self.ports.metrics}",
            f"--allow-gpu-metrics={'true' if self.needs_gpu else 'false'}",
            *self._http_options(),
            *server_options(self.server, self.inside),
        ]
        script = f"{PROGRAMS_DIR}/hidden_key.py"
        return protected(options, self.inside, python="python3", script=script)

    def probe(self, live: bool = False) -> list[str]:
        """Command in the container that ends with 0 if the server is ready, all its models among
        it, or live."""
        options = [f"--address=127.0.0.1:{self.ports.grpc}", *(["--live"] if live else [])]
        if self.security.tls:
            options.append(f"--server-name={self.security.server_name or self.name}")
        return ["python3", f"{PROGRAMS_DIR}/ready.py", *options]

    @property
    def environment(self) -> dict[str, str]:
        """Where the server finds the others and how it calls them: paths, no secrets."""
        found = {"TRITIER_PEERS": PEERS_FILE}
        if self.security.tls:
            found["TRITIER_TLS"] = TLS_FILE
        return found

    def _http_options(self) -> list[str]:
        if self.ports.http is None:
            return []
        return ["--http-address=0.0.0.0", f"--http-port={self.ports.http}"]


@dataclass(frozen=True)
class Tiers:
    """The containers of a generated folder, the entry last (the order in which to start them)."""

    repositories: Repositories
    tiers: tuple[Tier, ...]
    spec: ServersSpec

    @property
    def entry(self) -> Tier:
        """Where apps send their requests."""
        return next(tier for tier in self.tiers if tier.is_entry)

    def tier(self, server: str) -> Tier:
        """The tier of a server of the plan; KeyError if it has none."""
        return {tier.server: tier for tier in self.tiers}[server]

    def callers(self, server: str) -> tuple[str, ...]:
        """Servers that call this one."""
        return tuple(tier.server for tier in self.tiers if server in tier.calls)

    def peers_json(self) -> str:
        """Content of the file that TRITIER_PEERS of each container names: where all servers are."""
        addresses = {tier.server: tier.address for tier in self.tiers}
        return json.dumps(addresses, indent=2, sort_keys=True) + "\n"

    def tls_json(self, tier: Tier) -> str | None:
        """Content of the file that TRITIER_TLS of a container names, paths only; None without
        TLS."""
        return peer_credentials({item.server: item.inside for item in self.tiers}, tier.server)


def in_container(security: Security) -> Security:
    """The same security with files where containers have them; a key always comes from a file."""
    keys = ("ca", *_OWN_FILES, *_CALL_FILES) if security.tls else ()
    files = {key: f"{SECRETS_DIR}/{key}" for key in keys if getattr(security, key)}
    if security.restricted:
        files["admin_key_file"] = f"{SECRETS_DIR}/{ADMIN_KEY}"
    kept = {key: getattr(security, key) for key in ("tls", "mutual", "http", "server_name")}
    return Security.model_validate({**kept, **files})


def read_tiers(
    repositories: Repositories,
    spec: ServersSpec,
    image: str = IMAGE,
    reserved: Collection[str] = (),
) -> Tiers:
    """The tiers of a generated folder, of one plan or of a family.

    `reserved` are names that no tier may have, as other services are called so. Raises InputError,
    with all faults, for servers that the servers file does not have, another entry than the plan's,
    names that are not unique as DNS labels, and TLS without the certificate of a server.
    """
    used = repositories.servers()
    unknown = [name for name in used if name not in spec.names]
    if unknown:
        raise InputError(
            [
                f"the plan uses server '{name}'; the servers file has {', '.join(spec.names)}: "
                "give the servers file of the plan"
                for name in unknown
            ]
        )
    entry = repositories.plan.entry.name
    if spec.entry.name != entry:
        raise InputError(
            f"the entry of the plan is '{entry}' and that of the servers file '{spec.entry.name}': "
            "give the servers file of the plan"
        )
    labels = dns_labels(used, reserved)
    calls = _calls(repositories)
    found = [
        _tier(repositories, spec.server(name), spec.security_of(name), labels[name],
              tuple(x for x in used if x in calls[name]), image)
        for name in used
    ]  # fmt: skip
    for tier in found:
        server_options(tier.server, tier.security)  # refuses TLS without a certificate
    tiers = Tiers(repositories, tuple(found), spec)
    for tier in found:
        tiers.tls_json(tier)  # refuses different names in certificates
    return tiers


def _tier(
    repositories: Repositories,
    server: Server,
    security: Security,
    name: str,
    calls: tuple[str, ...],
    image: str,
) -> Tier:
    return Tier(
        server=server.name,
        name=name,
        label=server.tier,
        is_entry=server.name == repositories.plan.entry.name,
        repository=repositories.path / server.name,
        image=image,
        ports=Ports(http=HTTP_PORT if security.http else None),
        calls=calls,
        needs_gpu=server.execution_provider == "cuda",
        threads=server.threads,
        memory_bytes=None if server.memory_mib is None else int(server.memory_mib * _MIB),
        security=security,
    )


def _calls(repositories: Repositories) -> Mapping[str, set[str]]:
    """Server -> servers that models there call: what proxies are for, whose mailboxes they poison,
    and what the router asks whether it is ready."""
    found: dict[str, set[str]] = {name: set() for name in repositories.servers()}
    for model in repositories.manifest.models:
        if model.kind not in ("remote", "router"):
            continue
        parameters = parsed_config(repositories, model).parameters
        texts = {key: parameters[key].string_value for key in list(parameters)}
        if model.kind == "router":
            plans = json.loads(texts["plans"])
            called = [name for plan in plans.values() for name in plan["servers"]]
        else:
            rows: Sequence[Sequence[str]] = json.loads(texts.get("poison", "[]"))
            called = [texts["server"], *(row[0] for row in rows)]
        found[model.server].update(name for name in called if name != model.server)
    return found
