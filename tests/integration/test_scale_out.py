"""Noise that is measured in processes and on a real dask cluster, beside the sequential run."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import LocalCluster

from tests.helpers.noise import CONVS, THREE, request_for
from tests.helpers.processes import children_of
from tritier.cli import main
from tritier.documents import NoiseModel
from tritier.errors import InputError, ServerError
from tritier.noise import built_in, load_metric
from tritier.workflow import NoiseRequest, learn_noise, noise_dask, noise_work
from tritier.workflow.noise_spread import Backend, Where

OWN = """
import os
import numpy as np

def far(a, b, n):
    return (float(np.abs(a["y"] - b["y"]).max()), n)

far.combine = lambda found: max(x for x, _ in found)

def deadly(a, b, n):
    if n == 1 and os.getpid() != {pid}:
        os._exit(9)
    return float(np.abs(a["y"] - b["y"]).mean())

def failing(a, b, n):
    raise KeyError("label")
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The scheduler of a cluster of two worker processes on loopback."""
    with _cluster(tmp_path_factory.mktemp("dask"), 2) as cluster:
        yield cluster.scheduler_address


def _cluster(folder: Path, workers: int) -> LocalCluster:
    return LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1",
        dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False}, local_directory=str(folder),
    )  # fmt: skip


def learned(request: NoiseRequest, folder: Path, where: Where) -> NoiseModel:
    """Measured anew, in a store of its own."""
    model = learn_noise(dataclasses.replace(request, store=folder, where=where))
    return model.model_copy(update={"measured_at": "", "elapsed_s": 0.0})


def own_metric(folder: Path, name: str) -> dict[str, Any]:
    path = folder / "own.py"
    path.write_text(OWN.format(pid=os.getpid()))
    return {"metric": load_metric(f"{path}:{name}")}


def where_of(backend: Backend, address: str) -> Where:
    return Where(backend, 2, address if backend == "dask" else "")


@pytest.mark.parametrize("backend", ["threading", "loky", "dask"])
@pytest.mark.parametrize("metric", ["mean_abs", "cosine", "own"])
def test_scores_are_those_of_the_sequential_run_bit_for_bit(
    tmp_path: Path, address: str, backend: Backend, metric: str
) -> None:
    changes = own_metric(tmp_path, "far") if metric == "own" else {"metric": built_in(metric)}
    request = request_for(tmp_path, layers=CONVS, count=5, **changes)
    alone = learned(request, tmp_path / "alone", Where())
    spread = learned(request, tmp_path / "spread", where_of(backend, address))
    assert spread == alone
    assert len({row.noise[name] for row in alone.measured for name in row.noise}) > 10


def test_real_kernels_and_large_arrays_too(tmp_path: Path, address: str) -> None:
    """Inputs of 1.2 MB: dask keeps them apart from the tasks."""
    request = request_for(tmp_path, layers=THREE, count=3, kernels=True)
    for number in range(3):
        drawn = np.random.default_rng(number).normal(size=(1, 3, 320, 320)).astype(np.float32)
        np.savez(tmp_path / "inputs" / f"x{number}.npz", x=drawn)
    alone = learned(request, tmp_path / "alone", Where())
    backends: tuple[Backend, ...] = ("loky", "dask")
    for backend in backends:
        found = learned(request, tmp_path / backend, where_of(backend, address))
        assert found == alone, backend


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_the_work_is_done_elsewhere(tmp_path: Path, address: str, backend: Backend) -> None:
    """In this process the metric would fail."""
    path = tmp_path / "own.py"
    body = f"    assert os.getpid() != {os.getpid()}\n    return 1.0\n"
    path.write_text(f"import os\ndef f(a, b, n):\n{body}")
    request = request_for(tmp_path, metric=load_metric(f"{path}:f"))
    found = learned(request, tmp_path / "spread", where_of(backend, address))
    assert {row.noise["f"] for row in found.measured} == {1.0}
    with pytest.raises(InputError, match="AssertionError"):
        learned(request, tmp_path / "alone", Where())


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_errors_of_workers_come_back_in_words(
    tmp_path: Path, address: str, backend: Backend
) -> None:
    request = request_for(tmp_path, **own_metric(tmp_path, "failing"))
    with pytest.raises(InputError, match=r"failing fails on input \d: KeyError: 'label'"):
        learned(request, tmp_path / "spread", where_of(backend, address))


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_a_metric_that_changed_meanwhile_is_refused(
    tmp_path: Path, address: str, backend: Backend
) -> None:
    request = request_for(tmp_path, **own_metric(tmp_path, "far"))
    (tmp_path / "own.py").write_text("def far(a, b, n):\n    return 2.0\n")
    with pytest.raises(InputError, match=r"own\.py:far is another file"):
        learned(request, tmp_path / "spread", where_of(backend, address))


def test_processes_end_with_the_run(tmp_path: Path) -> None:
    before = set(children_of(os.getpid()))
    request = request_for(tmp_path, count=3)
    learned(request, tmp_path / "spread", Where("loky", 2))
    left = {pid for pid in set(children_of(os.getpid())) - before if _is_worker(pid)}
    assert left == set()


def _is_worker(pid: int) -> bool:
    """Not the tracker of resources that Python keeps until its own end."""
    return "popen_loky" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")


def test_a_process_that_dies_ends_the_run_and_what_was_measured_stays(tmp_path: Path) -> None:
    request = request_for(tmp_path, count=3, **own_metric(tmp_path, "deadly"))
    with pytest.raises(ServerError, match="a process that measured inputs has died"):
        learned(request, tmp_path / "spread", Where("loky", 2))
    learned(request, tmp_path / "spread", Where())  # here it does not die


def test_lost_workers_end_the_run(tmp_path: Path) -> None:
    request = request_for(tmp_path, count=3, **own_metric(tmp_path, "deadly"))
    with _cluster(tmp_path / "dask", 1) as cluster:
        where = Where("dask", 1, cluster.scheduler_address)
        with pytest.raises(ServerError, match=r"workers of the dask scheduler at .* were lost"):
            learned(request, tmp_path / "spread", where)


# The command.


def noise(folder: Path, *arguments: str, code: int = 0) -> None:
    request = request_for(folder, count=4)
    given = [str(path) for path in sorted((folder / "inputs").glob("*.npz"))]
    data = [text for path in given for text in ("--data", path)]
    model = next(folder.glob("*.onnx"))
    words = [*data, "--quantize-layer", "c1", "--quantize-layer", "c4", "--fresh", *arguments]
    with pytest.raises(SystemExit) as caught:
        main(["--workspace", str(folder / "workspace"), "noise", str(model), *words])
    assert caught.value.code == code
    assert request.layers == ("c1", "c4")


def test_the_command_writes_the_same_by_every_backend(tmp_path: Path, address: str) -> None:
    noise(tmp_path, "-o", str(tmp_path / "alone.json"), "--jobs", "1")
    noise(tmp_path, "-o", str(tmp_path / "loky.json"), "--backend", "loky", "--jobs", "2")
    dask = ("--backend", "dask", "--scheduler", address)
    noise(tmp_path, "-o", str(tmp_path / "dask.json"), *dask)
    alone, loky, spread = (
        NoiseModel.load(tmp_path / f"{name}.json").model_copy(
            update={"measured_at": "", "elapsed_s": 0.0}
        )
        for name in ("alone", "loky", "dask")
    )
    assert alone == loky == spread


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--backend", "ray"), "--backend ray: allowed are threading, loky, dask"),
        (("--backend", "dask"), "give the address of its scheduler"),
        (("--scheduler", "tcp://127.0.0.1:1"), "--scheduler is of --backend dask"),
        (
            ("--backend", "dask", "--scheduler", "tcp://127.0.0.1:1", "--jobs", "2"),
            "--jobs says nothing",
        ),
    ],
)
def test_options_that_go_not_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str
) -> None:
    noise(tmp_path, *arguments, code=2)
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("listens", [False, True])
def test_a_scheduler_that_does_not_answer(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    listens: bool,
) -> None:
    """Nothing on the port, and something that takes connections and says nothing."""
    monkeypatch.setattr(noise_dask, "WAIT_S", 1.0)
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        if listens:
            port.listen()
        scheduler = f"tcp://127.0.0.1:{port.getsockname()[1]}"
        noise(tmp_path, "--backend", "dask", "--scheduler", scheduler, code=4)
    error = capsys.readouterr().err
    assert f"no dask scheduler answers at {scheduler} within 1 s" in error
    assert "Traceback" not in error
    assert not (tmp_path / "workspace").exists()


def test_what_is_no_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise(tmp_path, "--backend", "dask", "--scheduler", "smoke://signal", code=3)
    assert "--scheduler smoke://signal: is no address" in capsys.readouterr().err


def test_a_scheduler_without_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_dask, "WAIT_S", 1.0)
    with (
        _cluster(tmp_path, 0) as cluster,
        pytest.raises(ServerError, match=r"has no worker after 1 s.*dask worker tcp://"),
    ):
        noise_dask.check_scheduler(cluster.scheduler_address)


def test_workers_that_would_give_other_scores(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = dict(noise_work.worker_facts())
    monkeypatch.setattr(noise_dask, "worker_facts", _Facts(own))
    with pytest.raises(ServerError) as caught:
        noise_dask.check_scheduler(address)
    text = str(caught.value)
    assert text.count(f"onnxruntime is '{own['onnxruntime']}' there, '0.1' here") == 2
    assert "--backend threading" in text


class _Facts:
    """Of another release here; in the workers, to which it goes as a copy, the true ones."""

    def __init__(self, true: dict[str, str]) -> None:
        self._true = true
        self._here = os.getpid()

    def __call__(self) -> dict[str, str]:
        changed = {"onnxruntime": "0.1"} if os.getpid() == self._here else {}
        return self._true | changed
