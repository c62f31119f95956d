"""`tritier load`, as a user calls it, up to the point where servers are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from tests.helpers.families import family_folder
from tests.helpers.models import DIAMOND, load, spec, split
from tritier import cli
from tritier.bench.locust_job import LoadJob, read_job
from tritier.cli import main
from tritier.cli.load import _judge, _processes, parse_classes
from tritier.documents import ServersSpec
from tritier.documents.load import LoadResult
from tritier.errors import CheckFailed, UsageError
from tritier.graph import build_layer_graph
from tritier.repository import write_files
from tritier.workflow import plan_from_placement

BUILT = typer.main.get_command(cli.app)
URL = ("--url", "127.0.0.1:1")
# Of whose addresses nothing is known.
SERVERS = ServersSpec.from_data(
    {"servers": [{"name": "a", "tier": "edge", "entry": True}, {"name": "b", "tier": "edge"}]}
)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan in `repos`, a family with a router and the whole model in `family`."""
    folder = tmp_path_factory.mktemp("load")
    made = split(folder, DIAMOND, {"neg": "b", "*": "a"}, SERVERS)
    write_files(made.files, folder / "repos", force=False)
    model = load(folder, DIAMOND)
    layers = {layer.name: "a" for layer in build_layer_graph(model.proto).layers}
    plans = [
        plan_from_placement(
            model, build_layer_graph(model.proto), layers | {name: "b"}, spec(), "m"
        )
        for name in ("relu", "neg")
    ]
    family_folder(model, plans, folder / "family", whole=True)
    return folder


class Shell:
    """Calls the command in a folder."""

    def __init__(self, folder: Path, capsys: Any) -> None:
        self.folder, self._capsys = folder, capsys

    def run(self, *arguments: str, repos: str = "repos", code: int = 0) -> tuple[str, str]:
        files = ["--repos", str(self.folder / repos), "--model", str(self.folder / "m.onnx")]
        with pytest.raises(SystemExit) as caught:
            main(["load", *files, *arguments])
        out, err = self._capsys.readouterr()
        assert caught.value.code == code, err
        assert "Traceback" not in err
        return out, err

    def job(self, *arguments: str, repos: str = "repos") -> LoadJob:
        """What would be given to Locust."""
        self.run(*URL, "--prepare", "test", "--force", *arguments, repos=repos)
        return read_job(Path("test"))[0]


@pytest.fixture
def shell(documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "app", BUILT)
    return Shell(documents, capsys)


def test_a_dry_run_says_what_would_be_and_writes_nothing(shell: Shell, tmp_path: Path) -> None:
    options = ("--shape", "steps", "--users", "1:4", "--duration", "9s", "--workers", "2")
    out, err = shell.run("m", *URL, *options, "-o", "load.json", "--dry-run")
    assert "levels of --shape steps" in out
    assert "processes of Locust: master, worker 0, worker 1" in err
    assert list(tmp_path.iterdir()) == []


def test_a_prepared_plan_has_one_right_answer_to_each_input(shell: Shell) -> None:
    job = shell.job("m", "-n", "3", "--seed", "7", "--timeout-ms", "500", "--pause-ms", "2")
    assert (job.model, job.url, job.questions) == ("m", "127.0.0.1:1", 3)
    assert list(job.plans) == [job.plan_id]
    assert job.class_plans == {"": (job.plan_id,)}
    assert (job.settings.seed, job.settings.timeout_ms, job.settings.pause_ms) == (7, 500, 2)
    assert job.settings.inputs == "3 random inputs, seed 7"
    _, asked = read_job(Path("test"))
    for inputs, answer in zip(asked.inputs, asked.answers[str(job.plan_id)], strict=True):
        x = np.maximum(inputs["x"], 0)
        w = np.array([1, 2, 3, 4], np.float32)
        assert answer["y"].tolist() == pytest.approx((-x + x * w - w).tolist(), rel=1e-6)
    again = shell.job("m", "-n", "3", "--seed", "7")
    assert again.settings.inputs_sha256 == job.settings.inputs_sha256
    assert shell.job("m", "-n", "3").settings.inputs_sha256 != job.settings.inputs_sha256


def test_a_router_may_answer_by_any_plan_of_the_class(shell: Shell) -> None:
    job = shell.job("m", "--class", "normal=2", repos="family")
    assert job.plan_id is None
    assert len(job.class_plans["normal"]) == 3
    assert job.class_plans["normal"][-1] == "whole"
    assert set(job.plans) == set(job.class_plans["normal"])
    assert job.settings.classes == {"normal": 2}
    assert shell.job("m", repos="family").class_plans == {"": job.class_plans["normal"]}
    one = job.class_plans["normal"][0]
    assert shell.job(f"m__{one}", repos="family").plan_id == one
    assert shell.job("m__whole", repos="family").plan_id == "whole"


