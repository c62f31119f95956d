"""How experiments run: the order of requests, names of models, folders of runs that were killed."""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.lab_runs import ended_by_sigterm, in_turn, scratch_of
from benchmarks.tiers import Subject
from tritier.deployment.lab import Lab
from tritier.errors import InputError


def followers(rounds: int, names: str = "abcd") -> Counter[tuple[str, str]]:
    """How often each kind of request came right after each other one."""
    asked: list[str] = []

    def ask(name: str) -> float:
        asked.append(name)
        return 1.0

    found = in_turn({n: lambda n=n: ask(n) for n in names}, rounds, warm_up=0)  # type: ignore[misc]
    assert list(found) == list(names)
    assert {len(values) for values in found.values()} == {rounds}
    return Counter(itertools.pairwise(asked))


def test_each_request_follows_each_other_one_about_equally_often() -> None:
    found = followers(600)
    pairs = [found[pair] for pair in itertools.permutations("abcd", 2)]
    # 600 rounds of 4 have 150 of each within a round, and a few between rounds.
    assert min(pairs) > 120
    assert max(pairs) < 240
    assert followers(600) == found  # drawn the same way again


def test_requests_that_warm_up_for_the_next_do_not_count() -> None:
    asked: list[str] = []

    def ask(name: str) -> float:
        asked.append(name)
        return float(len(asked))

    found = in_turn(
        {n: lambda n=n: ask(n) for n in "ab"}, 5, warm_up=0, uncounted=1  # type: ignore[misc]
    )  # fmt: skip
    assert len(asked) == 20
    assert all(a == b for a, b in zip(asked[::2], asked[1::2], strict=True)), "in a row"
    assert sorted(found["a"] + found["b"]) == [float(x) for x in range(2, 21, 2)], "the second"


def test_names_of_models_have_no_space() -> None:
    item = Subject.__new__(Subject)
    object.__setattr__(item, "name", "text detection")
    assert re.fullmatch(r"[a-z_-]+", item.prefix)
    assert item.key == "text_detection"


def test_a_scratch_folder_is_of_one_run_and_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[Path] = []

    def down(lab: Lab) -> bool:
        stopped.append(lab._folder)
        return False

    monkeypatch.setattr(Lab, "down", down)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "left").write_text("of a run that was killed")
    with scratch_of(tmp_path) as folder:
        assert stopped == [folder / "lab"]
        assert not (folder / "left").exists()
        with pytest.raises(InputError, match="in use by another run"), scratch_of(tmp_path):
            pass
    assert not (tmp_path / "scratch").exists()
    with scratch_of(tmp_path) as again:
        assert again == folder


def test_a_terminated_run_still_stops_its_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []

    def down(_: Lab) -> bool:
        stopped.append(1)
        return True

    monkeypatch.setattr(Lab, "down", down)
    before = signal.getsignal(signal.SIGTERM)

    def run() -> None:
        with scratch_of(tmp_path):
            stopped.clear()
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        run()
    assert stopped == [1]
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_ends_an_experiment_so_that_its_servers_are_stopped() -> None:
    stopped = []
    before = signal.getsignal(signal.SIGTERM)

    def experiment() -> None:
        with ended_by_sigterm():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                stopped.append(True)

    with pytest.raises(SystemExit):
        experiment()
    assert stopped
    assert signal.getsignal(signal.SIGTERM) is before
