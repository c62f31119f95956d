"""Memory of a deployed plan, as far as this machine can see its processes: those of the lab."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from tritier.documents import LabState, Plan

_PROC = Path("/proc")
_STUB = b"triton_python_backend_stub"
_OWN = re.compile(r"^RssAnon:\s+(\d+) kB", re.MULTILINE)
_ELSEWHERE = (
    "memory: only servers of the lab run each component in a process of its own on this machine"
)


def memory_of(plan: Plan, lab: LabState | None) -> tuple[dict[str, int], list[str]]:
    """(bytes of the processes of components by server, why some are missing).

    Each instance of a component has a process of its own on a server of the lab. What counts is
    the memory of its own: libraries, and what it shares with Triton for inputs and outputs, do not.
    These processes keep what they freed, so that it is near to the peak.
    """
    if lab is None:
        return {}, [_ELSEWHERE]
    found: dict[str, int] = {}
    missing = []
    pids = {server.name: server.process.pid for server in lab.servers}
    for part in plan.components:
        model = f"{plan.model.name}__{plan.id}__{part.id}"
        sizes = [
            size
            for pid in _children(pids.get(part.server, 0))
            if _is_of(pid, model) and (size := _own_bytes(pid)) is not None
        ]
        if sizes:
            found[part.server] = found.get(part.server, 0) + sum(sizes)
        else:
            missing.append(part.server)
    for name in dict.fromkeys(missing):
        found.pop(name, None)
    why = [
        f"memory of {name}: its processes can't be told apart" for name in dict.fromkeys(missing)
    ]
    return found, why


def _children(pid: int) -> Iterator[int]:
    """Processes that a process started, and those that they started."""
    with contextlib.suppress(OSError):
        for file in (_PROC / str(pid) / "task").glob("*/children"):
            for text in file.read_text().split():
                yield int(text)
                yield from _children(int(text))


def _is_of(pid: int, model: str) -> bool:
    """Whether a process is the stub of an instance of a model, which its arguments name."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    name = re.compile(rf"{re.escape(model)}_\d+(_\d+)?\Z".encode())
    return words[0].endswith(_STUB) and any(name.search(word) for word in words)


def _own_bytes(pid: int) -> int | None:
    try:
        text = (_PROC / str(pid) / "status").read_text()
    except OSError:
        return None
    match = _OWN.search(text)
    return int(match[1]) * 1024 if match else None
