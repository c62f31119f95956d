"""Results of measurements in a folder, by what was measured."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritier.files import write_file
from tritier.network.contact import timestamp

# To be raised when results of earlier versions must not be taken for those of this one.
_FORMAT = 1


@dataclass(frozen=True)
class Stored:
    """A result (plain data), when it was measured and how long that took."""

    result: Any
    measured_at: str
    elapsed_s: float


class Store:
    """A run that was cut off goes on from what it has stored. With `fresh` only results of this
    very run count."""

    def __init__(self, folder: Path, fresh: bool = False) -> None:
        self._folder = folder
        self._fresh = fresh
        self._own: set[str] = set()

    def get_or_measure(self, key: Mapping[str, Any], measure: Callable[[], Any]) -> Stored:
        """What is stored under a key (plain data), else what `measure` returns, which is stored."""
        found = self.find(key)
        if found is None:
            started = time.monotonic()
            result = measure()
            found = self.keep(key, result, time.monotonic() - started)
        return found

    def find(self, key: Mapping[str, Any]) -> Stored | None:
        """What is stored under a key."""
        digest = _digest(key)
        path = self._path(digest)
        if not path.is_file() or (self._fresh and digest not in self._own):
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
        return Stored(data["result"], data["measured_at"], data["elapsed_s"])

    def keep(self, key: Mapping[str, Any], result: Any, elapsed_s: float) -> Stored:
        """Store a result that was measured just now."""
        found = Stored(result, timestamp(), elapsed_s)
        data = {"result": result, "measured_at": found.measured_at, "elapsed_s": elapsed_s}
        digest = _digest(key)
        write_file(self._path(digest), json.dumps(data) + "\n")
        self._own.add(digest)
        return found

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / f"{digest}.json"


def _digest(key: Mapping[str, Any]) -> str:
    text = json.dumps({"format": _FORMAT, **key}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
