"""Runs the services of an exported compose file without a container engine: the embedded Triton
gets the command, the environment and the files that the container would get.

What differs is told by `_Places` alone: paths in the container become those of the mounted files,
addresses and ports those on loopback.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.exported import strict_yaml
from tritier.deployment import embedded, hidden_key, process
from tritier.deployment.certificates import make_lab_certificates
from tritier.files import write_file

ROOT = Path(__file__).resolve().parents[2]
_PROGRAMS = {
    "/opt/tritier/hidden_key.py": hidden_key.__file__,
    "/opt/tritier/ready.py": str(ROOT / "docker" / "ready.py"),
}
_START_S = 60.0


def rows_of(names: Sequence[str]) -> list[dict[str, Any]]:
    """Servers of a servers file, each of the tier of its name; `device` is the entry."""
    return [{"name": name, "tier": name, "entry": name == "device"} for name in names]


def protected_servers(folder: Path, names: Sequence[str], key: str) -> dict[str, Any]:
    """A servers file with mutual TLS and a key of the administrative APIs; certificates and key
    are made in the folder."""
    made = make_lab_certificates(folder / "certs", names)
    (folder / "admin.key").write_text(key)
    rows = [
        {**row, "security": made[row["name"]].model_dump(exclude_none=True)}
        for row in rows_of(names)
    ]
    common = {"tls": True, "mutual": True, "server_name": "localhost"}
    return {"servers": rows, "security": {**common, "admin_key_file": "admin.key"}}


@dataclass(frozen=True)
class Started:
    """A service that runs."""

    name: str
    service: Mapping[str, Any]
    grpc_url: str
    metrics_url: str
    places: _Places
    environment: Mapping[str, str]
    log_file: Path

    def probe(self) -> subprocess.CompletedProcess[str]:
        """The health check of the service, once."""
        kind, *command = self.service["healthcheck"]["test"]
        assert kind == "CMD"
        return subprocess.run(
            self.places.command(command),
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def wait_until_healthy(self) -> None:
        """Until its health check says so."""
        deadline = time.monotonic() + _START_S
        while (done := self.probe()).returncode != 0:
            log = self.log_file.read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, f"{self.name}: {done.stderr}\n{log}"
            time.sleep(0.2)


@dataclass(frozen=True)
class _Places:
    """Text of the container -> text of this machine."""

    texts: Mapping[str, str]

    def __call__(self, text: str) -> str:
        pattern = "|".join(map(re.escape, sorted(self.texts, key=len, reverse=True)))
        return re.sub(pattern, lambda found: self.texts[found[0]], text)

    def command(self, words: list[str]) -> list[str]:
        """A command line; `python3` is this interpreter."""
        return [sys.executable if word == "python3" else self(word) for word in words]


@contextmanager
def running(compose_file: Path, names: list[str], scratch: Path) -> Iterator[dict[str, Started]]:
    """The services of these names, started together; stopped at the end, whatever happens."""
    document = strict_yaml(compose_file.read_text(encoding="utf-8"))
    backends = embedded.prepare_backends(scratch / "backends")
    prefix = f"tritier_{secrets.token_hex(4)}_"
    free = iter(embedded.free_ports(2 * len(names)))
    ports = {name: (next(free), next(free)) for name in names}
    pids: list[tuple[int, int]] = []
    found = {}
    try:
        for name in names:
            places = _places(document, name, compose_file.parent, ports, prefix, scratch / name)
            found[name] = _start(document["services"][name], name, places, ports[name], backends,
                                 scratch / name, pids)  # fmt: skip
        yield found
    finally:
        for pid, ticks in pids:
            process.stop(pid, ticks, patience_s=20)
        for path in Path("/dev/shm").glob(f"{prefix}*"):
            path.unlink(missing_ok=True)


def _start(
    service: Mapping[str, Any],
    name: str,
    places: _Places,
    ports: tuple[int, int],
    backends: Path,
    scratch: Path,
    pids: list[tuple[int, int]],
) -> Started:
    log_file = scratch / "server.log"
    plain = {key: places(text) for key, text in service["environment"].items() if "$" not in text}
    server = embedded.EmbeddedServer(
        name, scratch, *ports, 0, log_file, backends, "", environment=plain
    )
    environment = embedded.environment(server)
    words = places.command(service["command"])
    binary = embedded.command(server)[0]
    at = words.index("tritonserver")
    words[at : at + 1] = [binary, f"--backend-directory={backends}"]
    with log_file.open("ab") as log:
        pid = process.spawn(words, environment, log.fileno(), log.fileno())
    pids.append((pid, process.start_ticks(pid) or 0))
    grpc_url, metrics_url = (f"127.0.0.1:{port}" for port in ports)
    return Started(name, service, grpc_url, metrics_url, places, environment, log_file)


def _places(
    document: Mapping[str, Any],
    name: str,
    folder: Path,
    ports: Mapping[str, tuple[int, int]],
    prefix: str,
    scratch: Path,
) -> _Places:
    service = document["services"][name]
    scratch.mkdir(parents=True)
    texts = dict(_PROGRAMS)
    for secret in service.get("secrets", []):
        file = folder / document["secrets"][secret["source"]]["file"]
        texts[f"/run/secrets/{secret['target']}"] = str(file)
    addresses = {f"{other}:8001": f"127.0.0.1:{ports[other][0]}" for other in ports}
    for volume in service["volumes"]:
        source = folder / volume["source"]
        assert source.exists(), source
        if source.is_file():  # it names files and addresses
            copy = scratch / source.name
            write_file(copy, _Places({**texts, **addresses})(source.read_text()))
            source = copy
        texts[volume["target"]] = str(source)
    texts |= {
        "0.0.0.0": "127.0.0.1",
        "--grpc-port=8001": f"--grpc-port={ports[name][0]}",
        "--metrics-port=8002": f"--metrics-port={ports[name][1]}",
        "127.0.0.1:8001": f"127.0.0.1:{ports[name][0]}",
        "shm-region-prefix-name=tritier_": f"shm-region-prefix-name={prefix}",
    }
    return _Places(texts)
