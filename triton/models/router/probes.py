"""Asks servers and plans whether they work, before an app has to find out.

Every interval: is each server of the plans ready, is each plan's entry model, and, for plans that
are out or were not used of late, one synthetic inference (zeros) over gRPC on this server's own
address.
"""

import threading
import time
import traceback
from math import prod

import grpc
import numpy as np
import wire
from checks import DTYPES
from failures import INVALID, SUBSET, Failure, classify
from tritonclient.grpc import service_pb2

_SERVICE = "/inference.GRPCInferenceService/"
# A plan in use that answered nobody for so many intervals gets a synthetic inference.
_IDLE_INTERVALS = 10
_LEAST_PAUSE_S = 0.05


def zeros(config, probe_dims):
    """[(name, zeros)] for the inputs of a model, None if they can't be made (texts, bfloat16).

    Dimensions that are not fixed are 1, unless `probe_dims` ({input: [sizes]}) says otherwise.
    """
    batch = [1] if int(config.get("max_batch_size") or 0) else []
    arrays = []
    for item in config["input"]:
        if item.get("optional"):
            continue
        dtype = DTYPES.get(item["data_type"])
        if dtype is None:
            return None
        sizes = probe_dims.get(item["name"]) or [max(1, int(size)) for size in item["dims"]]
        shape = [*batch, *sizes] if len(sizes) == len(item["dims"]) else sizes
        if prod(shape) > 2**28:
            return None
        arrays.append((item["name"], np.zeros(shape, dtype)))
    return arrays


def ready_call(channel):
    """ServerReady on a channel; `.future(request, timeout=)`."""
    return channel.unary_unary(
        f"{_SERVICE}ServerReady",
        request_serializer=service_pb2.ServerReadyRequest.SerializeToString,
        response_deserializer=service_pb2.ServerReadyResponse.FromString,
    )


def model_ready_call(channel):
    """ModelReady on a channel. Not Triton's own is_model_ready: a thread that is in there while the
    model is unloaded brings the server down (Triton 24.10)."""
    return channel.unary_unary(
        f"{_SERVICE}ModelReady",
        request_serializer=service_pb2.ModelReadyRequest.SerializeToString,
        response_deserializer=service_pb2.ModelReadyResponse.FromString,
    )


class Prober:
    """A thread that probes.

    `ready_calls`: server -> its ServerReady call. `model_ready` and `own_call` are ModelReady and
    ModelInfer of this server itself, None where its address is not known.
    """

    def __init__(self, table, health, ready_calls, model_ready, own_call, inputs, start):
        self._table = table
        self._health = health
        self._ready_calls = ready_calls
        self._model_ready = model_ready
        self._own_call = own_call
        self._inputs = inputs
        self._start = start
        self._probing = set()
        self._stopped = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probes", daemon=True)

    def begin(self):
        """Start; after this the models may be asked."""
        self._thread.start()

    def connection_changed(self, state):
        """A connection to a server broke: ask now, not when the interval is over."""
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            self._wake.set()

    def close(self, patience_s):
        """End the thread; a probe that is on its way ends with its deadline."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=patience_s)

    def _run(self):
        while True:
            started = time.monotonic()
            self._wake.clear()
            if self._stopped:  # looked at after the word of it is cleared
                return
            try:
                self.round()
            except Exception:  # the next round may do better
                traceback.print_exc()
            left_s = self._table.probe_interval_s - (time.monotonic() - started)
            self._wake.wait(max(_LEAST_PAUSE_S, left_s))
            if not self._stopped:
                time.sleep(_LEAST_PAUSE_S)

    def round(self):
        """Ask all servers at once, then look at each plan."""
        asked = time.monotonic()
        lost, late = self._ask_servers()
        now = time.monotonic()
        for plan in self._table.plans.values():
            reasons = [lost[server] for server in plan.servers if server in lost]
            if not self._health.answered_since(plan.id, asked):
                # Else the server is busy, or its link is: the plan works.
                reasons += [late[server] for server in plan.servers if server in late]
            if not reasons and self._is_unloaded(plan.model):
                reasons = [f"model {plan.model} is not ready on the entry"]
            if reasons:
                self._health.server_lost(plan.id, reasons[0], now)
                continue
            self._health.servers_ready(plan.id, now)
            # What runs on the entry alone is not asked for nothing: it would take its time.
            alone = set(plan.servers) <= {self._table.entry}
            idle_s = None if alone else _IDLE_INTERVALS * self._table.probe_interval_s
            if plan.id not in self._probing and self._health.probe_due(plan.id, now, idle_s):
                self._health.probe_sent(plan.id, now)
                self._begin_probe(plan)

    def _begin_probe(self, plan):
        self._probing.add(plan.id)
        try:
            self._start(self._probe, plan)
        except BaseException:  # no thread to be had: the next round tries again
            self._probing.discard(plan.id)
            raise

    def _ask_servers(self):
        """({server: why it does not answer}, the same for those that did not answer in time)."""
        timeout_s = self._table.probe_interval_s
        futures = {
            server: call.future(service_pb2.ServerReadyRequest(), timeout=timeout_s)
            for server, call in self._ready_calls.items()
        }
        lost, late = {}, {}
        for server, future in futures.items():
            text = f"server '{server}' is not ready"
            try:
                # Any answer will do: Triton calls itself not ready while a model is loaded or
                # unloaded beside the plans, as in every switch; without its models it is "ready".
                future.result()
            except grpc.RpcError as error:
                is_late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                (late if is_late else lost)[server] = f"{text}: {error.code().name}"
        return lost, late

    def _is_unloaded(self, model):
        if self._model_ready is None:
            return False
        request = service_pb2.ModelReadyRequest(name=model)
        try:
            return not self._model_ready(request, timeout=self._table.probe_interval_s).ready
        except grpc.RpcError:  # this server is busy, or ends
            return False

    def _probe(self, plan):
        try:
            outcome = self._infer(plan)
        finally:
            self._probing.discard(plan.id)
        now = time.monotonic()
        if outcome is None:
            self._health.succeeded(plan.id, now)
        elif outcome.kind in (INVALID, SUBSET):
            self._health.probe_refused(plan.id, now)
        else:
            self._health.probe_failed(plan.id, outcome.text, now)

    def _infer(self, plan):
        """None if zeros were answered."""
        if self._inputs is None or self._own_call is None:
            return Failure(INVALID, "no synthetic request can be made for this model")
        deadline_s = self._table.deadline_s
        parameters = {
            "tritier_probe": "1",
            "tritier_deadline_ns": str(int((time.monotonic() + deadline_s) * 1e9)),
        }
        try:
            message = wire.encode_request(
                plan.model, self._inputs, [], "", int(deadline_s * 1e6), parameters
            )
            call = self._own_call(message, timeout=deadline_s)
            for _ in call:
                pass
        except grpc.RpcError as error:
            return classify(error.code().name, error.details() or "")
        except Exception as error:
            return Failure("INTERNAL", repr(error))
        return None
