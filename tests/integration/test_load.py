"""Load tests with real Locust on a real plan: figures, wrong answers, several processes."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.integration.conftest import Bench, placement
from tritier.bench.locust_job import FOLDER_VARIABLE, RESULT_NAME
from tritier.bench.locust_samples import percentile
from tritier.documents import Plan
from tritier.documents.load import LoadResult
from tritier.graph import LoadedModel, build_layer_graph, load_model
from tritier.repository import GenerateOptions, write_files
from tritier.resources import loadtests_dir
from tritier.workflow import generate, plan_from_placement

pytestmark = pytest.mark.integration
_PATIENCE_S = 60


@dataclass
class Served:
    """A plan that is loaded, and how `tritier load` is told of it."""

    bench: Bench
    plan: Plan
    model: LoadedModel
    url: str
    folder: Path

    def command(
        self, *more: str, repos: Path | None = None, model: Path | None = None
    ) -> list[str]:
        files = ["--repos", str(repos or self.folder), "--model", str(model or self.model.path)]
        start = [sys.executable, "-m", "tritier", "load", "espcn", "--url", self.url]
        return [*start, *files, *more]


def _plan(bench: Bench, model: LoadedModel) -> Plan:
    layers = placement(model, {"conv1": "edge", "relu1": "edge"}, "device")
    return plan_from_placement(model, build_layer_graph(model.proto), layers, bench.spec, "espcn")


@pytest.fixture(scope="module")
def served(bench: Bench, espcn: LoadedModel) -> Iterator[Served]:
    plan = _plan(bench, espcn)
    with bench.deployed(plan, espcn) as (repositories, addresses):
        yield Served(bench, plan, espcn, addresses.urls["device"], repositories.path)


def _run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_levels_are_measured_and_every_answer_is_right(served: Served, tmp_path: Path) -> None:
    files = ["-o", str(tmp_path / "load.json"), "--samples", str(tmp_path / "samples.csv")]
    ended = _run(served.command("--shape", "steps", "--users", "1:2", "--duration", "4s", *files))
    assert ended.returncode == 0, ended.stderr
    found = LoadResult.load(tmp_path / "load.json")
    assert (found.wrong, found.failures, found.interrupted) == (0, 0, False)
    assert (found.plan_id, found.users, found.settings.workers) == (served.plan.id, (1, 2), 1)
    assert found.answered_by == {served.plan.id: found.requests}
    assert [point.users for point in found.points] == [1, 2]
    # When users really came is measured: a busy machine moves it.
    assert [point.t_s for point in found.points] == pytest.approx([0.2, 2.2], abs=0.3)
    assert [point.length_s for point in found.points] == pytest.approx([1.8, 1.8], abs=0.3)
    assert all(point.requests > 3 for point in found.points)
    assert found.environment is not None
    assert found.environment.servers["device"].startswith("2.")
    with (tmp_path / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found.requests
    ordered = sorted(float(row["ms"]) for row in rows)
    for percent, ms in ((50, found.p50_ms), (95, found.p95_ms), (99, found.p99_ms)):
        assert ms == pytest.approx(percentile(ordered, percent), abs=1e-6)
    # Each level has as many users as it should: nobody waits for another one's answer.
    for point in found.points:
        inside = [r for r in rows if point.t_s <= float(r["sent_s"]) < point.t_s + point.length_s]
        busy_s = sum(float(row["ms"]) for row in inside) / 1000
        assert busy_s < point.users * point.length_s * 1.5
        assert busy_s > point.users * point.length_s * 0.6, "all of them ask, all the time"
    assert "espcn" in ended.stdout


def test_a_load_on_another_model_is_found_wrong(served: Served, tmp_path: Path) -> None:
    """The control: what is served is not this other network."""
    proto = onnx.ModelProto()
    proto.CopyFrom(served.model.proto)
    weight = proto.graph.initializer[0]
    values = numpy_helper.to_array(weight) * 1.01
    weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), weight.name))
    onnx.save(proto, str(tmp_path / "other.onnx"))
    other = load_model(tmp_path / "other.onnx")
    files, _ = generate(_plan(served.bench, other), other, GenerateOptions())
    write_files(files, tmp_path / "repos", force=False)
    options = ("--users", "2", "--duration", "1s", "-o", str(tmp_path / "load.json"))
    ended = _run(served.command(*options, repos=tmp_path / "repos", model=other.path))
    assert ended.returncode == 1, ended.stderr
    assert "answers are not those of the whole model" in ended.stderr
    assert "output 'upscaled' is" in ended.stderr
    found = LoadResult.load(tmp_path / "load.json")
    assert found.wrong == found.requests > 0
    assert (found.p50_ms, found.infer_per_s) == (None, 0)


def test_two_workers_are_counted_also_when_the_test_is_interrupted(
    served: Served, tmp_path: Path
) -> None:
    output = tmp_path / "load.json"
    command = served.command("--users", "4", "--workers", "2", "--duration", "60s")
    before = _connections(served.url)
    with subprocess.Popen(
        [*command, "-o", str(output)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stderr is not None
        said, users = [], 0
        for line in process.stderr:
            said.append(line)
            if "4 users" in line:
                time.sleep(2)
                users = max(users, _connections(served.url) - before)
                process.send_signal(signal.SIGINT)
        assert process.wait(_PATIENCE_S) == 130, said
    assert users >= 4, "each user has a connection of its own"
    found = LoadResult.load(output)
    assert found.interrupted
    assert 0 < found.duration_s < 30
    assert (found.settings.workers, found.wrong, found.failures) == (2, 0, 0)
    assert found.requests > 8
    assert not [text for text in found.warnings if "core" not in text], found.warnings
    assert _processes_of(tmp_path) == []
    assert list(tmp_path.glob("tritier-*")) == []


def test_locust_alone_runs_what_was_prepared(served: Served, tmp_path: Path) -> None:
    ended = _run(served.command("--prepare", str(tmp_path / "test")))
    assert ended.returncode == 0, ended.stderr
    assert f"{FOLDER_VARIABLE}={tmp_path / 'test'}" in ended.stderr
    command = [sys.executable, "-m", "locust", "-f", str(loadtests_dir() / "infer.py")]
    command += ["--headless", "--users", "2", "--spawn-rate", "2", "--run-time", "2s"]
    ended = _run(command, **{FOLDER_VARIABLE: str(tmp_path / "test")})
    assert ended.returncode == 0, ended.stderr
    assert " 0 failed, 0 wrong" in ended.stdout
    found = LoadResult.load(tmp_path / "test" / RESULT_NAME)
    assert (found.shape, found.users) == (None, (2,))
    assert found.requests > 2
    missing = _run(command, **{FOLDER_VARIABLE: str(tmp_path)})
    assert missing.returncode == 1
    assert "--prepare FOLDER" in missing.stderr


def _connections(url: str) -> int:
    """Connections that clients of this machine have to an address now."""
    port = f":{int(url.rpartition(':')[2]):04X}"
    files = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    rows = [line.split() for path in files for line in path.read_text().splitlines()[1:]]
    return sum(row[2].endswith(port) and row[3] == "01" for row in rows)


def _processes_of(folder: Path) -> list[str]:
    """Processes whose environment names the folder."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if str(folder).encode() in (path / "environ").read_bytes():
                    found.append((path / "cmdline").read_text())
            except OSError:
                continue
    return found
