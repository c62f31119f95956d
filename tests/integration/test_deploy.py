"""Deployment to servers that were started by others: no lab, no TRITIER_PEERS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import peer_plan
from tritier.deployment import embedded, process
from tritier.deployment.client import TritonServer
from tritier.deployment.deploy import deploy, find_addresses, undeploy
from tritier.documents import ServersSpec
from tritier.errors import InputError, ServerError
from tritier.graph import LoadedModel
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import gather_inputs, generate, verify_live

pytestmark = pytest.mark.integration
_NAMES = ("device", "edge", "cloud")


def _spec(urls: dict[str, str]) -> ServersSpec:
    rows = [{"name": n, "tier": n, "entry": n == "device"} for n in _NAMES]
    return ServersSpec.from_data(
        {"servers": [row | ({"url": urls[str(row["name"])]} if urls else {}) for row in rows]}
    )


@contextmanager
def _servers(folder: Path, repositories: Path | None) -> Iterator[dict[str, str]]:
    """Addresses of three Tritons, each with its part of `repositories` or an empty folder."""
    backends = embedded.prepare_backends(folder / "backends")
    ports = iter(embedded.free_ports(9))
    started, urls = [], {}
    try:
        for name in _NAMES:
            repository = (repositories or folder / "empty") / name
            repository.mkdir(parents=True, exist_ok=True)
            item = embedded.EmbeddedServer(
                name=name,
                repository=repository,
                grpc_port=next(ports),
                http_port=next(ports),
                metrics_port=next(ports),
                log_file=folder / f"{name}.log",
                backends=backends,
                shm_prefix=f"tritier_test_{folder.name}_{name}_",
            )
            pid = embedded.start(item)
            started.append((pid, process.start_ticks(pid) or 0))
            urls[name] = f"127.0.0.1:{item.grpc_port}"
        for name, url in urls.items():
            with TritonServer(name, url) as server:
                server.wait_until_live(60)
        yield urls
    finally:
        for pid, ticks in started:
            process.stop(pid, ticks, 15)
        for path in Path("/dev/shm").glob(f"tritier_test_{folder.name}_*"):
            path.unlink()


def _generated(espcn: LoadedModel, spec: ServersSpec, folder: Path) -> Repositories:
    plan = peer_plan(espcn, spec)
    files, _ = generate(plan, espcn, GenerateOptions(optimisation="disabled"))
    write_files(files, folder, force=False)
    return Repositories.open(folder)


def _assert_equal(repos: Repositories, espcn: LoadedModel, url: str) -> None:
    exact = repos.manifest.tolerances[0]
    verdict = verify_live(repos, espcn, gather_inputs(repos.plan, 1, 0), exact, url)
    assert [d.max_abs for d in verdict.differences] == [0.0]


@pytest.mark.parametrize("visible", [True, False], ids=["servers see the folder", "bytes pushed"])
def test_addresses_reach_the_proxies(tmp_path: Path, espcn: LoadedModel, visible: bool) -> None:
    repos = _generated(espcn, _spec({}), tmp_path / "repos")
    with _servers(tmp_path, repos.path if visible else None) as urls:
        addresses = find_addresses(repos, _spec(urls), None)
        deploy(repos, addresses)
        _assert_equal(repos, espcn, urls["device"])
        assert undeploy(repos, addresses) == []


def test_a_plan_with_addresses_loads_without_any_help(tmp_path: Path, espcn: LoadedModel) -> None:
    # The repositories are generated when the addresses are known: the servers, with their folders
    # in view, load the models as they lie there (rule R6).
    with _servers(tmp_path, tmp_path / "repos") as urls:
        for name in _NAMES:
            (tmp_path / "repos" / name).rmdir()
        (tmp_path / "repos").rmdir()
        repos = _generated(espcn, _spec(urls), tmp_path / "repos")
        for name in repos.servers():
            with TritonServer(name, urls[name]) as server:
                for model in repos.models_of(name):
                    server.load(model.name)
        _assert_equal(repos, espcn, urls["device"])


def test_a_failed_deployment_is_rolled_back(tmp_path: Path, espcn: LoadedModel) -> None:
    repos = _generated(espcn, _spec({}), tmp_path / "repos")
    with _servers(tmp_path, None) as urls:
        # The cloud's address is wrong in one way that shows at once: nobody listens there.
        wrong = find_addresses(repos, _spec(urls | {"cloud": "127.0.0.1:1"}), None)
        with pytest.raises(ServerError, match="cloud"):
            deploy(repos, wrong, push="always")
        for name in ("device", "edge"):
            with TritonServer(name, urls[name]) as server:
                for model in repos.models_of(name):
                    with pytest.raises(ServerError):
                        server.config(model.name)


def test_unknown_addresses_are_named(tmp_path: Path, espcn: LoadedModel) -> None:
    repos = _generated(espcn, _spec({}), tmp_path / "repos")
    with pytest.raises(InputError, match="server 'edge' has no address"):
        find_addresses(repos, _spec({}), None)


def test_a_process_is_stopped_by_its_own_id_only(tmp_path: Path) -> None:
    log = (tmp_path / "log").open("wb")
    pid = process.spawn(["/bin/sleep", "60"], {}, log.fileno(), log.fileno())
    log.close()
    ticks = process.start_ticks(pid)
    assert ticks is not None
    process.stop(pid, ticks + 1, 0.1)  # another process that had this id
    assert process.is_running(pid, ticks)
    process.stop(pid, ticks, 5)
    assert not process.is_running(pid, ticks)


def test_a_stubborn_process_is_killed(tmp_path: Path) -> None:
    log = (tmp_path / "log").open("wb")
    shell = ["/bin/sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"]
    pid = process.spawn(shell, {"PATH": "/usr/bin:/bin"}, log.fileno(), log.fileno())
    log.close()
    ticks = process.start_ticks(pid)
    assert ticks is not None
    time.sleep(0.3)
    process.stop(pid, ticks, 0.3)
    deadline = time.monotonic() + 5
    while process.is_running(pid, ticks) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process.is_running(pid, ticks)
