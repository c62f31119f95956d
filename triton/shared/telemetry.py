"""What happens here, for people and machines: log lines, metrics and spans.

Nothing in here raises, and little of it is done by the caller's thread: lines, metrics and spans
are handed to a thread in the background, which tells the server (that takes a round trip) and the
collector of traces.

  TRITIER_LOG    off, failures (the default: what went wrong or changed) or requests (each one too)
  TRITIER_OTLP   http://host:port of an OTLP collector (HTTP with JSON); without it there are no
                 spans, and a `traceparent` is handed on as it came
"""

import json
import os
import time

import background
import measures
from tracing import Tracer

__all__ = ["Log", "Tracer", "begin", "close", "counter", "gauge", "histogram"]

_LEVELS = {"off": 0, "failures": 1, "requests": 2}


class Log:
    """Writes JSON objects, one a line, to the server's log. `fields` stand in each of them.

    A field that is None is left out.
    """

    def __init__(self, **fields):
        self._fields = _known(fields)
        chosen = os.environ.get("TRITIER_LOG", "").strip().lower() or "failures"
        self._level = _LEVELS.get(chosen, _LEVELS["failures"])
        if chosen not in _LEVELS:
            allowed = ", ".join(_LEVELS)
            self.event("setting", status=f"TRITIER_LOG is '{chosen}'; allowed are {allowed}")

    @property
    def every_request(self):
        """Whether requests that went well are logged too."""
        return self._level >= _LEVELS["requests"]

    def event(self, name, **fields):
        """Something went wrong or changed."""
        if self._level >= _LEVELS["failures"]:
            self._write(name, fields)

    def request(self, name, status="OK", **fields):
        """One request ended. Unless it failed, it is logged at level `requests` only."""
        if self._level >= _LEVELS["requests" if status == "OK" else "failures"]:
            self._write(name, {"status": status, **fields})

    def _write(self, name, fields):
        line = {"event": name, "time_s": round(time.time(), 3), **self._fields, **_known(fields)}
        background.worker().log(json.dumps(line, default=str, ensure_ascii=False))


def counter(name, help_text, labels):
    """A number that only grows: `.add(amount)`. Called again with the same names: the same one."""
    return measures.find("counter", name, help_text, labels)


def gauge(name, help_text, labels):
    """A number that goes up and down: `.set(value)` and `.add(amount)`."""
    return measures.find("gauge", name, help_text, labels)


def histogram(name, help_text, labels, bounds=measures.LATENCY_BOUNDS_MS):
    """How values spread: `.observe(value)`.

    Counters `<name>_bucket` with a label `le`, `<name>_sum` and `<name>_count`, because the
    server's own histograms take a round trip for each value.
    """
    return measures.find_histogram(name, help_text, labels, bounds)


def begin():
    """Make the metrics that are known so far, for the end of `initialize`.

    Later, with requests in flight, it is not safe: the server's library reads the address of a new
    metric from shared memory that it has given back already (Triton 24.10).
    """
    measures.flush()


def close():
    """Hand on what is still here and end the thread; for `finalize`. At most some seconds."""
    # Metrics must not be given back while that thread uses them. If it hangs they go with the
    # process.
    if background.close():
        measures.forget()


def _known(fields):
    return {name: value for name, value in fields.items() if value is not None}
