"""What router, TLS and tracing add to a request to a small split model.

Three labs of two servers on loopback, without link emulation, serve the same plan (a layer pair on
the edge) with its router: one plain, one with mutual TLS between all, one in which each model sends
the spans of each request to a collector. Requests of all kinds are sent in turn in one run:

  plan            to the plan itself, past the router
  router          to the router, which asks the plan
  router + TLS    the same in the lab with TLS
  router + trace  the same in the lab with tracing, with a `traceparent` of the app

Medians are reported, and the medians of the differences to `router` (for `router`, to `plan`) of
requests that were sent one after the other. Every answer is compared with the whole model's. Exit
code 1 if an answer is wrong, a request fails or no span arrives. Usage:

    python -m benchmarks.plane_overhead [--requests 300] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.plane import EDGE, deployed_plane
from tests.helpers.load import Asker
from tests.helpers.otlp import Collector
from tritier.deployment.security import LabProtection

_WARM_UP = 30
_OTLP = "TRITIER_OTLP"


@dataclass(frozen=True)
class Row:
    """Milliseconds of `n` requests of a kind; `added_ms` to those of `compared_with`."""

    kind: str
    n: int
    median_ms: float
    p90_ms: float
    compared_with: str
    added_ms: float


def main() -> int:
    """Print the table; exit code 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=300, help="timed requests of each kind")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tritier-bench-")))
        collector = stack.enter_context(Collector())
        askers = _askers(stack, folder, collector)
        times = _timed(askers, arguments.requests)
    rows = _rows(times)
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    else:
        _show(rows, len(collector.spans))
    if not collector.spans:
        sys.stderr.write("broken: no span arrived at the collector\n")
    return 0 if collector.spans else 1


def _askers(stack: ExitStack, folder: Path, collector: Collector) -> dict[str, Asker]:
    planes = {}
    for name in ("plain", "tls", "trace"):
        place = folder / name
        place.mkdir()
        protection = LabProtection(mutual=True) if name == "tls" else None
        with _variable(_OTLP, collector.url if name == "trace" else None):
            planes[name] = stack.enter_context(
                deployed_plane(place, {"edge": EDGE}, protection=protection)
            )
    trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    askers = {
        "plan": planes["plain"].asker("edge"),
        "router": planes["plain"].asker(),
        "router + TLS": planes["tls"].asker(),
        "router + trace": planes["trace"].asker(headers={"traceparent": trace}),
    }
    for asker in askers.values():
        stack.callback(asker.close)
    return askers


@contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    """What servers that are started here inherit."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def _timed(askers: dict[str, Asker], requests: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {kind: [] for kind in askers}
    order = list(askers)
    for number in range(_WARM_UP + requests):
        # Every kind follows every other one equally often.
        turn = order[number % len(order) :] + order[: number % len(order)]
        for kind in turn:
            answer = askers[kind].ask(number)
            if not answer.ok:
                raise SystemExit(f"broken: {kind}: {answer}")
            if number >= _WARM_UP:
                times[kind].append(answer.ms)
    return times


def _rows(times: dict[str, list[float]]) -> list[Row]:
    rows = []
    for kind, values in times.items():
        other = "plan" if kind == "router" else "router"
        pairs = zip(values, times[other], strict=True)
        added = 0.0 if kind == "plan" else statistics.median(a - b for a, b in pairs)
        rows.append(
            Row(
                kind,
                len(values),
                statistics.median(values),
                statistics.quantiles(values, n=10)[-1],
                "" if kind == "plan" else other,
                added,
            )
        )
    return rows


def _show(rows: list[Row], spans: int) -> None:
    table = Table(title="ms per request")
    for head in ("kind", "n", "median", "p90", "compared with", "added"):
        table.add_column(head, justify="right")
    for row in rows:
        added = f"{row.added_ms:+.2f}" if row.compared_with else ""
        table.add_row(
            row.kind,
            str(row.n),
            f"{row.median_ms:.2f}",
            f"{row.p90_ms:.2f}",
            row.compared_with,
            added,
        )
    Console().print(table)
    sys.stdout.write(f"{spans} spans arrived\n")


if __name__ == "__main__":
    sys.exit(main())
