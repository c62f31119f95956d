"""Batch sizing by hand, and what tables and scenarios must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tritier.costs import (
    Kind,
    Option,
    Task,
    kind_of,
    largest_mini_batch,
    plan_batches,
    without_spread,
)
from tritier.documents import AcceleratorKind, BatchScenario, BatchTable
from tritier.errors import InfeasibleError, InputError, UsageError

EXAMPLES = Path(__file__).parents[2] / "examples" / "costs"
# 1 image: 10 ms, then 5 ms each; 4 images: 20 ms, then 12 ms for each 4
GPU = Kind("gpu", 3, (Option(1, 10.0, 5.0), Option(4, 20.0, 12.0)), 100, 2.0)


def table(**changes: Any) -> BatchTable:
    rows = [
        {"mini_batch": size, "warmup": {"median_ms": 10 * size, "p95_ms": 11 * size},
         "latency": {"median_ms": 5 * size, "p95_ms": 6 * size}}
        for size in (1, 2, 4)
    ]  # fmt: skip
    data = {"model": "m", "accelerator": "a", "model_bytes": 1 << 20, "image_bytes": 1 << 20}
    return BatchTable.from_data(data | {"rows": rows} | changes)


def test_by_hand() -> None:
    """In 56 ms one does 4 (1 + 3) = 16 images; 40 need three, which end when 12 to 16 are done."""
    plan = plan_batches(Task("m", 56.0, 40), [GPU])
    assert (plan.accelerators, plan.images, plan.finished_ms) == (3, 48, 56.0)
    assert {(row.mini_batch, row.uses) for row in plan.uses} == {(4, 3)}
    assert plan.usd_per_hour == 6.0
    assert plan.proven


def test_what_is_done_early_ends_early() -> None:
    plan = plan_batches(Task("m", 1000.0, 5), [GPU])
    assert (plan.accelerators, plan.finished_ms) == (1, 30.0)  # five times one, not two times four


def test_small_batches_win_under_short_deadlines() -> None:
    plan = plan_batches(Task("m", 19.0, None), [GPU])
    assert [row.mini_batch for row in plan.uses] == [1, 1, 1]
    assert plan.images == 6


def test_the_cheapest_may_be_more() -> None:
    dear = Kind("dear", 1, (Option(8, 10.0, 10.0),), 100, 5.0)
    cheap = Kind("cheap", 2, (Option(4, 10.0, 10.0),), 100, 1.0)
    fewest = plan_batches(Task("m", 20.0, 16), [cheap, dear])
    assert (fewest.accelerators, fewest.usd_per_hour) == (1, 5.0)
    least = plan_batches(Task("m", 20.0, 16, "least price"), [cheap, dear])
    assert (least.accelerators, least.usd_per_hour) == (2, 2.0)


def test_an_end_on_the_deadline_is_in_time() -> None:
    thirds = Kind("k", 1, (Option(1, 0.1, 0.1),), 100)
    assert plan_batches(Task("m", 0.3, None), [thirds]).images == 3


def test_the_message_says_what_would_do() -> None:
    with pytest.raises(InfeasibleError) as caught:
        plan_batches(Task("m", 56.0, 60), [GPU])
    text = str(caught.value)
    assert "60 images can't be done in 56 ms on 3 accelerators: they do 48" in text
    assert "a deadline of 68 ms, or 1 more of 'gpu' (16 images each), or at most 48 images" in text


def test_uses_are_limited() -> None:
    short = Kind("k", 1, (Option(2, 1.0, 1.0),), 3)
    with pytest.raises(InfeasibleError, match=r"they do 8\. What would do: 1 more of 'k'"):
        plan_batches(Task("m", 1e6, 9), [short])


def test_a_price_must_be_known() -> None:
    nameless = Kind("k", 1, (Option(2, 1.0, 1.0),), 3)
    with pytest.raises(InputError, match="missing for k"):
        plan_batches(Task("m", 10.0, 2, "least price"), [nameless])


def test_another_solver_agrees_and_unknown_ones_are_refused() -> None:
    assert plan_batches(Task("m", 56.0, 40), [GPU], solver="CBC").accelerators == 3
    with pytest.raises(UsageError, match="solver 'nope'"):
        plan_batches(Task("m", 56.0, 40), [GPU], solver="nope")


def test_memory_limits_the_mini_batch() -> None:
    assert largest_mini_batch(10, 4, 3) == 2
    assert largest_mini_batch(3, 4, 3) == 0
    item = AcceleratorKind(name="a", table="t", memory_mib=3.5)
    assert [x.mini_batch for x in kind_of(item, table(), "median").options] == [1, 2]
    small = AcceleratorKind(name="a", table="t", memory_mib=1.5)
    with pytest.raises(InputError, match=r"the smallest, 1, needs 2\.0 MiB"):
        kind_of(small, table(), "median")
    with pytest.raises(InputError, match="needs the memory of an image"):
        kind_of(small, table(image_bytes=None), "median")


def test_the_asked_for_times_count() -> None:
    item = AcceleratorKind(name="a", table="t")
    assert kind_of(item, table(), "median").options[0] == Option(1, 10.0, 5.0)
    assert kind_of(item, table(), "p95").options[0] == Option(1, 11.0, 6.0)
    assert kind_of(item, table(), "max").options[0] == Option(1, 10.0, 5.0)
    assert not without_spread(table(), "p95")
    assert without_spread(table(), "max")


def test_faults_of_tables_and_scenarios() -> None:
    row = {"mini_batch": 1, "warmup": {"median_ms": 1}, "latency": {"median_ms": 1}}
    with pytest.raises(InputError, match="mini-batch 1 stands 2 times"):
        table(rows=[row, row])
    kind = {"name": "a", "table": "t"}
    with pytest.raises(InputError, match="accelerators: 'a' stands 2 times"):
        BatchScenario.from_data({"name": "s", "accelerators": [kind, kind]})


def measured() -> tuple[BatchScenario, Kind]:
    """The scenario of the example with its one kind of accelerator."""
    scenario = BatchScenario.load(EXAMPLES / "batches.yaml")
    (item,) = scenario.accelerators
    return scenario, kind_of(item, BatchTable.load(EXAMPLES / item.table), scenario.times)


def test_the_measured_table_is_whole() -> None:
    """Every figure has n and spread."""
    found = BatchTable.load(EXAMPLES / "espcn_x3_batches.json")
    assert [row.mini_batch for row in found.rows] == list(range(1, 17))
    for row in found.rows:
        for timing in (row.warmup, row.latency):
            assert (timing.n or 0) > 1
            assert timing.std_ms is not None
    assert found.environment is not None


def test_memory_binds_in_the_example() -> None:
    _, kind = measured()
    assert [option.mini_batch for option in kind.options] == list(range(1, 16))


@pytest.mark.parametrize("deadline", [50.0, 300.0, 777.0, 4000.0])
@pytest.mark.parametrize("times", ["median", "p95", "max"])
def test_the_measured_table_by_brute_force(deadline: float, times: str) -> None:
    """On equal accelerators: what one can do, tried out, says how many are needed for so many."""
    scenario, _ = measured()
    (item,) = scenario.accelerators
    kind = kind_of(item, BatchTable.load(EXAMPLES / item.table), times)
    most = max(
        (
            (uses + 1) * option.mini_batch
            for option in kind.options
            for uses in range(500)
            if option.warmup_ms + uses * option.latency_ms <= deadline
        ),
        default=0,
    )
    if not most:
        with pytest.raises(InfeasibleError, match="has done its first mini-batch"):
            plan_batches(Task("m", deadline, None), [kind])
        return
    assert plan_batches(Task("m", deadline, None), [kind]).images == 4 * most
    for count in range(1, 5):
        for images in (most * (count - 1) + 1, most * count):
            plan = plan_batches(Task("m", deadline, images), [kind])
            assert (plan.accelerators, plan.proven) == (count, True)
            assert plan.images >= images
            assert plan.finished_ms <= deadline
    with pytest.raises(InfeasibleError):
        plan_batches(Task("m", deadline, 4 * most + 1), [kind])
