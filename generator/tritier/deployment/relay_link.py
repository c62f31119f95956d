"""The links of `tritier.deployment.relay`: when bytes leave them, and the sockets they connect."""

from __future__ import annotations

import enum
import math
import select
import socket
import struct
import time
from collections import deque

from tritier.deployment.relay_config import LinkSpec

MIB = 1024 * 1024

QUANTUM_MS = 3.0  # one read holds at most this much of a link's time, within these bounds:
MIN_QUANTUM_BYTES = 1460
MAX_QUANTUM_BYTES = 512 * 1024
OWN_MS = 0.1  # what reading and delivering take by themselves; a latency contains it
CATCH_UP_MS = 20.0  # how far a busy link may fall behind, without CPU, and still make up for it
MIN_WINDOW_BYTES = 64 * 1024
UNLIMITED_WINDOW_MIB_S = 1024.0  # bounds the memory of an unlimited link, not its speed


class LinkShaper:
    """The arithmetic of one link: when bytes leave it. Pure: the clock is an argument.

    Attributes:
        latency_s: propagation delay, which comes after the departure.
        quantum_bytes: the largest read.
        window_bytes: bound of what one connection may have read and not yet delivered, which is
            bandwidth x (latency + `CATCH_UP_MS`) + 3 quanta, at least `MIN_WINDOW_BYTES`.
    """

    def __init__(self, bandwidth_mib_s: float | None, latency_ms: float) -> None:
        rate = math.inf if bandwidth_mib_s is None else bandwidth_mib_s * MIB
        quantum_bytes = min(rate * QUANTUM_MS / 1e3, MAX_QUANTUM_BYTES)
        held_s = (latency_ms + CATCH_UP_MS) / 1e3
        held_bytes = int(min(rate, UNLIMITED_WINDOW_MIB_S * MIB) * held_s)
        self.latency_s = latency_ms / 1e3
        self.quantum_bytes = max(MIN_QUANTUM_BYTES, int(quantum_bytes))
        self.window_bytes = max(MIN_WINDOW_BYTES, held_bytes + 3 * self.quantum_bytes)
        self._s_per_byte = 1.0 / rate
        self._quantum_s = max(QUANTUM_MS / 1e3, self.quantum_bytes / rate)
        self._free_at_s = -math.inf

    def succeed(self, before: LinkShaper) -> None:
        """Take the place of another shaper: what it let go still has the link until it has left."""
        self._free_at_s = before._free_at_s

    def depart(self, size_bytes: int, now_s: float, waiting_since_s: float = math.inf) -> float:
        """Put bytes on the link and return when the last of them leaves it, in seconds.

        `waiting_since_s` says that data was waiting already then, unread only as the process had
        no CPU: the real link would not have idled, so up to `CATCH_UP_MS` of it is made up for.
        """
        start_s = now_s
        if self._s_per_byte:
            start_s = min(now_s, max(waiting_since_s, now_s - CATCH_UP_MS / 1e3))
        self._free_at_s = max(self._free_at_s, start_s) + size_bytes * self._s_per_byte
        return self._free_at_s

    def may_read(self, now_s: float) -> bool:
        """Whether so little is waiting for its departure that another quantum may be read."""
        return self._free_at_s - now_s <= 1.5 * self._quantum_s

    def read_due_s(self) -> float:
        """When to wake for the next read, in seconds.

        That is before the link runs dry, but a quantum later than `may_read` allows: within it
        a busy link also delivers, and the process wakes once for both.
        """
        return self._free_at_s - 0.5 * self._quantum_s


class Mark(enum.Enum):
    """What travels a link behind the data of a connection."""

    END = enum.auto()
    RESET = enum.auto()


Item = memoryview | Mark


class Link:
    """A shaper, the peers that wait to send over it, and what is on its way."""

    def __init__(self, spec: LinkSpec) -> None:
        self._waiting: deque[Peer] = deque()
        # Delivered in this order, also where a change has shortened the latency.
        self._travelling: deque[tuple[float, Peer, Item]] = deque()
        self._spare_slabs: list[bytearray] = []
        self.shaper = LinkShaper(spec.bandwidth_mib_s, spec.latency_ms)
        self._set_up(spec)

    def change(self, spec: LinkSpec) -> None:
        """Be another link from now on; what is on its way arrives when it would have."""
        before = self.shaper
        self.shaper = LinkShaper(spec.bandwidth_mib_s, spec.latency_ms)
        self.shaper.succeed(before)
        self._spare_slabs.clear()
        self._set_up(spec)

    def _set_up(self, spec: LinkSpec) -> None:
        self.spec = spec
        self._is_open = spec.state == "open"
        self._delay_s = max(0.0, self.shaper.latency_s - OWN_MS / 1e3)

    def next_wake_s(self) -> float:
        """When there is something to do, in seconds of the monotonic clock."""
        if not self._is_open:
            return math.inf
        read_s = self.shaper.read_due_s() if self._waiting else math.inf
        return min(read_s, self.next_delivery_s())

    def next_delivery_s(self) -> float:
        """When the next item has travelled far enough, in seconds of the monotonic clock."""
        return self._travelling[0][0] if self._travelling and self._is_open else math.inf

    def offer(self, sender: Peer) -> None:
        """Queue a peer for sending, if it has something to send and room for it."""
        if sender.readable and not sender.queued and not sender.ended and self._has_room(sender):
            sender.queued = True
            sender.waiting_since_s = time.monotonic()
            self._waiting.append(sender)

    def send(self, sender: Peer, item: Item, departure_s: float) -> None:
        """Let an item travel; departures must not decrease."""
        self._travelling.append((departure_s + self._delay_s, sender, item))

    def work(self) -> None:
        """Read what the link has room for, deliver what has arrived."""
        if not self._is_open:
            return
        now_s = time.monotonic()
        for _ in range(4):  # bounds the turn of an unlimited link
            if not self._waiting or not self.shaper.may_read(now_s):
                break
            sender = self._waiting.popleft()
            sender.queued = False
            if not sender.ended:
                self._read(sender, now_s)
        while self._travelling and self._travelling[0][0] <= now_s:
            _, sender, item = self._travelling.popleft()
            sender.deliver(item)

    def recycle(self, data: memoryview) -> None:
        """Take back the memory of data that needs it no more."""
        slab = data.obj
        if isinstance(slab, bytearray) and len(slab) == self.shaper.quantum_bytes:
            self._spare_slabs.append(slab)

    def _has_room(self, sender: Peer) -> bool:
        return sender.held_bytes + self.shaper.quantum_bytes <= self.shaper.window_bytes

    def _read(self, sender: Peer, now_s: float) -> None:
        spare = self._spare_slabs
        slab = memoryview(spare.pop() if spare else bytearray(self.shaper.quantum_bytes))
        try:
            size_bytes = sender.sock.recv_into(slab)
        except OSError as error:
            self.recycle(slab)
            if isinstance(error, BlockingIOError):
                sender.await_data()
            else:
                sender.lost()
            return
        data = slab[:size_bytes]
        if 2 * size_bytes < len(slab):  # many small messages must not hold a slab each
            data = memoryview(bytes(data))
            self.recycle(slab)
        if not size_bytes:
            sender.finish(Mark.END)
            return
        self.send(sender, data, self.shaper.depart(size_bytes, now_s, sender.waiting_since_s))
        sender.held_bytes += size_bytes
        if size_bytes < len(slab):
            sender.await_data()
        elif self._has_room(sender):  # it goes on waiting since when it did
            sender.queued = True
            self._waiting.append(sender)


