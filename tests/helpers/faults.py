"""What happens to servers: they are killed, stopped, or lose one process; and what they hold."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.processes import children_of, words_of
from tritier.documents import LabServer, LabState

_SHARED_MEMORY = Path("/dev/shm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def server_of(state: LabState, name: str) -> LabServer:
    return next(server for server in state.servers if server.name == name)


def kill(server: LabServer) -> None:
    """SIGKILL to the server and all its stubs, as if the machine had lost its power."""
    os.killpg(server.process.pid, signal.SIGKILL)


@contextmanager
def stopped(server: LabServer) -> Iterator[None]:
    """SIGSTOP to the server, SIGCONT at the end.

    Its stubs go on: a server whose stubs were stopped, too, takes them for ill when it continues,
    and some of the times crashes while it starts them again (Triton 24.10).
    """
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(server.process.pid, signal.SIGCONT)


def stubs_of(server: LabServer, model: str) -> list[int]:
    """The Python processes that serve the instances of one model."""
    return [
        pid
        for pid in children_of(server.process.pid)
        # One word is the name of the instance: of `m` it is m_0_0, of `m__x` it is m__x_0_0.
        if any(re.fullmatch(rf"{re.escape(model)}_\d+_\d+", word) for word in words_of(pid))
    ]


def kill_stubs(server: LabServer, model: str) -> list[int]:
    """SIGKILL to the processes of one model; Triton goes on saying that the model is ready."""
    pids = stubs_of(server, model)
    assert pids, f"server '{server.name}' has no process of model '{model}'"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while set(pids) & set(children_of(server.process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return pids


def is_alive(server: LabServer) -> bool:
    return bool(words_of(server.process.pid))


@dataclass(frozen=True)
class Resources:
    """What a server and its stubs hold together."""

    rss_bytes: int
    fds: int
    shm_entries: int
    shm_bytes: int
    threads: int


def resources_of(server: LabServer) -> Resources:
    """Resident memory counts shared pages once per process: compare, don't add up servers."""
    pids = [server.process.pid, *children_of(server.process.pid)]
    entries = list(_SHARED_MEMORY.glob(f"{server.shm_prefix}*"))
    return Resources(
        rss_bytes=sum(_rss_bytes(pid) for pid in pids),
        fds=sum(_count(pid, "fd") for pid in pids),
        shm_entries=len(entries),
        # What is really held: the files are sparse.
        shm_bytes=sum(path.stat().st_blocks * 512 for path in entries),
        threads=sum(_count(pid, "task") for pid in pids),
    )


def _rss_bytes(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * _PAGE_BYTES


def _count(pid: int, folder: str) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/{folder}"))
    except OSError:
        return 0
