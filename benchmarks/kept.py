"""Results of experiments: kept as they come, so that a run that was cut off goes on, and summed up.

A folder of results holds `parts/NAME.json` for each finished part of an experiment, and at the end
`result.json`, `table.md` and pictures.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritier.errors import InputError
from tritier.files import write_file
from tritier.workflow.compare_rounds import latency_of

_STARTED_S = time.monotonic()


def tell(text: str) -> None:
    """Progress, on stderr, with the minutes since the start."""
    minutes, seconds = divmod(int(time.monotonic() - _STARTED_S), 60)
    sys.stderr.write(f"[{minutes:02d}:{seconds:02d}] {text}\n")
    sys.stderr.flush()


def environment() -> dict[str, Any]:
    """The machine and its programs, as JSON."""
    from tritier.bench.environment import current

    return current().model_dump(mode="json")


class Kept:
    """Finished parts of an experiment in a folder.

    `settings` is what makes results comparable; a folder that was begun with others is refused with
    InputError, because a table of both would compare what can't be compared.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._parts = folder / "parts"
        file = folder / "settings.json"
        wanted = json.loads(json.dumps(dict(settings)))
        if file.is_file():
            found = json.loads(file.read_text())
            if found != wanted:
                differs = [k for k in {**found, **wanted} if found.get(k) != wanted.get(k)]
                raise InputError(
                    f"{folder} was begun with other settings ({', '.join(sorted(differs))}): give "
                    "another folder with -o, or remove it"
                )
        else:
            write_file(file, json.dumps(wanted, indent=1) + "\n")

    def get(self, name: str) -> Any:
        """What was kept under that name; None if nothing was."""
        file = self._file(name)
        return json.loads(file.read_text()) if file.is_file() else None

    def put(self, name: str, data: Any) -> Any:
        """Keep a finished part; returns it as it will be read again."""
        text = json.dumps(data, indent=1)
        write_file(self._file(name), text + "\n")
        return json.loads(text)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What was kept under that name, made now if nothing was."""
        found = self.get(name)
        return self.put(name, make()) if found is None else found

    def write(self, name: str, text: str) -> Path:
        """A file of the final results."""
        write_file(self.folder / name, text)
        return self.folder / name

    def write_result(self, data: Any) -> Path:
        """`result.json`: all that was found."""
        return self.write("result.json", json.dumps(data, indent=1) + "\n")

    def _file(self, name: str) -> Path:
        return self._parts / f"{name}.json"


@dataclass(frozen=True)
class Errors:
    """Absolute relative errors in %, of `n`; `bias` keeps the sign (predicted over measured)."""

    n: int
    mean: float
    p95: float
    largest: float
    bias: float


def errors_of(pairs: Iterable[tuple[float, float]]) -> Errors:
    """Of (predicted, measured) pairs; ValueError if there is none."""
    signed = [100.0 * (predicted / measured - 1.0) for predicted, measured in pairs]
    sizes = sorted(abs(value) for value in signed)
    return Errors(
        n=len(signed),
        mean=statistics.fmean(sizes),
        p95=quantile(sizes, 0.95),
        largest=max(sizes),
        bias=statistics.fmean(signed),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """By linear interpolation between the sorted values; ValueError if there is none."""
    if not values:
        raise ValueError("a quantile of nothing")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True)
class Times:
    """Milliseconds of `n` requests. `low_ms` and `high_ms` are a 95 % interval of the median, from
    the order of the values: it assumes nothing but that they are independent. Of less than 6 they
    are the least and the greatest."""

    n: int
    median_ms: float
    mean_ms: float
    p90_ms: float
    low_ms: float
    high_ms: float


def times_of(values: Sequence[float]) -> Times:
    """Of measured milliseconds; ValueError if there is none."""
    found = latency_of(values)
    return Times(
        n=found.n,
        median_ms=found.median_ms,
        mean_ms=found.mean_ms,
        p90_ms=found.p90_ms,
        low_ms=found.low_ms,
        high_ms=found.high_ms,
    )


def file_hash(*parts: object) -> str:
    """A short name for what the parts say."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are texts."""
    lines = [
        "| " + " | ".join(columns) + " |",
        "|" + "|".join("---" if i < left else "---:" for i in range(len(columns))) + "|",
    ]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"