class Peer:
    """One socket of a connection: what it sends, over `link`, and what it has yet to take.

    epoll reports a socket once, then it has to be armed again, so that a busy sender does not
    wake the process while its link has no room anyway.
    """

    def __init__(self, sock: socket.socket, link: Link, poll: select.epoll) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(sock, select.EPOLLONESHOT)
        self.sock, self.link, self._poll = sock, link, poll
        self.other = self  # the peer at the far side, which the server sets
        self.connecting = False
        self.readable = self.writable = True  # nothing to wait for before it is connected
        self.queued = False
        self.waiting_since_s = 0.0
        self.held_bytes = 0  # read from it and not yet taken by the other
        self.ended = False  # nothing more is read from it
        self.all_taken = False  # it has been told that the other has ended
        self.gone = False
        self.arrived: deque[Item] = deque()

    def arm(self) -> None:
        """Ask for one report of what this socket lacks; faults are always reported."""
        wanted = 0 if self.readable else select.EPOLLIN
        wanted |= 0 if self.writable else select.EPOLLOUT
        self._poll.modify(self.sock, wanted | select.EPOLLONESHOT)

    def await_data(self) -> None:
        """Note that all that was received has been read."""
        self.readable = False
        self.arm()

    def on_event(self, mask: int) -> None:
        """Act on what epoll reports of this socket."""
        if self.connecting:
            self.connecting = False
            if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.close_both(reset=True)
                return
            self.readable = False
            self.other.await_data()
        is_fault = mask & (select.EPOLLERR | select.EPOLLHUP)
        if is_fault or mask & select.EPOLLOUT:
            self.writable = True
            self.flush()
        if self.ended and mask & select.EPOLLERR:
            self.lost()
        elif is_fault or mask & select.EPOLLIN:
            self.readable = True
            self.link.offer(self)
        if not self.gone and not (self.readable and self.writable):
            self.arm()

    def finish(self, mark: Mark) -> None:
        """Send the last thing that comes from this peer."""
        self.ended = True
        self.link.send(self, mark, self.link.shaper.depart(0, time.monotonic()))
        if not self.gone:
            self.arm()  # a reset may still follow an end

    def lost(self) -> None:
        """Tell the other, with the link's delay, that the connection to this peer is broken."""
        if not self.gone:
            self.gone = self.other.ended = True
            self.arrived.clear()
            self.finish(Mark.RESET)

    def deliver(self, item: Item) -> None:
        """Hand what this peer sent, and the link has carried, to the other."""
        if item is Mark.RESET:
            self.close_both(reset=True)
        elif not self.other.gone:
            self.other.arrived.append(item)
            self.other.flush()

    def flush(self) -> None:
        """Give the socket what has arrived for it, as far as it takes it."""
        while self.arrived and self.writable:
            item = self.arrived[0]
            if isinstance(item, Mark):
                self._shut_down()
                return
            try:
                sent_bytes = self.sock.send(item)
            except BlockingIOError:
                sent_bytes = 0
            except OSError:
                self.lost()
                return
            self.other.held_bytes -= sent_bytes
            if sent_bytes < len(item):
                self.arrived[0] = item[sent_bytes:]
                self.writable = False
                self.arm()
            else:
                self.arrived.popleft()
                self.other.link.recycle(item)
        self.other.link.offer(self.other)

    def _shut_down(self) -> None:
        self.arrived.clear()
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.lost()
            return
        self.all_taken = True
        if self.other.all_taken:
            self.close_both(reset=False)

    def close_both(self, reset: bool) -> None:
        """Close both sockets; with `reset` so that their far sides see a connection reset."""
        for peer in (self, self.other):
            if reset and peer.sock.fileno() >= 0:
                no_linger = struct.pack("ii", 1, 0)
                peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
            peer.sock.close()  # leaves epoll as well
            peer.ended = peer.gone = True
            peer.arrived.clear()
