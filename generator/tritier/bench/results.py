"""What perf_analyzer leaves behind: every request's times, and what it prints of its windows."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritier.bench.figures import LatencyFigures
from tritier.bench.loads import spread_percent
from tritier.documents import ModelShare
from tritier.errors import ServerError
from tritier.files import write_file

# Stability is that of the last three windows, and the figures are of them.
STABLE_WINDOWS = 3
_FIGURE = re.compile(r"^\s+(?P<name>p\d+|Avg) latency: (?P<usec>\d+) usec", re.MULTILINE)
_DEVIATION = re.compile(r"standard deviation (?P<usec>\d+) usec")
_REQUESTS = re.compile(r"^\s+Request count: (?P<count>\d+)", re.MULTILINE)
_THROUGHPUT = re.compile(r"^\s+Throughput: (?P<rate>\S+) infer/sec", re.MULTILINE)
_PASS = re.compile(
    r"Pass \[\d+\] throughput: (?P<rate>\S+) infer/sec\. "
    r"(?:Avg|p\d+) latency: (?P<latency_us>\d+) usec"
)
_DELAYED = re.compile(r"^\s+Delayed Request Count: (?P<count>\d+)", re.MULTILINE)
# So large a share of requests may be sent late by the client.
_MOST_LATE = 0.01
_MODEL = re.compile(r"^  (?P<name>\S+), version: \S*\s*$")
_COUNT = re.compile(r"^\s+Successful request count: (?P<count>\d+)", re.MULTILINE)
_EXECUTIONS = re.compile(r"^\s+Execution count: (?P<count>\d+)", re.MULTILINE)
_PART = re.compile(r"(queue|compute input|compute infer|compute output) (\d+) usec")


@dataclass(frozen=True)
class Requests:
    """Requests that were answered in the last windows: (sent, answered) in ns of one clock, in the
    order in which they were sent. `duration_s` is that of these windows."""

    times_ns: tuple[tuple[int, int], ...]
    failures: int
    windows: int
    duration_s: float

    @property
    def latencies_ms(self) -> list[float]:
        """From sending to the answer."""
        return [(answered - sent) / 1e6 for sent, answered in self.times_ns]


def read_requests(path: Path) -> Requests:
    """Read a profile export; raises ServerError if it is none, or of no request."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        experiment = data["experiments"][-1]
        rows = [_row(item) for item in experiment["requests"]]
        boundaries = sorted({int(item) for item in experiment["window_boundaries"]})
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ServerError(f"{path}: is no profile export of perf_analyzer: {error!r}") from None
    start, end, windows = _last_windows(boundaries)
    inside = [row for row in rows if start <= (row[1] or row[0]) <= end]
    answered = tuple(sorted((sent, back) for sent, back in inside if back is not None))
    if not answered or end <= start:
        raise ServerError(f"{path}: no request was answered in its last windows")
    failures = sum(back is None for _, back in inside)
    return Requests(answered, failures, windows, (end - start) / 1e9)


def _row(item: dict[str, Any]) -> tuple[int, int | None]:
    answers = item.get("response_timestamps") or []
    failed = item.get("success") is False or not answers
    return int(item["timestamp"]), None if failed else int(answers[-1])


def _last_windows(boundaries: Sequence[int]) -> tuple[int, int, int]:
    """(start, end, number) of the last windows. Successive windows share their boundary."""
    last = boundaries[-(STABLE_WINDOWS + 1) :]
    if len(last) < 2:
        raise ServerError("perf_analyzer measured no window")
    return last[0], last[-1], len(last) - 1


@dataclass(frozen=True)
class Printed:
    """What perf_analyzer itself says of the last windows."""

    requests: int
    infer_per_s: float
    figures: LatencyFigures


