"""Calls one model on another Triton and returns its outputs.

Inputs and outputs of this model have the names, types and shapes of the model that it calls. It
is configured by the parameters of its config.pbtxt:

  server, component, plan_id   who is called and for what; named in every error
  model_name                   the model on the other server
  url                          its gRPC address, unless the environment variable TRITIER_PEERS (a
                               JSON object {server: "host:port"}, or the path of a file with
                               one) names another
  deadline_ms                  the longest that a call may take; the `timeout` of a request
                               (microseconds) shortens it
  poison                       JSON list of [server, url, mailbox model]: mailboxes that wait for
                               what this call produces and must hear of its failure
  name_outputs                 "true" for a model that answers just the outputs that it is asked for
  ordering                     JSON list of inputs that only make this call wait for another step;
                               they are not sent on

A model whose one output is `sent` answers as soon as its message is on the way: what it brings
about is waited for elsewhere, in a mailbox, which it poisons if it fails.

One instance carries any number of calls in flight: `execute` hands them to threads and returns.
"""

import contextlib
import json
import threading
import time

import grpc
import numpy as np
import peers
import triton_python_backend_utils as pb_utils
import wire
from callers import Callers

# How often requests in flight are asked whether they were cancelled, and how long the thread that
# asks goes on without any before it sleeps (waking it up costs the next request some 0.1 ms).
_CANCEL_POLL_S = 0.25
_IDLE_POLLS = 20
_CLOSE_PATIENCE_S = 2.0
_POISON_TIMEOUT_S = 2.0


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {k: v["string_value"] for k, v in config["parameters"].items()}
        self._server = parameters["server"]
        self._model_name = parameters["model_name"]
        self._label = (
            f"server '{self._server}', component {parameters['component']}, "
            f"plan {parameters['plan_id']}"
        )
        self._deadline_s = int(parameters["deadline_ms"]) / 1000
        ordering = json.loads(parameters.get("ordering", "[]"))
        self._inputs = [t["name"] for t in config["input"] if t["name"] not in ordering]
        self._outputs = [t["name"] for t in config["output"]]
        self._names_outputs = parameters.get("name_outputs") == "true"
        self._answers_when_sent = self._outputs == ["sent"]
        known = peers.peers_of_environment()
        url = peers.url_of(self._server, parameters.get("url"), known)
        self._channel, self._call = peers.open_channel(url)
        self._poison = [
            (mailbox, *peers.open_channel(peers.url_of(server, url or None, known)))
            for server, url, mailbox in json.loads(parameters.get("poison", "[]"))
        ]
        peers.keep_freed_memory()
        self._callers = Callers()
        self._in_flight = set()
        self._lock = threading.Lock()
        self._watcher_sleeps = False
        self._wake_watcher = threading.Event()
        self._closed = False
        self._watcher = threading.Thread(target=self._watch, name="cancel", daemon=True)
        self._watcher.start()

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._start(request, sender)
            except Exception as error:  # one bad request must not take the others with it
                _fail(sender, f"{self._label}: {error}", pb_utils.TritonError.INTERNAL)

    def finalize(self):
        self._closed = True
        self._wake_watcher.set()
        self._watcher.join(timeout=_CLOSE_PATIENCE_S)
        self._callers.close(_CLOSE_PATIENCE_S)
        self._channel.close()
        for _, channel, _ in self._poison:
            channel.close()

    def _start(self, request, sender):
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        inputs = [(name, arrays[name]) for name in self._inputs if name in arrays]
        budget_s = min(self._deadline_s, request.timeout() / 1e6 or self._deadline_s)
        # As a rule no outputs are named, which asks for all: Triton leaves out the steps of an
        # ensemble whose outputs nobody wants, and the puts of a stage have only acknowledgements.
        outputs = request.requested_output_names() if self._names_outputs else []
        message = wire.encode_request(
            self._model_name, inputs, outputs, request.request_id(), int(budget_s * 1e6)
        )
        key = np.array(arrays["key"]) if "key" in arrays else None
        # Sending starts here, so that it goes on while the other thread wakes up.
        call = self._call(message, timeout=budget_s)
        if self._answers_when_sent:
            _send(sender, [pb_utils.Tensor("sent", np.array([True]))])
            self._callers.start(self._await_unanswered, call, key)
        else:
            self._callers.start(self._await, request, sender, call, key)

    def _await(self, request, sender, call, key):
        started = time.monotonic()
        watched = self._watch_over(call, request)
        try:
            data = next(call)
            watched.end()
            arrays = wire.decode_response(data)
            _send(sender, [pb_utils.Tensor(n, a) for n, a in arrays if n in self._outputs])
        except grpc.RpcError as error:
            watched.end()
            text = self._failure(error, started)
            _fail(sender, text, _triton_code(error.code()))
            self._send_poison(key, text)
        except Exception as error:  # without an answer the request would hang for ever
            watched.end()
            text = f"{self._label}: bad answer: {error!r}"
            _fail(sender, text, pb_utils.TritonError.INTERNAL)
            self._send_poison(key, text)
        finally:
            with self._lock:
                self._in_flight.discard(watched)
            _drain(call)

    def _await_unanswered(self, call, key):
        """A call that was answered when it was sent: only its failure matters."""
        started = time.monotonic()
        try:
            next(call)
        except grpc.RpcError as error:
            self._send_poison(key, self._failure(error, started))
        except Exception as error:  # no answer at all
            self._send_poison(key, f"{self._label}: bad answer: {error!r}")
        finally:
            _drain(call)

    def _failure(self, error, started):
        elapsed_ms = (time.monotonic() - started) * 1000
        return (
            f"{self._label}, attempt 1: {error.code().name} after {elapsed_ms:.0f} ms: "
            f"{error.details()}"
        )

    def _send_poison(self, key, reason):
        if key is None:
            return
        text = np.array([reason.encode()], dtype=np.object_)
        for mailbox, _, call in self._poison:
            message = wire.encode_request(mailbox, [("key", key), ("poison", text)], ["ack"])
            _drain(call(message, timeout=_POISON_TIMEOUT_S))

    def _watch_over(self, call, request):
        watched = _Watched(call, request)
        with self._lock:
            self._in_flight.add(watched)
        if self._watcher_sleeps:
            self._wake_watcher.set()
        return watched

    def _watch(self):
        """Cancel the calls whose request was cancelled."""
        idle_polls = 0
        while not self._closed:
            time.sleep(_CANCEL_POLL_S)
            with self._lock:
                calls = list(self._in_flight)
            for call in calls:
                call.cancel_if_asked()
            idle_polls = 0 if calls else idle_polls + 1
            if idle_polls > _IDLE_POLLS:
                self._watcher_sleeps = True
                with self._lock:  # a call that came before the line above wakes nobody
                    empty = not self._in_flight
                if empty:
                    self._wake_watcher.wait()
                self._wake_watcher.clear()
                self._watcher_sleeps = False
                idle_polls = 0


