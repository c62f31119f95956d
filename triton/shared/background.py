"""The thread that tells the server, its log and the collector of traces what others saw.

A metric is a round trip to the server, some 0.1 ms; nobody waits for it here. Log lines go to
standard error, which is the server's own: through the server's Logger they would take 0.4 ms each,
and come out between quotes with all their own quotes escaped.
"""

import contextlib
import os
import threading
from collections import deque

_PERIOD_S = 0.25
_MAX_LINES = 1000
# More than the sending of spans may take to a collector that does not answer (see tracing.py).
_CLOSE_PATIENCE_S = 6.0
_STANDARD_ERROR = 2


class Worker:
    """Flushes log lines and whatever was registered, a few times a second while there is any."""

    def __init__(self):
        self._lines = deque()
        self._lock = threading.Lock()
        self._lost = 0
        self._flushers = []
        self._news = threading.Event()
        self._closed = threading.Event()
        self._thread = None

    def register(self, flush):
        """`flush()` is called in the background after `wake`; it may take long, and may raise."""
        with self._lock:
            if flush not in self._flushers:
                self._flushers.append(flush)

    def log(self, line):
        """Write a line to the server's log. Lines that come too fast are counted, not kept."""
        with self._lock:
            if len(self._lines) < _MAX_LINES:
                self._lines.append(line)
            else:
                self._lost += 1
        self.wake()

    def wake(self):
        """Something is to be flushed, soon."""
        if self._news.is_set() or self._closed.is_set():
            return
        self._news.set()
        if self._thread is None:
            self._start()

    @property
    def is_closing(self):
        """Whether this is the end: somebody waits for it."""
        return self._closed.is_set()

    def close(self):
        """Flush and end; returns whether it has ended."""
        with self._lock:  # else a thread that is just being started would be missed
            self._closed.set()
            thread = self._thread
        self._news.set()
        if thread is None:
            return True
        thread.join(timeout=_CLOSE_PATIENCE_S)
        return not thread.is_alive()

    def flush(self):
        """Everything that is known now."""
        with self._lock:
            lines, self._lines = self._lines, deque()
            lost, self._lost = self._lost, 0
            flushers = list(self._flushers)
        if lost:
            lines.append(f'{{"event": "log", "status": "{lost} lines came too fast"}}')
        for line in lines:
            with contextlib.suppress(Exception):
                os.write(_STANDARD_ERROR, line.encode(errors="replace") + b"\n")
        for flush in flushers:
            with contextlib.suppress(Exception):
                flush()

    def _start(self):
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
                with contextlib.suppress(RuntimeError):  # no more threads: nothing is told
                    thread.start()
                    self._thread = thread

    def _run(self):
        while not self._closed.is_set():
            self._news.wait()
            self._closed.wait(_PERIOD_S)  # more comes meanwhile: it goes along
            self._news.clear()
            self.flush()
        self.flush()


_worker = Worker()


def worker():
    """The one of this process."""
    return _worker


def close():
    """End the thread; what comes later is told to nobody. Returns whether it has ended."""
    return _worker.close()
