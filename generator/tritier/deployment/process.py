"""Processes that outlive the command that started them.

They are known by pid *and* start time: a pid that the system gave to somebody else is never
signalled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

_POLL_S = 0.05


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if there is none (or a zombie)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name, in parentheses, may hold anything
    return None if fields[0] == "Z" else int(fields[19])


def is_running(pid: int, started: int) -> bool:
    """Whether that very process still runs."""
    return start_ticks(pid) == started


def spawn(command: list[str], environment: Mapping[str, str], stdout: int, stderr: int) -> int:
    """Start a process in a session and group of its own; returns its pid.

    `stdout` and `stderr` are file descriptors; it reads nothing. There is no Popen object, which
    would warn about a child that is meant to outlive us.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, stdout, 1),
        (os.POSIX_SPAWN_DUP2, stderr, 2),
    ]
    return os.posix_spawn(command[0], command, dict(environment), file_actions=actions, setsid=True)


def stop(pid: int, started: int, patience_s: float) -> None:
    """SIGTERM, and SIGKILL to its whole process group if it has not ended after `patience_s`.

    The process must lead a group of its own. Does nothing if it has already ended.
    """
    if is_running(pid, started):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + patience_s
        while is_running(pid, started) and time.monotonic() < deadline:
            _reap(pid)
            time.sleep(_POLL_S)
    # Children that the leader left behind still carry its group, and as long as there are any the
    # system gives its number to nobody else. If somebody else has it, there are none.
    if start_ticks(pid) in (None, started):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    _reap(pid)


def _reap(pid: int) -> None:
    """Take the exit status if it is a child of ours: else it stays as a zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
