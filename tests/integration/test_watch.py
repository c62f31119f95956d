"""`tritier watch` on real Tritons: links that change, servers that die and come back."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.helpers.families import Users, family_folder
from tests.helpers.planning import link, network, timing
from tests.integration.conftest import placement
from tritier.cli import main
from tritier.deployment.client import TritonServer
from tritier.deployment.deploy import undeploy
from tritier.deployment.lab import Lab
from tritier.deployment.lab_links import restore_link, set_link
from tritier.divider import WholeModel
from tritier.documents import LabState, NetworkState, Plan, ServersSpec, TimingProfile, WatchRecord
from tritier.errors import ServerError
from tritier.graph import LoadedModel, build_layer_graph, profile_model
from tritier.network.agent import AGENT_NAME
from tritier.repository import Repositories
from tritier.workflow import gather_inputs, plan_from_placement
from tritier.workflow.live import LiveCheck
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem_request import PlanningRequest
from tritier.workflow.watch import Watcher, WatchSettings
from tritier.workflow.watch_act import Actor
from tritier.workflow.watch_look import LinkProber, Looker
from tritier.workflow.watch_loop import WatchLoop
from tritier.workflow.watch_plan import Replanner, expected_figures

pytestmark = pytest.mark.integration
PAIRS = [("device", "edge"), ("edge", "device")]
SPEC = {
    "servers": [
        {"name": "device", "tier": "device", "entry": True},
        {"name": "edge", "tier": "edge"},
    ],
    "links": [{"from": a, "to": b, "bandwidth_mib_s": 20.0, "latency_ms": 2.0} for a, b in PAIRS],
}
# Made up: the device is slow, so that the edge is worth its answers over 20 MiB/s, not over 0.3.
LAYER_MS = {"device": 200.0, "edge": 1.0}


@dataclass
class Site:
    """A lab with an emulated link, documents for planning, and a family of a plan on the edge."""

    folder: Path
    lab: Lab
    state: LabState
    spec: ServersSpec
    model: LoadedModel
    repositories: Repositories
    timings: dict[str, TimingProfile]
    network: NetworkState
    told: list[WatchRecord] = field(default_factory=list)

    def events(self, *kinds: str) -> list[str]:
        """Texts of records of these kinds."""
        return [record.text for record in self.told if record.event in kinds]

    def actor(self) -> Actor:
        return Actor(
            self.repositories, self.folder / "servers.yaml", self.spec, self.lab.state(),
            self.model, self.folder / "watch", "always",
            next(x.metrics_url for x in self.state.servers if x.name == "device"),
        )  # fmt: skip

    @contextmanager
    def watching(self) -> Iterator[Actor]:
        """The loop, in a thread; the latency, which is made up, is not compared."""
        request = PlanningRequest(
            model=self.model,
            graph=build_layer_graph(self.model.proto),
            profile=profile_model(self.model, {"batch": 1}),
            servers=self.spec,
            timings=self.timings,
            network=self.network,
        )
        actor, urls = self.actor(), self.state.urls
        figures = expected_figures(self.network, PAIRS)
        watcher = Watcher(WatchSettings(link_factor=3, latency_factor=1e9), figures)
        prober = LinkProber(urls, PAIRS, 0.5, lambda: watcher.suspects)
        replanner = Replanner(request, Goals(), "espcn")
        looker, stopped = Looker(urls, prober.news), threading.Event()
        self.told.clear()
        loop = WatchLoop(watcher, looker, replanner, actor, self.network, self.told.append)
        thread = threading.Thread(target=lambda: loop.run(0.5, stopped.is_set))
        loop.begin()
        prober.start()
        thread.start()
        try:
            yield actor
        finally:
            stopped.set()
            thread.join()
            prober.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, espcn: LoadedModel) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("watch")
    (folder / "servers.yaml").write_text(yaml.safe_dump(SPEC))
    spec, lab = ServersSpec.load(folder / "servers.yaml"), Lab(folder / "lab")
    graph = build_layer_graph(espcn.proto)
    names = [layer.name for layer in graph.layers]
    on_edge = placement(espcn, {}, "edge")
    plan: Plan = plan_from_placement(espcn, graph, on_edge, spec, "espcn")
    repositories = family_folder(espcn, [plan], folder / "first", whole=True)
    timings = {
        server: timing(
            espcn, server, dict.fromkeys(names, (ms, None)), borders=[], dims={"batch": 1}
        )
        for server, ms in LAYER_MS.items()
    }
    (folder / "profiles").mkdir()
    for name, profile in timings.items():
        (folder / "profiles" / f"{name}.json").write_text(profile.to_json())
    known = network(*(link(a, b, 20, 4) for a, b in PAIRS), names=("device", "edge"))
    try:
        yield Site(folder, lab, lab.up(spec, None), spec, espcn, repositories, timings, known)
    finally:
        lab.down()


def until(condition: Callable[[], object], limit_s: float, site: Site) -> float:
    """Seconds until it holds."""
    started = time.monotonic()
    while not condition():
        told = [f"{x.event}: {x.text}" for x in site.told]
        assert time.monotonic() - started < limit_s, told
        time.sleep(0.1)
    return time.monotonic() - started


def users_of(site: Site) -> Users:
    arrays = gather_inputs(site.repositories.plan, 1, 0)[0]
    expected = WholeModel(site.model.path, "disabled").run(arrays)
    return Users(site.state.urls["device"], "espcn", arrays, expected)


def test_a_slow_link_leads_to_another_plan_and_no_request_fails(site: Site) -> None:
    users = users_of(site)
    with site.watching() as actor:
        first = actor.repositories.id
        with users.asking(1):
            until(lambda: users.answered >= 3, 30, site)
            set_link(site.state, "edge", "device", bandwidth_mib_s=0.3)
            try:
                until(lambda: actor.repositories.id != first, 120, site)
                assert {part.server for part in actor.repositories.plan.components} == {"device"}
                before = users.answered
                until(lambda: users.answered > before, 30, site)
            finally:
                restore_link(site.state, "edge", "device")
        undeploy(actor.repositories, actor.addresses())
    assert users.others == []
    changes, switched = site.events("change"), site.events("switch")
    assert any(text.startswith("edge -> device fell from ") for text in changes)
    assert "a gain of" in switched[0]
    assert "serves: " in switched[1]


def test_a_killed_and_restarted_server_is_loaded_within_10_s(site: Site) -> None:
    check = LiveCheck(site.repositories, site.model, gather_inputs(site.repositories.plan, 1, 0))
    plan = site.repositories.plan.id
    url = site.state.urls["device"]

    def answers() -> bool:
        try:
            check(f"espcn__{plan}", plan, url)
        except ServerError:
            return False
        return True

    with site.watching():
        assert answers()
        edge = next(server for server in site.state.servers if server.name == "edge")
        os.killpg(edge.process.pid, signal.SIGKILL)
        until(lambda: site.events("change"), 30, site)
        assert "server 'edge' did not answer" in site.events("change")[0]
        assert not answers()  # control: nobody else did it
        site.state = site.lab.restart("edge")
        took_s = until(answers, 30, site)
    assert site.events("reconciled")
    assert took_s < 10, site.told
    # What is left answers for the lost plan: no reason to switch.
    assert site.events("switch") == []


def test_once_and_dry_run_tell_and_change_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.folder / "network.json").write_text(site.network.to_json())
    undeploy(site.repositories, site.actor().addresses())
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "--workspace", str(site.folder), "watch", str(site.repositories.path),
                "--servers", str(site.folder / "servers.yaml"),
                "--model", str(site.model.path),
                "--timing", str(site.folder / "profiles"),
                "--network", str(site.folder / "network.json"),
                "--log", str(site.folder / "log.jsonl"), "--once", "--dry-run", "--json",
            ]
        )  # fmt: skip
    shown = capsys.readouterr()
    assert int(ended.value.code or 0) == 0, shown.err
    records = [WatchRecord.from_data(json.loads(line)) for line in shown.out.splitlines()]
    assert "would load what" in records[0].text
    assert (site.folder / "log.jsonl").read_text() == shown.out
    for server in site.state.servers:
        with TritonServer(server.name, server.grpc_url) as client:
            assert client.loaded() == [], AGENT_NAME
