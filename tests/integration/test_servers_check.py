"""`tritier servers check` against real Tritons."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import tritonclient.grpc as triton

from tests.integration.conftest import NAMES, Bench
from tritier.deployment import embedded, process
from tritier.deployment.client import TritonServer
from tritier.documents import NetworkState
from tritier.network.agent import AGENT_NAME, running_agent

pytestmark = pytest.mark.integration


class Check:
    """Runs the command in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, urls: dict[str, str], *options: str, code: int = 0, **more: dict[str, Any]
    ) -> subprocess.CompletedProcess[str]:
        rows = [
            {
                "name": n,
                "tier": "edge",
                "url": url,
                "entry": n == next(iter(urls)),
                **more.get(n, {}),
            }
            for n, url in urls.items()
        ]
        servers = self.folder / "servers.json"
        servers.write_text(json.dumps({"servers": rows}))
        command = ["-m", "tritier", "servers", "check", "--servers", servers.name, *options]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done

    @property
    def state(self) -> NetworkState:
        return NetworkState.load(self.folder / "network.json")


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return Check(tmp_path)


def nobody() -> str:
    """An address at which nothing listens."""
    return f"127.0.0.1:{embedded.free_ports(1)[0]}"


def agents(urls: dict[str, str]) -> list[str]:
    """Servers on which the agent is loaded; the index does not list models that were pushed."""
    found = []
    for name, url in urls.items():
        with closing(triton.InferenceServerClient(url)) as client:
            if client.is_model_ready(AGENT_NAME):
                found.append(name)
    return found


def test_running_servers_are_described_as_they_are(bench: Bench, check: Check) -> None:
    urls = bench.state.urls
    printed = json.loads(check(urls, "--json", edge={"compute_power_watt": 12.5}).stdout)
    state = check.state
    assert NetworkState.from_data(printed) == state
    assert [server.name for server in state.servers] == list(NAMES)
    for server in state.servers:
        assert (server.state, server.url, server.problems) == ("ready", urls[server.name], ())
        assert server.triton is not None
        assert (server.triton.name, server.triton.version) == (server.name, "2.51.0")
        assert "26.06" in "".join(server.warnings)
        assert server.host is not None
        # A quota of this machine's cgroup may leave fewer.
        assert 1 <= server.host.cores <= len(os.sched_getaffinity(0))
        assert server.host.memory_total_bytes >= server.host.memory_available_bytes > 2**20
        assert server.host.onnxruntime == onnxruntime.__version__
        assert set(server.host.providers) == set(onnxruntime.get_available_providers())
        assert server.host.python == platform.python_version()
        # It is the same clock: no offset is in the interval.
        offset = server.clock_offset_ms
        assert offset is not None
        assert offset.low is not None
        assert offset.high is not None
        assert offset.low <= 0 <= offset.high
    assert len({server.host.host for server in state.servers if server.host}) == 1
    assert len({server.id for server in state.servers}) == 3
    assert agents(urls) == []


def test_a_server_that_went_keeps_its_facts_and_a_renamed_one_its_id(
    bench: Bench, check: Check
) -> None:
    urls = bench.state.urls
    check(urls)
    before = check.state
    answer = check({**urls, "edge": nobody()}, "--timeout-s", "2", code=1)
    assert "1 of 3 servers have problems: edge" in answer.stderr
    edge, known = check.state.server("edge"), before.server("edge")
    assert edge is not None
    assert known is not None
    assert edge.state == "unreachable"
    assert len(edge.problems) == 1
    assert "can't be reached" in edge.problems[0]
    assert (edge.id, edge.host, edge.seen_at) == (known.id, known.host, known.seen_at)
    assert [x.state for x in check.state.servers] == ["ready", "unreachable", "ready"]

    answer = check({"device": urls["device"], "sky": urls["cloud"]})
    assert "'cloud' is called 'sky' now" in answer.stderr
    assert "'edge' left" in answer.stderr
    ids = {server.name: server.id for server in before.servers}
    assert {x.name: x.id for x in check.state.servers} == {
        "device": ids["device"],
        "sky": ids["cloud"],
    }
    assert agents(urls) == []


