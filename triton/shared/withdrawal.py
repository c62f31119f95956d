"""Word that a request is not wanted any more, to all proxies of this machine.

Triton tells the steps of an ensemble that already run nothing when its request is cancelled
(github.com/triton-inference-server/server/issues/6739). Whoever holds the app's own request, the
router, knows: it sends the request's id, `tritier_request`, to the proxies of its server, and each
cancels what it has in flight for that. The messages are datagrams on abstract Unix sockets (Linux):
they stay in this network namespace and leave no file behind; where there are none, calls go on
until their deadlines.
"""

import contextlib
import os
import socket
import threading

_NAMES = "/proc/net/unix"
_MAX_BYTES = 512
_CLOSE_PATIENCE_S = 2.0


class Listener:
    """Calls `cancel(request id)` for each request of the plan that is withdrawn."""

    def __init__(self, server, plan_id, cancel):
        self._cancel = cancel
        self._closed = False
        self._socket = self._thread = None
        with contextlib.suppress(OSError, AttributeError):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(f"\0{_prefix(server, plan_id)}{os.getpid()}/{id(self)}")
            self._thread = threading.Thread(target=self._listen, name="withdrawal", daemon=True)
            self._thread.start()

    def close(self):
        """Listen no more."""
        self._closed = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(timeout=_CLOSE_PATIENCE_S)
        if self._socket is not None:
            self._socket.close()

    def _listen(self):
        while not self._closed:
            try:
                data = self._socket.recv(_MAX_BYTES)
            except OSError:
                return
            with contextlib.suppress(Exception):
                self._cancel(data.decode(errors="replace"))


def withdraw(server, plan_id, request):
    """Tell the proxies of a plan on this machine; returns how many were told. Never raises."""
    told = 0
    with (
        contextlib.suppress(Exception),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending,
    ):
        sending.setblocking(False)
        prefix = "@" + _prefix(server, plan_id)
        with open(_NAMES, encoding="utf-8", errors="replace") as file:
            names = [line.split()[-1] for line in file if prefix in line]
        for name in names:
            with contextlib.suppress(OSError):
                sending.sendto(request.encode()[:_MAX_BYTES], "\0" + name[1:])
                told += 1
    return told


def _prefix(server, plan_id):
    return f"tritier/{server}/{plan_id}/"
