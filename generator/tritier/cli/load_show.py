"""What `tritier load` shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tritier.bench.locust_job import LoadJob
from tritier.bench.locust_run import Processes, commands, shown
from tritier.bench.locust_shapes import Level
from tritier.cli.output import say, show_table
from tritier.documents.load import LoadResult, LoadTimes

_COLUMNS = ("failed", "wrong", "right/s", "mean ms", "p50", "p90", "p95", "p99", "max")


def show_result(result: LoadResult) -> None:
    """A line for each level of load and one for the whole test."""
    tagged = any(point.tags for point in result.points)
    rows = [
        [
            f"{point.t_s:.1f}",
            point.users,
            *([_tag(point.tags)] if tagged else []),
            *_figures(point, point.per_s),
        ]
        for point in result.points
    ]
    per_s = result.infer_per_s / result.settings.batch
    rows.append(["all", _span(result.users), *[""] * tagged, *_figures(result, per_s)])
    columns = ["from s", "users", *["of"] * tagged, "requests", *_COLUMNS]
    show_table(f"load on '{result.model}' at {result.url}", columns, rows)
    for text in result.messages:
        say(f"  {text}")
    if empty := sum(not point.requests for point in result.points if not point.tags):
        say(f"WARNING: in {empty} levels no request was sent: give a longer --duration")
    for warning in result.warnings:
        say(f"WARNING: {warning}")
    if len(result.answered_by) > 1 or result.plan_id is None:
        counts = ", ".join(f"{plan} {n}" for plan, n in result.answered_by.items())
        say(f"answered by plan: {counts or 'none'}")


def summary(result: LoadResult) -> str:
    """One line."""
    batch = result.settings.batch
    plural = "" if max(result.users, default=0) == 1 else "s"
    of_batch = f" of {batch} inferences" if batch > 1 else ""
    return (
        f"{result.requests} requests{of_batch} in {result.duration_s:.1f} s by "
        f"{_span(result.users)} user{plural}, {result.failures} failed, {result.wrong} wrong, "
        f"{result.infer_per_s:.2f} inferences/s"
    )


def show_plan(job: LoadJob, how: Processes) -> None:
    """What a dry run says."""
    say(f"would ask '{job.model}' at {job.url}: {job.settings.inputs}")
    show_table(
        f"levels of --shape {job.shape}",
        ["from s", "to s", "users"],
        [(f"{level.start_s:.2f}", f"{level.end_s:.2f}", level.users) for level in job.levels],
    )
    names = ", ".join(commands(job, how, how.port or 1))
    say(f"would start these processes of Locust: {names}")


def show_levels(levels: Sequence[Level]) -> str:
    """The numbers of users, for a message."""
    return ", ".join(str(level.users) for level in levels)


def show_prepared(folder: Path, job: LoadJob, how: Processes) -> None:
    """How to start by hand what was prepared."""
    say(f"{folder} has inputs, right answers and settings; start it, in this order, with")
    for command in commands(job, how, how.port or 5557).values():
        say(f"  {shown(command, folder.absolute())}")


def _figures(times: LoadTimes, per_s: float) -> list[str | int]:
    values = (times.mean_ms, times.p50_ms, times.p90_ms, times.p95_ms, times.p99_ms, times.max_ms)
    return [
        times.requests,
        times.failures,
        times.wrong,
        f"{per_s:.2f}",
        *("-" if value is None else f"{value:.2f}" for value in values),
    ]


def _tag(tags: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in tags.items()) or "all"


def _span(users: Sequence[int]) -> str:
    low, high = min(users, default=0), max(users, default=0)
    return str(low) if low == high else f"{low} to {high}"
