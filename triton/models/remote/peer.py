"""The server that a proxy calls: its channel, and whether a call may be made a second time."""

import threading
import time

import grpc
import peers

# A connection that was lost this long ago, and not longer, is waited for, this long: a server that
# is gone must be known as gone at once, so that another plan can answer.
_LOST_LATELY_S = 1.0
_BACK_WITHIN_S = 0.25
# How gRPC's errors begin when there was no connection to send anything on. (Its status alone,
# UNAVAILABLE, may also mean that the peer has the request, or refuses it: never tried again.)
_NOTHING_WAS_SENT = ("failed to connect to all addresses", "dns resolution failed")


class Peer:
    """A channel that connects at once and stays warm."""

    def __init__(self, url):
        self._ready = threading.Event()
        self._lost_at = None
        self._channel, self._infer = peers.open_channel(url, self._on_state)

    def call(self, message, timeout_s, traceparent=None):
        """Start ModelInfer; the call's one answer is read by `next`."""
        # As a header as well: servers with OpenTelemetry look for it there.
        metadata = [("traceparent", traceparent)] if traceparent else None
        return self._infer(message, timeout=timeout_s, metadata=metadata)

    @property
    def is_ready(self):
        """Whether there is a connection, as far as is known: what is sent now may arrive."""
        return self._ready.is_set()

    def is_back(self, error, left_s):
        """Whether a call that failed so may be made again: it was not sent, and now it can be.

        Waits a moment for a connection that was lost lately, at most `left_s`.
        """
        if not nothing_was_sent(error) or self._lost_at is None:
            return False
        if time.monotonic() - self._lost_at > _LOST_LATELY_S:
            return False
        return self._ready.wait(max(0.0, min(_BACK_WITHIN_S, left_s)))

    def close(self):
        """Close the connection; calls in flight fail."""
        self._channel.close()

    def _on_state(self, state):
        if state is grpc.ChannelConnectivity.READY:
            self._ready.set()
        elif self._ready.is_set():
            self._lost_at = time.monotonic()
            self._ready.clear()


def nothing_was_sent(error):
    """Whether a grpc.RpcError says that no connection could be made."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and (
        error.details() or ""
    ).lower().startswith(_NOTHING_WAS_SENT)
