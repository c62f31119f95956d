"""Calls one model on another Triton and returns its outputs.

Inputs and outputs of this model have the names, types and shapes of the model that it calls. It
is configured by the parameters of its config.pbtxt:

  server, component, plan_id   who is called and for what; named in every error
  on                           the server on which this model is
  model_name                   the model on the other server
  url                          its gRPC address, unless the environment variable TRITIER_PEERS (a
                               JSON object {server: "host:port"}, or the path of a file with
                               one) names another
  deadline_ms                  the longest that a call may take; what is left of the request's own
                               budget shortens it (see context.py)
  max_in_flight                how many calls may be in flight, 256 by default; more are refused
  poison                       JSON list of [server, url, mailbox model]: mailboxes that wait for
                               what this call produces and must hear of its failure
  name_outputs                 "true" for a model that answers just the outputs that it is asked for
  ordering                     JSON list of inputs that only make this call wait for another step;
                               they are not sent on

A model whose one output is `sent` answers as soon as its message is on the way: what it brings
about is waited for elsewhere, in a mailbox, which it poisons if it fails.

One instance carries any number of calls in flight: `execute` hands them to threads and returns.
"""

import json
import time

import answers
import grpc
import numpy as np
import peers
import telemetry
import triton_python_backend_utils as pb_utils
import wire
from callers import Callers
from context import Context
from in_flight import InFlight
from peer import Peer
from poison import Poison
from report import Report
from withdrawal import Listener

