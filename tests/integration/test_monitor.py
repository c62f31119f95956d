"""The monitor against real Tritons with an emulated link."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tritier.cli import main
from tritier.deployment.client import TritonServer
from tritier.deployment.embedded import free_ports
from tritier.deployment.lab import Lab
from tritier.documents import LabState, NetworkState, ServersSpec
from tritier.network.agent import AGENT_NAME

pytestmark = pytest.mark.integration
SPEC: dict[str, Any] = {
    "servers": [
        {"name": "device", "tier": "device", "entry": True},
        {"name": "edge", "tier": "edge"},
    ],
    "links": [
        {"from": "device", "to": "edge", "bandwidth_mib_s": 12.0, "latency_ms": 15.0},
        {"from": "edge", "to": "device", "bandwidth_mib_s": 40.0, "latency_ms": 15.0},
    ],
}


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, LabState]]:
    """(workspace, lab) of two servers with an emulated link."""
    folder = tmp_path_factory.mktemp("monitor")
    (folder / "servers.yaml").write_text(yaml.safe_dump(SPEC))
    lab = Lab(folder / "lab")
    state = lab.up(ServersSpec.from_data(SPEC), None)
    try:
        yield folder, state
    finally:
        lab.down()


def run(folder: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["--workspace", str(folder), "monitor", str(folder / "servers.yaml"), *arguments])
    return int(ended.value.code or 0)


def test_both_links_are_measured(
    emulated: tuple[Path, LabState], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, lab = emulated
    output = folder / "network.json"
    assert run(folder, "-o", str(output), "--json") == 0
    state = NetworkState.load(output)
    assert json.loads(capsys.readouterr().out) == json.loads(output.read_text())
    for source, target, mib_s in (("device", "edge", 12.0), ("edge", "device", 40.0)):
        link = state.link(source, target)
        assert link is not None
        assert link.bandwidth_mib_s.value == pytest.approx(mib_s, rel=0.3)
        assert link.round_trip_ms.value == pytest.approx(30.0, rel=0.3)
        assert link.after_idle_message_bytes
    for server in lab.servers:
        known = state.server(server.name)
        assert known is not None
        assert known.host is not None
        assert known.host.memory_available_bytes > 0
        with TritonServer(server.name, server.grpc_url) as client:
            assert client.index().get(AGENT_NAME, "") != "READY"


def test_rounds_go_on_and_show_metrics(
    emulated: tuple[Path, LabState], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = emulated
    output, port = folder / "continuous.json", free_ports(1)[0]
    scraped: list[str] = []

    def scrape() -> None:
        """Until the first round has ended."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not scraped:
            time.sleep(0.2)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as x:
                    text = x.read().decode()
            except OSError:
                continue
            if "tritier_monitor_rounds_total 1.0" in text:
                scraped.append(text)

    thread = threading.Thread(target=scrape)
    thread.start()
    options = ("--every", "1s", "--rounds", "2", "--link", "edge:device")
    assert run(folder, "-o", str(output), "--metrics-port", str(port), *options) == 0
    thread.join()
    assert 'tritier_link_bandwidth_mib_per_second{source="edge",target="device"}' in scraped[0]
    state = NetworkState.load(output)
    assert [(link.source, link.target) for link in state.links] == [("edge", "device")]
    # An agent that is just being unloaded makes Triton say that.
    assert "not ready" not in capsys.readouterr().out


def test_a_server_that_is_gone_fails_its_links(
    tmp_path: Path, emulated: tuple[Path, LabState], capsys: pytest.CaptureFixture[str]
) -> None:
    _, lab = emulated
    servers = [{**server, "url": lab.urls[str(server["name"])]} for server in SPEC["servers"]]
    servers.append({"name": "cloud", "tier": "cloud", "url": f"127.0.0.1:{free_ports(1)[0]}"})
    (tmp_path / "servers.yaml").write_text(yaml.safe_dump({"servers": servers}))
    output = tmp_path / "network.json"
    options = ("--link", "device:cloud", "--link", "device:edge")
    assert run(tmp_path, "-o", str(output), *options) == 4
    assert "device -> cloud: server 'cloud' can't be reached" in capsys.readouterr().err
    state = NetworkState.load(output)
    assert state.link("device", "edge") is not None
    assert state.link("device", "cloud") is None
    cloud = state.server("cloud")
    assert cloud is not None
    assert cloud.state == "unreachable"


def test_nothing_is_done_in_a_dry_run(
    emulated: tuple[Path, LabState], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = emulated
    output = folder / "never.json"
    assert run(folder, "-o", str(output), "--dry-run") == 0
    assert "would measure device -> edge" in capsys.readouterr().err
    assert not output.exists()
