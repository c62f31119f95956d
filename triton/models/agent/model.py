"""Measures where it runs: the host, links to other servers, and models that it is given.

Input `order` (BYTES) holds one JSON object, input `payload` (UINT8, optional) an ONNX model or the
bytes of a message; output `answer` (BYTES) holds JSON, output `data` (UINT8) a graph. Orders, by
their `op` (all keys are in orders.py):

  facts     the host, its memory, processors and power
  take      answers how many bytes the payload has
  ping      times of empty calls to another server, answered by Triton itself
  probe     times of messages to the agent of another server, over the path of the data plane
  measure   runs an ONNX model in a process of its own: times, kernels, memory, energy
  serve     runs a model that this server has loaded, from inside, and takes the time

Parameters of its config.pbtxt: `peers` (JSON {server: "host:port"}; TRITIER_PEERS goes before it),
`max_payload_bytes`, `time_limit_s`. It connects to those peers only, writes nowhere but in a
temporary folder, ends what it starts after the time limit or when the request is cancelled, and
does not load where the environment says TRITIER_AGENT=off.
"""

import json
import os
import threading
import time

import arrays
import facts
import grpc
import numpy as np
import orders
import peers
import probe
import triton_python_backend_utils as pb_utils
import work
from callers import Callers

_CLOSE_PATIENCE_S = 5.0
_CANCEL_POLL_S = 0.25
# A status of gRPC holds some kB, and each byte that is not ASCII takes three there.
_MAX_ERROR_BYTES = 2000
_OFF = ("off", "0", "false", "no")


class TritonPythonModel:
    def initialize(self, args):
        if os.environ.get("TRITIER_AGENT", "").strip().lower() in _OFF:
            raise ValueError("the agent is switched off on this server (TRITIER_AGENT)")
        config = json.loads(args["model_config"])
        parameters = {k: v["string_value"] for k, v in config["parameters"].items()}
        configured = peers.read_peers(parameters["peers"], "parameter peers")
        self._urls = {**configured, **peers.peers_of_environment()}
        self._limits = orders.Limits(
            int(parameters["max_payload_bytes"]), float(parameters["time_limit_s"]), self._urls
        )
        self._name = config["name"]
        self._peers = {}  # used by who holds the lock
        self._one_at_a_time = threading.Lock()  # measurements would disturb each other
        self._closing = threading.Event()
        self._callers = Callers()
        peers.keep_freed_memory()
        work.remove_leftovers()

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._start(request, sender)
            except Exception as error:  # one bad request must not take the others with it
                _send(sender, _failure(error))

    def finalize(self):
        self._closing.set()
        self._callers.close(_CLOSE_PATIENCE_S)
        for peer in self._peers.values():
            peer.close()

    def _start(self, request, sender):
        order = orders.parse_order(_text_of(request), self._limits)
        payload = pb_utils.get_input_tensor_by_name(request, "payload")
        array = None if payload is None else payload.as_numpy()
        orders.check_payload(order, None if array is None else array.nbytes, self._limits)
        if order["op"] == "take":  # at once: its time is what a probe measures
            _send(sender, _response({"bytes": array.nbytes}))
        else:
            self._callers.start(self._carry_out, order, array, request, sender)

    def _carry_out(self, order, array, request, sender):
        alone = order["op"] != "facts"
        if alone and not self._one_at_a_time.acquire(blocking=False):
            busy = orders.Refused("busy: another measurement runs on this server")
            _send(sender, _failure(busy))
            return
        try:
            answer, data = self._do(order, array, _Stop(request, self._closing))
            response = _response(answer, data)
        except Exception as error:  # without an answer the request would hang for ever
            response = _failure(error)
        finally:
            if alone:
                self._one_at_a_time.release()
        _send(sender, response)

    def _do(self, order, array, is_stopped):
        if order["op"] == "facts":
            host = facts.host_facts()
            return {"host": host, "power": facts.read_power(order["power_s"]),
                    "clock_s": time.time()}, b""  # fmt: skip
        if order["op"] == "measure":
            return work.run_worker(order, array, is_stopped)
        if order["op"] == "serve":
            return {"runs_ns": self._serve(order, is_stopped)}, b""
        try:
            return self._call_peer(order, is_stopped), b""
        except grpc.RpcError as error:
            raise orders.PeerFailed(
                f"{order['op']}: server '{order['server']}' at {self._urls[order['server']]}: "
                f"{error.code().name}: {error.details()}"
            ) from None

    def _call_peer(self, order, is_stopped):
        server, limit_s = order["server"], order["limit_s"]
        if server not in self._peers:
            self._peers[server] = probe.Peer(self._urls[server])
        peer = self._peers[server]
        if order["op"] == "ping":
            return {"runs_ns": peer.ping_ns(order["repeats"], limit_s, is_stopped)}
        in_flight, idle_s = order["in_flight"], order["idle_s"]
        return {"messages": peer.send_ns(order["bytes"], in_flight, idle_s, limit_s, is_stopped)}

    def _serve(self, order, is_stopped):
        """Times (ns) of requests to a model of this server."""
        if order["model"] == self._name:
            raise orders.Refused("serve: the agent does not call itself")
        inputs = [
            pb_utils.Tensor(name, arrays.array_of(item)) for name, item in order["inputs"].items()
        ]
        deadline, times = time.monotonic() + order["limit_s"], []
        for _ in range(order["runs"]):
            if time.monotonic() > deadline:
                raise orders.Refused(f"serve: the time limit of {order['limit_s']} s is over")
            if is_stopped():
                raise orders.Refused(probe.STOPPED)
            request = pb_utils.InferenceRequest(
                model_name=order["model"], requested_output_names=order["outputs"], inputs=inputs
            )
            started = time.perf_counter_ns()
            response = request.exec()
            times.append(time.perf_counter_ns() - started)
            if response.has_error():
                raise orders.Refused(f"serve: {response.error().message()}")
        return times


