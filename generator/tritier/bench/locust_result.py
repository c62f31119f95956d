"""From the samples of a load test to its document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tritier.bench.locust_job import LoadJob
from tritier.bench.locust_samples import RIGHT, Samples, Times, figures
from tritier.bench.locust_shapes import Level, cut
from tritier.documents.load import UNKNOWN_PLAN, LoadPoint, LoadResult

_MESSAGES_SHOWN = 10
_SHORTEST_S = 1e-3


@dataclass(frozen=True)
class Run:
    """How a test went: until when requests were sent, who sent them, and what is to be said.

    `levels` are those that were meant, or, if a person led the test, what there was.
    """

    levels: Sequence[Level]
    end_s: float
    workers: int
    locust: str
    interrupted: bool = False
    led: bool = False
    warnings: tuple[str, ...] = ()


def load_result(job: LoadJob, samples: Samples, run: Run) -> LoadResult:
    """The document; its environment is left out."""
    columns = _Columns.of(samples)
    levels = cut(run.levels, run.end_s)
    in_time = columns.ended_s <= run.end_s
    right = int((columns.outcome[in_time] == RIGHT).sum())
    by_plan: Counter[str] = Counter()
    for tag, k in samples.tags.items():
        by_plan[tag.plan or UNKNOWN_PLAN] += int((columns.outcome[columns.tag == k] == RIGHT).sum())
    settings = job.settings.model_copy(update={"workers": run.workers, "locust": run.locust})
    return LoadResult(
        model=job.model,
        url=job.url,
        plan_id=job.plan_id,
        shape=None if run.led else job.shape,
        users=tuple(level.users for level in levels),
        duration_s=max(run.end_s, 0.0),
        interrupted=run.interrupted,
        infer_per_s=right * settings.batch / max(run.end_s, _SHORTEST_S),
        messages=tuple(
            f"{count} x {text}" for text, count in samples.messages.most_common(_MESSAGES_SHOWN)
        ),
        warnings=run.warnings,
        points=tuple(p for level in levels for p in _points(level, columns, samples)),
        answered_by={plan: n for plan, n in sorted(by_plan.items()) if n},
        settings=settings,
        **figures(columns.ms, columns.outcome),
    )


@dataclass(frozen=True)
class _Columns:
    """The samples as arrays."""

    sent_s: Times
    ended_s: Times
    ms: Times
    outcome: npt.NDArray[np.uint8]
    tag: npt.NDArray[np.uint16]

    @classmethod
    def of(cls, samples: Samples) -> _Columns:
        sent_s, ms = np.array(samples.sent_s), np.array(samples.ms)
        outcome = np.array(samples.outcome, np.uint8)
        return cls(sent_s, sent_s + ms / 1000, ms, outcome, np.array(samples.tag, np.uint16))


def _points(level: Level, columns: _Columns, samples: Samples) -> Iterator[LoadPoint]:
    """One of all requests, and one for each class and each plan if there are several."""
    if level.end_s - level.settled_s < _SHORTEST_S:
        return
    everything = np.ones(len(columns.ms), bool)
    yield _point(level, columns, everything, {})
    for key, field in (("class", "request_class"), ("plan", "plan")):
        values = sorted({getattr(tag, field) for tag in samples.tags})
        for value in values if len(values) > 1 else ():
            numbers = [k for tag, k in samples.tags.items() if getattr(tag, field) == value]
            shown = value or (UNKNOWN_PLAN if key == "plan" else "none")
            yield _point(level, columns, np.isin(columns.tag, numbers), {key: shown})


def _point(
    level: Level, columns: _Columns, chosen: npt.NDArray[np.bool_], tags: dict[str, str]
) -> LoadPoint:
    start, end = level.settled_s, level.end_s
    sent = chosen & (columns.sent_s >= start) & (columns.sent_s < end)
    came = chosen & (columns.ended_s >= start) & (columns.ended_s < end)
    right = int((columns.outcome[came] == RIGHT).sum())
    found: dict[str, Any] = figures(columns.ms[sent], columns.outcome[sent])
    return LoadPoint(
        t_s=start,
        length_s=end - start,
        users=level.users,
        per_s=right / (end - start),
        tags=tags,
        **found,
    )
