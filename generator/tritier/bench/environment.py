"""What this machine and its programs are, at the time of a measurement."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import tritier
from tritier.documents import Environment


def current(
    servers: Mapping[str, str] | None = None, perf_analyzer: str | None = None
) -> Environment:
    """The environment now. `servers`: name -> version of its Triton."""
    return Environment(
        measured_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tritier=tritier.__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_fact(Path("/proc/cpuinfo"), "model name") or platform.machine() or "unknown",
        cores=_cores(),
        memory_bytes=_memory_bytes(),
        load_averages=_load_averages(),
        perf_analyzer=perf_analyzer,
        servers=dict(servers or {}),
    )


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _load_averages() -> tuple[float, ...]:
    try:
        return tuple(round(value, 2) for value in os.getloadavg())
    except (AttributeError, OSError):
        return ()


def _memory_bytes() -> int:
    number = _fact(Path("/proc/meminfo"), "MemTotal").removesuffix(" kB")
    return int(number) * 1024 if number.isdigit() else 0


def _fact(file: Path, name: str) -> str:
    """The first value of that name in a file of `name: value` lines; empty if there is none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == name), "")
