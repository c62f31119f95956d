"""Pure parts of the experiments: statistics, what is kept, cells of the grid, cuts, conclusions."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.grid_cells import (
    Cell,
    Verdict,
    cells,
    heat,
    is_close,
    outcome,
    verdict,
    worth_measuring,
)
from benchmarks.kept import Kept, errors_of, markdown, quantile, times_of
from benchmarks.lab_runs import per_image_ms
from benchmarks.prediction_report import judged as judged_predictions
from benchmarks.prediction_report import keeps, ranking
from benchmarks.record import BEGIN, END, record
from benchmarks.serving_cuts import Cut, balanced, lightest, steadiest
from benchmarks.serving_floor import floor_config, halves_ms
from benchmarks.serving_loop import closed_loop, medians
from benchmarks.serving_report import FLOOR, promise
from benchmarks.sweep_report import (
    best_of,
    conclusions,
    differ,
    rate_interval,
    run_batch,
    service_ms,
)
from tests.helpers.models import load
from tests.helpers.planning import CHAIN
from tritier.bench.environment import current
from tritier.documents import BenchLevel, BenchResult, BenchSettings, ModelShare
from tritier.errors import InputError


def test_errors_are_sizes_and_bias_keeps_the_sign() -> None:
    found = errors_of([(110, 100), (95, 100), (100, 100)])
    assert found.n == 3
    assert found.mean == pytest.approx(5.0)
    assert found.largest == pytest.approx(10.0)
    assert found.p95 == pytest.approx(9.5)
    assert found.bias == pytest.approx(5 / 3)


def test_errors_within_each_goal_are_needed() -> None:
    assert keeps(errors_of([(102, 100)]))
    assert not keeps(errors_of([(104, 100)]))  # mean
    assert not keeps(errors_of([(100, 100)] * 30 + [(113, 100)]))  # only the largest
    # Only the 95th percentile: 3 of 40 are off by 10 %.
    some = errors_of([(100, 100)] * 37 + [(110, 100)] * 3)
    assert (some.mean < 3, some.p95 > 8, some.largest < 12) == (True, True, True)
    assert not keeps(some)
    assert judged_predictions(some) == "missed"
    assert judged_predictions(errors_of([(101, 100)] * 30)) == "kept"
    assert judged_predictions(errors_of([(101, 100)] * 29)).startswith("undecided")


def test_how_well_plans_are_ordered_is_told() -> None:
    rows = [
        {"model": "m", "kind": kind, "predicted_ms": p, "measured": {"median_ms": m}}
        for kind, p, m in (("optimal", 90, 100), ("random", 200, 200), ("random", 210, 190))
    ]
    (told,) = ranking(rows)
    assert "of 3 pairs of plans, 67 % are in the predicted order" in told
    assert "optimal plans -10.00 %" in told


def test_quantile_interpolates_and_refuses_nothing() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.25) == 1.25
    assert quantile([7.0], 0.95) == 7.0
    with pytest.raises(ValueError, match="nothing"):
        quantile([], 0.5)


def test_interval_of_a_median_is_around_it_and_shrinks() -> None:
    few, many = times_of(range(1, 12)), times_of([*range(1, 12)] * 20)
    assert few.low_ms <= few.median_ms <= few.high_ms
    assert many.high_ms - many.low_ms < few.high_ms - few.low_ms
    assert times_of([5.0]).low_ms == times_of([5.0]).high_ms == 5.0


def test_finished_parts_are_not_made_again(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"a": len(made)}

    assert Kept(tmp_path, {"rounds": 3}).once("part", make) == {"a": 1}
    assert Kept(tmp_path, {"rounds": 3}).once("part", make) == {"a": 1}
    assert Kept(tmp_path, {"rounds": 3}).once("other", make) == {"a": 2}


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    Kept(tmp_path, {"rounds": 3, "models": ("a",)})
    Kept(tmp_path, {"rounds": 3, "models": ("a",)})
    with pytest.raises(InputError, match="other settings \\(rounds\\)"):
        Kept(tmp_path, {"rounds": 4, "models": ("a",)})


def test_markdown_aligns_numbers_to_the_right() -> None:
    assert markdown(("a", "b"), [("x", 1)]) == "| a | b |\n|---|---:|\n| x | 1 |\n"


def measured(plan: str, **medians: float) -> dict[str, Any]:
    """A cell with three rounds of each plan; family and plan id are the same text for baselines."""
    family = {"r": "raw", "c": "coded"}
    return {
        "variants": {
            "plan": {"plan": plan, "family": "planner", "predicted_ms": 10.0},
            **{
                f"base {name}": {"plan": name, "family": family[name[0]], "predicted_ms": 20.0}
                for name in medians
                if name[0] in family
            },
        },
        "times": {name: [value, value + 1, value - 1] for name, value in medians.items()},
    }


def test_the_best_baseline_counts_of_its_own_family_only() -> None:
    cell = measured("p", p=100, r1=130, r2=150, c1=90)
    raw, coded = verdict("raw", cell), verdict("coded", cell)
    assert (raw.best, raw.is_baseline) == ("base r1", False)
    assert raw.ratio == pytest.approx(1.3, rel=0.01)
    assert coded.ratio == pytest.approx(0.9, rel=0.01)
    assert raw.predicted_ratio == 2.0


def test_the_best_baseline_of_both_families_is_what_counts() -> None:
    cell = measured("p", p=100, r1=130, c1=90)
    found = verdict("all", cell)
    assert (found.best, found.is_baseline) == ("base c1", False)
    assert found.low <= found.ratio <= found.high
    assert found.low < found.high


def test_a_plan_that_is_a_baseline_has_ratio_one() -> None:
    found = verdict("coded", measured("c1", r1=130, c1=90))
    assert (found.ratio, found.is_baseline) == (1.0, True)
    # Not where another baseline is better.
    other = verdict("coded", measured("c1", r1=130, c1=90, c2=80))
    assert (other.best, other.is_baseline) == ("base c2", False)
    assert other.ratio < 0.95


def judged(ratio: float, same: bool = False, half: float = 0.0) -> Verdict:
    return Verdict("b", 100 * ratio, 100, ratio, same, ratio, 9, ratio - half, ratio + half)


def test_goals_of_the_grid() -> None:
    good = outcome([judged(1.2), judged(1.0, True), judged(0.98), judged(1.01)] * 10)
    assert good.faster == 0.25
    assert (good.never_worse, good.often_faster) == ("kept", "kept")
    assert good.same == 0.25
    bad = outcome([judged(1.0)] * 39 + [judged(0.96)])
    assert (bad.never_worse, bad.often_faster) == ("missed", "missed")
    # 15 % more for the baseline is only 13 % less for the plan.
    assert outcome([judged(1.15)]).faster == 0.0
    assert outcome([judged(1.18)]).faster == 1.0


def test_goals_of_the_grid_need_all_cells_and_intervals_that_decide() -> None:
    few = outcome([judged(1.2)] * 39)
    assert few.never_worse == few.often_faster == "undecided: 39 of 40 cells"
    open_ = outcome([judged(1.2, half=0.05)] * 39 + [judged(0.98, half=0.02)])
    assert (open_.never_worse, open_.often_faster) == ("undecided", "undecided")
    assert outcome([judged(1.3, half=0.05)] * 40).often_faster == "kept"


def test_only_what_may_be_the_best_gets_more_rounds() -> None:
    times = {"p": [100.0] * 2, "r1": [200.0] * 2, "r2": [250.0] * 2, "r3": [300.0] * 2,
             "c1": [104.0] * 2}  # fmt: skip
    families = {"raw": ["r1", "r2", "r3"], "coded": ["c1"]}
    assert worth_measuring(times, "p", families) == ["p", "r1", "r2", "c1"]
    assert worth_measuring(times, "p", families, slower=2.0) == list(times)
    assert "r3" in worth_measuring(times, "p", families, always=["r3"])
    # One slow request drops nothing, and neither does one request at all.
    assert "r3" in worth_measuring({**times, "r3": [900.0, 210.0]}, "p", families)
    assert "r3" in worth_measuring({**times, "r3": [900.0]}, "p", families)
    assert is_close(times, "p", families)
    assert not is_close({**times, "c1": [120.0]}, "p", families)
    assert not is_close(times, "c1", {"coded": ["c1"]})  # the same: nothing to tell apart


def test_heat_map_has_a_row_per_slowdown_and_gaps() -> None:
    grid = cells((1.0, 5.0), (1.0, 4.0))
    assert [cell.slowdown for cell in grid] == [1.0, 1.0, 4.0, 4.0]
    found = {cell: judged(cell.uplink_mb_s * cell.slowdown) for cell in grid[:-1]}
    rows = heat(found, (1.0, 5.0), (1.0, 4.0))
    assert rows[0] == [1.0, 5.0]
    assert rows[1][0] == 4.0
    assert math.isnan(rows[1][1])
    assert Cell(0.5, 16).name == "uplink_0.5_slowdown_16"


def test_cuts_by_balance_and_by_bytes() -> None:
    cuts = [Cut(1, 0.1, 10), Cut(2, 0.45, 90), Cut(3, 0.52, 500), Cut(4, 0.9, 10)]
    assert lightest(cuts).after == 4
    assert balanced(cuts).after == 2
    assert balanced(cuts, within=0.0).after == 3


def test_halves_are_balanced_by_what_they_take() -> None:
    cuts = [Cut(1, 0.1, 10), Cut(2, 0.45, 90), Cut(3, 0.52, 500), Cut(4, 0.9, 10)]
    times = {1: (5.0, 5.0), 2: (4.0, 9.0), 3: (6.0, 7.0), 4: (9.0, 1.0)}
    assert steadiest(cuts, lambda cut: times[cut.after]).after == 3  # 1 leaves too little work
    assert steadiest(cuts[3:], lambda cut: times[cut.after]).after == 4


def test_halves_of_a_model_are_timed_with_what_crosses(tmp_path: Path) -> None:
    model = load(tmp_path, CHAIN)
    one_ms, two_ms = halves_ms(model, 3)  # c and b cross: 2 MiB, 3 ms for each half
    assert min(one_ms, two_ms) > 3.0


def test_a_stage_is_timed_per_image_and_over_all_windows() -> None:
    before = {1: (10, 100_000_000)}
    now = {1: (12, 140_000_000), 4: (1, 50_000_000)}
    # 2 images alone, 40 ms, and one execution of 4 images, 50 ms.
    assert per_image_ms(before, now) == pytest.approx(15.0)
    assert per_image_ms(now, now) is None
    assert medians([[1.0, None], [5.0, None], [2.0, 7.0]]) == [2.0, 7.0]
    assert medians([[None]]) == [None]


class Broken:
    """A user's connection whose requests fail."""

    def __call__(self) -> float:
        raise ValueError("the real reason")

    def close(self) -> None:
        """Nothing to close."""


