"""A collector of traces: OTLP over HTTP with JSON, in a thread of the test."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class CollectedSpan:
    """A span; `service` is of its resource, `error` is empty if it did not fail."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start_ns: int
    end_ns: int
    error: str
    attributes: dict[str, Any]


class Collector:
    """Listens on a free port of 127.0.0.1 while it is open."""

    def __init__(self) -> None:
        self.spans: list[CollectedSpan] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                found = list(_spans(body)) if self.path == "/v1/traces" else []
                collector.spans.extend(found)
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Collector:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_for(self, count: int, timeout_s: float = 15.0) -> list[CollectedSpan]:
        """The spans, once there are so many; fails with what there is."""
        deadline = time.monotonic() + timeout_s
        while len(self.spans) < count:
            found = [(span.service, span.name) for span in self.spans]
            assert time.monotonic() < deadline, f"{len(found)} of {count} spans came: {found}"
            time.sleep(0.05)
        return list(self.spans)


def _spans(body: Any) -> Any:
    for resource in body["resourceSpans"]:
        service = _values(resource["resource"]["attributes"])["service.name"]
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield CollectedSpan(
                    service=service,
                    name=span["name"],
                    trace_id=span["traceId"],
                    span_id=span["spanId"],
                    parent_id=span.get("parentSpanId", ""),
                    kind=span["kind"],
                    start_ns=int(span["startTimeUnixNano"]),
                    end_ns=int(span["endTimeUnixNano"]),
                    error=span.get("status", {}).get("message", ""),
                    attributes=_values(span["attributes"]),
                )


def _values(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for item in attributes:
        ((kind, value),) = item["value"].items()
        found[item["key"]] = int(value) if kind == "intValue" else value
    return found
