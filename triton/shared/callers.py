"""Threads that make blocking calls: as many as there are calls at once, none before the first.

A blocking call is sent and received by the thread that makes it. gRPC's futures and asyncio hand
each step to another thread instead, which costs 0.2 to 0.5 ms a call, more for large tensors.
"""

import queue
import threading
import time
import traceback

# More calls than this at once wait for a thread.
_MAX_THREADS = 512


class Callers:
    """Runs jobs at once, each in a thread of its own; threads are used again."""

    def __init__(self):
        self._jobs = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = []
        self._free = 0

    def start(self, job, *arguments):
        """Call `job(*arguments)` in another thread. What it raises goes to the server's log."""
        with self._lock:
            self._free -= 1
            if self._free < 0 and len(self._threads) < _MAX_THREADS:
                self._free += 1
                thread = threading.Thread(target=self._work, daemon=True)
                thread.start()  # first: one that can't be started can't be joined either
                self._threads.append(thread)
        self._jobs.put((job, arguments))

    def close(self, patience_s):
        """End all threads; jobs that run are waited for, together at most `patience_s`.

        Returns whether all have ended. May be called again, to wait once more.
        """
        with self._lock:
            threads = [thread for thread in self._threads if thread.is_alive()]
        for _ in threads:
            self._jobs.put(None)
        until = time.monotonic() + patience_s
        for thread in threads:
            thread.join(timeout=max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _work(self):
        while (item := self._jobs.get()) is not None:
            job, arguments = item
            try:
                job(*arguments)
            except Exception:
                traceback.print_exc()
            # A thread that waits must not keep the last request, and its memory, alive.
            del item, job, arguments
            with self._lock:
                self._free += 1
