"""Twice the load that the servers can answer, for a minute: goodput, rejections, memory.

Two servers on loopback whose layers are slowed down, so that they and not this machine's cores are
exhausted. First the peak is measured: right answers per second with some requests always in flight.
Then requests are sent at twice that rate, whether or not those before are answered, through the
router and (the control) past it. Every answer is compared with the whole model's. Exit code 1 when
the promise is broken: goodput of at least 80 % of the peak, rejections (99 of 100) under 50 ms,
memory flat, nothing wrong, every request ended by its deadline. Usage:

    python -m benchmarks.overload [--seconds 60] [--factor 2] [--no-control]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.overload import (
    DEADLINE_MS,
    PLACEMENTS,
    SLOWDOWN,
    Overload,
    overload,
    peak_per_s,
)
from tests.faults.plane import SLACK_MS, deployed_plane

_MIB = 1024**2
_LEAST_KEPT, _MOST_REJECTED_MS, _MOST_GROWTH_BYTES = 0.8, 50.0, 64 * _MIB
_PEAK_S = 10.0


def main() -> int:
    """Print the table; exit code 1 when the promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
    parser.add_argument("--factor", type=float, default=2.0, help="of the peak")
    parser.add_argument("--no-control", action="store_true", help="not past the router, too")
    arguments = parser.parse_args()
    slow = {"slowdown": SLOWDOWN}
    with (
        tempfile.TemporaryDirectory(prefix="tritier-bench-") as name,
        deployed_plane(
            Path(name), PLACEMENTS, edge=slow, device=slow, deadline_ms=DEADLINE_MS
        ) as plane,
    ):
        asker = plane.asker(deadline_ms=DEADLINE_MS)
        peak = peak_per_s(asker, min(_PEAK_S, arguments.seconds))
        # Processes take what they will keep: memory is compared from here on.
        overload(plane, asker, peak, min(5.0, arguments.seconds), arguments.factor)
        rows = {"router": overload(plane, asker, peak, arguments.seconds, arguments.factor)}
        asker.close()
        if not arguments.no_control:
            past = plane.asker("edge", deadline_ms=DEADLINE_MS)
            rows["past it"] = overload(plane, past, peak, arguments.seconds, arguments.factor)
            past.close()
    _show(rows, arguments.seconds)
    faults = _faults(rows["router"])
    for fault in faults:
        sys.stderr.write(f"broken: {fault}\n")
    return 1 if faults else 0


def _faults(found: Overload) -> list[str]:
    late = [a for a in found.answers if a.ms > DEADLINE_MS + SLACK_MS]
    checks = [
        (found.kept >= _LEAST_KEPT, f"goodput is {found.kept:.0%} of the peak"),
        (bool(found.rejections), "nothing was rejected: this was no overload"),
        (
            found.rejected_ms(0.99) < _MOST_REJECTED_MS,
            f"99 of 100 rejections took up to {found.rejected_ms(0.99):.0f} ms",
        ),
        (
            found.growth_bytes < _MOST_GROWTH_BYTES,
            f"memory grew by {found.growth_bytes / _MIB:.0f} MiB",
        ),
        (not any(a.wrong for a in found.answers), "an answer was wrong"),
        (not late, f"{len(late)} requests ended after their deadline"),
    ]
    return [text for holds, text in checks if not holds]


def _show(rows: dict[str, Overload], seconds: float) -> None:
    table = Table(title=f"{seconds:.0f} s of overload")
    for head in ("", "peak /s", "offered /s", "goodput /s", "kept"):
        table.add_column(head, justify="right")
    for head in ("rejected", "median ms", "p99 ms", "other failures", "wrong", "memory MiB"):
        table.add_column(head, justify="right")
    for name, row in rows.items():
        failed = sum(not a.ok for a in row.answers)
        table.add_row(
            name,
            f"{row.peak:.1f}",
            f"{row.offered:.1f}",
            f"{row.goodput:.1f}",
            f"{row.kept:.0%}",
            str(len(row.rejections)),
            f"{row.rejected_ms(0.5):.1f}",
            f"{row.rejected_ms(0.99):.1f}",
            str(failed - len(row.rejections)),
            str(sum(a.wrong for a in row.answers)),
            f"{row.growth_bytes / _MIB:+.0f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
