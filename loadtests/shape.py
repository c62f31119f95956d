"""The load shape of a test: constant, steps, spike or ramp, as its folder says.

A locustfile for use with infer.py, see there. Locust asks for the number of users once a second;
here it waits for the exact time at which a level begins.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from locust import LoadTestShape

from tritier.bench.locust_collect import collector
from tritier.bench.locust_shapes import Level, level_at
from tritier.errors import TritierError

try:
    _collector = collector()
except TritierError as error:
    sys.exit(f"error: {error}")
_LOOK_AHEAD_S = 1.1  # Locust asks again a second after the last answer
_POLL_S = 0.05


class Levels(LoadTestShape):
    """Level after level; then no users, until the last answer has come."""

    runner: Any

    def __init__(self) -> None:
        super().__init__()
        self._level: Level | None = None
        self._drain_until: float | None = None
        self._ended = False

    def reset_time(self) -> None:
        """A test begins."""
        super().reset_time()
        # The master of several processes says so a second time, after the first level was asked.
        if self._ended:
            self._level, self._drain_until, self._ended = None, None, False

    def tick(self) -> tuple[int, float] | None:
        """Users, and how many of them come or go in a second; None at the end."""
        if self._drain_until is not None:
            return self._drained()
        level = self._next()
        if level is None:
            _collector.end()
            _collector.progress("waiting for the last answers")
            settings = _collector.job.settings
            self._drain_until = time.monotonic() + settings.timeout_ms / 1000 + 10
            return 0, self._rate(0)
        if level != self._level:
            who = "1 user" if level.users == 1 else f"{level.users} users"
            _collector.progress(f"{who} until {level.end_s:g} s")
            rate = self._rate(level.users)
            self._level = level
            self._last = level.users, rate
        return self._last

    def _next(self) -> Level | None:
        """The level that is due; waits for its time if that is before Locust asks again."""
        levels = _collector.job.levels
        while not _collector.stop_wanted:
            now = self.get_run_time()
            found = level_at(levels, now)
            left = (found or levels[-1]).end_s - now
            if found != self._level or left > _LOOK_AHEAD_S:
                return found
            time.sleep(min(max(left, 0.0), _POLL_S))
        return None

    def _drained(self) -> tuple[int, float] | None:
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            gone = self.runner.user_count == 0
            if gone or time.monotonic() > (self._drain_until or 0):
                _collector.flush(self.runner)
                self._ended = True
                return None
            time.sleep(_POLL_S)
        return 0, self._rate(0)

    def _rate(self, users: int) -> float:
        """All of them at once."""
        before = self._level.users if self._level else 0
        return float(max(abs(users - before), 1))
