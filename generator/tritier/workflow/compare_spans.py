"""Collects traces of single requests (OTLP over HTTP with JSON), and reads from them what messages
took. All spans of a request are of clocks that agree only where servers share a machine."""

from __future__ import annotations

import json
import secrets
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MAX_BODY_BYTES = 16 << 20
_SETTLED_S = 0.5


@dataclass(frozen=True)
class Span:
    """A span of a server; times in ns since 1970."""

    server: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    failed: bool
    attributes: Mapping[str, Any] = field(default_factory=dict)


class SpanCollector:
    """Listens on 127.0.0.1 while it is open: on `port`, or any free one.

    Servers whose TRITIER_OTLP is `url` send their spans here. Raises OSError if the port is taken.
    """

    def __init__(self, port: int = 0) -> None:
        self._lock = threading.Lock()
        self._spans: dict[str, list[Span]] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(min(length, _MAX_BODY_BYTES))
                self.send_response(200 if collector.add(body) else 400)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> SpanCollector:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, body: bytes) -> bool:
        """Keep the spans of a message; whether it was one."""
        try:
            found = list(_spans(json.loads(body)))
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        with self._lock:
            for span in found:
                self._spans.setdefault(span.trace_id, []).append(span)
        return True

    def of_trace(self, trace_id: str, count: int, timeout_s: float = 5.0) -> list[Span]:
        """The spans of a trace once there are `count`, or those that came within the time."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                found = list(self._spans.get(trace_id, ()))
            if len(found) >= count or time.monotonic() > deadline:
                return found
            time.sleep(0.02)

    def settled(self, trace_id: str) -> list[Span]:
        """The spans of a trace when no more have come for half a second."""
        found = self.of_trace(trace_id, 1)
        while True:
            more = self.of_trace(trace_id, len(found) + 1, _SETTLED_S)
            if len(more) == len(found):
                return more
            found = more


@dataclass(frozen=True)
class Trace:
    """A sampled W3C trace that an app starts."""

    trace_id: str
    traceparent: str

    @classmethod
    def new(cls) -> Trace:
        """With ids drawn."""
        trace_id = secrets.token_hex(16)
        return cls(trace_id, f"00-{trace_id}-{secrets.token_hex(8)}-01")


def local_port(url: str | None) -> int | None:
    """The port of a collector's address on this machine; None for any other."""
    try:
        parts = urllib.parse.urlsplit(url or "")
    except ValueError:  # brackets that are no address
        return None
    if parts.hostname not in ("127.0.0.1", "localhost") or parts.path not in ("", "/"):
        return None
    try:
        return parts.port
    except ValueError:  # no number, or none of a port
        return None


def _spans(body: Any) -> Iterator[Span]:
    for resource in body["resourceSpans"]:
        server = _values(resource["resource"]["attributes"])["service.name"]
        for scope in resource["scopeSpans"]:
            for item in scope["spans"]:
                yield Span(
                    server=str(server),
                    name=item["name"],
                    trace_id=item["traceId"],
                    span_id=item["spanId"],
                    parent_id=item.get("parentSpanId", ""),
                    start_ns=int(item["startTimeUnixNano"]),
                    end_ns=int(item["endTimeUnixNano"]),
                    failed="status" in item,
                    attributes=_values(item.get("attributes", ())),
                )


def _values(attributes: Any) -> dict[str, Any]:
    found = {}
    for item in attributes:
        ((kind, value),) = item["value"].items()
        found[item["key"]] = int(value) if kind == "intValue" else value
    return found
