"""A plan predicted and measured on a lab with slow servers and links, and calibrated there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.compared import with_bandwidth
from tests.helpers.planning import HOST, WHEN, link, network
from tests.helpers.small import write_small
from tritier.cli import main
from tritier.deployment.client import TritonServer
from tritier.deployment.embedded import free_ports
from tritier.deployment.lab import Lab
from tritier.documents import Comparison, NetworkState, ServersSpec, TimingProfile
from tritier.graph import LoadedModel, build_layer_graph

# 512 KiB there, 256 KiB back: 50 and 13 ms on the links.
SIDE = 128
SPEC = {
    "servers": [
        {"name": "a", "tier": "device", "entry": True, "slowdown": 2.0},
        {"name": "b", "tier": "cloud"},
    ],
    "links": [
        {"from": "a", "to": "b", "bandwidth_mib_s": 10.0, "latency_ms": 5.0},
        {"from": "b", "to": "a", "bandwidth_mib_s": 20.0, "latency_ms": 5.0},
    ],
}


class Bench:
    """A lab, and documents that are wrong: layers take 0.5 ms, the link to b is 4 times as fast."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model: LoadedModel = write_small(folder / "chain.onnx", side=SIDE)
        self.spec = ServersSpec.from_data(SPEC)
        self.servers = folder / "servers.json"
        self.servers.write_text(json.dumps(SPEC))
        for name in "ab":
            path = folder / "profiles" / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(self._timing(name).to_json())
        true = network(link("a", "b", 10, 10.5, 2, 1), link("b", "a", 20, 10.5, 2, 1))
        self.wrong: NetworkState = with_bandwidth(true, "a", "b", 40)
        (folder / "network.json").write_text(self.wrong.to_json())
        self.lab = Lab(folder / "ws" / "lab")

    def _timing(self, server: str) -> TimingProfile:
        once = {"median_ms": 20.0, "mean_ms": 20.0, "std_ms": 0.0, "n": 1}
        layers = [
            {"name": layer.name, "float_ms": 0.5, "measured_float": once}
            for layer in build_layer_graph(self.model.proto).layers
        ]
        return TimingProfile.from_data(
            {
                "model": {"name": "chain", "sha256": self.model.sha256}, "server": server,
                "host": HOST, "measured_at": WHEN, "layers": layers, "whole": once,
                "whole_alone": once, "profiling_s": 1.0, "corrections": {"float_scale": 1.0},
                "serving": {"call_ms": 1.0, "tensor_ms": 0.0, "copy_ms_per_mib": 0.5},
                "settings": {
                    "method": "profiler", "execution_provider": "cpu", "threads": 1,
                    "quantization": {}, "warmup": 1, "runs": 1,
                },
                "memory": {
                    "weight_bytes": 1, "measured_bytes": 1, "weight_factor": 1.0,
                    "activation_factor": 1.0, "process_bytes": 1,
                },
            }
        )  # fmt: skip

    def run(self, *words: object) -> int:
        """A command; its exit code."""
        with pytest.raises(SystemExit) as caught:
            main(["--workspace", str(self.folder / "ws"), *map(str, words)])
        return int(caught.value.code or 0)

    @property
    def known(self) -> list[object]:
        """The options that name the documents."""
        return ["--servers", self.servers, "--timing", self.folder / "profiles",
                "--network", self.folder / "network.json"]  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("TRITIER_OTLP", f"http://127.0.0.1:{free_ports(1)[0]}")
    made = Bench(tmp_path)
    made.lab.up(made.spec, None)
    try:
        yield made
    finally:
        made.lab.down()


