"""How much may be spent: time on an attempt, tries beyond the first, requests at once."""

import threading

# Retries that are allowed at once, before many requests have earned any: what is in flight when a
# plan dies would else fail though the next plan works.
SPARE_RETRIES = 10
# Of what remains, at most this part is kept for the next plan.
_MOST_KEPT = 0.5
_SAFETY, _SAFETY_S = 1.5, 0.01


class Tokens:
    """Each request earns `share` of a retry; no more than the spare ones are saved up."""

    def __init__(self, share, spare=SPARE_RETRIES):
        self._share = share
        self._most = float(spare) if share else 0.0
        self._left = self._most
        self._lock = threading.Lock()

    def earn(self):
        """One request came."""
        with self._lock:
            self._left = min(self._most, self._left + self._share)

    def take(self):
        """Whether one more try may be made; it is counted."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


class Admission:
    """Counts requests in flight, of all classes together."""

    def __init__(self):
        self._count = 0
        self._lock = threading.Lock()

    @property
    def count(self):
        """In flight now."""
        return self._count

    def enter(self, most):
        """Whether a request may come in when at most `most` may be in flight."""
        with self._lock:
            if self._count >= most:
                return False
            self._count += 1
            return True

    def leave(self):
        """One that came in was answered."""
        with self._lock:
            self._count -= 1


class Slots:
    """A fixed number of things that may be taken and given back."""

    def __init__(self, count):
        self._count = count
        self._free = count
        self._lock = threading.Lock()

    @property
    def taken(self):
        """How many are in use."""
        return self._count - self._free

    @property
    def free(self):
        """How many are left."""
        return self._free

    def take(self):
        """Whether there was one left."""
        with self._lock:
            if self._free <= 0:
                return False
            self._free -= 1
            return True

    def give(self):
        """One is free again."""
        with self._lock:
            self._free += 1


def attempt_s(remaining_s, fallback_p95_s, has_fallback):
    """Seconds for an attempt so that, when possible, the next plan can still answer after it.

    Of `remaining_s`, what the next plan usually takes is kept; half, as long as that is unknown,
    and never more than half.
    """
    if not has_fallback:
        return remaining_s
    kept_s = remaining_s * _MOST_KEPT
    if fallback_p95_s is not None:
        kept_s = min(kept_s, _SAFETY * fallback_p95_s + _SAFETY_S)
    return remaining_s - kept_s
