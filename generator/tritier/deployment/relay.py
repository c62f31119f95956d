"""A user-space TCP relay that emulates network links between servers on one machine.

Where the kernel has no netem, loopback cannot be delayed or throttled, so each connection
between two servers passes through this process. A *link* is one ordered pair of servers with its
bandwidth and one-way latency; a *relay* is a listening port whose connections send over its
forward link and receive over its reverse link. Relays name their links, so the responses of k->h
and the requests of h->k share one link. A message of B bytes arrives B / bandwidth + latency
after it was sent. The handshake is not delayed: Triton's gRPC connections stay open.

Shaping: a link serialises what it carries, its connections in turns of `QUANTUM_MS`, with
absolute deadlines. An idle link saves nothing up, so nothing exceeds the bandwidth. At most 2.5
quanta are read before they could leave. Memory: a connection holds, each way, at most
`LinkShaper.window_bytes`; beyond that its sender is not read. The kernel's socket buffers come
on top: small ones would stall loopback, whose segments are 64 KiB.

Usage: `python -m tritier.deployment.relay CONFIG.json`, where CONFIG.json holds

    {"links":  [{"name": "device->edge", "bandwidth_mib_s": 20, "latency_ms": 5},
                {"name": "edge->device", "bandwidth_mib_s": null, "latency_ms": 5}],
     "relays": [{"listen_port": 9001, "target_port": 8001,
                 "forward_link": "device->edge", "reverse_link": "edge->device"}]}

and null is unlimited. It prints `ready` once every relay listens and runs until SIGTERM or
SIGINT. Exit status: 0 after a signal, 3 for bad input, 4 where a relay cannot listen. One thread,
the standard library only, Linux only (epoll).

A link may have a `state`: `open`, `black_hole` (bytes stop, connections stay; what was on its way
arrives once the link is open again) or `cut` (its connections are reset, and new ones as soon as
they are made). At SIGHUP the relay reads CONFIG.changes.json, {"links": [...]} with the links that
are to differ from CONFIG.json, and answers in CONFIG.applied.json: the SHA-256 of what it read, and
what was wrong with it or null.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import math
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from tritier.deployment.relay_config import (
    LinkSpec,
    RelayConfig,
    RelayConfigError,
    RelayListenError,
    RelaySpec,
    load_changes,
    load_config,
    parse_config,
)
from tritier.deployment.relay_link import (
    CATCH_UP_MS,
    MIB,
    MIN_WINDOW_BYTES,
    Link,
    LinkShaper,
    Peer,
)
from tritier.files import write_file

__all__ = [
    "CATCH_UP_MS",
    "EXIT_BAD_INPUT",
    "EXIT_CANNOT_LISTEN",
    "MIB",
    "MIN_WINDOW_BYTES",
    "LinkShaper",
    "LinkSpec",
    "RelayConfig",
    "RelayConfigError",
    "RelayListenError",
    "RelayServer",
    "RelaySpec",
    "applied_file",
    "changes_file",
    "load_config",
    "main",
    "parse_config",
]

HOST = "127.0.0.1"
EARLY_MS = 0.4  # how long before a delivery the process wakes up
EXIT_BAD_INPUT = 3
EXIT_CANNOT_LISTEN = 4


def changes_file(config: Path) -> Path:
    """Where changes of the links of a configuration are written before the SIGHUP."""
    return config.with_suffix(".changes.json")


def applied_file(config: Path) -> Path:
    """Where the relay says which changes it has read."""
    return config.with_suffix(".applied.json")


class RelayServer:
    """All relays of a configuration, listening from construction on.

    Raises:
        RelayListenError: a port cannot be listened on.
    """

    def __init__(self, config: RelayConfig) -> None:
        self._links = {spec.name: Link(spec) for spec in config.links}
        self._poll = select.epoll()
        self._wake_fd = os.eventfd(0)
        self._poll.register(self._wake_fd, select.EPOLLIN)
        self._stopping = False
        self._asked: deque[Callable[[], None]] = deque()
        self._peers: dict[int, Peer] = {}
        self._listeners: dict[int, tuple[socket.socket, RelaySpec]] = {}
        try:
            for relay in config.relays:
                self._listen(relay)
        except RelayListenError:
            self.close()
            raise

    def run(self) -> None:
        """Relay until `stop` is called."""
        while not self._stopping:
            for fd, mask in self._wait():
                if fd == self._wake_fd:
                    os.eventfd_read(fd)
                    while self._asked:
                        self._asked.popleft()()
                elif fd in self._listeners:
                    self._accept(*self._listeners[fd])
                elif not self._peers[fd].gone:  # an event of its other may have closed it
                    self._peers[fd].on_event(mask)
            for link in self._links.values():
                link.work()

    def stop(self) -> None:
        """Make `run` return; may be called from a signal handler or another thread."""
        self.call_soon(self._stop)

    def call_soon(self, job: Callable[[], None]) -> None:
        """Let `run` call `job`; may be called from a signal handler or another thread."""
        self._asked.append(job)
        os.eventfd_write(self._wake_fd, 1)

    def set_links(self, links: Sequence[LinkSpec]) -> None:
        """Change links; not while `run` runs, except through `call_soon`."""
        for spec in links:
            if self._links[spec.name].spec != spec:
                self._links[spec.name].change(spec)
        for peer in list(self._peers.values()):
            if not peer.gone and self._is_cut(peer.link, peer.other.link):
                peer.close_both(reset=True)
            peer.link.offer(peer)

    @staticmethod
    def _is_cut(*links: Link) -> bool:
        return any(link.spec.state == "cut" for link in links)

    def _stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        """Close all sockets, once `run` has returned."""
        for listener, _ in self._listeners.values():
            listener.close()
        for peer in self._peers.values():
            peer.sock.close()
        self._poll.close()
        os.close(self._wake_fd)

    def _wait(self) -> list[tuple[int, int]]:
        wake_s = min(link.next_wake_s() for link in self._links.values())
        if wake_s == math.inf:
            return self._poll.poll()
        due_s = min(link.next_delivery_s() for link in self._links.values())
        wait_s = min(wake_s, due_s - EARLY_MS / 1e3) - time.monotonic()
        # epoll waits for whole milliseconds, select for microseconds.
        if wait_s > 0:
            select.select([self._poll], [], [], wait_s)
        events = self._poll.poll(0)
        # A sleep ends some tenths of a millisecond late: deliveries are waited for awake.
        while not events and wake_s > time.monotonic() >= due_s - EARLY_MS / 1e3:
            events = self._poll.poll(0)
        return events

    def _listen(self, relay: RelaySpec) -> None:
        try:
            listener = socket.create_server((HOST, relay.listen_port), backlog=128)
        except OSError as error:
            message = f"{relay.label}: cannot listen: {error.strerror}, allowed: a free port"
            raise RelayListenError(message) from error
        listener.setblocking(False)
        # Edge-triggered: without file descriptors it must not report the same client for ever.
        self._poll.register(listener, select.EPOLLIN | select.EPOLLET)
        self._listeners[listener.fileno()] = (listener, relay)

    def _accept(self, listener: socket.socket, relay: RelaySpec) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:  # none left, or no file descriptors: the next client tries again
                return
            forward, reverse = self._links[relay.forward_link], self._links[relay.reverse_link]
            if self._is_cut(forward, reverse):
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                accepted.close()
                continue
            try:
                target = socket.socket()
            except OSError:
                accepted.close()
                return
            client = Peer(accepted, forward, self._poll)
            server = Peer(target, reverse, self._poll)
            client.other, server.other = server, client
            self._peers[accepted.fileno()], self._peers[target.fileno()] = client, server
            server.connecting, server.writable = True, False
            if target.connect_ex((HOST, relay.target_port)) in (0, errno.EINPROGRESS):
                server.arm()
            else:
                client.close_both(reset=True)


def _apply(server: RelayServer, path: Path, config: RelayConfig) -> None:
    """Change the links as the file of changes says, and write down what came of it."""
    answer: dict[str, str | None] = {"sha256": None, "error": None}
    try:
        data = changes_file(path).read_bytes()
        answer["sha256"] = hashlib.sha256(data).hexdigest()
        server.set_links(load_changes(data, config))
    except (OSError, RelayConfigError) as error:
        answer["error"] = str(error)
    write_file(applied_file(path), json.dumps(answer))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"relay: {message}, allowed: one JSON file\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = _Parser(prog="relay", description="Emulate network links between local servers.")
    parser.add_argument("config", type=Path, help="JSON file with the links and the relays")
    path: Path = parser.parse_args(arguments).config
    try:
        config = load_config(path)
        server = RelayServer(config)
    except (RelayConfigError, RelayListenError) as error:
        sys.stderr.write(f"relay: {error}\n")
        return EXIT_BAD_INPUT if isinstance(error, RelayConfigError) else EXIT_CANNOT_LISTEN
    with closing(server):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        signal.signal(
            signal.SIGHUP, lambda *_: server.call_soon(lambda: _apply(server, path, config))
        )
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
