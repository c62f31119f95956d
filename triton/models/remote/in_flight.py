"""The calls in flight of a proxy: so many and no more, and cancelled with their requests.

Triton tells a step of an ensemble that its request was cancelled only if that was so before the
step began, hence two ways: a request is asked now and then, and whoever knows better (the router)
can name it in a message to all proxies of its machine.
"""

import threading
import time
import traceback

# How often requests in flight are asked whether they were cancelled (a round trip to the server),
# and how long the thread that asks goes on without any before it sleeps (waking it up costs the
# next request some 0.1 ms).
_CANCEL_POLL_S = 0.25
_IDLE_POLLS = 20
_CLOSE_PATIENCE_S = 2.0


class InFlight:
    """Counts and watches calls."""

    def __init__(self, limit):
        self.limit = limit
        self._count = 0
        self._calls = set()
        self._lock = threading.Lock()
        self._watcher_sleeps = False
        self._wake_watcher = threading.Event()
        self._closed = False
        self._watcher = threading.Thread(target=self._watch, name="cancel", daemon=True)
        self._watcher.start()

    @property
    def count(self):
        """How many are in flight."""
        return self._count

    def admit(self):
        """Whether one more may start; each that may is to be `released` once."""
        with self._lock:
            if self._count >= self.limit:
                return False
            self._count += 1
            return True

    def release(self):
        """One has ended, with all that comes after it."""
        with self._lock:
            self._count -= 1

    def add(self, call, request, name):
        """Watch over a call for a request, which is None if it is answered already."""
        watched = _Watched(call, request, name)
        with self._lock:
            self._calls.add(watched)
        if self._watcher_sleeps:
            self._wake_watcher.set()
        return watched

    def remove(self, watched):
        """The call has ended."""
        watched.end()
        with self._lock:
            self._calls.discard(watched)

    def cancel(self, name):
        """Cancel the calls that are made for the app's request of this name."""
        with self._lock:
            calls = [watched for watched in self._calls if watched.name == name]
        for watched in calls:
            watched.cancel()

    def cancel_all(self):
        """Cancel all calls: nobody waits for them any more."""
        with self._lock:
            calls = list(self._calls)
        for watched in calls:
            watched.cancel()

    def close(self):
        """End the thread."""
        self._closed = True
        self._wake_watcher.set()
        self._watcher.join(timeout=_CLOSE_PATIENCE_S)

    def _watch(self):
        idle_polls = 0
        while not self._closed:
            time.sleep(_CANCEL_POLL_S)
            with self._lock:
                # Kept until the next poll: the server's library still uses a request for a moment
                # after it said whether that is cancelled (Triton 24.10), and one that is freed then
                # spoils the memory of this process.
                calls = list(self._calls)
            _ask(calls)
            idle_polls = 0 if calls else idle_polls + 1
            if idle_polls > _IDLE_POLLS:
                self._watcher_sleeps = True
                with self._lock:  # a call that came before the line above wakes nobody
                    empty = not self._calls
                if empty:
                    self._wake_watcher.wait()
                self._wake_watcher.clear()
                self._watcher_sleeps = False
                idle_polls = 0


def _ask(calls):
    for watched in calls:
        try:
            watched.cancel_if_asked()
        except Exception:  # the others must still be looked after
            traceback.print_exc()


class _Watched:
    """A call in flight and the request that it serves.

    Asking an answered request whether it was cancelled crashes the server (Triton 2.51), hence the
    lock: a call ends here before its request is answered.
    """

    def __init__(self, call, request, name):
        self.call = call
        self.name = name
        self.is_cancelled = False
        self._request = request
        self._may_ask = request is not None
        self._lock = threading.Lock()

    def end(self):
        with self._lock:
            self._may_ask = False

    def cancel(self):
        self.is_cancelled = True
        self.call.cancel()

    def replace(self, call):
        """It is made again, unless it was cancelled meanwhile."""
        self.call = call
        if self.is_cancelled:  # maybe the old one only
            call.cancel()

    def cancel_if_asked(self):
        with self._lock:
            if self._may_ask and self._request.is_cancelled():
                self.cancel()
