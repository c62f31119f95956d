"""POSIX shared memory, where Triton and its Python models hand tensors to each other."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from tritier.documents import MachineCheck

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - POSIX shared memory, not a temporary file
_MIB = 1024 * 1024
# `tritier demo` took 41 MiB at its greatest (measured, docs/doctor.md). A container has 64 MiB
# unless it is given more.
LEAST_BYTES = 48 * _MIB
ENOUGH_BYTES = 256 * _MIB
_OWN = "tritier_"
_NEEDED_FOR = "tensors between Triton and its Python models"


def check_size(total_bytes: int, free_bytes: int, folder: Path = SHARED_MEMORY) -> MachineCheck:
    """Whether there is room for servers; total 0: the folder is not there."""
    if total_bytes == 0:
        status, found = "missing", f"{folder} is not there"
    else:
        found = f"{free_bytes // _MIB:,} of {total_bytes // _MIB:,} MiB free"
        status = "ok" if free_bytes >= ENOUGH_BYTES else "warning"
        if free_bytes < LEAST_BYTES:
            status = "missing"
    place = shlex.quote(str(folder))
    fixes = {
        0: f"sudo mkdir -p {place} && sudo mount -t tmpfs -o size=1G tmpfs {place}",
        1: f"sudo mount -o remount,size=1G {place}",
    }
    return MachineCheck.from_data(
        {
            "name": "shared memory",
            "status": status,
            "found": found,
            "needed_for": _NEEDED_FOR,
            "fix": None if status == "ok" else fixes[min(1, total_bytes)],
            "demo": True,
        }
    )


def check_leftovers(
    entries: Mapping[str, int], mapped: Collection[str], folder: Path = SHARED_MEMORY
) -> MachineCheck:
    """`entries`: names of own files there and their sizes in bytes; `mapped`: those that a living
    process holds. Files of one server share a prefix, and one that is held keeps all."""
    held = {_prefix(name) for name in mapped}
    dead = {
        name: size
        for name, size in entries.items()
        if name.startswith(_OWN) and _prefix(name) not in held
    }
    groups = sorted({_prefix(name) for name in dead})
    found = "none"
    if dead:
        size = sum(dead.values()) / _MIB
        found = f"files: {len(dead)} ({size:.1f} MiB), of dead servers: {len(groups)}"
    patterns = " ".join(f"{shlex.quote(str(folder / group))}*" for group in groups)
    return MachineCheck(
        name="shared memory left over",
        status="warning" if dead else "ok",
        found=found,
        needed_for="nothing: what dead servers left takes memory",
        fix=f"rm -f {patterns}" if dead else None,
    )


def sizes(folder: Path = SHARED_MEMORY) -> tuple[int, int]:
    """(total, free) in bytes; zeros if the folder is not there."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return 0, 0
    return usage.total, usage.free


def own_entries(folder: Path = SHARED_MEMORY, uid: int | None = None) -> dict[str, int]:
    """Name -> bytes in use of the files that belong to this user (all users' for root): of others'
    files it can't be seen who holds them."""
    uid = os.getuid() if uid is None else uid
    found = {}
    for path in folder.glob(f"{_OWN}*"):
        try:
            status = path.stat()
        except OSError:
            continue  # gone meanwhile
        if uid in (0, status.st_uid):
            found[path.name] = status.st_blocks * 512
    return found


def mapped_names(folder: Path = SHARED_MEMORY, processes: Iterable[Path] | None = None) -> set[str]:
    """Names of files there that any process has mapped or open. `processes`: folders as those of
    /proc."""
    if processes is None:
        processes = (path for path in Path("/proc").iterdir() if path.name.isdigit())
    found: set[str] = set()
    for process in processes:
        found |= {Path(text).name for text in _held(process) if text.startswith(f"{folder}/")}
    return found


def _held(process: Path) -> list[str]:
    try:
        lines = (process / "maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # it has ended, or is another user's
        return []
    found = [line.partition("/")[1] + line.partition("/")[2] for line in lines if "/" in line]
    with contextlib.suppress(OSError):
        found += [os.readlink(path) for path in (process / "fd").iterdir()]
    return found


def _prefix(name: str) -> str:
    """`tritier_1a2b3c4d_` of `tritier_1a2b3c4d_triton_python_backend_...`: one for each server."""
    return "_".join(name.split("_")[:2]) + "_"