class _Stop:
    """Tells, when it is called, whether an order is to be given up.

    Only the thread that carries the order out calls it, hence never after the answer: asking an
    answered request whether it was cancelled crashes the server (Triton 2.51).
    """

    def __init__(self, request, closing):
        self._request = request
        self._closing = closing
        self._cancelled = False
        # Asking is a round trip to the server; short orders never ask.
        self._next_poll = time.monotonic() + _CANCEL_POLL_S

    def __call__(self):
        now = time.monotonic()
        if not self._cancelled and now >= self._next_poll:
            self._next_poll = now + _CANCEL_POLL_S
            self._cancelled = self._request.is_cancelled()
        return self._cancelled or self._closing.is_set()


def _text_of(request):
    order = pb_utils.get_input_tensor_by_name(request, "order").as_numpy()
    if order.size != 1:
        raise orders.Refused(f"one order at a time, not {order.size}")
    return bytes(order.reshape(-1)[0])


def _response(answer, data=b""):
    text = np.array([json.dumps(answer).encode()], dtype=np.object_)
    tensors = [
        pb_utils.Tensor("answer", text),
        pb_utils.Tensor("data", np.frombuffer(data, np.uint8)),
    ]
    return pb_utils.InferenceResponse(tensors)


def _failure(error):
    """What was refused is the caller's fault, a peer's failure nobody's, all else the agent's."""
    text, code = f"agent: {error}", pb_utils.TritonError.INTERNAL
    if isinstance(error, orders.Refused):
        code = pb_utils.TritonError.INVALID_ARG
    elif isinstance(error, orders.PeerFailed):
        code = pb_utils.TritonError.UNAVAILABLE
    else:
        text = f"agent: {error!r}"
    # Half of a surrogate pair is no text that could be sent.
    shown = text.encode("utf-8", "backslashreplace")[:_MAX_ERROR_BYTES].decode(errors="ignore")
    return pb_utils.InferenceResponse(
        output_tensors=[], error=pb_utils.TritonError(shown.replace("\0", " "), code)
    )


def _send(sender, response):
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