_MAX_IN_FLIGHT = 256
_CLOSE_PATIENCE_S = 2.0
# Asking the server whether a request was cancelled takes some 0.1 ms: it is done before a call only
# where calls take so long that this does not matter, and before each put of a stage. The steps of
# an ensemble go on when it is cancelled, and what a late component made must not cross a link.
_WORTH_ASKING_MS = 20.0
# The server's library still uses a request for a moment after it said that this is cancelled (see
# in_flight.py). Nobody waits for its answer.
_AFTER_CANCELLED_S = 0.002


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {k: v["string_value"] for k, v in config["parameters"].items()}
        self._configure(config, parameters)
        known = peers.peers_of_environment()
        url = peers.url_of(parameters["server"], parameters.get("url"), known)
        self._peer = Peer(url)
        self._poison = Poison(json.loads(parameters.get("poison", "[]")), known)
        peers.keep_freed_memory()
        self._report = Report(parameters, args["model_name"])
        self._callers = Callers()
        self._in_flight = InFlight(int(parameters.get("max_in_flight", _MAX_IN_FLIGHT)))
        self._withdrawn = Listener(
            parameters.get("on", ""), parameters["plan_id"], self._in_flight.cancel
        )

    def _configure(self, config, parameters):
        self._model_name = parameters["model_name"]
        self._label = (
            f"server '{parameters['server']}', component {parameters['component']}, "
            f"plan {parameters['plan_id']}"
        )
        self._deadline_s = int(parameters["deadline_ms"]) / 1000
        ordering = json.loads(parameters.get("ordering", "[]"))
        self._inputs = [t["name"] for t in config["input"] if t["name"] not in ordering]
        self._outputs = [t["name"] for t in config["output"]]
        self._names_outputs = parameters.get("name_outputs") == "true"
        self._answers_when_sent = self._outputs == ["sent"]
        self._ends_a_stage = self._outputs == ["ack"]
        self._typical_ms = 0.0

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._start(request, sender)
            except ValueError as error:
                code = pb_utils.TritonError.INVALID_ARG
                answers.fail_if_unanswered(sender, f"{self._label}: {error}", code)
            except Exception as error:  # one bad request must not take the others with it
                code = pb_utils.TritonError.INTERNAL
                answers.fail_if_unanswered(sender, f"{self._label}: {error}", code)

    def finalize(self):
        # A thread that is in a call of pb_utils when this process ends can bring the server down:
        # all must have ended before. All requests are answered, so that calls may be cancelled.
        self._withdrawn.close()
        self._in_flight.close()
        if not self._callers.close(_CLOSE_PATIENCE_S):
            self._in_flight.cancel_all()
            self._peer.close()
            self._poison.close()
            self._callers.close(_CLOSE_PATIENCE_S)
        self._peer.close()
        self._poison.close()
        telemetry.close()

    def _start(self, request, sender):
        context = Context(request, self._deadline_s)
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        key = np.array(arrays["key"]) if "key" in arrays else None
        record = self._report.start(context)
        if not self._in_flight.admit():
            text = f"{self._in_flight.limit} calls are in flight and no more are allowed"
            self._refuse(sender, record, key, "RESOURCE_EXHAUSTED", text)
            return
        try:
            admitted = self._send(request, sender, context, record, arrays, key)
        except BaseException:
            self._in_flight.release()
            raise
        if not admitted:
            self._in_flight.release()

    def _send(self, request, sender, context, record, arrays, key):
        """Whether the call is on its way; if it must not be, the request is answered."""
        left_s = context.left_s()
        if left_s <= 0:
            text = f"deadline exceeded {-left_s * 1000:.0f} ms before the call"
            self._refuse(sender, record, key, "DEADLINE_EXCEEDED", text)
            return False
        asks = self._ends_a_stage or self._typical_ms > _WORTH_ASKING_MS
        if asks and request.is_cancelled():
            time.sleep(_AFTER_CANCELLED_S)
            self._refuse(sender, record, key, "CANCELLED", "cancelled before the call")
            return False
        inputs = [(name, arrays[name]) for name in self._inputs if name in arrays]
        # As a rule no outputs are named, which asks for all: Triton leaves out the steps of an
        # ensemble whose outputs nobody wants, and the puts of a stage have only acknowledgements.
        outputs = request.requested_output_names() if self._names_outputs else []
        message = wire.encode_request(
            self._model_name,
            inputs,
            outputs,
            request.request_id(),
            _microseconds(left_s),
            context.onwards(record.span.traceparent),
        )
        record.bytes_out = len(message)
        # Sending starts here, so that it goes on while the other thread wakes up.
        is_ready = self._peer.is_ready
        call = self._peer.call(message, left_s, context.traceparent and record.span.traceparent)
        awaited = None if self._answers_when_sent else request
        watched = self._in_flight.add(call, awaited, context.request)
        if self._answers_when_sent:
            answers.send_flag(sender, "sent")
            sender = None
        # A message that may have to be sent once more is kept, where one cannot be sent just now.
        again = None if is_ready else message
        try:
            self._callers.start(self._await, sender, watched, record, key, again)
        except BaseException:  # no thread to be had
            self._in_flight.remove(watched)
            watched.cancel()
            raise
        return True

    def _await(self, sender, watched, record, key, message):
        """Answer the request when its call is answered; no `sender`: that is done already."""
        data, text = None, None
        try:
            data = self._exchange(watched, record, message)
            record.bytes_in = len(data)
            arrays = wire.decode_response(data)
            self._in_flight.remove(watched)
            if sender is not None:
                answers.send(
                    sender, [pb_utils.Tensor(n, a) for n, a in arrays if n in self._outputs]
                )
            status = "OK"
        except grpc.RpcError as error:
            self._in_flight.remove(watched)
            status, text = error.code().name, self._failure(error, record)
            if sender is not None:
                answers.fail_if_unanswered(sender, text, _triton_code(error.code()))
        except Exception as error:  # without an answer the request would hang for ever
            self._in_flight.remove(watched)
            status, text = "INTERNAL", f"{self._label}: bad answer: {error!r}"
            if sender is not None:
                answers.fail_if_unanswered(sender, text, pb_utils.TritonError.INTERNAL)
        try:
            self._typical_ms += (record.elapsed_ms() - self._typical_ms) / 8
            if text is not None:
                self._poison.send(key, text)
            peers.drain(watched.call)
        finally:
            self._in_flight.release()
            self._report.ended(record, status, text, self._in_flight.count)

    def _exchange(self, watched, record, message):
        """The bytes of the answer; raises grpc.RpcError. What was not sent is sent once more."""
        try:
            return next(watched.call)
        except grpc.RpcError as error:
            left_s = record.context.left_s()
            if message is None or watched.is_cancelled or not self._peer.is_back(error, left_s):
                raise
            left_s = record.context.left_s()
            if left_s <= 0:
                raise
        record.tries += 1
        self._report.retried()
        peers.drain(watched.call)
        watched.replace(
            self._peer.call(
                wire.with_timeout(message, _microseconds(left_s)),
                left_s,
                record.context.traceparent and record.span.traceparent,
            )
        )
        return next(watched.call)

    def _refuse(self, sender, record, key, status, text):
        """A call that is not made: those who wait for what it would bring hear of it."""
        reason = f"{self._label}, attempt {record.context.attempt}: {text}; nothing was sent"
        code = _triton_code(getattr(grpc.StatusCode, status))
        answers.fail_if_unanswered(sender, reason, code)
        self._report.ended(record, status, reason, self._in_flight.count)
        if key is not None and self._poison.begin():
            self._callers.start(self._poison.send_begun, key, reason)

    def _failure(self, error, record):
        tries = f", tried {record.tries} times" if record.tries > 1 else ""
        return (
            f"{self._label}, attempt {record.context.attempt}{tries}: {error.code().name} after "
            f"{record.elapsed_ms():.0f} ms: {error.details()}"
        )


def _microseconds(left_s):
    """For `timeout`, where 0 would mean that there is no limit."""
    return max(1, int(left_s * 1e6))


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
