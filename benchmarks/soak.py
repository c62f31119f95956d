"""Ten minutes at 70 % load: what the servers hold, and then 10,000 requests by Locust.

A plan on two servers on loopback behind the router. The rate at which requests are answered is
measured first; 70 % of it is sent, evenly, and every two seconds the memory, the file descriptors
and the entries in /dev/shm of each server and its processes are read. Then Locust sends its
requests with eight users. Every answer is compared with the whole model's. Exit code 1 when the
promise is broken: all of that flat, no request failed. Usage:

    python -m benchmarks.soak [--seconds 600] [--requests 10000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.faults.overload import peak_per_s
from tests.faults.plane import EDGE, Plane, deployed_plane
from tests.faults.soak import DEADLINE_MS, Soak, soak
from tests.helpers.load import quantiles_ms

_LOAD = 0.7
_USERS = 8
_MIB = 1024**2


@dataclass(frozen=True)
class Counted:
    """What Locust counted; times in milliseconds, rounded by it."""

    requests: int
    failures: int
    median_ms: float
    p99_ms: float
    per_s: float
    messages: list[str]


def main() -> int:
    """Print the tables; exit code 1 when the promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="of the soak")
    parser.add_argument("--requests", type=int, default=10_000, help="by Locust; 0: none")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="tritier-bench-") as name,
        deployed_plane(Path(name), {"edge": EDGE}, deadline_ms=DEADLINE_MS) as plane,
    ):
        asker = plane.asker(deadline_ms=DEADLINE_MS)
        peak = peak_per_s(asker, min(10.0, arguments.seconds))
        found = soak(
            plane, asker, _LOAD * peak, arguments.seconds, min(2.0, arguments.seconds / 20)
        )
        asker.close()
        counted = locust(plane, arguments.requests) if arguments.requests else None
    _show(found, peak, arguments.seconds)
    faults = found.faults()
    faults += [f"{a.status}: {a.message}" for a in found.failed[:5]]
    faults += ["a wrong answer"] * any(a.wrong for a in found.answers)
    if counted is not None:
        sys.stdout.write(
            f"Locust: {counted.requests} requests, {counted.failures} failures, median "
            f"{counted.median_ms:.0f} ms, p99 {counted.p99_ms:.0f} ms, {counted.per_s:.1f}/s\n"
        )
        if counted.failures or counted.requests < arguments.requests:
            faults.append(f"Locust: {counted}")
    for fault in faults:
        sys.stderr.write(f"broken: {fault}\n")
    return 1 if faults else 0


def locust(plane: Plane, requests: int, users: int = _USERS) -> Counted:
    """Send that many requests by Locust, in a process of its own."""
    folder = plane.folder / "locust"
    folder.mkdir(exist_ok=True)
    asked = {"x": [q["x"] for q, _ in plane.questions], "y": [a["y"] for _, a in plane.questions]}
    np.savez(folder / "questions.npz", x=np.stack(asked["x"]), y=np.stack(asked["y"]))
    settings = folder / "settings.json"
    values = {"url": str(plane.addresses.urls["device"]), "model": "small", "requests": requests}
    files = {"questions": str(folder / "questions.npz"), "result": str(folder / "result.json")}
    settings.write_text(json.dumps({**values, **files}))
    file = Path(__file__).with_name("locust_plane.py")
    command = [sys.executable, "-m", "locust", "-f", str(file), "--headless", "--only-summary"]
    command += ["-u", str(users), "-r", str(users)]
    # It runs until the last request is answered, and no longer than this.
    longest_s = 60 + requests // 10
    command += ["--run-time", f"{longest_s}s"]
    ended = subprocess.run(
        command,
        env={**os.environ, "TRITIER_LOCUST_SETTINGS": str(settings)},
        capture_output=True,
        text=True,
        timeout=longest_s + 60,
        check=False,
    )
    result = folder / "result.json"
    if not result.is_file():
        raise RuntimeError(f"Locust wrote no result:\n{ended.stderr[-2000:]}")
    return Counted(**json.loads(result.read_text(encoding="utf-8")))


def _show(found: Soak, peak: float, seconds: float) -> None:
    table = Table(title=f"{seconds:.0f} s at {_LOAD:.0%} of {peak:.0f} requests a second")
    for head in ("server", "memory MiB", "later", "descriptors", "later", "shm", "later"):
        table.add_column(head, justify="right")
    for name, row in found.growth().items():
        table.add_row(
            name,
            *(f"{value / _MIB:.1f}" for value in row["rss_bytes"]),
            *(f"{value:.1f}" for value in row["fds"]),
            *(f"{value:.1f}" for value in row["shm_entries"]),
        )
    Console().print(table)
    times = ", ".join(f"p{q * 100:.0f} {ms:.1f}" for q, ms in quantiles_ms(found.answers).items())
    sys.stdout.write(
        f"{len(found.answers)} requests, {len(found.failed)} failed, "
        f"{sum(a.wrong for a in found.answers)} wrong; ms: {times}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
