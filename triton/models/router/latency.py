"""How long a plan takes, as learned from its last answers."""

import math
import threading
from collections import deque

_WINDOW = 128
# A plan that was slow for a while is tried again after this, whatever it took then.
_MAX_AGE_S = 60.0
# An estimate is made anew after so many answers, not after each.
_EVERY = 8


class Latencies:
    """The 95th percentile of the last answers of one plan."""

    def __init__(self, least=10):
        self._least = least
        self._seen = deque(maxlen=_WINDOW)
        self._lock = threading.Lock()
        self._new = 0
        self._p95_s = None

    def add(self, seconds, now):
        """An answer came after so long."""
        with self._lock:
            self._seen.append((now, seconds))
            self._new += 1

    def p95_s(self, now):
        """In seconds; None as long as too few answers are known."""
        with self._lock:
            while self._seen and now - self._seen[0][0] > _MAX_AGE_S:
                self._seen.popleft()
                self._new = _EVERY
            if len(self._seen) < self._least:
                self._p95_s = None
            elif self._p95_s is None or self._new >= _EVERY:
                values = sorted(seconds for _, seconds in self._seen)
                self._p95_s = values[math.ceil(0.95 * len(values)) - 1]
                self._new = 0
            return self._p95_s
