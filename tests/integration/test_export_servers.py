"""What an exported compose file says, done to real Tritons: same arguments, same files."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.containers import Started, protected_servers, rows_of, running
from tests.helpers.processes import processes_with
from tests.integration.conftest import NAMES, peer_plan, three_servers
from tritier.cli import main
from tritier.deployment.access import Address, address, spec_address
from tritier.deployment.client import TritonServer
from tritier.documents import Security, ServersSpec
from tritier.errors import ServerError
from tritier.export.dashboard import ROWS
from tritier.graph import LoadedModel
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import gather_inputs, generate, verify_live
from tritier.workflow.family_generate import family_of_one, generate_family

pytestmark = pytest.mark.integration
KEY = "0123456789abcdef0123456789abcdef"
OPTIONS = GenerateOptions(optimisation="disabled")


@dataclass
class Exported:
    """Services of an exported folder that run."""

    folder: Path
    repositories: Repositories
    services: dict[str, Started]
    security: Security

    @property
    def entry(self) -> Address:
        """The entry as an app reaches it, without the administrative key."""
        app = self.security.model_copy(update={"admin_key_file": None})
        return address("device", self.services["device"].grpc_url, app)


def _export(folder: Path, spec: dict[str, Any]) -> Path:
    (folder / "servers.yaml").write_text(yaml.safe_dump(spec))
    with pytest.raises(SystemExit) as ended:
        main(["export", "compose", str(folder / "repos"), "--servers",
              str(folder / "servers.yaml"), "-o", str(folder / "compose")])  # fmt: skip
    assert ended.value.code == 0
    return folder / "compose" / "compose.yaml"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, espcn: LoadedModel) -> Iterator[Exported]:
    """One plan, with a tensor that goes from edge to cloud directly, without protection."""
    folder = tmp_path_factory.mktemp("plain")
    files, _ = generate(peer_plan(espcn, three_servers()), espcn, OPTIONS)
    write_files(files, folder / "repos", force=False)
    compose = _export(folder, {"servers": rows_of(NAMES)})
    repositories = Repositories.open(folder / "repos")
    with running(compose, list(NAMES), folder / "run") as services:
        yield Exported(compose.parent, repositories, services, Security())


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory, espcn: LoadedModel) -> Iterator[Exported]:
    """The same plan behind a router, with mutual TLS and a key of the administrative APIs."""
    folder = tmp_path_factory.mktemp("protected")
    plan = peer_plan(espcn, three_servers())
    # Without the whole model on the entry: only the split one can answer.
    family = family_of_one(plan, 10_000, with_whole=False)
    files, _ = generate_family(family, [plan], espcn, OPTIONS)
    write_files(files, folder / "repos", force=False)
    compose = _export(folder, protected_servers(folder, NAMES, KEY))
    _put_secrets(compose, ServersSpec.load(folder / "servers.yaml"))
    security = ServersSpec.load(folder / "servers.yaml").security_of("device")
    repositories = Repositories.open(folder / "repos")
    with running(compose, list(NAMES), folder / "run") as services:
        yield Exported(compose.parent, repositories, services, security)


def _put_secrets(compose: Path, spec: ServersSpec) -> None:
    """What the user does by hand: each file that the compose file names."""
    for name in yaml.safe_load(compose.read_text())["secrets"]:
        if name == "grafana_password":
            continue
        server, _, key = name.partition("_")
        own = server in NAMES
        security = spec.security_of(server if own else "device").model_dump()
        key = key if own else name
        path = security.get(key) or security[f"{key}_file"]
        shutil.copy(path, compose.parent / "secrets" / name)


@pytest.fixture(params=["plain", "protected"])
def exported(request: pytest.FixtureRequest) -> Exported:
    found: Exported = request.getfixturevalue(request.param)
    for service in found.services.values():
        service.wait_until_healthy()
    return found


def test_the_exported_servers_answer_as_the_whole_model(
    exported: Exported, espcn: LoadedModel
) -> None:
    repositories = exported.repositories
    (part,) = repositories.parts()
    exact = part.tolerances[0]
    assert exact.absolute == exact.relative == 0
    inputs = gather_inputs(repositories.plan, 3, 0)
    verdict = verify_live(repositories, espcn, inputs, exact, exported.entry)
    assert [d.max_abs for d in verdict.differences] == [0.0]


def test_every_server_computes_its_part(exported: Exported, espcn: LoadedModel) -> None:
    inputs = gather_inputs(exported.repositories.plan, 1, 1)
    tolerance = exported.repositories.parts()[0].tolerances[0]
    before = {name: _answered(item) for name, item in exported.services.items()}
    verify_live(exported.repositories, espcn, inputs, tolerance, exported.entry)
    after = {name: _answered(item) for name, item in exported.services.items()}
    assert all(after[name] > before[name] for name in NAMES)


def test_metrics_of_the_dashboard_exist(exported: Exported, espcn: LoadedModel) -> None:
    inputs = gather_inputs(exported.repositories.plan, 1, 2)
    tolerance = exported.repositories.parts()[0].tolerances[0]
    verify_live(exported.repositories, espcn, inputs, tolerance, exported.entry)
    found = {
        line.split("{")[0].split(" ")[0]
        for item in exported.services.values()
        for line in _metrics(item).splitlines()
        if not line.startswith("#")
    }
    expressions = [query for panels in ROWS.values() for p in panels for query, _ in p.queries]
    named = set(re.findall(r"\b(?:nv|tritier)_\w+", " ".join(expressions)))
    # Made when the first of these happens; tests/unit/test_export_monitoring.py knows the others.
    later = {name for name in named if name.startswith("tritier_router_")}
    assert len(named - later) > 20
    assert named - later <= found
    if exported.repositories.family:
        assert "tritier_router_requests_total" in found


def test_what_compose_starts_has_no_key_in_its_arguments(protected: Exported) -> None:
    for service in protected.services.values():
        service.wait_until_healthy()
    assert processes_with(protected.services["edge"].places("/models"))  # they are seen
    assert processes_with(KEY) == []
    for name, service in protected.services.items():
        with (
            TritonServer(name, address(name, service.grpc_url, Security())) as anybody,
            pytest.raises(ServerError),
        ):
            anybody.index()
        with TritonServer(name, address(name, service.grpc_url, protected.security)) as ours:
            assert set(ours.index().values()) == {"READY"}


def test_the_tools_servers_file_reaches_all_with_their_keys(
    exported: Exported, tmp_path: Path
) -> None:
    text = (exported.folder / "config" / "servers.yaml").read_text()
    for name, service in exported.services.items():
        text = text.replace(f"url: {name}:8001", f"url: {service.grpc_url}")
    text = text.replace("/run/secrets/", f"{exported.folder / 'secrets'}/")
    (tmp_path / "servers.yaml").write_text(text)
    spec = ServersSpec.load(tmp_path / "servers.yaml")
    for name in NAMES:
        found = spec_address(spec, name)
        assert found is not None
        with TritonServer(name, found) as server:
            assert set(server.index().values()) == {"READY"}


def test_an_unhealthy_server_is_told(plain: Exported, protected: Exported) -> None:
    service = plain.services["edge"]
    script = ["python3", "/opt/tritier/ready.py", "--timeout-s=2"]
    closed = _run(service, [*script, "--address=127.0.0.1:1"])
    assert closed.returncode == 1
    assert "UNAVAILABLE" in closed.stderr
    # A certificate under another name, and a client that shows none.
    secure = protected.services["edge"]
    words = secure.service["healthcheck"]["test"][1:-1]
    assert _run(secure, [*words, "--server-name=edge"]).returncode == 1
    assert _run(secure, [*words, "--server-name=localhost", "--live"]).returncode == 0
    bare = {k: v for k, v in secure.environment.items() if k != "TRITIER_TLS"}
    assert _run(secure, words, bare).returncode == 1


def _run(service: Started, words: list[str], environment: dict[str, str] | None = None) -> Any:
    return subprocess.run(
        service.places.command(words),
        env=dict(environment or service.environment),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _metrics(service: Started) -> str:
    with urllib.request.urlopen(f"http://{service.metrics_url}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def _answered(service: Started) -> float:
    """Requests that components on this server answered."""
    rows = re.findall(
        r'^nv_inference_request_success\{model="[^"]*__c\d+".*\} (\d+)', _metrics(service), re.M
    )
    return sum(map(float, rows))
