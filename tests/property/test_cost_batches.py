"""Batch sizing against brute force: all mini-batches and uses of few accelerators."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tritier.costs import Kind, Option, Task, plan_batches
from tritier.costs.batch_program import Objective
from tritier.costs.batches import all_of, least_deadline_ms, most_images
from tritier.documents import BatchPlan
from tritier.errors import InfeasibleError

TIMES = st.integers(1, 40).map(float)


@st.composite
def kinds_drawn(draw: st.DrawFn) -> list[Kind]:
    """One or two kinds, at most three accelerators, up to three mini-batches, few uses."""
    found, left = [], 3
    for index in range(draw(st.integers(1, 2))):
        sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True))
        options = tuple(Option(size, draw(TIMES), draw(TIMES)) for size in sorted(sizes))
        count = draw(st.integers(1, left - (index == 0)))
        left -= count
        price = float(draw(st.integers(1, 9)))
        found.append(Kind(f"k{index}", count, options, draw(st.integers(0, 4)), price))
    return found


def ways(kind: Kind) -> Iterator[tuple[int, float]]:
    """(images, end) of everything that one accelerator can do, nothing included."""
    yield 0, 0.0
    for option in kind.options:
        for uses in range(kind.max_uses + 1):
            yield (uses + 1) * option.mini_batch, option.warmup_ms + uses * option.latency_ms


def brute(kinds: list[Kind], deadline: float) -> Iterator[tuple[int, int, float, float]]:
    """(images, accelerators, price, end) of every choice for all of them that ends in time."""
    units = all_of(kinds)
    for chosen in itertools.product(*(list(ways(kind)) for kind in units)):
        end = max(item[1] for item in chosen)
        if end <= deadline:
            used = [kind for kind, item in zip(units, chosen, strict=True) if item[0]]
            price = sum(kind.usd_per_hour or 0.0 for kind in used)
            yield sum(item[0] for item in chosen), len(used), price, end


def holds(plan: BatchPlan, kinds: list[Kind], deadline: float) -> None:
    """Each row is something that its accelerator can do, and each is used once."""
    known = {f"{kind.name} {number + 1}": kind for kind in kinds for number in range(kind.count)}
    assert len({row.accelerator for row in plan.uses}) == len(plan.uses) == plan.accelerators
    for row in plan.uses:
        assert (row.images, row.finished_ms) in set(ways(known[row.accelerator]))
        assert row.finished_ms <= deadline
    assert plan.images == sum(row.images for row in plan.uses)
    assert plan.proven


@settings(max_examples=examples(60))
@given(
    kinds_drawn(),
    st.integers(1, 120).map(float),
    st.integers(1, 60),
    st.sampled_from(["fewest accelerators", "least price"]),
)
def test_hard_deadline(kinds: list[Kind], deadline: float, images: int, aim: Objective) -> None:
    able = [row for row in brute(kinds, deadline) if row[0] >= images]
    task = Task("m", deadline, images, aim)
    if not able:
        with pytest.raises(InfeasibleError, match="What would do"):
            plan_batches(task, kinds)
        return
    plan = plan_batches(task, kinds)
    holds(plan, kinds, deadline)
    assert plan.images >= images
    if aim == "least price":
        assert plan.usd_per_hour == min(row[2] for row in able)
    else:
        assert plan.accelerators == min(row[1] for row in able)


@settings(max_examples=examples(60))
@given(kinds_drawn(), st.integers(1, 120).map(float))
def test_most_images(kinds: list[Kind], deadline: float) -> None:
    best = max(row[0] for row in brute(kinds, deadline))
    if not best:
        earliest = min(option.warmup_ms for kind in kinds for option in kind.options)
        with pytest.raises(InfeasibleError, match=f"a deadline of {earliest:g} ms"):
            plan_batches(Task("m", deadline, None), kinds)
        return
    plan = plan_batches(Task("m", deadline, None), kinds)
    assert plan.images == best == most_images(all_of(kinds), deadline)
    holds(plan, kinds, deadline)


@settings(max_examples=examples(60))
@given(kinds_drawn(), st.integers(1, 60))
def test_least_deadline(kinds: list[Kind], images: int) -> None:
    able = [row[3] for row in brute(kinds, math.inf) if row[0] >= images]
    found = least_deadline_ms(all_of(kinds), images)
    assert found == (pytest.approx(min(able), rel=1e-9) if able else None)


@settings(max_examples=examples(30))
@given(kinds_drawn(), st.integers(1, 120).map(float), st.integers(1, 60))
def test_what_is_said_to_be_needed_is_enough(
    kinds: list[Kind], deadline: float, images: int
) -> None:
    """More accelerators, or more time: each suggestion alone makes it possible."""
    if most_images(all_of(kinds), deadline) >= images:
        return
    missing = images - most_images(all_of(kinds), deadline)
    for kind in kinds:
        each = kind.most_images(deadline)
        if each:
            more = [*all_of(kinds), *[kind] * -(-missing // each)]
            assert most_images(more, deadline) >= images
            assert most_images(more[:-1], deadline) < images
    earliest = least_deadline_ms(all_of(kinds), images)
    if earliest is not None:
        assert plan_batches(Task("m", earliest, images), kinds).images >= images
