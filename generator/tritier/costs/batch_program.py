"""Which accelerators, and which mini-batch on each, as a linear program (docs/costs.md, section 6).

x_ib is 1 if accelerator i runs mini-batch b, t_ib its runs after the first:

    sum_b x_ib <= 1,  t_ib <= M_ib x_ib,  sum_b (W_ib x_ib + L_ib t_ib) <= T
    sum_ib b (x_ib + t_ib) >= N                        (not in the relaxed form)

What is published as a product, (t_i + 1) mbs_i, is linear so, since mbs_i is one of the measured
sizes. Least is the number of accelerators used, or their price; relaxed, most images are done in T.
PuLP is called through the planner's modules, so that its solver and its limits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tritier.costs.batches import Kind, all_of, least_deadline_ms, most_images, spread
from tritier.documents.costs import BatchPlan
from tritier.errors import CheckFailed, InfeasibleError, InputError
from tritier.planner.pulp_rows import Rows, Sum
from tritier.planner.pulp_solvers import DEFAULT_SOLVER, run
from tritier.planner.solution import Status

Objective = Literal["fewest accelerators", "least price", "most images"]
_HALF = 0.5


@dataclass(frozen=True)
class Task:
    """What is to be done: `images` by `deadline_ms`, or most images if that is None."""

    model: str
    deadline_ms: float
    images: int | None
    objective: Objective = "fewest accelerators"


def plan_batches(
    task: Task, kinds: Sequence[Kind], *, solver: str = DEFAULT_SOLVER, time_limit_s: float = 30.0
) -> BatchPlan:
    """The best choice of accelerators and mini-batches; then all is done as early as they can.

    Raises InfeasibleError, saying what would be needed, if the images, or any at all, can't be done
    in time, InputError if a price is asked for that is not known, CheckFailed if the solver runs
    out of time.
    """
    task = _checked(task, kinds)
    units = all_of(kinds)
    if task.images is not None and most_images(units, task.deadline_ms) < task.images:
        raise InfeasibleError(needed(task, kinds))
    if task.images is None and not most_images(units, task.deadline_ms):
        earliest = min(option.warmup_ms for kind in kinds for option in kind.options)
        raise InfeasibleError(
            f"no accelerator has done its first mini-batch in {task.deadline_ms:g} ms. What would "
            f"do: a deadline of {earliest:.6g} ms"
        )
    rows, used = _program(task, units)
    outcome = run(rows.program, solver=solver, time_limit_s=time_limit_s)
    if outcome.status in (Status.INFEASIBLE, Status.UNKNOWN):
        raise CheckFailed(
            f"solver '{solver}' found no choice of accelerators in {time_limit_s:g} s although "
            "there is one: give it more time or another solver"
        )
    chosen = [kind for kind, one in zip(units, used, strict=True) if one.value() > _HALF]
    uses = spread(chosen, task.images, task.deadline_ms)
    return BatchPlan(
        model=task.model,
        objective=task.objective,
        deadline_ms=task.deadline_ms,
        images_wanted=task.images,
        images=sum(item.images for item in uses),
        finished_ms=max((item.finished_ms for item in uses), default=0.0),
        accelerators=len(uses),
        available=len(units),
        usd_per_hour=_price(chosen),
        uses=uses,
        proven=outcome.status is Status.OPTIMAL,
    )


def needed(task: Task, kinds: Sequence[Kind]) -> str:
    """Why the images can't be done in time, and each single change by which they could."""
    assert task.images is not None
    units = all_of(kinds)
    most = most_images(units, task.deadline_ms)
    ways = []
    earliest = least_deadline_ms(units, task.images)
    if earliest is not None:
        ways.append(f"a deadline of {earliest:.6g} ms")
    for kind in kinds:
        each = kind.most_images(task.deadline_ms)
        if each:
            more = -(-(task.images - most) // each)
            ways.append(f"{more} more of '{kind.name}' ({each} images each)")
    if most:
        ways.append(f"at most {most} images")
    return (
        f"{task.images} images can't be done in {task.deadline_ms:g} ms on {len(units)} "
        f"accelerators: they do {most}. What would do: {', or '.join(ways) or 'larger limits M'}"
    )


def _checked(task: Task, kinds: Sequence[Kind]) -> Task:
    if task.images is None:
        return Task(task.model, task.deadline_ms, None, "most images")
    if task.objective == "most images":
        raise InputError("most images are done if none are asked for: leave the number out")
    unknown = [kind.name for kind in kinds if kind.usd_per_hour is None]
    if task.objective == "least price" and unknown:
        raise InputError(
            f"the least price needs a price of each accelerator; it is missing for "
            f"{', '.join(unknown)}: give machine or price_per_hour_usd"
        )
    return task


def _program(task: Task, units: Sequence[Kind]) -> tuple[Rows, list[Sum]]:
    """The program, and for each accelerator the sum that is 1 if it is used."""
    rows = Rows("batches")
    used, images = [], Sum()
    for index, kind in enumerate(units):
        used.append(_add_unit(rows, index, kind, task, images))
        if index and units[index - 1] is kind:  # equal accelerators are used in order
            rows.at_least(f"order_{index}", used[-2], used[-1])
    if task.images is None:
        rows.minimise(images.times(-1.0))
        return rows, used
    rows.at_least("images", images, float(task.images))
    weights = [
        float(kind.usd_per_hour or 0.0) if task.objective == "least price" else 1.0
        for kind in units
    ]
    rows.minimise(Sum.of(one.times(weight) for one, weight in zip(used, weights, strict=True)))
    return rows, used


def _add_unit(rows: Rows, index: int, kind: Kind, task: Task, images: Sum) -> Sum:
    used, busy = Sum(), Sum()
    for option in kind.options:
        most = option.uses(task.deadline_ms, kind.max_uses)
        if most is None:
            continue
        name = f"{index}_{option.mini_batch}"
        chosen = rows.variable(f"x_{name}", binary=True)
        uses = rows.variable(f"t_{name}", binary=True, high=float(most))
        rows.at_most(f"uses_{name}", uses, chosen.times(float(most)))
        used.add(chosen)
        busy.add(chosen, option.warmup_ms)
        busy.add(uses, option.latency_ms)
        images.add(chosen, float(option.mini_batch))
        images.add(uses, float(option.mini_batch))
    rows.at_most(f"one_{index}", used, 1.0)
    if not busy.is_constant:
        rows.limit(f"deadline_{index}", busy, task.deadline_ms)
    return used


def _price(chosen: Sequence[Kind]) -> float | None:
    prices = [kind.usd_per_hour for kind in chosen]
    known = [price for price in prices if price is not None]
    return sum(known) if known and len(known) == len(prices) else None