class _Watched:
    """A call in flight and the request that it serves.

    Asking an answered request whether it was cancelled crashes the server (Triton 2.51), hence the
    lock: a call ends here before its request is answered.
    """

    def __init__(self, call, request):
        self._call = call
        self._request = request
        self._lock = threading.Lock()

    def end(self):
        with self._lock:
            self._request = None

    def cancel_if_asked(self):
        with self._lock:
            if self._request is not None and self._request.is_cancelled():
                self._call.cancel()


def _triton_code(code):
    """The error code of Triton nearest to one of gRPC.

    Triton has none for a deadline or for overload; UNAVAILABLE is the one that clients may retry.
    """
    return {
        grpc.StatusCode.INVALID_ARGUMENT: pb_utils.TritonError.INVALID_ARG,
        grpc.StatusCode.NOT_FOUND: pb_utils.TritonError.NOT_FOUND,
        grpc.StatusCode.UNAVAILABLE: pb_utils.TritonError.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED: pb_utils.TritonError.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED: pb_utils.TritonError.UNAVAILABLE,
        grpc.StatusCode.CANCELLED: pb_utils.TritonError.CANCELLED,
        grpc.StatusCode.UNIMPLEMENTED: pb_utils.TritonError.UNSUPPORTED,
    }.get(code, pb_utils.TritonError.INTERNAL)


def _send(sender, tensors):
    sender.send(
        pb_utils.InferenceResponse(tensors),
        flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
    )


def _drain(call):
    """Read a call to its end, so that gRPC can forget it; what happened is known already."""
    with contextlib.suppress(grpc.RpcError):
        for _ in call:
            pass


def _fail(sender, message, code):
    sender.send(
        pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code)),
        flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
    )
