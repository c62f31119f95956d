"""Spans in W3C trace context, sent to a collector as OTLP over HTTP with JSON.

A span is made only for a request that brings a sampled `traceparent`, or for `root=True`. Without
TRITIER_OTLP none is made, and the traceparent goes on as it came.
"""

import http.client
import json
import os
import re
import threading
import time
import urllib.parse
from collections import deque

import background

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_SAMPLED = 1
_MAX_SPANS = 2048
_MAX_SPANS_A_MESSAGE = 256
_TIMEOUT_S = 2.0
# Kinds of spans and the status of one that failed, as OTLP numbers them.
INTERNAL, SERVER, CLIENT = 1, 2, 3
_FAILED = 2


class Tracer:
    """Makes spans of one service, which is a server by name."""

    def __init__(self, service, **resource):
        self._exporter = None
        url = os.environ.get("TRITIER_OTLP", "").strip()
        if url:
            try:
                self._exporter = _Exporter(url, {"service.name": service, **resource})
            except ValueError as error:
                _complain(f"no spans: {error}")

    @property
    def is_on(self):
        """Whether spans go anywhere."""
        return self._exporter is not None

    def start(self, name, parent=None, kind=INTERNAL, root=False, **attributes):
        """A span below `parent`, a W3C traceparent; one that records nothing if there is none.

        `root` starts a new trace where no valid traceparent came.
        """
        if self._exporter is None:
            return Passing(parent)
        trace = parse_traceparent(parent)
        if trace is None and root:
            trace = (os.urandom(16).hex(), "", _SAMPLED)
        if trace is None or not trace[2] & _SAMPLED:
            return Passing(parent)
        return Span(self._exporter, name, trace, kind, attributes)


class Passing:
    """A span that nobody records."""

    is_recorded = False

    def __init__(self, parent):
        self.traceparent = parent

    def end(self, error=None, **attributes):
        """Nothing."""


class Span:
    """A span that is being recorded."""

    is_recorded = True

    def __init__(self, exporter, name, trace, kind, attributes):
        self._exporter = exporter
        self._trace_id, self._parent_id, flags = trace
        self._span_id = os.urandom(8).hex()
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._started_ns = time.time_ns()
        self._clock_ns = time.monotonic_ns()
        self._ended = False
        self.traceparent = f"00-{self._trace_id}-{self._span_id}-{flags:02x}"

    def end(self, error=None, **attributes):
        """It ended, with an error's text if it failed. A second end is ignored."""
        if self._ended:
            return
        self._ended = True
        span = {
            "traceId": self._trace_id,
            "spanId": self._span_id,
            "name": self._name,
            "kind": self._kind,
            "startTimeUnixNano": str(self._started_ns),
            "endTimeUnixNano": str(self._started_ns + time.monotonic_ns() - self._clock_ns),
            "attributes": _attributes({**self._attributes, **attributes}),
        }
        if self._parent_id:
            span["parentSpanId"] = self._parent_id
        if error:
            span["status"] = {"code": _FAILED, "message": str(error)}
        self._exporter.add(span)


def parse_traceparent(text):
    """(trace id, span id, flags) of a W3C traceparent; None for anything else."""
    match = _TRACEPARENT.match(text) if isinstance(text, str) else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16):
        return None
    return (trace_id, span_id, int(flags, 16)) if int(span_id, 16) else None


class _Exporter:
    """Sends finished spans in the background; keeps no more than some thousand."""

    def __init__(self, url, resource):
        self._url = url
        self._address = _address(url)
        self._resource = {"attributes": _attributes(resource)}
        self._spans = deque()
        self._lock = threading.Lock()
        self._lost = 0
        self._is_away = False

    def add(self, span):
        with self._lock:
            if len(self._spans) < _MAX_SPANS:
                self._spans.append(span)
            else:
                self._lost += 1
        background.worker().register(self.flush)
        background.worker().wake()

    def flush(self):
        while True:
            with self._lock:
                count = min(len(self._spans), _MAX_SPANS_A_MESSAGE)
                spans = [self._spans.popleft() for _ in range(count)]
                lost, self._lost = self._lost, 0
            if lost:
                _complain(f"{lost} spans came too fast for {self._url}")
            if not spans:
                return
            if self._is_away and background.worker().is_closing:
                return  # the model is being unloaded: not a second wait for nothing
            try:
                self._send(spans)
                self._is_away = False
            except Exception as error:  # the collector is away: its spans are gone
                self._is_away = True
                _complain(f"{len(spans)} spans were not taken by {self._url}: {error}")

    def _send(self, spans):
        scope = {"scope": {"name": "tritier"}, "spans": spans}
        body = {"resourceSpans": [{"resource": self._resource, "scopeSpans": [scope]}]}
        kind, host, path = self._address
        connection = kind(host, timeout=_TIMEOUT_S)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise OSError(f"HTTP status {answer.status}")


def _complain(text):
    background.worker().log(json.dumps({"event": "trace", "status": text}))


def _address(url):
    """(class of the connection, host:port, path) of a collector; ValueError for another text."""
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in kinds or not parts.hostname or "@" in parts.netloc:
        raise ValueError(
            f"TRITIER_OTLP is '{url}'; allowed is the address of a collector, "
            "such as http://127.0.0.1:4318"
        )
    path = parts.path if parts.path.strip("/") else "/v1/traces"
    return kinds[parts.scheme], parts.netloc, path


def _attributes(values):
    return [
        {"key": key, "value": _value(value)} for key, value in values.items() if value is not None
    ]


def _value(value):
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": str(value)}
