"""Where a tensor from another server meets the component that waits for it.

One mailbox per server and plan. A request carries `key` (of the app's request, see the model
`key`) and is one of three, told apart by its inputs:

  put     some tensors: stored under (key, name), or handed at once to whoever waits; answers `ack`
  take    no tensor: answers the outputs that it asks for as soon as all of them are there
  poison  a text: whoever waits under this key, now or later, gets it as an error; answers `ack`

Parameters: `plan_id` and `server` for messages; `takes`, a JSON object tensor -> how many
components take it (after the last one it is forgotten); `deadline_ms`, the longest wait of a
take; `ttl_ms`, how long an untaken tensor or a poisoned key is kept; `max_bytes`, how much may lie
here: more is refused, UNAVAILABLE.
"""

import json
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

# How often waiting requests are looked through for deadlines, how often each of them is asked
# whether it was cancelled (a round trip to the server), and how long the thread that looks goes on
# without any before it sleeps.
_TICK_S = 0.02
_CANCEL_POLL_S = 0.25
_IDLE_TICKS = 250


class _Waiting:
    """A take that has not got all its tensors yet."""

    def __init__(self, request, sender, names, deadline):
        self.request = request
        self.sender = sender
        self.names = names
        self.deadline = deadline
        self.next_poll = 0.0

    def is_cancelled(self, now):
        if now < self.next_poll:
            return False
        self.next_poll = now + _CANCEL_POLL_S
        return self.request.is_cancelled()


