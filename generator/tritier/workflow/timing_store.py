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
        text = json.dumps({"format": _FORMAT, **key}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        path = self._folder / digest[:2] / f"{digest}.json"
        if path.is_file() and (not self._fresh or digest in self._own):
            data = json.loads(path.read_text(encoding="utf-8"))
            return Stored(data["result"], data["measured_at"], data["elapsed_s"])
        started = time.monotonic()
        found = Stored(measure(), timestamp(), time.monotonic() - started)
        data = {"result": found.result, "measured_at": found.measured_at}
        write_file(path, json.dumps({**data, "elapsed_s": found.elapsed_s}) + "\n")
        self._own.add(digest)
        return found
