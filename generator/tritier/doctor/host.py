"""What the system gives: Python, cores, memory, open files, loopback, a clock, tracing."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tritier.deployment.security import hiding_obstacle
from tritier.documents import MachineCheck
from tritier.documents.doctor import CheckStatus

OLDEST_PYTHON = (3, 11)
# `tritier demo` took 962 MiB at its greatest (measured, docs/doctor.md).
LEAST_MEMORY_BYTES = 1 << 30
ENOUGH_MEMORY_BYTES = 2 << 30
ENOUGH_CORES = 2
# No process of the demo had more than 29 open; users of `tritier load` have some each.
ENOUGH_FILES = 1024
LEAST_FILES = 256
_GIB = 1 << 30
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")


def check_python(
    version: tuple[int, int, int], oldest: tuple[int, int] = OLDEST_PYTHON
) -> MachineCheck:
    """The interpreter that runs this."""
    fits = version[:2] >= oldest
    return MachineCheck(
        name="Python",
        status="ok" if fits else "missing",
        found=".".join(str(part) for part in version),
        needed_for=f"every command: {oldest[0]}.{oldest[1]} or newer",
        fix=None if fits else f"make PYTHON=python{oldest[0]}.{oldest[1]} demo",
        demo=True,
    )


def check_cores(cores: int) -> MachineCheck:
    """CPUs that this process may use, by affinity and by the quota of its cgroup."""
    return MachineCheck(
        name="cores",
        status="ok" if cores >= ENOUGH_CORES else "warning",
        found=str(cores),
        needed_for=f"labs: with fewer than {ENOUGH_CORES} servers share one core, and times mix",
        demo=True,
    )


def check_memory(total_bytes: int, available_bytes: int) -> MachineCheck:
    """What this process may use, by the limit of its cgroup."""
    status: CheckStatus = "ok"
    found = f"{available_bytes / _GIB:.1f} of {total_bytes / _GIB:.1f} GiB available"
    if total_bytes == 0:
        status, found = "warning", "this system does not tell"
    elif available_bytes < ENOUGH_MEMORY_BYTES:
        status = "missing" if available_bytes < LEAST_MEMORY_BYTES else "warning"
    return MachineCheck(
        name="memory",
        status=status,
        found=found,
        needed_for=f"a lab of three servers: {ENOUGH_MEMORY_BYTES // _GIB} GiB",
        fix=None if status == "ok" else "ps -eo rss,pid,comm --sort=-rss | head -n 12",
        demo=True,
    )


def check_open_files(soft: int, hard: int) -> MachineCheck:
    """Limits of open files; a negative one is no limit."""
    status: CheckStatus = "ok"
    if 0 <= soft < ENOUGH_FILES:
        status = "missing" if soft < LEAST_FILES else "warning"
    enough_allowed = hard < 0 or hard >= ENOUGH_FILES
    fix = f"ulimit -n {ENOUGH_FILES}" if enough_allowed else f"sudo prlimit --nofile={ENOUGH_FILES}"
    fix += "" if enough_allowed else " --pid $$"
    return MachineCheck(
        name="open files",
        status=status,
        found=f"{_limit(soft)} (at most {_limit(hard)})",
        needed_for="connections and Python models of servers, users of `tritier load`",
        fix=None if status == "ok" else fix,
        demo=True,
    )


def check_loopback(obstacle: str | None) -> MachineCheck:
    """Whether a port of 127.0.0.1 can be bound. Links of a lab are emulated by a relay there, for
    which neither netem nor network namespaces nor root are needed."""
    return MachineCheck(
        name="loopback and links",
        status="missing" if obstacle else "ok",
        found=obstacle or "127.0.0.1 can be bound; links are emulated there, without netem or root",
        needed_for="the lab and the demo",
        fix="sudo ip link set lo up" if obstacle else None,
        demo=True,
    )


def check_clock(now_s: float, newest_file_s: float) -> MachineCheck:
    """The clock must not be behind files that are already there."""
    behind_s = newest_file_s - now_s
    wrong = behind_s > 1.0
    return MachineCheck(
        name="clock",
        status="warning" if wrong else "ok",
        found=f"{behind_s:,.0f} s behind a file of tritier"
        if wrong
        else "after all installed files",
        needed_for="certificates, times of measurements, prices by date",
        fix="sudo timedatectl set-ntp true" if wrong else None,
    )


def check_tracing(obstacle: str | None, yama_scope: int | None) -> MachineCheck:
    """`obstacle`: why the key of a server can't be hidden here, as a trial found."""
    fix = None
    if obstacle:
        fix = "tritier lab up --servers servers.yaml --no-admin-key"
        if yama_scope == 2:  # 3 stays until the next start
            fix = "sudo sysctl -w kernel.yama.ptrace_scope=1"
    return MachineCheck(
        name="ptrace",
        status="warning" if obstacle else "ok",
        found=obstacle or "a key can be kept out of command lines",
        needed_for="the key of administrative APIs; a lab goes on without it",
        fix=fix,
    )


def open_files() -> tuple[int, int]:
    """(soft, hard) limit of this process."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def loopback_obstacle() -> str | None:
    """Why 127.0.0.1 can't be bound; None if it can."""
    try:
        with contextlib.closing(socket.socket()) as item:
            item.bind(("127.0.0.1", 0))
    except OSError as error:
        return f"127.0.0.1 can't be bound: {error.strerror}"
    return None


def tracing_obstacle(trial: Callable[[], str | None] = hiding_obstacle) -> str | None:
    """Why a key can't be hidden here, or why that can't be tried; None if it can."""
    try:
        return trial()
    except (OSError, subprocess.SubprocessError) as error:
        return f"the trial broke: {error}"


def newest_file_s(files: Sequence[Path]) -> float:
    """When the newest of these files was last changed, in seconds since 1970."""
    return max((path.stat().st_mtime for path in files), default=0.0)


def own_files() -> list[Path]:
    """The package's own modules."""
    return sorted(Path(__file__).resolve().parent.parent.rglob("*.py"))


def yama_scope(file: Path = _YAMA) -> int | None:
    """How far the kernel restricts tracing; None where it knows no such restriction."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def now_s() -> float:
    """Seconds since 1970."""
    return time.time()


def python_version() -> tuple[int, int, int]:
    """Of this interpreter."""
    return sys.version_info[:3]


def _limit(value: int) -> str:
    return "no limit" if value < 0 else f"{value:,}"
