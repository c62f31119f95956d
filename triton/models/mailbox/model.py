"""Where a tensor from another server meets the component that waits for it.

One mailbox per server and plan. A request carries `key` (of the app's request, see the model
`key`) and is one of three, told apart by its inputs:

  put     some tensors: stored under (key, name), or handed at once to whoever waits; answers `ack`
  take    no tensor: answers the outputs that it asks for as soon as all of them are there
  poison  a text: whoever waits under this key, now or later, gets it as an error; answers `ack`

Parameters: `plan_id` and `server` for messages; `takes`, a JSON object tensor -> how many
components take it (after the last one it is forgotten); `deadline_ms`, the longest wait of a
take, which what is left of the request's own budget shortens (see context.py); `ttl_ms`, how long
an untaken tensor or a poisoned key is kept; `max_bytes`, how much may lie here, and `max_waiting`
(1024 by default), how many may wait: more is refused, UNAVAILABLE.
"""

import json
import threading
import time
import traceback

import answers
import telemetry
import triton_python_backend_utils as pb_utils
from context import Context
from report import Report
from slots import Limits, Refused, Slots

# How often deadlines are looked through; how many of those who wait are asked at once whether they
# were cancelled (a round trip to the server each) and how often; and how long the thread that looks
# goes on without any before it sleeps.
_TICK_S = 0.02
_CANCEL_POLL_S = 0.25
_POLLS_AT_ONCE = 16
_IDLE_TICKS = 250
_KEY_BYTES = 16
_CLOSE_PATIENCE_S = 2.0


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {k: v["string_value"] for k, v in config["parameters"].items()}
        self._label = f"mailbox of server '{parameters['server']}', plan {parameters['plan_id']}"
        self._deadline_s = int(parameters["deadline_ms"]) / 1000
        limits = Limits(
            ttl_s=int(parameters["ttl_ms"]) / 1000,
            max_bytes=int(parameters["max_bytes"]),
            max_waiting=int(parameters.get("max_waiting", 1024)),
        )
        takes = json.loads(parameters["takes"])
        self._slots = Slots(takes, limits, self._give, self._fail)
        self._report = Report(parameters, args["model_name"], self._slots)
        self._lock = threading.Lock()
        self._next_poll = 0.0
        self._asked = []
        self._ticker_sleeps = False
        self._wake_ticker = threading.Event()
        self._closed = False
        self._ticker = threading.Thread(target=self._tick_forever, name="mailbox", daemon=True)
        self._ticker.start()

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._handle(request, sender)
            except Refused as error:
                self._report.refused(str(error))
                code = pb_utils.TritonError
                code = code.UNAVAILABLE if error.is_full else code.INVALID_ARG
                answers.fail_if_unanswered(sender, f"{self._label}: {error}", code)
            except Exception as error:  # without an answer the request would hang for ever
                text = f"{self._label}: {error}"
                answers.fail_if_unanswered(sender, text, pb_utils.TritonError.INTERNAL)

    def finalize(self):
        self._closed = True
        self._wake_ticker.set()
        self._ticker.join(timeout=_CLOSE_PATIENCE_S)
        with self._lock:
            self._slots.clear("unloaded while a component waited")
        telemetry.close()

    def _handle(self, request, sender):
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        key = arrays.pop("key").tobytes()
        if len(key) != _KEY_BYTES:
            raise Refused(f"the key has {len(key)} bytes; allowed are {_KEY_BYTES}")
        now = time.monotonic()
        if "poison" in arrays:
            reason = arrays["poison"].reshape(-1)[0].decode(errors="replace")
            with self._lock:
                self._slots.poison(key, reason, now)
            answers.send_flag(sender, "ack")
        elif arrays:
            with self._lock:
                self._slots.put(key, arrays, now)
            answers.send_flag(sender, "ack")
        else:
            self._take(key, request, sender, now)
        self._report.state()
        if self._ticker_sleeps:
            self._wake_ticker.set()

    def _take(self, key, request, sender, now):
        try:
            context = Context(request, self._deadline_s)
        except ValueError as error:
            raise Refused(str(error)) from None
        names = list(request.requested_output_names())
        take = _Take(request, sender, self._report.start(context, names))
        try:
            with self._lock:
                self._slots.take(key, names, context.deadline_s, now, take)
        except Refused as error:
            take.record.end(str(error))
            raise

    def _give(self, waiting, arrays):
        try:
            tensors = [pb_utils.Tensor(name, array) for name, array in arrays.items()]
            answers.send(waiting.item.sender, tensors)
            waiting.item.record.end()
        except Exception as error:  # a put must not fail because of who takes
            text = f"{self._label}: {error}"
            answers.fail_if_unanswered(waiting.item.sender, text, pb_utils.TritonError.INTERNAL)
            waiting.item.record.end(text)

    def _fail(self, waiting, reason, code=None):
        code = pb_utils.TritonError.UNAVAILABLE if code is None else code
        # One that can't be told must not keep the others from hearing.
        answers.fail_if_unanswered(waiting.item.sender, f"{self._label}: {reason}", code)
        waiting.item.record.end(reason)

    def _tick_forever(self):
        idle_ticks = 0
        while not self._closed:
            time.sleep(_TICK_S)
            with self._lock:
                try:
                    self._tick(time.monotonic())
                except Exception:  # others still wait, and their deadlines pass
                    traceback.print_exc()
                idle_ticks = 0 if self._slots.keys else idle_ticks + 1
            if idle_ticks > _IDLE_TICKS:
                self._ticker_sleeps = True
                with self._lock:  # a request that came before the line above wakes nobody
                    empty = not self._slots.keys
                if empty:
                    self._report.state()
                    self._wake_ticker.wait()
                self._wake_ticker.clear()
                self._ticker_sleeps = False
                idle_ticks = 0

    def _tick(self, now):
        for waiting in self._slots.overdue(now):
            missing = self._slots.missing(waiting)
            self._slots.remove(waiting)
            self._fail(waiting, f"deadline exceeded while waiting for tensors {missing}")
        if now >= self._next_poll:
            self._next_poll = now + _CANCEL_POLL_S
            # Kept until the next poll: the server's library still uses a request for a moment after
            # it said whether that is cancelled (Triton 24.10), and one that is freed then spoils
            # the memory of this process.
            self._asked = self._slots.next_to_ask(_POLLS_AT_ONCE)
            for waiting in self._asked:
                if waiting.item.request.is_cancelled():
                    self._slots.remove(waiting)
                    self._fail(waiting, "cancelled", pb_utils.TritonError.CANCELLED)
        if self._slots.expire(now):
            self._report.state()


class _Take:
    """What is needed of a request that waits."""

    def __init__(self, request, sender, record):
        self.request = request
        self.sender = sender
        self.record = record
