"""From three real Tritons to a plan of their own figures, deployed and equal to the whole model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.conftest import NAMES, Bench
from tritier.cli import main
from tritier.documents import Plan, PlanReport, ServersSpec
from tritier.graph import LoadedModel, profile_model
from tritier.repository import GenerateOptions
from tritier.workflow import (
    ProfileRequest,
    Runs,
    gather_inputs,
    profile_on_servers,
    verify_live,
)

pytestmark = pytest.mark.integration
# Middle layers on one server, the end on another: two cuts at least, the second between peers.
PINS = ("conv2=edge", "conv5=cloud", "clip=device")


@pytest.fixture(scope="module")
def profiled(bench: Bench, espcn: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the servers file and a timing profile of each server."""
    folder = tmp_path_factory.mktemp("plan_live")
    servers = [
        server.model_copy(update={"url": bench.state.urls[server.name]})
        for server in bench.spec.servers
    ]
    spec = ServersSpec.from_data(
        {
            **bench.spec.model_dump(by_alias=True, exclude_none=True),
            "servers": [server.model_dump(exclude_none=True) for server in servers],
        }
    )
    (folder / "servers.json").write_text(spec.to_json())
    (folder / "profiles").mkdir()
    request = ProfileRequest(
        espcn,
        profile_model(espcn, {"batch": 1}),
        folder / "store",
        runs=Runs(1, 2, 1),
        components=0,
    )
    for found in profile_on_servers(request, spec.servers, bench.state.urls):
        (folder / "profiles" / f"{found.server}.json").write_text(found.to_json())
    return folder


def test_a_plan_of_measured_servers_is_deployed_and_exact(
    bench: Bench,
    espcn: LoadedModel,
    profiled: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(profiled)
    pins = [text for pin in PINS for text in ("--pin", pin)]
    with pytest.raises(SystemExit) as caught:
        main(["plan", str(espcn.path), "--servers", "servers.json", "--timing", "profiles",
              "--report", "report.json", "--time-limit", "20", *pins])  # fmt: skip
    assert int(str(caught.value.code)) == 0, capsys.readouterr().err
    plan = Plan.load(profiled / "plan.json")
    report = PlanReport.load(profiled / "report.json")
    on = {layer: part.server for part in plan.components for layer in part.layers}
    assert [on[pin.partition("=")[0]] for pin in PINS] == ["edge", "cloud", "device"]
    assert ("edge", "cloud") in {(wire.source, wire.target) for wire in plan.wires}
    assert report.plan_id == plan.id
    assert {x.server: x.layers for x in report.servers} == {
        name: list(on.values()).count(name) for name in NAMES
    }
    assert all(x.compute_ms > 0 and x.memory_bytes > 0 for x in report.servers)
    assert {report.sources[f"times on {name}"] for name in NAMES} == {"measured"}
    with bench.deployed(plan, espcn, GenerateOptions(optimisation="disabled")) as (repos, at):
        exact = repos.manifest.tolerances[0]
        inputs = gather_inputs(plan, 2, 0)
        verdict = verify_live(repos, espcn, inputs, exact, at.urls["device"])
        assert exact.absolute == exact.relative == 0
        assert [d.max_abs for d in verdict.differences] == [0.0] * len(plan.outputs)


def test_without_pins_no_baseline_is_better(
    bench: Bench,  # noqa: ARG001 - its addresses are in the servers file
    espcn: LoadedModel,
    profiled: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Rule R8, with figures that were measured and not made up."""
    monkeypatch.chdir(profiled)
    with pytest.raises(SystemExit) as caught:
        main(["plan", str(espcn.path), "--servers", "servers.json", "--timing", "profiles",
              "--dry-run", "--json"])  # fmt: skip
    shown = capsys.readouterr()
    assert int(str(caught.value.code)) == 0, shown.err
    report = PlanReport.from_data(json.loads(shown.out)["report"])
    baselines = {x.what: x.figures.latency_ms for x in report.baselines}
    assert {"all on device", "all on edge, raw input", "all on cloud, raw input"} <= set(baselines)
    assert report.figures.latency_ms <= min(baselines.values()) * (1 + 1e-9)
