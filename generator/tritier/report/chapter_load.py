"""The chapter of load tests: users, answers and latency over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tritier.documents.load import LoadPoint, LoadResult
from tritier.report.commands import load_command
from tritier.report.material import Material
from tritier.report.parts import (
    Axis,
    Block,
    Chart,
    Evidence,
    Missing,
    Notice,
    Section,
    Series,
    Table,
    number,
    percent,
    spanned,
    table,
)


def load_section(material: Material) -> Section:
    """Of every load test that was given."""
    title = "Load test over time"
    if not material.load:
        missing = Missing("a load test", load_command(material))
        return Section("load", title, missing=(missing,))
    blocks: list[Block] = []
    for index, read in enumerate(material.load):
        blocks += _blocks(read.document, "" if len(material.load) == 1 else f"-{index + 1}")
    lead = ("Users ask one request after the other; every answer is compared with the right one.",)
    return Section("load", title, tuple(blocks), lead)


def _blocks(result: LoadResult, suffix: str) -> Iterable[Block]:
    points = sorted((x for x in result.points if not x.tags), key=lambda x: x.t_s)
    shape = result.shape or "led by hand"
    if result.failures or result.wrong:
        yield Notice(
            f"{result.model}: {result.failures} of {result.requests} requests failed "
            f"({percent(result.failure_share)}), {result.wrong} answers were wrong. "
            + " ".join(result.messages[:3]),
            "warn",
        )
    for text in result.warnings:
        yield Notice(text, "warn")
    if points:
        yield from _charts(result, points, shape, suffix)
    yield _levels(result, points, suffix)
    tagged = [x for x in result.points if x.tags]
    if tagged:
        yield _tags(result, tagged, suffix)
    if result.answered_by:
        yield table(
            f"load-plans{suffix}", f"{result.model}: who answered", ("plan", "answers"),
            [(name, str(count)) for name, count in sorted(result.answered_by.items())],
            Evidence("answers", "measured", f"{result.requests} requests", "none: a count"),
        )  # fmt: skip


def _charts(
    result: LoadResult, points: Sequence[LoadPoint], shape: str, suffix: str
) -> Iterable[Chart]:
    time = Axis("time since the start (s)", from_zero=True)
    yield Chart(
        f"load-users{suffix}", f"Users ({shape})",
        f"{result.model}: how many asked at once.",
        time, Axis("users", from_zero=True),
        (_held("users", points, [float(x.users) for x in points], 2),),
        Evidence("users", "configured (the shape of the load)"),
    )  # fmt: skip
    failed = [(x.failures + x.wrong) / x.length_s for x in points]
    yield Chart(
        f"load-answers{suffix}", "Answers over time",
        f"{result.requests} requests in {number(result.duration_s)} s: "
        f"{number(result.infer_per_s)} inferences/s.",
        time, Axis("requests/s", from_zero=True),
        (
            _held("right answers", points, [x.per_s for x in points], 0),
            _held("failed or wrong", points, failed, 1, dashed=True),
        ),
        _evidence(result, points, "requests per second", "none: a count of each level"),
    )  # fmt: skip
    known = [x for x in points if x.p50_ms is not None and x.p95_ms is not None]
    if known:
        yield Chart(
            f"load-latency{suffix}", "Latency over time",
            "Of right answers, by level of load.",
            time, Axis("latency of a request (ms)", from_zero=True),
            (
                _held("p50", known, [x.p50_ms or 0.0 for x in known], 0),
                _held("p95", known, [x.p95_ms or 0.0 for x in known], 1, dashed=True),
            ),
            _evidence(result, known, "ms"),
        )  # fmt: skip


def _held(
    name: str, points: Sequence[LoadPoint], values: Sequence[float], colour: int,
    dashed: bool = False,
) -> Series:  # fmt: skip
    """Each value from the start to the end of its level."""
    return Series(
        name,
        tuple(t for x in points for t in (x.t_s, x.t_s + x.length_s)),
        tuple(value for value in values for _ in range(2)),
        notes=tuple(f"{x.users} users, {x.requests} requests" for x in points for _ in range(2)),
        colour=colour,
        dashed=dashed,
        steps=True,
    )


def _levels(result: LoadResult, points: Sequence[LoadPoint], suffix: str) -> Table:
    rows = [
        (number(x.t_s), number(x.length_s), str(x.users), str(x.requests), str(x.failures),
         str(x.wrong), number(x.per_s), number(x.mean_ms), number(x.std_ms), number(x.p50_ms),
         number(x.p95_ms), number(x.p99_ms))
        for x in points
    ]  # fmt: skip
    rows.append(
        ("all", number(result.duration_s), "", str(result.requests), str(result.failures),
         str(result.wrong), number(result.infer_per_s / result.settings.batch),
         number(result.mean_ms), number(result.std_ms), number(result.p50_ms),
         number(result.p95_ms), number(result.p99_ms))
    )  # fmt: skip
    return table(
        f"load-levels{suffix}", f"{result.model}: levels of load",
        ("from s", "length s", "users", "requests", "failed", "wrong", "right/s", "mean ms",
         "std ms", "p50 ms", "p95 ms", "p99 ms"),
        rows, _evidence(result, points),
    )  # fmt: skip


def _tags(result: LoadResult, points: Sequence[LoadPoint], suffix: str) -> Table:
    return table(
        f"load-tags{suffix}", f"{result.model}: by class and plan",
        ("from s", "users", "which", "requests", "failed", "wrong", "right/s", "p50 ms", "p95 ms"),
        [(number(x.t_s), str(x.users), ", ".join(f"{k} {v}" for k, v in sorted(x.tags.items())),
          str(x.requests), str(x.failures), str(x.wrong), number(x.per_s), number(x.p50_ms),
          number(x.p95_ms)) for x in sorted(points, key=lambda x: (x.t_s, sorted(x.tags.items())))],
        _evidence(result, points),
        folded=True,
    )  # fmt: skip


def _evidence(
    result: LoadResult,
    points: Sequence[LoadPoint],
    unit: str = "ms; requests per second",
    spread: str = "standard deviation and percentiles in the table",
) -> Evidence:
    n = spanned([x.requests for x in points] or [result.requests], "requests per level")
    return Evidence(unit, "measured (Locust, client's side)", n, spread)
