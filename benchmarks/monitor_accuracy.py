"""How near the monitor comes to the links that were set.

Starts the lab of a servers file whose links are all emulated and measures every link several times,
as `tritier monitor` does. For each link and run:

  set       bandwidth and round trip (both ways' latency) of the servers file, which the monitor
            does not see
  emulated  the round trip that the emulation really gives: the least time of a few bytes to an echo
            and back through a relay of the same links, less that of the same without the relay
  measured  what the monitor found, with its 95 % interval

Errors are relative to what was set. Usage:

    python -m benchmarks.monitor_accuracy [--runs 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tritier.deployment import embedded, process
from tritier.deployment.lab import Lab
from tritier.deployment.links import relay_document, relay_pairs
from tritier.documents import NetworkState, ServersSpec
from tritier.network.monitor import Pair, measure_round
from tritier.resources import example_dir

_ECHOES = 60
_STOP_S = 5.0


@dataclass(frozen=True)
class Row:
    """One link in one run; errors in %, intervals as (low, high)."""

    link: str
    run: int
    set_mib_s: float
    measured_mib_s: float
    interval_mib_s: tuple[float | None, float | None]
    bandwidth_error: float
    set_ms: float
    emulated_ms: float
    measured_ms: float
    interval_ms: tuple[float | None, float | None]
    round_trip_error: float
    call_ms: float
    copy_ms_per_mib: float


def main() -> int:
    """Print the table; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="times that every link is measured")
    parser.add_argument(
        "--servers", type=Path, default=example_dir("super_resolution") / "servers.yaml"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    spec = ServersSpec.load(arguments.servers)
    with tempfile.TemporaryDirectory(prefix="tritier-bench-") as name:
        emulated = emulated_ms(spec, Path(name))
        lab = Lab(Path(name) / "lab")
        urls = lab.up(spec, None).urls
        try:
            rows = [
                row
                for run in range(arguments.runs)
                for row in measure(spec, urls, emulated, run + 1)
            ]
        finally:
            lab.down()
    worst = {
        "bandwidth_error": max(abs(row.bandwidth_error) for row in rows),
        "round_trip_error": max(abs(row.round_trip_error) for row in rows),
    }
    if arguments.json:
        data = {"rows": [asdict(row) for row in rows], "worst": worst}
        sys.stdout.write(json.dumps(data, indent=2) + "\n")
    else:
        show(rows, worst)
    return 0


def measure(
    spec: ServersSpec, urls: dict[str, str], emulated: dict[Pair, float], run: int
) -> list[Row]:
    """One round of the monitor, without anything that it found before."""
    started = time.monotonic()
    found = measure_round(NetworkState(), spec, urls)
    if found.failures:
        raise SystemExit(f"not measured: {found.failures}")
    sys.stderr.write(f"run {run}: {time.monotonic() - started:.0f} s\n")
    latencies = {(link.source, link.target): link.latency_ms for link in spec.links}
    rows = []
    for link in spec.links:
        state = found.state.link(link.source, link.target)
        assert state is not None
        assert link.bandwidth_mib_s is not None
        trip_ms = link.latency_ms + latencies.get((link.target, link.source), 0.0)
        rate, trip = state.bandwidth_mib_s, state.round_trip_ms
        rows.append(
            Row(
                link=f"{link.source} -> {link.target}",
                run=run,
                set_mib_s=link.bandwidth_mib_s,
                measured_mib_s=rate.value,
                interval_mib_s=(rate.low, rate.high),
                bandwidth_error=100 * (rate.value / link.bandwidth_mib_s - 1),
                set_ms=trip_ms,
                emulated_ms=emulated[link.source, link.target],
                measured_ms=trip.value,
                interval_ms=(trip.low, trip.high),
                round_trip_error=100 * (trip.value / trip_ms - 1),
                call_ms=state.call_ms.value,
                copy_ms_per_mib=state.copy_ms_per_mib.value,
            )
        )
    return rows


def emulated_ms(spec: ServersSpec, folder: Path) -> dict[Pair, float]:
    """Round trips of all emulated links, seen by plain sockets."""
    pairs = relay_pairs(spec)
    with _echo() as port, _relay(spec, dict.fromkeys(spec.names, port), folder) as ports:
        direct_ms = _least_ms(port, pause_s=0.005)
        return {pair: _least_ms(ports[pair]) - direct_ms for pair in pairs}


def show(rows: list[Row], worst: dict[str, float]) -> None:
    """The table."""
    table = Table(title="links: set, emulated and measured", title_justify="left")
    columns = ["link", "run", "set MiB/s", "measured", "interval", "error %"]
    columns += ["set ms", "emulated", "measured", "interval", "error %", "call ms", "per MiB ms"]
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in sorted(rows, key=lambda row: row.link):
        table.add_row(
            row.link,
            str(row.run),
            f"{row.set_mib_s:.2f}",
            f"{row.measured_mib_s:.2f}",
            "{:.2f} - {:.2f}".format(*row.interval_mib_s),
            f"{row.bandwidth_error:+.2f}",
            f"{row.set_ms:.1f}",
            f"{row.emulated_ms:.2f}",
            f"{row.measured_ms:.2f}",
            "{:.2f} - {:.2f}".format(*row.interval_ms),
            f"{row.round_trip_error:+.2f}",
            f"{row.call_ms:.2f}",
            f"{row.copy_ms_per_mib:.2f}",
        )
    console = Console(width=170)
    console.print(table)
    console.print(
        f"worst errors: bandwidth {worst['bandwidth_error']:.2f} %, "
        f"round trip {worst['round_trip_error']:.2f} %"
    )


@contextmanager
def _echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(4096):
                connection.sendall(data)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed below
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


@contextmanager
def _relay(
    spec: ServersSpec, target_ports: dict[str, int], folder: Path
) -> Iterator[dict[Pair, int]]:
    """A relay of the links to those ports, as the lab starts it; gives its ports by link."""
    pairs = relay_pairs(spec)
    ports = dict(zip(pairs, embedded.free_ports(len(pairs)), strict=True))
    config = folder / "relay.json"
    config.write_text(json.dumps(relay_document(spec, target_ports, ports)))
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as answer:
        command = [sys.executable, "-m", "tritier.deployment.relay", str(config)]
        pid = process.spawn(command, os.environ, writing, sys.stderr.fileno())
        os.close(writing)
        try:
            assert answer.readline().strip() == b"ready"
            yield ports
        finally:
            process.stop(pid, process.start_ticks(pid) or 0, _STOP_S)


def _least_ms(port: int, pause_s: float = 0.0) -> float:
    """The least time of a few bytes to a port and back. Without a relay a pause makes both ends
    sleep in between, as they do while bytes travel."""
    times_ms = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_ECHOES):
            time.sleep(pause_s)
            started = time.perf_counter()
            connection.sendall(b"x" * 50)
            answer: Any = connection.recv(4096)
            assert len(answer) == 50
            times_ms.append((time.perf_counter() - started) * 1e3)
    return min(times_ms)


if __name__ == "__main__":
    sys.exit(main())
