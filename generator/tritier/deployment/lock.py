"""One deployment at a time: a file beside the servers file says who is at it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tritier.errors import InputError, ServerError


def lock_path(servers_file: Path) -> Path:
    """The lock of a servers file."""
    return servers_file.resolve().parent / f".{servers_file.name}.lock"


@contextmanager
def deployment_lock(servers_file: Path) -> Iterator[None]:
    """Hold the lock for the time of the block.

    It ends with the process, however that ends; the file stays and means nothing by itself. Raises
    ServerError, with the process that has it, where another deployment is under way, InputError
    where the file can't be made.
    """
    path = lock_path(servers_file)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(
            f"{path} can't be written ({error.strerror}), and without it two deployments could "
            "destroy each other: let the servers file lie in a folder that you may write to"
        ) from None
    with os.fdopen(handle, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read().strip() or "another process"
            raise ServerError(
                f"{holder} is deploying to the servers of {servers_file}: wait until it has ended"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate(0)
