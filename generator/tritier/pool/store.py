"""The model pool: a local store of models, sub-models, plans and profiles by content hash.

  objects/ab/abcdef...      the content; its name is its SHA-256
  refs/<kind>/<key>.json    what it is: a named entry that points at an object

Every stage looks here first and stores what it makes, so that stages can be repeated, resumed and
shared between machines by copying the folder. Writes are whole or not at all; a damaged object
counts as missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from tritier.documents import Document
from tritier.errors import InputError
from tritier.files import sha256_bytes, sha256_file, write_file

Kind = Literal["model", "sub-model", "plan", "profile"]
KINDS: tuple[Kind, ...] = ("model", "sub-model", "plan", "profile")


class PoolEntry(Document):
    """A named entry of the pool."""

    title: ClassVar[str] = "pool entry"

    kind: Kind
    key: str = Field(description="what it is found by")
    name: str = Field(description="for people")
    sha256: str
    bytes: int = Field(ge=0)
    used_at: float = Field(description="last use, seconds since 1970")


@dataclass(frozen=True)
class Garbage:
    """What `collect` has removed or would remove."""

    entries: tuple[PoolEntry, ...]
    objects: int
    bytes: int


class Pool:
    """A pool in a folder, which is made when something is stored."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, kind: Kind, key: str, name: str, data: bytes) -> str:
        """Store content under a key, in place of what was there; returns its SHA-256."""
        digest = sha256_bytes(data)
        path = self._object(digest)
        if not path.is_file() or sha256_file(path) != digest:  # a damaged one is made good
            write_file(path, data)
        entry = PoolEntry(
            kind=kind, key=key, name=name, sha256=digest, bytes=len(data), used_at=_now()
        )
        write_file(self._ref(kind, key), entry.to_json())
        return digest

    def get(self, kind: Kind, key: str) -> bytes | None:
        """Content of a key, and note its use; None if it is not there or is damaged."""
        path = self._ref(kind, key)
        if not path.is_file():
            return None
        entry = PoolEntry.load(path)
        content = self._object(entry.sha256)
        if not content.is_file():
            return None
        data = content.read_bytes()
        if sha256_bytes(data) != entry.sha256:
            return None
        write_file(path, entry.model_copy(update={"used_at": _now()}).to_json())
        return data

    def entries(self) -> list[PoolEntry]:
        """All entries, by kind and name."""
        found = [PoolEntry.load(path) for path in sorted(self._folder.glob("refs/*/*.json"))]
        return sorted(found, key=lambda e: (KINDS.index(e.kind), e.name, e.key))

    def collect(self, unused_days: float, dry_run: bool = False) -> Garbage:
        """Remove entries that were not used for so long, and objects that no entry points at."""
        if unused_days < 0:
            raise InputError(f"unused days is {unused_days}; allowed are numbers from 0")
        limit = _now() - unused_days * 86_400
        entries = self.entries()
        old = [entry for entry in entries if entry.used_at <= limit]
        kept = {entry.sha256 for entry in entries if entry not in old}
        orphans = [path for path in self._objects() if path.name not in kept]
        size = sum(path.stat().st_size for path in orphans)
        if not dry_run:
            for entry in old:
                self._ref(entry.kind, entry.key).unlink(missing_ok=True)
            for path in orphans:
                path.unlink(missing_ok=True)
        return Garbage(tuple(old), len(orphans), size)

    def _objects(self) -> Iterator[Path]:
        return (path for path in self._folder.glob("objects/*/*") if path.is_file())

    def _object(self, digest: str) -> Path:
        return self._folder / "objects" / digest[:2] / digest

    def _ref(self, kind: Kind, key: str) -> Path:
        # Keys may hold anything; their hash is a safe file name.
        return self._folder / "refs" / kind / f"{sha256_bytes(key.encode())[:32]}.json"


def _now() -> float:
    return time.time()
