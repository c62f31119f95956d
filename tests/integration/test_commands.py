"""The commands as a user types them, from a checkout and from an installed wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.integration.conftest import Bench
from tritier.deployment.lab import Lab
from tritier.documents import ServersSpec
from tritier.errors import ServerError
from tritier.resources import example_dir

pytestmark = pytest.mark.integration
_EXAMPLE = example_dir("super_resolution")
_ROOT = Path(__file__).resolve().parents[2]


class Shell:
    """Runs `tritier` in a folder; with `installed`, the package of that folder instead of ours."""

    def __init__(self, folder: Path, installed: Path | None = None) -> None:
        self.folder = folder
        self._environment = dict(os.environ)
        if installed is not None:
            self._environment["PYTHONPATH"] = str(installed)

    def __call__(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "tritier", *map(str, arguments)],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done

    def json(self, *arguments: object) -> object:
        return json.loads(self(*arguments, "--json").stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    for name in ("espcn_x3.onnx", "servers.yaml", "assignment.yaml"):
        shutil.copy(_EXAMPLE / name, tmp_path / name)
    run = Shell(tmp_path)
    yield run
    run("lab", "down")


def _plan_and_generate(shell: Shell) -> None:
    shell("plan", "espcn_x3.onnx", "--assignment", "assignment.yaml", "--servers", "servers.yaml")
    shell("generate", "plan.json", "-o", "repos")


def test_from_model_to_verified_deployment(shell: Shell) -> None:
    _plan_and_generate(shell)
    shell("lab", "up", "--servers", "servers.yaml", "--repos", "repos")
    shell("deploy", "repos", "--servers", "servers.yaml")
    done = shell("verify", "repos", "--model", "espcn_x3.onnx", "--live", "-n", 2)
    assert "equals the whole model" in done.stderr
    written = json.loads((shell.folder / "repos" / "verification.json").read_text())
    assert [row["run"] for row in written["results"]] == ["chained", "chained", "live"]
    assert all(row["max_abs_difference"] == 0 for row in written["results"])
    status = shell.json("lab", "status")
    assert isinstance(status, dict)
    assert {s["name"]: len(s["ready"]) for s in status["servers"]} == {
        "device": 5,
        "edge": 3,
        "cloud": 3,
    }
    shell("lab", "up", "--servers", "servers.yaml", code=4)  # one lab at a time
    shell("undeploy", "repos", "--servers", "servers.yaml")
    done = shell("verify", "repos", "--model", "espcn_x3.onnx", "--live", "-n", 1, code=4)
    assert "espcn_x3" in done.stderr
    shell("lab", "down")
    shell("lab", "status", code=1)
    shell("deploy", "repos", "--servers", "servers.yaml", code=3)  # no addresses any more


def test_stages_resume_from_the_pool(shell: Shell) -> None:
    _plan_and_generate(shell)
    first = (shell.folder / "repos" / "manifest.json").read_bytes()
    (shell.folder / "espcn_x3.onnx").unlink()
    shell("generate", "plan.json", "-o", "repos", code=3)  # the folder is in use
    shell("generate", "plan.json", "-o", "repos", "--force")
    assert (shell.folder / "repos" / "manifest.json").read_bytes() == first
    listed = shell.json("pool", "list")
    assert isinstance(listed, list)
    assert [entry["kind"] for entry in listed] == ["model", *["sub-model"] * 3, "plan"]
    shell("pool", "gc", "--unused-days", 0)
    assert shell.json("pool", "list") == []
    shell("generate", "plan.json", "-o", "elsewhere", code=3)  # the model is gone
    assert not (shell.folder / "elsewhere").exists()


def test_wrong_usage_and_bad_settings(shell: Shell) -> None:
    assert "Usage" in shell(code=2).stderr
    assert "No such command" in shell("spit", code=2).stderr
    shell("plan", "espcn_x3.onnx", code=2)
    (shell.folder / "tritier.yaml").write_text("generate:\n  max-batchsize: 4\n")
    done = shell("lab", "status", code=3)
    assert "did you mean 'max-batch-size'" in done.stderr
    (shell.folder / "tritier.yaml").write_text("generate:\n  max-batch-size: 4\n")
    _plan_and_generate(shell)
    manifest = json.loads((shell.folder / "repos" / "manifest.json").read_text())
    assert manifest["batching"]["max_batch_size"] == 4
    (shell.folder / "tritier.yaml").unlink()


def test_dry_runs_leave_nothing(shell: Shell) -> None:
    before = sorted(shell.folder.iterdir())
    plan = ("plan", "espcn_x3.onnx", "--assignment", "assignment.yaml", "--servers", "servers.yaml")
    shell(*plan, "--dry-run")
    shell("lab", "up", "--servers", "servers.yaml", "--dry-run")
    assert sorted(shell.folder.iterdir()) == before


def test_an_installed_wheel_generates_the_same_bytes(shell: Shell, tmp_path: Path) -> None:
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build: list[str | Path] = [
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        wheels,
        _ROOT,
    ]
    subprocess.run(build, check=True, timeout=300)  # by the hatchling that is installed
    wheel = next(wheels.glob("tritier-*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "-t", site, wheel], check=True, timeout=300)
    _plan_and_generate(shell)
    installed = Shell(tmp_path, site)
    where = subprocess.run(
        [sys.executable, "-c", "import tritier; print(tritier.__file__)"],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(site) in where.stdout
    installed("generate", "plan.json", "--model", "espcn_x3.onnx", "-o", "from_wheel")
    ours, theirs = (_tree(tmp_path / name) for name in ("repos", "from_wheel"))
    assert ours == theirs
    assert (site / "tritier/_data/examples/super_resolution/espcn_x3.onnx").is_file()


def _tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_demo(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    result = shell.json("demo", "--requests", 2)
    assert isinstance(result, dict)
    assert all(row["ok"] for row in result["verification"])
    assert {row["run"] for row in result["verification"]} == {"chained", "live"}
    assert result["psnr_db"]["split network"] > result["psnr_db"]["bicubic"] + 0.5
    servers = {row["server"] for row in result["components"]}
    assert servers == {"device", "edge", "cloud"}
    # 5 + 50 + 55 ms lie on the way of every request: the emulation is there.
    assert result["split"]["min_ms"] > 110
    with Image.open(tmp_path / "demo_output" / "super_resolution.png") as picture:
        assert picture.width > 3 * 500
    shell("lab", "status", code=1)


def test_a_used_port_is_an_error_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    taken = bench.state.urls["device"]
    spec = ServersSpec.from_data(
        {"servers": [{"name": "late", "tier": "device", "entry": True, "url": taken}]}
    )
    lab = Lab(tmp_path / "lab")
    with pytest.raises(ServerError, match="late"):
        lab.up(spec, None)
    assert lab.state() is None


def test_nothing_is_left_in_shared_memory(tmp_path: Path) -> None:
    spec = ServersSpec.from_data({"servers": [{"name": "a", "tier": "device", "entry": True}]})
    lab = Lab(tmp_path / "lab")
    state = lab.up(spec, None)
    prefix = state.servers[0].shm_prefix
    pid = state.servers[0].process.pid
    assert lab.is_running(state.servers[0].process)
    lab.down()
    assert not list(Path("/dev/shm").glob(f"{prefix}*"))
    assert not Path(f"/proc/{pid}").exists()