def test_files_as_inputs(shell: Shell) -> None:
    np.save("a.npy", np.ones(4, np.float32))
    job = shell.job("m", "--data", "a.npy")
    assert (job.questions, job.settings.inputs) == (1, "1 input files")


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("n", *URL), "MODEL n: is no model that apps call", 2),
        (("m",), "the address of the entry 'a' is unknown", 2),
        (("m", *URL, "--users", "0"), "--users 0: allowed is", 2),
        (("m", *URL, "--users", "1:4"), "--shape constant has one number", 2),
        (("m", *URL, "--duration", "5"), "--duration 5: allowed is", 2),
        (("m", *URL, "--class", "low=1"), "--class is for routers", 2),
        (("m", *URL, "--workers", "0"), "--workers 0: nobody would ask", 2),
        (("m", *URL, "--bind", "0.0.0.0"), "is for --expect-workers", 2),
        (("m", *URL, "--tls-cert", "c.pem"), "need --tls-ca", 2),
        (("m", "--tls-ca", "c.pem"), "all --url", 2),
        (("m", *URL, "--master-host", "h", "--json"), "the result is on that machine", 2),
        (("m", *URL, "--master-host", "h", "--expect-workers", "1"), "no --expect-workers", 2),
        (("m", *URL, "--limit", "3"), "are for --images or --data", 2),
        (("m", *URL, "--data", "a.npy", "-n", "3"), "-n and --dim are for random inputs", 2),
        (("m", *URL, "--data", "a.npy", "--dim", "b=2"), "-n and --dim are for random inputs", 2),
        (("m", *URL, "--web-port", "8090"), "--web-port: is that of --web", 2),
        (("m", *URL, "--prepare", "p", "-o", "x.json"), "--prepare measures nothing", 2),
        (("m", *URL, "--prepare", "p", "--samples", "x.csv"), "--prepare measures nothing", 2),
        (("m", *URL), "no server answers at 127.0.0.1:1", 4),
    ],
)
def test_what_can_t_work_is_told(
    shell: Shell, arguments: tuple[str, ...], said: str, code: int
) -> None:
    _, err = shell.run(*arguments, code=code)
    assert said in err


def test_an_unknown_class_is_told_with_those_there_are(shell: Shell) -> None:
    _, err = shell.run("m", *URL, "--class", "norml=1", repos="family", code=2)
    assert "did you mean 'normal'" in err


def test_a_result_is_not_replaced_before_a_long_test(shell: Shell) -> None:
    Path("load.json").write_text("mine")
    _, err = shell.run("m", *URL, "-o", "load.json", code=3)
    assert "pass --force" in err


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=0", "a=-1", "a=1.5", "a=1001"])
def test_bad_classes(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=WEIGHT"):
        parse_classes([text])


def test_classes() -> None:
    assert parse_classes(["a=1", "b=20"]) == {"a": 1, "b": 20}
    with pytest.raises(UsageError, match="stands twice"):
        parse_classes(["a=1", "a=2"])


def test_a_machine_that_leads_others_asks_only_if_it_is_told_to() -> None:
    assert _processes(None, 3, "10.0.0.5", None, None, None).workers == 0
    assert _processes(2, 3, "10.0.0.5", None, None, None).workers == 2
    assert _processes(None, 0, "127.0.0.1", None, None, None).workers == 1


def _result(shell: Shell, **changed: Any) -> LoadResult:
    values: dict[str, Any] = {
        "model": "m", "url": "u", "users": (1,), "duration_s": 1.0, "infer_per_s": 1.0,
        "requests": 100, "failures": 0, "wrong": 0,
        "settings": json.loads(shell.job("m").settings.to_json()),
    }  # fmt: skip
    return LoadResult.from_data(values | changed)


def test_wrong_answers_and_failures_fail_the_check(shell: Shell) -> None:
    _judge(_result(shell), 0.0, web=False)
    with pytest.raises(CheckFailed, match="1 of 100 answers"):
        _judge(_result(shell, wrong=1), 1.0, web=False)
    with pytest.raises(CheckFailed, match=r"2.00% of all requests failed, allowed are 1.00%"):
        _judge(_result(shell, failures=2), 0.01, web=False)
    _judge(_result(shell, failures=2), 0.02, web=False)
    with pytest.raises(CheckFailed, match="no request was sent"):
        _judge(_result(shell, requests=0), 0.0, web=False)
    with pytest.raises(CheckFailed, match="not all workers"):
        _judge(_result(shell, warnings=["worker w: it is not counted"]), 0.0, web=False)
    with pytest.raises(KeyboardInterrupt):
        _judge(_result(shell, interrupted=True), 0.0, web=False)
    _judge(_result(shell, interrupted=True), 0.0, web=True)