def test_what_breaks_a_closed_loop_is_what_is_told() -> None:
    with pytest.raises(ValueError, match="the real reason"):
        closed_loop(lambda: Broken(), 3, 0.1)  # type: ignore[arg-type,return-value]


def test_a_floor_has_the_sizes_of_the_model() -> None:
    taken, made = np.zeros((1, 2), np.float32), np.zeros((3, 4), np.float32)
    config = json.loads(floor_config({"x": taken}, [made]))
    assert [x["dims"] for x in config["input"]] == [[1, 2]]
    assert [x["dims"] for x in config["output"]] == [[3, 4]]


def test_promises_of_serving() -> None:
    rows = {
        "in process": {"median_ms": 20.0},
        "whole": {"added_low": 2.5, "added_high": 2.9},
        "two": {"ratio_low": 1.051, "ratio_high": 1.06},
    }
    assert promise("in process", rows) == ""
    assert promise("whole", rows) == "<= +3.00 ms: kept"
    assert promise("two", rows).endswith("missed")
    rows["whole"]["added_high"] = 3.1
    assert promise("whole", rows).endswith("undecided")
    rows["two"]["ratio_low"] = 1.0
    assert promise("two", rows).endswith("undecided")
    rows["two"]["ratio_high"] = 1.04
    assert promise("two", rows).endswith("kept")
    assert promise(FLOOR, {FLOOR: {}}) == ""


