"""One level: what perf_analyzer left, put together; runs are given from recorded ones."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.benches import level, settings, target
from tritier.bench import level as level_module
from tritier.bench.environment import current
from tritier.bench.generator import OwnFigures, OwnLoad
from tritier.bench.inputs import InputData
from tritier.bench.level import (
    Bench,
    _is_exported,
    keeps_up,
    level_name,
    measure_level,
    remove_raw,
    sustained,
)
from tritier.bench.perf_analyzer import LOG, PROFILE, Ended, Program
from tritier.bench.statistics import Counted
from tritier.bench.target import Target
from tritier.bench.trial import Trial
from tritier.documents import BenchLevel, BenchResult, BenchSettings
from tritier.errors import CheckFailed, ServerError

RECORDED = Path(__file__).resolve().parents[1] / "data" / "perf_analyzer"
_SAMPLE = {"x": np.zeros((1, 2), np.float32)}


class Recorded:
    """Stands for perf_analyzer: leaves the files of recorded runs, one after the other."""

    def __init__(self, *runs: tuple[int, str]) -> None:
        self.runs = list(runs)
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], folder: Path, *_: object) -> Ended:
        status, name = self.runs.pop(0)
        self.commands.append(command)
        folder.mkdir(parents=True)
        shutil.copy(RECORDED / f"{name}.log", folder / LOG)
        if "--profile-export-file" in command:
            shutil.copy(RECORDED / f"{name}.profile.json", folder / PROFILE)
        return Ended(status, folder)

    @property
    def windows(self) -> list[int]:
        return [int(c[c.index("--measurement-request-count") + 1]) for c in self.commands]


class Counts:
    """Stands for the servers' statistics: what each reading finds."""

    def __init__(self, *hits: int) -> None:
        self._hits = list(hits)

    def read(self) -> dict[str, dict[str, Counted]]:
        hits = self._hits.pop(0) if self._hits else 0
        parts = dict.fromkeys(
            ("queue", "compute_input", "compute_infer", "compute_output"), (hits, 0)
        )
        return {"device": {"m": Counted(hits, 0, hits, hits, parts)}}


def bench(folder: Path, own: BenchSettings, at: Target | None = None, **changes: Any) -> Bench:
    given: dict[str, Any] = {
        "target": at or target(), "settings": own, "program": Program(Path("/pa"), "1"),
        "data": InputData("zero", (_SAMPLE,)), "scraper": Counts(), "folder": folder, "check_s": 0,
    }  # fmt: skip
    return Bench(**{**given, **changes})


def runs(monkeypatch: pytest.MonkeyPatch, *given: tuple[int, str]) -> Recorded:
    made = Recorded(*given)
    monkeypatch.setattr(level_module, "run_program", made)
    return made


def test_windows_grow_until_they_are_stable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runs(monkeypatch, (2, "unstable"), (2, "unstable"), (0, "mean"))
    found = measure_level(bench(tmp_path, settings()), 1, 3)
    assert (found.stable, found.runs, found.window_requests) == (True, 3, 200)
    assert made.windows == [50, 100, 200]
    assert (found.requests, found.infer_per_s, found.times_from) == (55, 6.0975, "perf_analyzer")
    assert sorted(Path(path).name for path in found.raw) == [LOG]


def test_windows_of_a_high_load_grow_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = runs(monkeypatch, *[(2, "unstable")] * 3, (0, "mean"))
    found = measure_level(bench(tmp_path, settings(max_window_requests=400)), 1, 100)
    assert made.windows == [500, 1000, 2000, 2000]
    assert not found.stable
    assert "differ by 21 %" in str(found.unstable_because)
    assert "--max-trials 3" in " ".join(made.commands[-1])


def test_rows_are_counted_where_the_batch_is_the_first_dimension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at, rate in ((target(0, True), 4 * 6.0975), (target(8), 6.0975)):
        runs(monkeypatch, (0, "mean"))
        found = measure_level(bench(tmp_path, settings(), at), 4, 3)
        assert found.infer_per_s == pytest.approx(rate)
        assert found.duration_s == pytest.approx(55 * 4 / rate)
    runs(monkeypatch, (0, "rate"))
    own = bench(tmp_path, settings(arrivals="poisson"), target(8), trials={4: Trial(10, 0.1)})
    found = measure_level(own, 4, 20)
    assert found.times_from == "timestamps"
    assert found.infer_per_s == pytest.approx(4 * 16.6582, rel=1e-3)


def test_a_cache_that_answers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(monkeypatch, (0, "mean"))
    with pytest.raises(CheckFailed, match="answered for m on 'device'"):
        measure_level(bench(tmp_path, settings(), scraper=Counts(1, 3)), 1, 3)
    runs(monkeypatch, (0, "mean"))
    assert measure_level(bench(tmp_path, settings(), scraper=Counts(3, 3)), 1, 3).stable


def test_requests_that_are_sent_late_are_no_stable_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delayed(count: int) -> BenchLevel:
        def run(command: list[str], folder: Path, *_: object) -> Ended:
            ended = Recorded((0, "mean"))(command, folder)
            line = f"    Request count: 55\n    Delayed Request Count: {count}\n"
            text = ended.log.replace("    Request count: 55\n", line)
            (folder / LOG).write_text(text)
            return ended

        monkeypatch.setattr(level_module, "run_program", run)
        return measure_level(bench(tmp_path, settings(arrivals="constant")), 1, 6)

    assert delayed(0).stable
    assert "sent 18% of the requests later" in str(delayed(10).unstable_because)


