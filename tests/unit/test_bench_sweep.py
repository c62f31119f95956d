"""The order of a sweep, its limits and what it keeps; the levels are given, not measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.benches import level, settings
from tritier.bench import sweep as sweep_module
from tritier.bench.environment import current
from tritier.bench.generator import OwnFigures, OwnLoad, compared
from tritier.bench.sweep import Loads, Sweep, resumed
from tritier.cli.bench import require_found
from tritier.documents import BenchLevel, BenchResult, Environment
from tritier.errors import CheckFailed, InputError, ServerError


def result(**changes: Any) -> BenchResult:
    given: dict[str, Any] = {
        "model": "m", "url": "127.0.0.1:1", "plan_id": "0123abcd", "mode": "concurrency",
        "settings": settings(), "environment": current(),
    }  # fmt: skip
    return BenchResult(**{**given, **changes})


class Measured:
    """Stands for what measures: latency is 10 ms per request in flight."""

    def __init__(self, fail_at: float | None = None) -> None:
        self.order: list[tuple[int, float]] = []
        self.fail_at = fail_at

    def __call__(self, bench: Any, batch: int, load: float) -> BenchLevel:
        if load == self.fail_at:
            raise KeyboardInterrupt
        self.order.append((batch, load))
        limit_ms = bench.settings.latency_limit_ms
        kept = None if limit_ms is None else 10 * load <= limit_ms
        return level(batch, load, 10 * load, limit_kept=kept)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    found = Measured()
    monkeypatch.setattr(sweep_module, "measure_level", found)
    monkeypatch.setattr(sweep_module, "sustained", lambda *_: None)
    return found


def run(start: BenchResult, loads: Loads) -> tuple[BenchResult, list[BenchResult]]:
    saved: list[BenchResult] = []
    bench: Any = SimpleNamespace(settings=start.settings, tell=lambda _: None, folder=Path())
    return Sweep(bench, start, saved.append).run(loads), saved


def test_all_levels_are_measured_once_and_saved_one_by_one(measured: Measured) -> None:
    found, saved = run(result(), Loads((2, 1, 4), (8, 1)))
    wanted = [(1, 1), (1, 2), (1, 4), (8, 1), (8, 2), (8, 4)]
    assert measured.order == wanted
    assert [item.key for item in found.levels] == wanted
    assert [len(item.levels) for item in saved] == [1, 2, 3, 4, 5, 6]


@pytest.mark.usefixtures("measured")
def test_over_the_limit_no_higher_load_is_measured() -> None:
    limited = result(settings=settings(latency_limit_ms=25.0))
    found, _ = run(limited, Loads((1, 2, 3, 4, 5), (1,)))
    assert [item.offered for item in found.levels] == [1, 2, 3]
    assert [item.limit_kept for item in found.levels] == [True, True, False]


def test_the_search_finds_the_highest_load(measured: Measured) -> None:
    limited = result(settings=settings(latency_limit_ms=205.0))
    found, _ = run(limited, Loads(tuple(range(1, 65)), (1, 2), search=True))
    assert found.search is not None
    assert [item.offered for item in found.search.found] == [20, 20]
    assert found.search.found[0].bounded_by == "limit"
    assert found.search.found[0].latency_ms == 200
    assert len(measured.order) <= 2 * 8
    # Measured before, all of it: nothing is measured again.
    measured.order.clear()
    again, _ = run(found, Loads(tuple(range(1, 65)), (1, 2), search=True))
    assert measured.order == []
    assert again.search == found.search


@pytest.mark.parametrize(("limit", "load", "by"), [(5.0, None, "limit"), (9999.0, 8, "range")])
@pytest.mark.usefixtures("measured")
def test_a_search_may_end_at_either_end(limit: float, load: float | None, by: str) -> None:
    limited = result(settings=settings(latency_limit_ms=limit))
    found, _ = run(limited, Loads((1, 4, 8), (1,), search=True))
    assert found.search is not None
    assert (found.search.found[0].offered, found.search.found[0].bounded_by) == (load, by)
    if load is None:
        with pytest.raises(CheckFailed, match=r"no load from 1 on keeps p95 under 5 ms"):
            require_found(found)
    else:
        require_found(found)


def test_what_was_finished_is_kept_and_not_measured_again(measured: Measured) -> None:
    measured.fail_at = 3
    start, saved = result(), list[BenchResult]()
    bench: Any = SimpleNamespace(settings=start.settings, tell=lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        Sweep(bench, start, saved.append).run(Loads((1, 2, 3), (1,)))
    assert [item.offered for item in saved[-1].levels] == [1, 2]
    measured.fail_at = None
    measured.order.clear()
    kept = BenchResult.from_data(saved[-1].model_dump(mode="json", exclude_none=True))
    found, _ = run(resumed(kept, result(url="127.0.0.1:2")), Loads((1, 2, 3), (1,)))
    assert measured.order == [(1, 3)]
    assert len(found.levels) == 3


def test_other_settings_are_not_mixed() -> None:
    old = result(levels=(level(1, 1),))
    for new, fault in (
        (result(plan_id="ffffffff"), "plan was 0123abcd and is ffffffff"),
        (result(settings=settings(percentile=50)), "percentile was 95 and is 50"),
        (result(model="other"), "model was m"),
    ):
        with pytest.raises(InputError, match=fault) as caught:
            resumed(old, new)
        assert "--force" in str(caught.value)


@pytest.mark.usefixtures("measured")
def test_unstable_levels_and_checks_that_differ_are_told() -> None:
    load = OwnLoad("127.0.0.1:1", "m", (), "closed", 1, 30, 5)
    own = OwnFigures(30, (), 1.0, 40.0, 0.0, None, 10, 10, 10)
    far = compared(load, own, 1, 50.0, 10.0)
    near = compared(load, own, 1, 41.0, 10.1)
    assert (far.agrees, near.agrees) == (False, True)
    assert far.difference == pytest.approx(0.2)
    shaky = level(1, 1, stable=False, unstable_because="windows differ", check=far)
    found, _ = run(result(levels=(shaky, level(1, 2, check=near))), Loads((1, 2, 3), (1,)))
    assert len(found.warnings) == 2
    assert "level b1_c1: unstable: windows differ" in found.warnings[0]
    assert "differs by 20%" in found.warnings[1]


@pytest.mark.usefixtures("measured")
def test_a_search_tells_whether_its_load_is_stable() -> None:
    limited = result(
        settings=settings(latency_limit_ms=9999.0),
        levels=(level(1, 2, stable=False, unstable_because="so", limit_kept=True),),
    )
    found, _ = run(limited, Loads((1, 2), (1, 2), search=True))
    assert found.search is not None
    assert [item.stable for item in found.search.found] == [False, True]


def test_other_programs_and_machines_are_not_mixed() -> None:
    old = result(levels=(level(1, 1),), environment=_environment())
    assert resumed(old, result(environment=_environment())).levels == old.levels
    for changes, fault in (
        ({"tritier": "9.9"}, "version of tritier was 0.1 and is 9.9"),
        ({"perf_analyzer": "3"}, "perf_analyzer was 2 and is 3"),
        ({"processor": "other"}, "processor of this machine was one and is other"),
        ({"cores": 3}, "number of cores was 2 and is 3"),
        ({"servers": {"a": "2.60"}}, "Triton of the servers was"),
    ):
        new = result(environment=_environment(**changes))
        with pytest.raises(InputError, match=fault):
            resumed(old, new)
        assert resumed(result(environment=_environment()), new).environment == new.environment


def _environment(**changes: Any) -> Environment:
    own = {"tritier": "0.1", "perf_analyzer": "2", "processor": "one", "cores": 2,
           "servers": {"a": "2.51"}}  # fmt: skip
    return current().model_copy(update={**own, **changes})


@pytest.mark.usefixtures("measured")
def test_a_rate_that_is_not_reached_is_told() -> None:
    for arrivals, count in (("constant", 1), ("poisson", 0)):
        rates = result(
            mode="request_rate",
            settings=settings(arrivals=arrivals),
            levels=(level(2, 100), level(2, 51)),
        )
        found, _ = run(rates, Loads((51, 99.5, 100), (2,)))
        assert len([text for text in found.warnings if "of 100 that were" in text]) == count
        assert not [text for text in found.warnings if "of 51 that were" in text]


def test_the_open_loop_is_at_the_best_stable_level(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = (
        level(1, 1, infer_per_s=30.0),
        level(1, 2, infer_per_s=40.0),
        level(1, 4, infer_per_s=90.0, stable=False, unstable_because="windows differ"),
    )
    asked: list[BenchLevel] = []
    monkeypatch.setattr(sweep_module, "sustained", lambda _, best: asked.append(best))
    run(result(levels=levels), Loads((1, 2, 4), (1,)))
    assert [item.offered for item in asked] == [2]
    run(result(levels=levels[2:]), Loads((4,), (1,)))
    assert [item.offered for item in asked] == [2, 4], "unless there is no stable one"
    assert measured.order == []


@pytest.mark.usefixtures("measured")
def test_an_open_loop_that_fails_costs_no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise ServerError("nobody answers")

    monkeypatch.setattr(sweep_module, "sustained", failing)
    found, saved = run(result(), Loads((1,), (1, 2)))
    assert [item.key for item in saved[-1].levels] == [(1, 1), (2, 1)]
    assert found.warnings == (
        "batch 1: no open loop at random times: nobody answers",
        "batch 2: no open loop at random times: nobody answers",
    )


@pytest.mark.usefixtures("measured")
def test_a_check_that_fails_is_told() -> None:
    unchecked = level(1, 1, check_failed="nobody answers")
    found, _ = run(result(levels=(unchecked,)), Loads((1, 2), (1,)))
    assert found.warnings == ("level b1_c1: not checked: nobody answers",)


def test_an_unstable_level_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="unstable_because"):
        level(1, 1, stable=False)
    with pytest.raises(ValueError, match="unstable_because"):
        level(1, 1, unstable_because="of nothing")


def test_a_result_has_each_level_once() -> None:
    with pytest.raises(ValueError, match=r"batch 1 at load 1\.0 stands twice"):
        result(levels=(level(1, 1), level(1, 1)))