def level(offered: float, rate: float, half_ms: float = 1.0, batch: int = 1) -> BenchLevel:
    mean = 1000 * offered * batch / rate
    return BenchLevel(
        batch=batch, offered=offered, stable=True, runs=1, window_requests=50, windows=3,
        requests=150, duration_s=5, infer_per_s=rate, mean_ms=mean, std_ms=1, p50_ms=mean,
        p90_ms=mean, p95_ms=mean, p99_ms=mean, low_ms=mean - half_ms, high_ms=mean + half_ms,
        command="",
    )  # fmt: skip


def result(levels: Sequence[BenchLevel]) -> BenchResult:
    settings = BenchSettings(
        window_requests=50, max_window_requests=400, max_windows=8, stability_percent=10.0,
        arrivals="closed", input="zero", shapes={"x": (1, 2)}, batching="none",
    )  # fmt: skip
    return BenchResult(
        model="m", url="127.0.0.1:1", plan_id="0123abcd", mode="concurrency", settings=settings,
        environment=current(), levels=tuple(levels),
    )  # fmt: skip


def test_the_best_load_is_the_lowest_with_nearly_the_highest_throughput() -> None:
    def best(*levels: BenchLevel) -> float | None:
        found = best_of(levels)
        return found.offered if found else None

    assert best(level(1, 20), level(3, 30, 2), level(5, 30.5, 2), level(7, 29)) == 3
    assert best(level(1, 20), level(3, 30, 0.1), level(5, 33, 0.1)) == 5
    # What is not stable is no base of anything.
    unstable = level(1, 60).model_copy(update={"stable": False, "unstable_because": "x"})
    assert best(unstable, level(3, 30)) == 3
    assert best(unstable) is None