def printed_figures(log: str) -> Printed:
    """Figures of a run in its log; raises ServerError if there are none.

    The interval of the mean is from the standard deviation, as if requests did not depend on each
    other: too narrow rather than too wide.
    """
    usec = {match["name"]: int(match["usec"]) for match in _FIGURE.finditer(log)}
    count, rate, deviation = (
        _REQUESTS.search(log), _THROUGHPUT.search(log), _DEVIATION.search(log)
    )  # fmt: skip
    missing = [name for name in ("Avg", "p50", "p90", "p95", "p99") if name not in usec]
    if missing or count is None or rate is None or deviation is None:
        raise ServerError(f"perf_analyzer printed no figures: {failure(log)}")
    requests, std_ms, mean_ms = int(count["count"]), int(deviation["usec"]) / 1e3, usec["Avg"] / 1e3
    if not requests or not float(rate["rate"]):
        raise ServerError(f"perf_analyzer counted no answered request: {failure(log)}")
    half_ms = 1.96 * std_ms / math.sqrt(max(1, requests))
    figures = LatencyFigures(
        mean_ms=mean_ms,
        std_ms=std_ms,
        p50_ms=usec["p50"] / 1e3,
        p90_ms=usec["p90"] / 1e3,
        p95_ms=usec["p95"] / 1e3,
        p99_ms=usec["p99"] / 1e3,
        low_ms=max(0.0, mean_ms - half_ms),
        high_ms=mean_ms + half_ms,
    )
    return Printed(requests, float(rate["rate"]), figures)


def strip_profile(path: Path) -> None:
    """Leave out of a profile export the tensors of every request, a hundred times the rest."""
    data = json.loads(path.read_text(encoding="utf-8"))
    for experiment in data["experiments"]:
        for item in experiment["requests"]:
            item.pop("request_inputs", None)
            item.pop("response_outputs", None)
    write_file(path, json.dumps(data))


def unstable_because(log: str, percent: float) -> str:
    """Why a run was not stable, from what it prints of its last windows."""
    passes = [(float(m["rate"]), float(m["latency_us"]) / 1e3) for m in _PASS.finditer(log)]
    last = passes[-STABLE_WINDOWS:]
    if len(last) < STABLE_WINDOWS:
        return f"only {len(last)} of {STABLE_WINDOWS} windows were measured"
    rates, latencies = [rate for rate, _ in last], [ms for _, ms in last]
    return (
        f"after {len(passes)} windows the last three differ by {spread_percent(rates):.0f} % in "
        f"inferences per second and {spread_percent(latencies):.0f} % in latency; {percent:g} % "
        "are allowed"
    )


def late_because(log: str) -> str | None:
    """Why a run is not of the rate that was asked for, if perf_analyzer sent requests late: their
    waiting at the client is in no latency."""
    delayed, count = _DELAYED.search(log), _REQUESTS.search(log)
    share = int(delayed["count"]) / max(1, int(count["count"])) if delayed and count else 0.0
    if share <= _MOST_LATE:
        return None
    return (
        f"perf_analyzer sent {share:.0%} of the requests later than they were due; "
        f"{_MOST_LATE:.0%} are allowed"
    )


def failure(log: str) -> str:
    """The lines of a failed run that say most."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error|fail|invalid|unable", line, re.I)]
    return " | ".join(dict.fromkeys((telling or lines)[-3:])) or "it printed nothing"


def composing_models(log: str) -> tuple[ModelShare, ...]:
    """Steps of an ensemble, from the last list of them in the log; empty if there is none."""
    _, found, text = log.rpartition("Composing models:")
    if not found:
        return ()
    shares, name, lines = [], "", list[str]()
    for line in [*text.splitlines(), "  end, version: "]:
        match = _MODEL.match(line)
        if match or (line.strip() and not line.startswith(" ")):
            if name:
                shares.append(_composing(name, "\n".join(lines)))
            name, lines = (match["name"] if match else ""), []
            if not match:
                break
        else:
            lines.append(line)
    return tuple(share for share in shares if share.requests)


def _composing(name: str, text: str) -> ModelShare:
    count, executions = _COUNT.search(text), _EXECUTIONS.search(text)
    ms = {part: int(usec) / 1e3 for part, usec in _PART.findall(text)}
    return ModelShare(
        model=name,
        requests=int(count["count"]) if count else 0,
        executions=int(executions["count"]) if executions else None,
        queue_ms=ms.get("queue", 0.0),
        compute_input_ms=ms.get("compute input", 0.0),
        compute_infer_ms=ms.get("compute infer", 0.0),
        compute_output_ms=ms.get("compute output", 0.0),
    )
