"""Sends messages to the agent of another server, as the data plane does, and takes the time."""

import threading
import time

import numpy as np
import peers
import wire
from orders import Refused
from tritonclient.grpc import service_pb2

AGENT = "tritier_agent"
_TAKE = np.array([b'{"op": "take"}'], dtype=np.object_)
_LIVE = "/inference.GRPCInferenceService/ServerLive"
STOPPED = "the request was cancelled, or the agent is being unloaded"
_POLL_S = 0.05


class Peer:
    """Another server over one warm channel, with the data plane's options."""

    def __init__(self, url):
        self._channel, self._infer = peers.open_channel(url)
        self._live = self._channel.unary_stream(_LIVE)

    def close(self):
        self._channel.close()

    def ping_ns(self, repeats, limit_s, is_stopped=lambda: False):
        """Times of calls that carry nothing and that Triton itself answers."""
        message = service_pb2.ServerLiveRequest().SerializeToString()
        rounds = _Rounds(limit_s, is_stopped)
        rows = rounds.run([0] * repeats, 1, 0, lambda _, limit: self._live(message, timeout=limit))
        return [end - start for _, start, end in rows]

    def send_ns(self, sizes, in_flight, idle_s, limit_s, is_stopped=lambda: False):
        """[bytes, start, end] of each message (ns of one clock), in the order of their starts.

        `in_flight` messages are under way at once; `idle_s` is waited before each, which makes
        sense for one at a time.
        """
        largest = np.random.default_rng(0).bytes(max(sizes))  # nothing on the way can shorten it
        buffer = np.frombuffer(largest, np.uint8)

        def send(size, left_s):
            inputs = [("order", _TAKE), ("payload", buffer[:size])]
            return self._infer(wire.encode_request(AGENT, inputs, ["answer"]), timeout=left_s)

        return _Rounds(limit_s, is_stopped).run(sizes, in_flight, idle_s, send)


class _Rounds:
    """Calls that are made again and again until they are done, fail, or are to be given up."""

    def __init__(self, limit_s, is_stopped):
        self._deadline = time.monotonic() + limit_s
        self._is_stopped = is_stopped
        self._lock = threading.Lock()
        self._ended = threading.Event()  # all are done, or one failed
        self._waiting, self._count = [], 0
        self._calls = set()
        self._rows = {}
        self._failure = None

    def run(self, sizes, in_flight, idle_s, start):
        """[size, start, end] of each call (ns); `start(size, timeout)` begins one."""
        self._waiting, self._count = list(enumerate(sizes)), len(sizes)
        self._waiting.reverse()
        threads = [
            threading.Thread(target=self._work, args=(start, idle_s), daemon=True)
            for _ in range(min(in_flight, len(sizes)))
        ]
        try:
            for thread in threads:
                thread.start()
            while not self._ended.wait(_POLL_S) and any(thread.is_alive() for thread in threads):
                if self._is_stopped():
                    self._fail(Refused(STOPPED))
        except Exception as error:  # no thread must be left behind
            self._fail(error)
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join()
        if self._failure is not None:
            raise self._failure
        return [self._rows[index] for index in range(len(sizes))]

    def _work(self, start, idle_s):
        while not self._ended.is_set():
            with self._lock:
                if not self._waiting:
                    return
                index, size = self._waiting.pop()
            try:
                self._ended.wait(min(idle_s, self._left_s()))
                if self._ended.is_set():
                    return
                self._rows[index] = [size, *self._call(start, size)]
                if len(self._rows) == self._count:
                    self._ended.set()
            except Exception as error:
                self._fail(error)

    def _call(self, start, size):
        started = time.perf_counter_ns()
        call = start(size, self._left_s())
        with self._lock:
            self._calls.add(call)
            failed = self._failure is not None
        if failed:
            call.cancel()
        try:
            next(call)
            ended = time.perf_counter_ns()
            for _ in call:
                pass
        finally:
            with self._lock:
                self._calls.discard(call)
        return started, ended

    def _fail(self, error):
        """Keep the first failure and end all calls that are under way."""
        with self._lock:
            if self._failure is None:
                self._failure = error
            calls = list(self._calls)
        self._ended.set()
        for call in calls:
            call.cancel()

    def _left_s(self):
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Refused("the time limit of the order is over")
        return left
