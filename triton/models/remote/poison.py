"""News of a failure, for the mailboxes in which others wait for what will not come."""

import contextlib
import threading

import grpc
import numpy as np
import peers
import wire

_TIMEOUT_S = 2.0
_MAX_TEXT = 2000
# News of calls that were not even made, so many at once: under overload there is enough to do, and
# who does not hear of it waits until its deadline.
_MAX_BEGUN = 32


class Poison:
    """Sends poison to `mailboxes`, a list of [server, url, model]; `known` are urls of peers."""

    def __init__(self, mailboxes, known):
        self._mailboxes = [
            (model, *peers.open_channel(peers.url_of(server, url or None, known)))
            for server, url, model in mailboxes
        ]
        self._begun = threading.BoundedSemaphore(_MAX_BEGUN)

    def begin(self):
        """Whether one more job of `send_begun` may start."""
        return bool(self._mailboxes) and self._begun.acquire(blocking=False)

    def send_begun(self, key, reason):
        """`send`, after a `begin`."""
        try:
            self.send(key, reason)
        finally:
            self._begun.release()

    def send(self, key, reason):
        """Tell all mailboxes that what was expected under this key will not come."""
        if key is None:
            return
        text = np.array([reason[:_MAX_TEXT].encode()], dtype=np.object_)
        calls = []
        for model, _, call in self._mailboxes:
            message = wire.encode_request(model, [("key", key), ("poison", text)], ["ack"])
            with contextlib.suppress(grpc.RpcError, ValueError):  # ValueError: it is closed
                calls.append(call(message, timeout=_TIMEOUT_S))
        for call in calls:
            peers.drain(call)

    def close(self):
        """Close the connections."""
        for _, channel, _ in self._mailboxes:
            channel.close()