def test_nothing_is_concluded_from_intervals_that_overlap_or_from_unstable_levels() -> None:
    def swept(*levels: BenchLevel) -> BenchResult:
        return result(levels=levels)

    unstable = level(9, 99.0).model_copy(update={"stable": False, "unstable_because": "x"})
    whole = swept(level(1, 20.0, 2), level(3, 21.0, 8), level(1, 20.2, 20, batch=8), unstable)
    near = conclusions({"whole": whole, "split": swept(level(1, 20.5, 2))}, {"whole": ["b 1 at 3"]})
    assert "1 of 4 levels did not become stable" in near
    assert "measured again: b 1 at 3" in near
    assert "20.00 (19.20 to 20.80) infer/s at concurrency 1" in near
    assert "concurrency 3 makes no sure difference in throughput to 1" in near
    assert "batches of 8 make no sure difference" in near
    assert "as many as the whole, as far as can be told (1.02 times (0.95 to 1.11))" in near
    assert "99" not in near
    far = conclusions({"whole": whole, "split": swept(level(1, 30.0, 1))})
    assert "split, batch 1: answers 1.50 times (1.40 to 1.61) as many as the whole" in far


def test_what_computing_takes_alone_is_of_one_request_at_a_time() -> None:
    def served(item: BenchLevel, ms: float) -> BenchLevel:
        share = ModelShare(
            model="m__01234567__c0", requests=10, queue_ms=0, compute_input_ms=0,
            compute_infer_ms=999, compute_output_ms=0, executing_ms=10 * item.batch * ms,
        )  # fmt: skip
        return item.model_copy(update={"servers": {"edge": (share,)}})

    levels = (served(level(1, 20.0, 1), 45.0), served(level(3, 30.0, 0.5), 30.0),
              served(level(1, 40.0, 1, batch=8), 22.0))  # fmt: skip
    assert "45.0 ms alone, 22.0 ms in a batch of 8" in conclusions({"whole": result(levels=levels)})


def test_throughputs_differ_only_where_their_intervals_do() -> None:
    one, other = level(1, 20.0, half_ms=2), level(1, 21.0, half_ms=2)
    assert rate_interval(one) == pytest.approx((19.2, 20.8))
    assert not differ(one, other)
    assert differ(level(1, 20.0, 0.1), level(1, 21.0, 0.1))


def test_a_batch_of_triton_is_shared_by_its_images() -> None:
    share = {"queue_ms": 0, "compute_input_ms": 0, "compute_output_ms": 0}
    made = [
        ModelShare(
            model="m__01234567__c0",
            requests=30,
            executions=10,
            compute_infer_ms=90,
            executing_ms=600,
            **share,
        ),
        ModelShare(model="m__01234567__c0__call", requests=30, compute_infer_ms=999, **share),
    ]
    found = level(3, 50.0, batch=2).model_copy(update={"servers": {"edge": tuple(made)}})
    assert run_batch(found) == 6
    assert service_ms(found) == {"edge": 10.0}


def test_results_go_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page, picture = tmp_path / "name.md", tmp_path / "from" / "rates.png"
    picture.parent.mkdir()
    picture.write_bytes(b"a picture")
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    machine = {
        "measured_at": "2026-01-02T03:04:05Z", "processor": "a processor", "cores": 2,
        "memory_bytes": 8 << 30, "tritier": "1.2", "python": "3.11.7",
    }  # fmt: skip
    record(page, "new\n", {"Rates": picture}, machine)
    found = page.read_text()
    assert "old" not in found
    assert found.startswith("# Title")
    assert found.endswith(f"new\n\n{END}\n\nafter\n")
    assert "![Rates](name_rates.png)" in found
    assert "Measured 2026-01-02; a processor, 2 cores, 8 GiB; Tritier 1.2, Python 3.11.7." in found
    assert (tmp_path / "name_rates.png").read_bytes() == b"a picture"
    record(page, "new\n", {"Rates": picture}, machine)
    assert page.read_text() == found
    page.write_text("# Title\n")
    with pytest.raises(InputError, match="marks"):
        record(page, "new", {}, machine)
    assert page.read_text() == "# Title\n"
