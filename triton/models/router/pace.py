"""How many requests may wait so that each is still answered in time.

What comes in must be answered within its budget. When more comes than can be answered, what is in
flight grows, and each waits longer: in flight / answers per second (Little's law). The router lets
in only as many as a part of the budget is enough for, and refuses the rest at once. How many
answers per second are possible shows only while enough is in flight; until that was seen, only the
fixed bound holds. With few in flight at least as many are possible as are answered.
"""

import threading

_PERIOD_S = 1.0
# The best of the last periods counts: one in which servers stalled says nothing.
_PERIODS = 10
# So many in flight at any time of a period: the servers had no rest.
_BUSY = 8
# Part of the budget that may be spent with waiting. Half of it may be kept for another plan.
_SHARE = 0.4


class Pace:
    """Answers per second while many requests wait. Times are of a monotonic clock, in seconds."""

    def __init__(self):
        self._lock = threading.Lock()
        self._began = None
        self._answers = 0
        self._fewest = 0
        self._rates = []

    def answered(self, in_flight, now):
        """A request was answered; so many are in flight after it."""
        with self._lock:
            self._roll(now, in_flight)
            self._answers += 1
            self._fewest = min(self._fewest, in_flight)

    def most(self, budget_s, now):
        """How many may be in flight beside a new request with this budget; None: any number."""
        with self._lock:
            self._forget(now)
            rates = [rate for _, rate in self._rates]
        if not rates:
            return None
        return max(_BUSY, int(max(rates) * _SHARE * budget_s))

    def start_anew(self):
        """What was seen says nothing any more: other plans answer now."""
        with self._lock:
            self._began, self._answers, self._fewest = None, 0, 0
            self._rates = []

    def _roll(self, now, in_flight):
        """Begin a new period if the last one is over."""
        if self._began is None or now - self._began >= _PERIOD_S:
            if self._began is not None and self._answers:
                self._learn(self._answers / (now - self._began), now)
            self._began, self._answers, self._fewest = now, 0, in_flight

    def _learn(self, rate, now):
        """A period is over. One that was not busy can only raise what is known: else a bound that
        a slow plan left behind would keep the servers from ever being busy again."""
        self._forget(now)
        best = max((known for _, known in self._rates), default=None)
        if self._fewest >= _BUSY or (best is not None and rate > best):
            self._rates.append((now, rate))

    def _forget(self, now):
        oldest = now - _PERIODS * _PERIOD_S
        self._rates = [item for item in self._rates if item[0] >= oldest]