class _Slot:
    """Everything known under one key."""

    def __init__(self, expires):
        self.tensors = {}
        self.waiting = []
        self.taken = {}
        self.poison = None
        self.expires = expires


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {k: v["string_value"] for k, v in config["parameters"].items()}
        self._label = f"mailbox of server '{parameters['server']}', plan {parameters['plan_id']}"
        self._takes = json.loads(parameters["takes"])
        self._deadline_s = int(parameters["deadline_ms"]) / 1000
        self._ttl_s = int(parameters["ttl_ms"]) / 1000
        self._max_bytes = int(parameters["max_bytes"])
        self._bytes = 0
        self._slots = {}
        self._lock = threading.Lock()
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
            except _Refused as error:
                _fail(sender, f"{self._label}: {error}", error.code)
            except Exception as error:  # without an answer the request would hang for ever
                _fail(sender, f"{self._label}: {error}", pb_utils.TritonError.INTERNAL)

    def finalize(self):
        self._closed = True
        self._wake_ticker.set()
        self._ticker.join(timeout=1)
        with self._lock:
            for slot in self._slots.values():
                for waiting in slot.waiting:
                    _fail(
                        waiting.sender,
                        f"{self._label}: unloaded while a component waited for {waiting.names}",
                        pb_utils.TritonError.UNAVAILABLE,
                    )
            self._slots.clear()

    def _handle(self, request, sender):
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        key = arrays.pop("key").tobytes()
        if len(key) != 16:
            raise _Refused(f"the key has {len(key)} bytes; allowed are 16")
        now = time.monotonic()
        with self._lock:
            slot = self._slots.get(key)
            if slot is None:
                slot = self._slots[key] = _Slot(now + self._ttl_s)
            if "poison" in arrays:
                self._poison(slot, arrays["poison"].reshape(-1)[0].decode(errors="replace"))
                _acknowledge(sender)
            elif arrays:
                self._put(slot, arrays, sender)
            else:
                self._take(slot, request, sender, now)
            self._forget_if_done(key, slot)
        if self._ticker_sleeps:
            self._wake_ticker.set()

    def _put(self, slot, arrays, sender):
        if slot.poison is not None:
            _acknowledge(sender)
            return
        unknown = [name for name in arrays if name not in self._takes]
        again = [name for name in arrays if name in slot.tensors or name in slot.taken]
        if unknown or again:
            raise _Refused(f"tensors {unknown} are not expected here, {again} were put before")
        # Offered first: a component that waits already gets the bytes where they lie.
        slot.tensors.update(arrays)
        self._hand_out(slot)
        kept = {name: slot.tensors[name] for name in arrays if name in slot.tensors}
        size = sum(array.nbytes for array in kept.values())
        if self._bytes + size > self._max_bytes:
            for name in kept:
                del slot.tensors[name]
            raise _Refused(
                f"full: {self._bytes} of {self._max_bytes} bytes are taken, {size} more were put",
                pb_utils.TritonError.UNAVAILABLE,
            )
        # The request's memory is given back when it is answered: what stays is copied.
        slot.tensors.update({name: np.array(array) for name, array in kept.items()})
        self._bytes += size
        _acknowledge(sender)

    def _take(self, slot, request, sender, now):
        names = list(request.requested_output_names())
        unknown = [name for name in names if name not in self._takes]
        if unknown or not names:
            raise _Refused(f"cannot give {unknown or 'nothing'}; known are {sorted(self._takes)}")
        if slot.poison is not None:
            raise _Refused(slot.poison, pb_utils.TritonError.UNAVAILABLE)
        budget_s = min(self._deadline_s, request.timeout() / 1e6 or self._deadline_s)
        slot.waiting.append(_Waiting(request, sender, names, now + budget_s))
        slot.expires = max(slot.expires, now + budget_s)
        self._hand_out(slot)

    def _hand_out(self, slot):
        """Answer every take that is complete; drop the tensors that all have taken."""
        ready = [w for w in slot.waiting if all(name in slot.tensors for name in w.names)]
        for waiting in ready:
            slot.waiting.remove(waiting)
            tensors = [pb_utils.Tensor(name, slot.tensors[name]) for name in waiting.names]
            waiting.sender.send(
                pb_utils.InferenceResponse(tensors),
                flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
            )
            for name in waiting.names:
                slot.taken[name] = slot.taken.get(name, 0) + 1
                if slot.taken[name] >= self._takes[name]:
                    # Only what was copied is counted in _bytes; a view of a request is not.
                    array = slot.tensors.pop(name)
                    self._bytes -= array.nbytes if array.flags.owndata else 0

    def _poison(self, slot, reason):
        slot.poison = f"a tensor will not come: {reason}"
        self._release(slot)
        for waiting in slot.waiting:
            _fail(
                waiting.sender,
                f"{self._label}: {slot.poison}",
                pb_utils.TritonError.UNAVAILABLE,
            )
        slot.waiting.clear()

    def _release(self, slot):
        self._bytes -= sum(a.nbytes for a in slot.tensors.values() if a.flags.owndata)
        slot.tensors.clear()

    def _forget_if_done(self, key, slot):
        complete = all(slot.taken.get(name, 0) >= takes for name, takes in self._takes.items())
        if complete and not slot.waiting:
            self._slots.pop(key, None)

    def _tick_forever(self):
        idle_ticks = 0
        while not self._closed:
            time.sleep(_TICK_S)
            with self._lock:
                self._tick(time.monotonic())
                idle_ticks = 0 if self._slots else idle_ticks + 1
            if idle_ticks > _IDLE_TICKS:
                self._ticker_sleeps = True
                with self._lock:  # a request that came before the line above wakes nobody
                    empty = not self._slots
                if empty:
                    self._wake_ticker.wait()
                self._wake_ticker.clear()
                self._ticker_sleeps = False
                idle_ticks = 0

    def _tick(self, now):
        for key, slot in list(self._slots.items()):
            for waiting in list(slot.waiting):
                missing = [name for name in waiting.names if name not in slot.tensors]
                if waiting.is_cancelled(now):
                    reason, code = "cancelled", pb_utils.TritonError.CANCELLED
                elif now >= waiting.deadline:
                    reason = f"deadline exceeded while waiting for tensors {missing}"
                    code = pb_utils.TritonError.UNAVAILABLE
                else:
                    continue
                slot.waiting.remove(waiting)
                _fail(waiting.sender, f"{self._label}: {reason}", code)
            if now >= slot.expires and not slot.waiting:
                self._release(slot)
                del self._slots[key]


class _Refused(Exception):
    def __init__(self, message, code=None):
        super().__init__(message)
        # Not a default argument: the server fills pb_utils only after it has imported this file.
        self.code = pb_utils.TritonError.INVALID_ARG if code is None else code


def _acknowledge(sender):
    sender.send(
        pb_utils.InferenceResponse([pb_utils.Tensor("ack", np.array([True]))]),
        flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
    )


def _fail(sender, message, code):
    sender.send(
        pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code)),
        flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
    )
