"""One thread that looks after all requests in flight when their time has come."""

import threading
import time
import traceback

# A request is looked at this often at least, to see whether its app cancelled it.
LOOK_S = 0.25
_FINEST_S = 0.005
# So many looks at nothing before the thread sleeps until somebody wakes it, which costs the next
# request some 0.1 ms.
_IDLE_LOOKS = 20


class Watch:
    """Calls `flight.look(now)` when it is due, which gives the next time; None: it is over."""

    def __init__(self):
        self._due = {}
        self._looked_at = []
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._wake_at = 0.0
        self._all_now = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def add(self, flight, when):
        """Look after a flight, first at `when` (monotonic seconds)."""
        with self._lock:
            self._due[flight] = when
            early = when < self._wake_at
        if early:
            self._news.set()

    def remove(self, flight):
        """It is over."""
        with self._lock:
            self._due.pop(flight, None)

    def look_at_all(self):
        """Something changed that concerns them all."""
        with self._lock:
            self._all_now = True
        self._news.set()

    def close(self, patience_s):
        """End the thread."""
        self._closed = True
        self._news.set()
        self._thread.join(timeout=patience_s)

    def _run(self):
        idle_looks = 0
        while not self._closed:
            wait_s = self._look()
            idle_looks = 0 if self._due else idle_looks + 1
            if idle_looks > _IDLE_LOOKS:
                with self._lock:
                    self._wake_at = float("inf")
                    empty = not self._due
                if empty:
                    self._news.wait()
                idle_looks = 0
            else:
                self._news.wait(wait_s)
            self._news.clear()

    def _look(self):
        """Look at what is due; seconds until something is again."""
        now = time.monotonic()
        with self._lock:
            everything, self._all_now = self._all_now, False
            due = [f for f, when in self._due.items() if everything or when <= now]
        # Kept until the next look: a request that is freed just after it said whether it was
        # cancelled spoils the memory of this process (Triton 24.10).
        self._looked_at = due
        for flight in due:
            try:
                when = flight.look(now)
            except Exception:  # the others must still be looked after
                traceback.print_exc()
                when = now + LOOK_S
            with self._lock:
                if flight in self._due:
                    if when is None:
                        del self._due[flight]
                    else:
                        self._due[flight] = when
        now = time.monotonic()
        with self._lock:
            first = min([now + LOOK_S, *self._due.values()])
            self._wake_at = first = max(first, now + _FINEST_S)
        return first - now