def test_a_rate_that_is_not_reached_keeps_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = {"latency_limit_ms": 9999.0}
    for arrivals, offered, kept in (
        ("closed", 20, True), ("constant", 6, True), ("constant", 20, False), ("poisson", 20, True),
    ):  # fmt: skip
        runs(monkeypatch, (0, "mean"))
        own = settings(arrivals=arrivals, **limited)
        assert measure_level(bench(tmp_path, own), 1, offered).limit_kept is kept, arrivals
    shaky = level(1, 10, infer_per_s=10.0, stable=False, unstable_because="windows differ")
    assert keeps_up(settings(), shaky)
    assert not keeps_up(settings(arrivals="poisson"), shaky)
    assert not keeps_up(settings(arrivals="constant"), shaky)


def test_a_large_export_is_left_out(tmp_path: Path) -> None:
    def exported(values: int, latency_s: float, arrivals: Any = "closed") -> bool:
        own = bench(tmp_path, settings(arrivals=arrivals), trials={1: Trial(values, latency_s)})
        return _is_exported(own, 1, 10, 50)

    assert exported(1000, 0.1)
    assert not exported(1_000_000, 0.1)
    # A window lasts a second at least: of a fast model it has many more requests than asked for.
    assert exported(10_000, 0.1)
    assert not exported(10_000, 0.0001)
    assert exported(10_000, 0.0001, "constant")
    assert not _is_exported(bench(tmp_path, settings()), 1, 10, 50), "nobody knows its size"


def _sent(monkeypatch: pytest.MonkeyPatch) -> list[OwnLoad]:
    sent: list[OwnLoad] = []

    def run(load: OwnLoad) -> OwnFigures:
        sent.append(load)
        return OwnFigures(200, (), 1.0, 7.0, 0.0, 0.0, 5, 5, 5)

    monkeypatch.setattr(level_module, "run_own_load", run)
    return sent


def test_the_own_load_is_that_of_the_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = _sent(monkeypatch)
    runs(monkeypatch, (0, "mean"))
    found = measure_level(bench(tmp_path, settings(), check_s=1), 1, 60)
    (load,) = sent
    assert (load.arrivals, load.offered, load.requests) == ("closed", 60, 600)
    assert load.most_s == pytest.approx(4 * 60 / 6.0975), "four rounds at least"
    assert load.deadline_s == 60
    assert found.check is not None


def test_slow_answers_get_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = _sent(monkeypatch)
    done = sustained(
        bench(tmp_path, settings(), check_s=15), level(1, 4, p99_ms=9000, infer_per_s=10.0)
    )
    assert done is not None
    assert (done.arrivals, done.offered, done.agrees) == ("poisson", 7.0, True)
    assert (sent[0].deadline_s, sent[0].requests, sent[0].most_s) == (90, 200, 15)
    assert sustained(bench(tmp_path, settings()), level(1, 4)) is None


def test_a_check_that_fails_costs_no_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: OwnLoad) -> OwnFigures:
        raise ServerError("nobody answers")

    monkeypatch.setattr(level_module, "run_own_load", failing)
    runs(monkeypatch, (0, "mean"))
    found = measure_level(bench(tmp_path, settings(), check_s=1), 1, 3)
    assert (found.check, found.check_failed, found.requests) == (None, "nobody answers", 55)


def test_what_is_measured_anew_leaves_nothing_old(tmp_path: Path) -> None:
    own = bench(tmp_path, settings())
    file = tmp_path / "bench.json"
    for name in ("b1_c2", "b1_c4", "mine"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    remove_raw(own, file)
    file.write_text("{}")
    remove_raw(own, file)
    assert len(list((tmp_path / "raw").iterdir())) == 3
    old = BenchResult(
        model="m", url="127.0.0.1:1", mode="concurrency", settings=settings(),
        environment=current(), levels=(level(1, 2), level(1, 4)),
    )  # fmt: skip
    file.write_text(old.to_json())
    remove_raw(own, file)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["mine"]


def test_folders_of_near_rates_are_not_the_same() -> None:
    rates = settings(arrivals="constant")
    assert level_name(rates, 1, 2.5) == "b1_r2.5"
    assert level_name(rates, 1, 1000.001) != level_name(rates, 1, 1000.002)


_BENCH = """
import signal
import sys
from pathlib import Path
from tritier.bench.perf_analyzer import run_program
# Whoever runs the tests may have these ignored, as nohup does.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
run_program(["sleep", "60"], Path(sys.argv[1]), 50, lambda _: None)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_program_behind(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _BENCH, str(tmp_path / "run")], stderr=subprocess.DEVNULL
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 30
        while not children.read_text().split() and time.monotonic() < deadline:
            time.sleep(0.02)
        (child,) = map(int, children.read_text().split())
        while b"sleep" not in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0]:
            time.sleep(0.01)
        time.sleep(0.05)
        process.send_signal(number)
        code = process.wait(30)
    assert code in (128 + number, -number, 1), code
    left = Path(f"/proc/{child}").exists()
    if left:
        os.kill(child, signal.SIGKILL)
    assert not left