def test_a_plan_is_predicted_then_measured_then_calibrated(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = bench.folder, bench.model.path
    plan, repos, written = folder / "plan.json", folder / "repos", folder / "comparison.json"
    halves = folder / "halves.json"
    halves.write_text(json.dumps({"default": "b", "layers": {"*0": "a", "*1": "a"}}))
    planning = ["plan", model, "--assignment", halves, "--servers", bench.servers, "-o", plan]
    assert bench.run(*planning) == 0
    compare = ["compare", plan, "--model", model, *bench.known, "-o", written]

    # Not deployed: nothing is written, and it says what to do.
    assert bench.run(*compare) == 4
    assert "tritier deploy" in capsys.readouterr().err
    assert not written.exists()
    assert bench.run(*compare, "--predict-only") == 0
    predicted = Comparison.load(written)
    assert predicted.measured is None

    assert bench.run("generate", plan, "--model", model, "-o", repos) == 0
    assert bench.run("deploy", repos, "--servers", bench.servers) == 0
    some = ["--rounds", 5, "--warmup", 2, "--traces", 3]
    assert bench.run(*compare, *some, "--repos", repos) == 0
    found = Comparison.load(written)
    assert (found.predicted, found.predicted_at) == (predicted.predicted, predicted.predicted_at)
    _check_measured(found)
    assert bench.run(*compare) == 3
    assert "was measured at" in capsys.readouterr().err
    _check_app(bench, plan, capsys)
    assert bench.run("undeploy", repos, "--servers", bench.servers) == 0

    out = folder / "calibrated"
    code = bench.run("calibrate", model, *bench.known, "-o", out, "--plan", plan,
                     "--pin", "*0=a", "--pin", "*1=a", "--forbid", "*2=a", "--forbid", "*3=a",
                     "--tolerance", 0.25, "--iterations", 3, *some)  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    corrected = NetworkState.load(out / "network.json").link("a", "b")
    assert corrected is not None
    assert 5 < corrected.bandwidth_mib_s.value < 15
    assert corrected.calibrated_by is not None
    # Whether layers differ by more than they vary hangs on the machine: the profiles are there.
    assert {TimingProfile.load(x).server for x in (out / "profiles").iterdir()} == {"a", "b"}
    last = sorted(out.glob("comparison-*.json"))[-1]
    error = Comparison.load(last).latency_error
    assert error is not None
    assert abs(error) <= 0.25
    assert "stays deployed" in said.err
    _check_calibrated_anew(bench, out, plan, capsys)


def _check_app(bench: Bench, plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The app's own connection is measured before a plan is predicted, and leaves nothing."""
    again, other = bench.folder / "again.json", bench.folder / "other_repos"
    compare = ["compare", plan, "--model", bench.model.path, *bench.known, "-o", again,
               "--rounds", 5, "--warmup", 2, "--traces", 0]  # fmt: skip
    assert bench.run(*compare, "--max-error", 0, "--json") == 1
    shown = json.loads(capsys.readouterr().out)
    found = Comparison.load(again)
    assert found.predicted.app_ms is not None
    assert 0 < found.predicted.app_ms < found.predicted.latency_ms / 2
    assert shown["predicted"]["app_ms"] == found.predicted.app_ms
    assert shown["tables"]["latency"] == found.latency_error
    assert not [name for name in _loaded(bench) if "echo" in name]
    sizes = bench.folder / "everything_on_b.json"
    sizes.write_text(json.dumps({"default": "b"}))
    beside = bench.folder / "beside.json"
    planning = ["plan", bench.model.path, "--assignment", sizes, "--servers", bench.servers]
    assert bench.run(*planning, "-o", beside) == 0
    assert bench.run("generate", beside, "--model", bench.model.path, "-o", other) == 0
    capsys.readouterr()
    assert bench.run(*compare, "--repos", other) == 3
    assert "is of plan" in capsys.readouterr().err


def _check_calibrated_anew(
    bench: Bench, out: Path, plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --force what the last one left on the servers is taken away; elsewhere than in the lab
    a plan must be deployed already."""
    calibrate = ["calibrate", bench.model.path, *bench.known, "-o", out, "--pin", "*0=a",
                 "--tolerance", 0.001, "--iterations", 1, "--rounds", 5, "--traces", 0]  # fmt: skip
    before = {name.split("__")[1] for name in _loaded(bench) if "__c" in name}
    assert before
    code = bench.run(*calibrate, "--force", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert code == 1
    assert shown["outcome"] in ("unsteady", "unexplained", "iterations")
    there = {name.split("__")[1] for name in _loaded(bench) if "__c" in name}
    assert there == {shown["plan_id"]}
    assert sorted(x.name for x in out.glob("repos-*")) == ["repos-1"]
    state = bench.lab.state()
    assert state is not None
    rows = [
        {**server.model_dump(mode="json", exclude_none=True), "url": state.urls[server.name]}
        for server in bench.spec.servers
    ]
    elsewhere = bench.folder / "elsewhere.yaml"
    elsewhere.write_text(json.dumps({"servers": rows}))
    assert bench.run("undeploy", out / "repos-1", "--servers", bench.servers) == 0
    words = ["--workspace", bench.folder / "no_lab", "calibrate", bench.model.path, "--servers",
             elsewhere, *bench.known[2:], "-o", bench.folder / "new", "--plan", plan]  # fmt: skip
    with pytest.raises(SystemExit) as caught:
        main([*map(str, words)])
    assert caught.value.code == 4
    assert "when it is deployed, calibrate again" in capsys.readouterr().err


def _loaded(bench: Bench) -> list[str]:
    state = bench.lab.state()
    assert state is not None
    found = []
    for name, url in state.urls.items():
        with TritonServer(name, url) as server:
            found += server.loaded()
    return found


def _check_measured(found: Comparison) -> None:
    """Everything is there, and no less than what the links must take."""
    measured = found.measured
    assert measured is not None
    assert measured.unmeasured == ()
    assert {x.id for x in measured.components} == {"c0", "c1"}
    assert all(x.service.n == 5 for x in measured.components)
    call, answer = found.wires
    assert (call.name, answer.name) == ("call c1", "answer c1")
    assert call.measured is not None
    assert answer.measured is not None
    mib = call.predicted_bytes / 2**20
    assert call.measured.median_ms >= 1000 * mib / 10 + 5
    assert call.measured_bytes is not None
    assert 0 < call.measured_bytes - call.predicted_bytes < 2000
    assert answer.measured.median_ms >= 1000 * answer.predicted_bytes / 2**20 / 20 + 5
    assert measured.latency.median_ms >= call.measured.median_ms + answer.measured.median_ms
    assert [(x.kind, x.name) for x in measured.timeline] == [
        ("compute", "c0"), ("send", "call c1"), ("compute", "c1"), ("send", "answer c1"),
    ]  # fmt: skip
    assert set(measured.memory_bytes) == {"a", "b"}
    assert found.environment is not None
    assert set(found.environment.servers) == {"a", "b"}
