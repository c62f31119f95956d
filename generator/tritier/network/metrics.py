"""The state of the network as metrics for Prometheus, served over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from tritier.documents import LinkState, NetworkState, ServerState
from tritier.errors import UsageError

DEFAULT_HOST = "127.0.0.1"
# Metric -> (field of LinkState, help).
_LINK_GAUGES = {
    "tritier_link_bandwidth_mib_per_second": ("bandwidth_mib_s", "Measured bandwidth of a link."),
    "tritier_link_round_trip_milliseconds": ("round_trip_ms", "Round trip of a link."),
    "tritier_link_call_milliseconds": ("call_ms", "What a call costs besides the network."),
    "tritier_link_copy_milliseconds_per_mib": (
        "copy_ms_per_mib",
        "What each MiB costs besides the network.",
    ),
}


class MonitorMetrics:
    """Metrics of one monitor, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        link = ("source", "target")
        self._links = {
            name: Gauge(name, text, link, registry=self.registry)
            for name, (_, text) in _LINK_GAUGES.items()
        }
        self._age = self._gauge("tritier_link_age_seconds", "Time since the measurement.", link)
        self._up = self._gauge("tritier_server_up", "1 if Triton says it is ready.", ("server",))
        self._memory = self._gauge(
            "tritier_server_memory_available_bytes", "Free memory of the host.", ("server",)
        )
        self._power = self._gauge(
            "tritier_server_power_watts", "Power, read or configured.", ("server", "what", "source")
        )
        self._rounds = Counter(
            "tritier_monitor_rounds", "Rounds that were completed.", registry=self.registry
        )
        self._failures = Counter(
            "tritier_monitor_link_failures",
            "Links that could not be measured.",
            link,
            registry=self.registry,
        )

    def update(self, state: NetworkState, failed: Iterable[tuple[str, str]] = ()) -> None:
        """Show a state after a round in which the links `failed` could not be measured."""
        for gauge in (*self._links.values(), self._age, self._up, self._memory, self._power):
            gauge.clear()  # servers and links that are gone
        for server in state.servers:
            self._show_server(server)
        for link in state.links:
            self._show_link(link)
        for source, target in failed:
            self._failures.labels(source, target).inc()
        self._rounds.inc()

    def _show_server(self, server: ServerState) -> None:
        self._up.labels(server.name).set(float(server.state == "ready"))
        if server.host is not None:
            self._memory.labels(server.name).set(server.host.memory_available_bytes)
        for power in server.power:
            self._power.labels(server.name, power.what, power.watt.source).set(power.watt.value)

    def _show_link(self, link: LinkState) -> None:
        for name, (field, _) in _LINK_GAUGES.items():
            self._links[name].labels(link.source, link.target).set(getattr(link, field).value)
        measured_s = datetime.fromisoformat(link.measured_at).timestamp()
        # Asked for when the metrics are: it grows between rounds.
        self._age.labels(link.source, link.target).set_function(lambda: time.time() - measured_s)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)


@contextmanager
def served(metrics: MonitorMetrics, port: int, host: str = DEFAULT_HOST) -> Iterator[int]:
    """Serve the metrics at http://host:port/metrics for the time of the block; gives the port,
    which the system chooses for 0. Raises UsageError if it can't be listened on."""
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise UsageError(
            f"--metrics-port {port}: {host}:{port} can't be listened on ({error.strerror}): choose "
            "a free port"
        ) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
