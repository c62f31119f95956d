"""The command lines of exported pods, run by real Tritons on loopback: same arguments, same files.

The manifests are turned into the compose file of the same containers, which
tests/helpers/containers starts. What is left of Kubernetes then is nothing but who starts them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from tests.helpers.containers import Started, protected_servers, rows_of, running
from tests.helpers.manifests import files_in, read_export, workloads
from tests.helpers.processes import processes_with
from tests.integration.conftest import NAMES, peer_plan, three_servers
from tritier.cli import main
from tritier.deployment import process
from tritier.deployment.access import address
from tritier.deployment.client import TritonServer
from tritier.documents import Security, ServersSpec
from tritier.graph import LoadedModel
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import gather_inputs, generate, verify_live

pytestmark = pytest.mark.integration
OPTIONS = GenerateOptions(optimisation="disabled")
KEY = "fedcba9876543210fedcba9876543210"
_SERVING = b"\x08\x01"


def _exported(folder: Path, model: LoadedModel, spec: dict[str, Any]) -> Path:
    """Fills `folder` with `repos`, `servers.yaml`, the export `out`, and a compose file of its
    pods, whose path it returns."""
    files, _ = generate(peer_plan(model, three_servers()), model, OPTIONS)
    write_files(files, folder / "repos", force=False)
    (folder / "servers.yaml").write_text(yaml.safe_dump(spec))
    with pytest.raises(SystemExit) as ended:
        main(["export", "kubernetes", str(folder / "repos"), "--servers",
              str(folder / "servers.yaml"), "-o", str(folder / "out")])  # fmt: skip
    assert ended.value.code == 0
    objects = read_export(files_in(folder / "out"))
    paths = {n: ServersSpec.load(folder / "servers.yaml").security_of(n) for n in NAMES}
    services, secrets = {}, {}
    for name, (_, pod) in workloads(objects).items():
        data = objects[f"{name}/config-map.yaml"]["data"]
        services[name] = _service(folder, name, pod, data)
        for volume in pod["volumes"]:
            for item in volume.get("secret", {}).get("items", []):
                own = paths[name].model_dump()
                source = own.get(item["key"]) or own[f"{item['key']}_file"]
                shutil.copy(source, folder / f"{name}_{item['key']}")
                secrets[f"{name}_{item['key']}"] = {"file": f"{name}_{item['key']}"}
                services[name].setdefault("secrets", []).append(
                    {"source": f"{name}_{item['key']}", "target": item["path"]}
                )
    compose = folder / "compose.yaml"
    compose.write_text(yaml.safe_dump({"services": services, "secrets": secrets}))
    return compose


def _service(folder: Path, name: str, pod: dict[str, Any], data: dict[str, str]) -> dict[str, Any]:
    """The container of a pod as a service. Its own address is that of the container."""
    (container,) = pod["containers"]
    (check,) = pod["initContainers"]
    peers = json.loads(data["peers.json"])
    peers[name] = f"{name}:8001"
    mounted = {**data, "peers.json": json.dumps(peers)}
    volumes = [{"source": f"repos/{name}", "target": check["workingDir"]}]
    for file, text in mounted.items():
        (folder / "config" / name).mkdir(parents=True, exist_ok=True)
        (folder / "config" / name / file).write_text(text)
        volumes.append({"source": f"config/{name}/{file}", "target": f"/etc/tritier/{file}"})
    asks = container["startupProbe"].get("exec", {}).get("command")
    return {
        "command": container["command"],
        "environment": {item["name"]: item["value"] for item in container["env"]},
        "volumes": volumes,
        "healthcheck": {"test": ["CMD", *(asks or ["python3", "/opt/tritier/ready.py",
                                                   "--address=127.0.0.1:8001"])]},
    }  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, espcn: LoadedModel) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pods")
    compose = _exported(folder, espcn, {"servers": rows_of(NAMES)})
    with running(compose, list(NAMES), folder / "run") as services:
        yield {"folder": folder, "services": services}


def _health(service: Started) -> bytes | None:
    """What a probe by gRPC gets; None if nobody listens."""
    with grpc.insecure_channel(service.grpc_url) as channel:
        try:
            answer = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
        except grpc.RpcError:
            return None
    return bytes(answer)


def test_a_probe_by_grpc_succeeds_when_all_models_are_loaded_and_not_before(
    plain: dict[str, Any],
) -> None:
    repositories = Repositories.open(plain["folder"] / "repos")
    for name, service in plain["services"].items():
        deadline = time.monotonic() + 60
        while (answer := _health(service)) is None:
            assert time.monotonic() < deadline, service.log_file.read_text()[-2000:]
            time.sleep(0.05)
        # The first answer there is says that it serves, and then it does.
        assert answer == _SERVING
        with TritonServer(name, address(name, service.grpc_url, Security())) as server:
            ready = {model for model, state in server.index().items() if state == "READY"}
        assert ready == {model.name for model in repositories.models_of(name)}


def test_the_pods_answer_as_the_whole_model(plain: dict[str, Any], espcn: LoadedModel) -> None:
    for service in plain["services"].values():
        service.wait_until_healthy()
    repositories = Repositories.open(plain["folder"] / "repos")
    exact = repositories.parts()[0].tolerances[0]
    assert exact.absolute == exact.relative == 0
    entry = address("device", plain["services"]["device"].grpc_url, Security())
    inputs = gather_inputs(repositories.plan, 3, 0)
    verdict = verify_live(repositories, espcn, inputs, exact, entry)
    assert [d.max_abs for d in verdict.differences] == [0.0]


def test_pods_with_tls_and_a_key_answer_and_their_probe_succeeds(
    tmp_path: Path, espcn: LoadedModel
) -> None:
    compose = _exported(tmp_path, espcn, protected_servers(tmp_path, NAMES, KEY))
    repositories = Repositories.open(tmp_path / "repos")
    with running(compose, list(NAMES), tmp_path / "run") as services:
        for service in services.values():
            service.wait_until_healthy()
        assert _health(services["edge"]) is None  # a probe without certificates gets nothing
        assert processes_with(KEY) == []
        security = ServersSpec.load(tmp_path / "servers.yaml").security_of("device")
        app = security.model_copy(update={"admin_key_file": None})
        entry = address("device", services["device"].grpc_url, app)
        inputs = gather_inputs(repositories.plan, 1, 0)
        exact = repositories.parts()[0].tolerances[0]
        verdict = verify_live(repositories, espcn, inputs, exact, entry)
        assert [d.max_abs for d in verdict.differences] == [0.0]


def test_a_pod_that_is_told_to_end_ends_within_its_grace(
    tmp_path: Path, espcn: LoadedModel
) -> None:
    compose = _exported(tmp_path, espcn, {"servers": rows_of(NAMES)})
    objects = read_export(files_in(tmp_path / "out"))
    pod = workloads(objects)["edge"][1]
    grace_s = pod["terminationGracePeriodSeconds"] - 10  # less what preStop takes
    with running(compose, ["edge"], tmp_path / "run") as services:
        service = services["edge"]
        service.wait_until_healthy()
        (pid,) = processes_with(f"--grpc-port={service.grpc_url.partition(':')[2]}")
        started = process.start_ticks(pid)
        assert started is not None
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while process.is_running(pid, started):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_pod_whose_models_can_not_be_loaded_ends(tmp_path: Path, espcn: LoadedModel) -> None:
    """So that Kubernetes shows it, instead of a server that is never ready."""
    compose = _exported(tmp_path, espcn, {"servers": rows_of(NAMES)})
    for model in (tmp_path / "repos" / "edge").rglob("model.onnx"):
        model.write_bytes(b"no model")
    with running(compose, ["edge"], tmp_path / "run") as services:
        service = services["edge"]
        port = f"--grpc-port={service.grpc_url.partition(':')[2]}"
        deadline = time.monotonic() + 60
        while processes_with(port):
            assert _health(service) is None  # it never says that it serves
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "failed to load" in service.log_file.read_text()
