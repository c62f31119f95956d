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
  ordering                     JSON list of inputs that only make this call wait for another step;
                               they are not sent on

A model whose one output is `sent` answers as soon as its message is on the way: what it brings
about is waited for elsewhere, in a mailbox, which it poisons if it fails.

One instance carries any number of calls in flight: `execute` starts them and returns, a thread
of gRPC answers them.
"""

import json
import os
import threading
import time

import grpc
import numpy as np
import triton_python_backend_utils as pb_utils
import wire

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
# How often calls in flight are asked whether their request was cancelled.
_CANCEL_POLL_S = 0.05
_POISON_TIMEOUT_S = 2.0
_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # One TCP connection per proxy, even where two proxies of a process call the same peer.
    ("grpc.use_local_subchannel_pool", 1),
    # A peer that restarts is tried again quickly, not after the default of up to 120 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Retries are a decision of the data plane, not of the channel.
    ("grpc.enable_retries", 0),
]


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
        self._answers_when_sent = self._outputs == ["sent"]
        peers = _peers_of_environment()
        self._channel, self._call = _open(_url(self._server, parameters.get("url"), peers))
        self._poison = [
            (mailbox, *_open(_url(server, url or None, peers)))
            for server, url, mailbox in json.loads(parameters.get("poison", "[]"))
        ]
        self._in_flight = {}
        self._lock = threading.Lock()
        self._work = threading.Event()
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
        self._work.set()
        self._watcher.join(timeout=1)
        self._channel.close()
        for _, channel, _ in self._poison:
            channel.close()

    def _start(self, request, sender):
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        inputs = [(name, arrays[name]) for name in self._inputs if name in arrays]
        outputs = [] if self._answers_when_sent else request.requested_output_names()
        budget_s = min(self._deadline_s, request.timeout() / 1e6 or self._deadline_s)
        message = wire.encode_request(
            self._model_name, inputs, outputs, request.request_id(), int(budget_s * 1e6)
        )
        key = np.array(arrays["key"]) if "key" in arrays else None
        started = time.monotonic()
        future = self._call.future(message, timeout=budget_s)
        if self._answers_when_sent:
            sender.send(
                pb_utils.InferenceResponse([pb_utils.Tensor("sent", np.array([True]))]),
                flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
            )
            future.add_done_callback(lambda done: self._finish_sent(done, key, started))
            return
        with self._lock:
            self._in_flight[future] = request
        self._work.set()
        future.add_done_callback(lambda done: self._finish(done, sender, key, started))

    def _finish_sent(self, future, key, started):
        """The same for a call that was answered when it was sent: only a failure matters."""
        if future.cancelled() or future.exception() is not None:
            self._send_poison(key, self._failure(future, started))

    def _finish(self, future, sender, key, started):
        """Runs in a thread of gRPC when the call has ended, one way or the other."""
        with self._lock:
            self._in_flight.pop(future, None)
        if future.cancelled() or future.exception() is not None:
            message = self._failure(future, started)
            code = (
                pb_utils.TritonError.CANCELLED
                if future.cancelled()
                else _triton_code(future.exception().code())
            )
            _fail(sender, message, code)
            self._send_poison(key, message)
            return
        try:
            tensors = [
                pb_utils.Tensor(name, array)
                for name, array in wire.decode_response(future.result())
            ]
            sender.send(
                pb_utils.InferenceResponse(tensors),
                flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
            )
        except Exception as error:  # without an answer the request would hang for ever
            _fail(sender, f"{self._label}: bad answer: {error}", pb_utils.TritonError.INTERNAL)

    def _failure(self, future, started):
        if future.cancelled():
            return f"{self._label}: cancelled"
        error = future.exception()
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
            call.future(message, timeout=_POISON_TIMEOUT_S)

    def _watch(self):
        """Cancel the calls whose request was cancelled; sleep while none is in flight."""
        while not self._closed:
            self._work.wait()
            with self._lock:
                calls = list(self._in_flight.items())
                if not calls and not self._closed:
                    self._work.clear()
            for future, request in calls:
                if request.is_cancelled():
                    future.cancel()
            time.sleep(_CANCEL_POLL_S)


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
        grpc.StatusCode.UNIMPLEMENTED: pb_utils.TritonError.UNSUPPORTED,
    }.get(code, pb_utils.TritonError.INTERNAL)


def _fail(sender, message, code):
    sender.send(
        pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code)),
        flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
    )


def _peers_of_environment():
    text = os.environ.get("TRITIER_PEERS", "").strip()
    if text and not text.startswith("{"):
        with open(text, encoding="utf-8") as file:
            text = file.read()
    return json.loads(text) if text else {}


def _url(server, configured, peers):
    url = peers.get(server, configured)
    if not url:
        raise ValueError(
            f"no address of server '{server}': give it a url in servers.yaml and deploy again, "
            f"or set TRITIER_PEERS, which names {sorted(peers) or 'no server'}"
        )
    return url


def _open(url):
    """Channel to `url`, connecting already, and its ModelInfer call on serialized messages."""
    channel = grpc.insecure_channel(url, options=_CHANNEL_OPTIONS)
    channel.subscribe(lambda _: None, try_to_connect=True)
    return channel, channel.unary_unary(_METHOD)
