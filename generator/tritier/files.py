"""Files that are written whole or not at all, and content hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tritier.errors import InputError

_CHUNK_BYTES = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Hex digest of SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_file(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Replace `path` by `data` in one step; a failure leaves what was there. Until it has `mode`,
    only this user can read it."""
    content = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(mode)  # mkstemp makes it private to this user
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_document_file(path: Path, data: str, force: bool) -> None:
    """Write a document that a user asked for; what exists is kept unless `force`."""
    if path.exists() and not force:
        raise InputError(f"{path} exists: choose another name or pass --force to replace it")
    write_file(path, data)


@contextmanager
def replaced_dir(path: Path, force: bool) -> Iterator[Path]:
    """A new folder to fill that takes the place of `path` when the block ends without an error.

    Raises InputError when `path` is a non-empty folder and `force` is not given, or is no folder.
    """
    check_replaceable(path, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent))
    try:
        fresh.chmod(0o755)
        yield fresh
        _swap(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_replaceable(path: Path, force: bool) -> None:
    """Raise InputError if `replaced_dir` would refuse the folder."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: give a folder")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise InputError(f"{path} is not empty: choose another folder or pass --force")


def _swap(fresh: Path, path: Path) -> None:
    """Put `fresh` where `path` is. Folders can't be exchanged in one step portably: the old one is
    moved aside first and comes back if the second step fails."""
    if not path.exists():
        os.replace(fresh, path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
    try:
        os.replace(path, aside / "tree")
        try:
            os.replace(fresh, path)
        except BaseException:
            os.replace(aside / "tree", path)
            raise
        shutil.rmtree(aside / "tree", ignore_errors=True)
    finally:
        with suppress(OSError):  # it still holds the old folder if that could not come back
            aside.rmdir()