def test_without_the_agent_nothing_is_known_of_the_host(bench: Bench, check: Check) -> None:
    check(bench.state.urls, "--no-agent")
    for server in check.state.servers:
        assert server.triton is not None
        assert (server.state, server.host, server.clock_offset_ms) == ("ready", None, None)


def test_what_servers_yaml_asks_for_and_a_host_has_not(bench: Bench, check: Check) -> None:
    device = {"memory_mib": 1e9, "threads": 1024, "execution_provider": "openvino"}
    answer = check({"device": bench.state.urls["device"]}, code=1, device=device)
    server = check.state.servers[0]
    assert [text.split()[0] for text in server.problems] == ["execution_provider", "memory_mib"]
    assert any(text.startswith("threads 1024") for text in server.warnings)
    assert "OpenVINOExecutionProvider" in answer.stdout


def test_the_agent_of_another_command_stays(bench: Bench, check: Check) -> None:
    urls = {"device": bench.state.urls["device"]}
    with TritonServer("device", urls["device"]) as server, running_agent(server, {}) as agent:
        check(urls)
        assert agent.facts()["host"]["cores"] >= 1
        assert agents(urls) == ["device"]
    state = check.state.servers[0]
    assert state.host is not None
    assert any("loaded already" in text for text in state.warnings)
    assert agents(urls) == []


def test_dry_run_contacts_nobody(check: Check) -> None:
    answer = check({"a": nobody()}, "--dry-run")
    assert "would contact 'a'" in answer.stderr
    assert not (check.folder / "network.json").exists()


def test_a_file_that_is_no_network_state_is_kept(check: Check) -> None:
    path = check.folder / "network.json"
    path.write_text('{"servers": 5}')
    assert "network.json" in check({"a": nobody()}, code=3).stderr
    assert path.read_text() == '{"servers": 5}'


@contextmanager
def _server(folder: Path, agent: str) -> Iterator[str]:
    """Address of a Triton with TRITIER_AGENT set."""
    (folder / "empty").mkdir()
    grpc_port, http_port, metrics_port = embedded.free_ports(3)
    item = embedded.EmbeddedServer(
        name="alone",
        repository=folder / "empty",
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        log_file=folder / "alone.log",
        backends=embedded.prepare_backends(folder / "backends"),
        shm_prefix=f"tritier_test_{folder.name}_",
        environment={"TRITIER_AGENT": agent},
    )
    pid = embedded.start(item)
    ticks = process.start_ticks(pid) or 0
    try:
        with TritonServer("alone", f"127.0.0.1:{grpc_port}") as server:
            server.wait_until_live(60)
        yield f"127.0.0.1:{grpc_port}"
    finally:
        process.stop(pid, ticks, 15)
        for path in Path("/dev/shm").glob(f"{item.shm_prefix}*"):
            path.unlink()


def _without_model_control(
    monkeypatch: pytest.MonkeyPatch, option: str = "--model-control-mode"
) -> None:
    plain = embedded.command
    monkeypatch.setattr(
        embedded,
        "command",
        lambda server: [f"{option}=none" if x.startswith(option) else x for x in plain(server)],
    )


def test_an_agent_that_is_switched_off_is_a_warning(check: Check, tmp_path: Path) -> None:
    with _server(tmp_path, "off") as url:
        check({"alone": url})
    server = check.state.servers[0]
    assert (server.state, server.problems, server.host) == ("ready", (), None)
    assert any("switched off" in text and "\n" not in text for text in server.warnings)


def test_a_server_without_model_control_is_of_no_use(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_model_control(monkeypatch)
    with _server(tmp_path, "on") as url:
        check({"alone": url}, code=1)
    server = check.state.servers[0]
    assert server.state == "ready"
    assert "--model-control-mode=explicit" in "".join(server.problems)
