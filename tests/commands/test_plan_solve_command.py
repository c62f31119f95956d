"""`tritier plan` with timing profiles, as a user calls it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer

from tests.helpers.models import save
from tests.helpers.planning import ALL_GAIN, CHAIN, LAYERS, link, network, noise, servers, timing
from tritier import cli
from tritier.cli import main, plan_solve
from tritier.documents import Plan, PlanReport, Ranges, ServersSpec
from tritier.files import sha256_file
from tritier.graph import load_model

PLANNER = ("--timing", "profiles", "--network", "network.json")
NOISE = ("--noise", "noise.json", "--ranges", "ranges.json")
# Typer builds all commands whenever one is called; here it does so once.
BUILT = typer.main.get_command(cli.app)
FEW = ("--no-explain", "--dry-run")


def write(folder: Path) -> None:
    """A model, documents of two servers, of which b is ten times as fast, and one input."""
    model = load_model(save(folder, CHAIN))
    (folder / "profiles").mkdir()
    for name, factor in (("a", 1.0), ("b", 0.1)):
        times = {
            layer: (slow * factor, None if fast is None else fast * factor)
            for layer, (slow, fast) in ALL_GAIN.items()
        }
        (folder / "profiles" / f"{name}.json").write_text(timing(model, name, times).to_json())
    near = (link("a", "b", 500, 1), link("b", "a", 500, 1))
    np.savez(folder / "in.npz", x=np.ones((1, 1, 512, 512), np.float32))
    inputs = [{"name": "in.npz", "sha256": sha256_file(folder / "in.npz")}]
    limits = Ranges(
        model_sha256=model.sha256, method="minmax", samples=1,
        ranges=dict.fromkeys("xabcdy", (-4.0, 4.0)),
    )  # fmt: skip
    singles = [
        {"layers": [name], "use": "design", "noise": {"y": y}, "inputs": 1}
        for name, y in (("c1", 3.0), ("c2", 2.0), ("c3", 1.0))
    ]
    documents = {
        "servers.json": servers("ab"),
        "network.json": network(*near),
        "noise.json": noise(model, inputs=inputs, ranges_sha256=limits.sha256, measured=singles),
        "ranges.json": limits,
    }
    for name, document in documents.items():
        (folder / name).write_text(document.to_json())


class Shell:
    """What a command says in a folder, and what it leaves there."""

    def __init__(self, folder: Path, output: Callable[[], tuple[str, str]]) -> None:
        self.folder, self._output = folder, output

    def run(
        self, *arguments: str, code: int = 0, planner: Sequence[str] = PLANNER
    ) -> tuple[str, str]:
        """stdout and stderr of `tritier plan m.onnx --servers servers.json`."""
        with pytest.raises(SystemExit) as caught:
            main(["plan", "m.onnx", "--servers", "servers.json", *planner, *arguments])
        out, err = self._output()
        assert caught.value.code == code, err
        assert "Traceback" not in err
        return out, err

    def report(self, *arguments: str) -> PlanReport:
        """Of a plan that is not written."""
        out, _ = self.run("--dry-run", "--json", *arguments)
        return PlanReport.from_data(json.loads(out)["report"])

    def refused(self, *arguments: str, code: int = 2, planner: Sequence[str] = PLANNER) -> str:
        """The error, after which nothing is written."""
        before = self.files()
        out, err = self.run(*arguments, code=code, planner=planner)
        assert (out, self.files()) == ("", before)
        return err[err.index("error: ") + 7 :].strip()

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    write(folder)
    return folder


@pytest.fixture
def shell(documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Shell:
    shutil.copytree(documents, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "app", BUILT)
    return Shell(tmp_path, lambda: tuple(capsys.readouterr()))


# ------------------------------------------------------------------------------ what is written


def test_a_plan_a_report_and_tables(shell: Shell) -> None:
    before = set(shell.files())
    out, err = shell.run("--report", "new/report.json", "-o", "p.json", "--name", "app")
    written = {name for name in set(shell.files()) - before if not name.startswith(".tritier")}
    assert written == {"p.json", "new/report.json"}
    plan, report = Plan.load(Path("p.json")), PlanReport.load(Path("new/report.json"))
    assert (plan.model.name, report.plan_id) == ("app", plan.id)
    assert [(part.server, part.layers) for part in plan.components] == [("b", LAYERS)]
    for title in ("components", "tensors on links", "where the time goes", "compared with",
                  "what changes would bring"):  # fmt: skip
        assert title in out
    assert f"plan {plan.id} written to p.json" in err
    assert "proven optimal" in err


def test_json_has_plan_and_report(shell: Shell) -> None:
    out, _ = shell.run("--json", "--report", "report.json")
    found = json.loads(out)
    assert set(found) == {"plan", "report"}
    assert found["plan"] == json.loads(Path("plan.json").read_text())
    assert found["report"] == json.loads(Path("report.json").read_text())


def test_a_dry_run_writes_nothing(shell: Shell) -> None:
    before = shell.files()
    out, err = shell.run("--dry-run", "--report", "report.json")
    assert "components" in out
    assert "written" not in err
    assert shell.files() == before


def test_what_exists_is_kept_and_no_half_is_written(shell: Shell) -> None:
    Path("mine.json").write_text("mine")
    for files in (("-o", "mine.json"), ("-o", "mine.json", "--report", "r.json"),
                  ("-o", "p.json", "--report", "mine.json")):  # fmt: skip
        assert "mine.json exists: choose another name or pass --force" in shell.refused(
            *files, code=3
        )
    assert "profiles is a folder" in shell.refused("--report", "profiles", code=3)
    assert "m.onnx is a file, not a folder" in shell.refused("--report", "m.onnx/r.json", code=3)
    same = shell.refused("-o", "p.json", "--report", "./p.json")
    assert "--output and --report are both p.json" in same
    Path("old.json").write_text("old")
    shell.run("-o", "mine.json", "--report", "old.json", "--force", "--no-explain")
    assert Plan.load(Path("mine.json")).id == PlanReport.load(Path("old.json")).plan_id


def test_files_are_checked_before_anything_is_solved(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(plan_solve, "make_plan", never)
    Path("plan.json").write_text("mine")
    assert "plan.json exists" in shell.refused(code=3)


# ------------------------------------------------------------------------------ options


def test_every_option_is_heard(shell: Shell) -> None:
    """All in one call, but those that exclude each other."""
    arguments = [
        *NOISE, "--max-noise", "3", "--max-noise", "y=2.9", "--objective", "weighted",
        "--latency-weight", "0.7", "--device-energy", "5", "--server-energy", "b=6",
        "--energy", "7", "--max-latency", "800", "--memory", "a=90", "--memory", "b=80",
        "--pin", "c1=b", "--forbid", "c3=a", "--keep-local", "c", "--allow-wire", "fp16",
        "--allow-wire", "b:a=int8", "--int8-tensor", "y", "--int8-everywhere",
        "--max-components", "2", "--pareto", "1", "--time-limit", "9", "--solver", "highs",
        "--formulation", "labels", "--explain",
    ]  # fmt: skip
    report = shell.report(*arguments)
    assert (report.objective, report.latency_weight) == ("weighted", 0.7)
    assert "PuLP" in report.method
    limits = {item.what: item.limit for item in report.limits}
    assert limits == {
        "latency": 800, "energy": 7, "energy of a": 5, "energy of b": 6, "memory of a": 90,
        "memory of b": 80, "noise of y with its margin": pytest.approx(2.9),
    }  # fmt: skip
    assert report.figures.quantized_layers == 2
    assert report.front
    assert report.links[0].bytes < 2**20


@pytest.mark.parametrize(
    ("arguments", "layers"),
    [
        (["--pin", "*=a"], "aaaaa"),
        (["--pin", "c*=b", "--pin", "c1=a", "--forbid", "r1=b"], "aabbb"),
        (["--forbid", "c*=b", "--forbid", "r1=b", "--forbid", "add=b"], "aaaaa"),
        (["--close-link", "a:b"], "aaaaa"),
        (["--keep-local", "x"], "abbbb"),
        (["--keep-local", "[xa]"], "aabbb"),
        (["--memory", "b=10.1"], "aaaaa"),
        (["--device-energy", "0.02"], "bbbbb"),
        (["--server-energy", "b=0"], "aaaaa"),
    ],
)  # fmt: skip
def test_where_layers_stand(shell: Shell, arguments: list[str], layers: str) -> None:
    out, _ = shell.run(*FEW, "--json", *arguments)
    plan = Plan.from_data(json.loads(out)["plan"])
    on = {layer: part.server for part in plan.components for layer in part.layers}
    assert "".join(on[layer] for layer in LAYERS) == layers


def test_unlimited_noise_and_wires(shell: Shell) -> None:
    out, _ = shell.run(*FEW, "--json", "--unlimited-noise", "--ranges", "ranges.json",
                       "--allow-wire", "a:b=fp16")  # fmt: skip
    plan = Plan.from_data(json.loads(out)["plan"])
    assert plan.quantized_layers == ("c1", "c2", "c3")
    out, _ = shell.run(*FEW, "--json", "--allow-wire", "a:b=fp16")
    plan = Plan.from_data(json.loads(out)["plan"])
    assert {(wire.source, wire.codec) for wire in plan.wires} == {("a", "fp16"), ("b", "as_is")}


def test_timing_profiles_one_by_one(shell: Shell) -> None:
    files = ("--timing", "profiles/a.json", "--timing", "profiles/b.json")
    out, _ = shell.run(*FEW, "--json", planner=(*files, "--network", "network.json"))
    every = json.loads(out)["plan"]
    out, _ = shell.run(*FEW, "--json", planner=("--timing", "profiles/a.json"))
    assert {part["server"] for part in json.loads(out)["plan"]["components"]} == {"a"}
    assert {part["server"] for part in every["components"]} == {"b"}
    assert "server 'b' has no timing profile and is left out" in json.loads(out)["report"][
        "warnings"
    ][0]  # fmt: skip


def test_options_from_the_file_and_the_environment(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("tritier.yaml").write_text(
        "plan:\n  pin: ['c3=a']\n  explain: false\n  objective: energy\n  timing: [profiles]\n"
    )
    out, _ = shell.run("--dry-run", "--json", planner=("--network", "network.json"))
    found = json.loads(out)
    assert (found["report"]["objective"], found["report"].get("gains", [])) == ("energy", [])
    assert found["plan"]["components"][-1]["layers"] == ["c3"]
    monkeypatch.setenv("TRITIER_PLAN_OBJECTIVE", "throughput")
    monkeypatch.setenv("TRITIER_PLAN_PIN", "c1=a c3=b")
    report = shell.report()
    assert report.objective == "throughput"
    assert {share.server: share.layers for share in report.servers}["a"] >= 1
    assert shell.report("--objective", "latency").objective == "latency"
    Path("tritier.yaml").write_text("plan:\n  max-componets: 2\n")
    with pytest.raises(SystemExit) as caught:
        main(["plan", "m.onnx", "--servers", "servers.json"])
    assert caught.value.code == 3


# ------------------------------------------------------------------------------ measured noise


def test_noise_is_measured_on_the_inputs_of_the_noise_model(shell: Shell) -> None:
    """Really: the quantized model runs on them."""
    np.savez("other.npz", x=np.zeros((1, 1, 512, 512), np.float32))
    report = shell.report(*NOISE, "--max-noise", "2.5", "--data", "in.npz", "--data", "other.npz",
                          "--noise-runs", "2")  # fmt: skip
    assert report.figures.quantized_layers > 0
    assert 0 < report.measured_noise["y"] <= 2.5
    assert 1 <= report.noise_runs <= 2
    assert [item.what for item in report.limits] == ["noise of y, measured"]
    text = shell.refused(*NOISE, "--max-noise", "2", "--data", "other.npz", code=3)
    assert "1 of the 1 inputs of the noise model are not among those given" in text


# ------------------------------------------------------------------------------ errors

USAGE = {
    "--objective fast": "--objective fast: allowed are latency, energy, weighted, throughput",
    "--objective latncy": "(did you mean 'latency'?)",
    "--formulation product": "--formulation product: allowed are labels, thesis",
    "--solver simplex": "solver 'simplex' is not installed or not known to PuLP; choose one of",
    "--solver CBC --objective makespan": "not for makespan: leave them out",
    "--formulation thesis --objective throughput": "not for throughput: leave them out",
    "--latency-weight 0.7": "--latency-weight 0.7 is for --objective weighted, not for latency",
    "--latency-weight 2 --objective weighted": "--latency-weight",
    "--latency-weight nan --objective weighted": "--latency-weight",
    "--max-noise 3": "--max-noise limits what a noise model predicts: give one with --noise",
    "--noise noise.json": "--noise alone says nothing: give --max-noise",
    "--noise noise.json --max-noise 3 --unlimited-noise": "contradict each other",
    "--noise noise.json --max-noise 3 --max-noise 2": "without an output is given twice",
    "--noise noise.json --max-noise y=3 --max-noise y=2": "'y' is named twice",
    "--noise noise.json --max-noise y=": "--max-noise takes NAME=VALUE",
    "--noise noise.json --max-noise quiet": "'quiet' is not allowed; give a number, 0 or more",
    "--noise noise.json --max-noise inf": "'inf' is not allowed",
    "--noise noise.json --max-noise -1": "'-1' is not allowed",
    "--noise noise.json --unlimited-noise --data in.npz": "which --unlimited-noise lifts",
    "--noise noise.json --max-noise 3 --noise-runs 2": "--noise-runs is for measuring",
    "--noise noise.json --max-noise 3 --data in.npz": "give one --noise model and its --ranges",
    "--data in.npz": "give one --noise model and its --ranges",
    "--preprocessing imagenet": "--preprocessing is for --images",
    "--int8-everywhere": "--int8-everywhere is for layers that may be quantized",
    "--int8-tensor x --ranges ranges.json": "--int8-tensor needs links that allow it",
    "--allow-wire int8": "--allow-wire int8 is for tensors that you name",
    "--allow-wire fp8": "--allow-wire fp8: allowed are as_is, fp16, int8",
    "--allow-wire a:c=fp16": "--allow-wire a:c: give a link as FROM:TO, two of a, b",
    "--close-link a": "--close-link a: give a link as FROM:TO, two of a, b",
    "--device-energy -1": "--device-energy",
    "--device-energy nan": "--device-energy",
    "--device-energy 1 --server-energy a=2": "both limit the entry 'a': give one",
    "--server-energy b": "--server-energy b: --server-energy takes NAME=VALUE",
    "--server-energy b=nan": "'nan' is not allowed; give a number, 0 or more",
    "--memory a=1 --memory a=2": "--memory a=2: 'a' is named twice",
    "--memory a=much": "'much' is not allowed",
    "--pin c1": "--pin c1: --pin takes NAME=VALUE",
    "--pin c1=a --pin c1=b": "--pin c1=b: 'c1' is named twice",
    "--forbid =a": "--forbid =a: --forbid takes NAME=VALUE",
    "--max-components 0": "--max-components",
    "--pareto -1": "--pareto",
    "--time-limit 0": "--time-limit",
    "--noise-runs 0": "--noise-runs",
    "--dim batch": "--dim batch: allowed is NAME=N",
    "--quantize c1": "--quantize and --wire-codec go with --assignment",
    "--wire-codec fp16": "--quantize and --wire-codec go with --assignment",
}
BAD = {
    "--server-energy edge=1": "an energy limit: 'edge' is no server",
    "--memory edge=1": "a memory limit: 'edge' is no server",
    "--memory b=10": "the memory limit of 'b' is 10 MiB, and a model that does nothing takes 10",
    "--pin c1=edge": "the pin of 'c1': 'edge' is no server",
    "--pin c9=a": "pins: 'c9' is no layer and matches none",
    "--forbid c9*=a": "forbidden: 'c9*' is no layer and matches none",
    "--forbid c1=a --forbid c1=b": "'c1' may stand on no server",
    "--keep-local z": "local_tensors: 'z' is no tensor and matches none",
    "--allow-wire int8 --int8-tensor x": "'x' can't cross in 8 bits without a range",
    "--close-link a:a": "a link has two servers",
    "--dim batch=2": "'batch' is no symbolic size of the model",
    "--noise noise.json --max-noise 3": "'c2', 'c3' are to be quantized, and there are no ranges",
    "--noise noise.json --max-noise z=3": "'z' is no output of the noise model; it has y",
    "--noise m.onnx --max-noise 3": "m.onnx: ",
    "--timing profiles/a.json": "profiles/a.json: is a second timing profile of server 'a'",
    "--timing none": "none: cannot be read",
    "--network noise.json": "noise.json: ",
    "--ranges noise.json": "noise.json: ",
}


@pytest.mark.parametrize("options", USAGE)
def test_wrong_usage_is_told(shell: Shell, options: str) -> None:
    assert USAGE[options] in shell.refused(*options.split())


@pytest.mark.parametrize("options", BAD)
def test_bad_input_is_told(shell: Shell, options: str) -> None:
    assert BAD[options] in shell.refused(*options.split(), code=3)


def test_documents_that_do_not_fit(shell: Shell) -> None:
    assert "give either --timing profiles" in shell.refused(planner=())
    assert "give either --timing profiles" in shell.refused("--assignment", "x.yaml")
    Path("empty").mkdir()
    assert "empty: has no timing profiles" in shell.refused(planner=("--timing", "empty"), code=3)
    only_b = ("--timing", "profiles/b.json")
    assert "the entry 'a' has no timing profile" in shell.refused(planner=only_b, code=3)
    other = onnx.load("m.onnx")
    other.producer_name = "another"
    onnx.save(other, "m.onnx")
    text = shell.refused(code=3)
    assert text.startswith("2 faults")
    assert text.count("is of another model") == 2


def test_a_link_that_is_not_known_is_warned_of(shell: Shell) -> None:
    Path("network.json").write_text(network(link("a", "b", 500, 1)).to_json())
    _, err = shell.run(*FEW)
    assert "warning: the link b -> a is not measured" in err
    Path("network.json").write_text(network(link("a", "b", 0, 1)).to_json())
    assert "0.0 MiB/s for a -> b: more than 0 is needed" in shell.refused(code=3)


def test_unknown_powers_matter_where_energy_does(shell: Shell) -> None:
    spec = ServersSpec.load(Path("servers.json")).model_dump(by_alias=True, exclude_none=True)
    for server in spec["servers"]:
        del server["compute_power_watt"], server["tx_other_power_watt"]
    Path("servers.json").write_text(ServersSpec.from_data(spec).to_json())
    _, err = shell.run(*FEW)
    assert "warning: the power of 'a' while computing and sending is unknown" in err
    for wanted in (["--objective", "energy"], ["--pareto", "0"], ["--energy", "3"]):
        assert "the power of 'a'" in shell.refused(*wanted, code=3)


def test_infeasible_limits_exit_with_5(shell: Shell) -> None:
    text = shell.refused("--max-latency", "1", code=5)
    assert text.startswith("no plan keeps all limits")
    assert "latency, at most 1 ms: 1" in text
    assert text.endswith("loosen it, or add a server")
    pins = [x for pin in ("c1=b", "c2=a", "c3=b") for x in ("--pin", pin)]
    text = shell.refused("--max-components", "1", *pins, code=5)
    assert "the fewest found are 3" in text


def test_options_of_the_planner_are_not_for_assignments(shell: Shell) -> None:
    Path("x.yaml").write_text("default: a\n")
    by_hand = ("--assignment", "x.yaml")
    shell.run("--dry-run", planner=by_hand)
    text = shell.refused(
        "--pin", "c1=a", "--objective", "energy", "--no-explain", "--pareto", "0", "--report",
        "r.json", "--network", "network.json", planner=by_hand,
    )  # fmt: skip
    for name in ("--pin", "--objective", "--explain", "--pareto", "--report", "--network"):
        assert name in text.split("knows")[1]
    assert "--memory" not in text
