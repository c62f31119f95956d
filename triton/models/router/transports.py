"""How a plan's entry model is called: by BLS, or over gRPC on this server's own address.

BLS is quicker (its tensors are not copied), but a BLS call can't be ended, Triton carries only 32
of them at a time together with the answers of this model, and one that waits for a killed stub
never returns. So no more than `bls_calls` are made at once, and only to plans whose last call was
answered; all others go over gRPC, where any number can wait and each ends with its deadline.
"""

import contextlib
import time

import grpc
import wire
from failures import CANCELLED, REJECTED, SUBSET, Failure, classify
from flight import Answer

# An attempt ends with its time; gRPC ends it a little later, if nobody has done it before.
_GRACE_S = 0.05


class Payload:
    """What a request carries; its tensors stay valid as long as this lives."""

    def __init__(self, request_id, tensors, outputs, handed_down):
        self.request_id = request_id
        self.tensors = tensors
        self.outputs = outputs
        self.handed_down = handed_down


class Transports:
    """Calls plans. `pb_utils` and the channel's ModelInfer call are handed in; so are the slots."""

    def __init__(self, pb_utils, own_call, all_outputs, slots, health):
        self._pb_utils = pb_utils
        self._own_call = own_call
        self._all_outputs = all_outputs
        self._slots = slots
        self._health = health
        self._needs_all = set()

    def call(self, attempt, payload):
        """An Answer or a Failure; blocks."""
        outputs = self._outputs(attempt.plan.id, payload.outputs)
        outcome = self._call(attempt, payload, outputs)
        if isinstance(outcome, Failure) and outcome.kind == SUBSET:
            # A fault of Triton: some subsets of an ensemble's outputs can't be asked for.
            self._needs_all.add((attempt.plan.id, frozenset(payload.outputs)))
            outcome = self._call(attempt, payload, self._all_outputs)
        return outcome

    def _call(self, attempt, payload, outputs):
        remaining_s = attempt.deadline - time.monotonic()
        if remaining_s <= 0 or attempt.is_stopped:
            return Failure(CANCELLED, "its time was up before anything was sent")
        parameters = {
            **payload.handed_down,
            "tritier_deadline_ns": str(int(attempt.deadline * 1e9)),
            "tritier_attempt": attempt.number,
        }
        if attempt.span.traceparent:
            parameters["traceparent"] = attempt.span.traceparent
        by_bls = self._own_call is None or self._health.is_trusted(attempt.plan.id)
        if by_bls and self._slots.take():
            try:
                return self._by_bls(attempt, payload, outputs, parameters, remaining_s)
            finally:
                self._slots.give()
        if self._own_call is None:
            return Failure(
                REJECTED,
                "all calls that this server can carry are taken: give the entry a url in "
                "servers.yaml, so that more can go over gRPC",
            )
        return self._by_grpc(attempt, payload, outputs, parameters, remaining_s)

    def _outputs(self, plan_id, asked):
        is_known = (plan_id, frozenset(asked)) in self._needs_all
        return self._all_outputs if is_known or not asked else asked

    def _by_bls(self, attempt, payload, outputs, parameters, remaining_s):
        try:
            request = self._pb_utils.InferenceRequest(
                model_name=attempt.plan.model,
                requested_output_names=outputs,
                inputs=payload.tensors,
                request_id=payload.request_id,
                timeout=int(remaining_s * 1e6),
                parameters=parameters,
            )
            attempt.stops_by(getattr(request, "cancel", None))  # newer versions of Triton have it
            response = request.exec()
            if not response.has_error():
                return Answer(response.output_tensors())
            error = response.error()
            return classify(_code_name(error), error.message())
        except Exception as error:  # the router is being unloaded, or shared memory is full
            return classify("INTERNAL", f"BLS: {error}")

    def _by_grpc(self, attempt, payload, outputs, parameters, remaining_s):
        try:
            inputs = [(tensor.name(), tensor.as_numpy()) for tensor in payload.tensors]
            message = wire.encode_request(
                attempt.plan.model,
                inputs,
                outputs,
                payload.request_id,
                int(remaining_s * 1e6),
                parameters,
            )
            return self._send(attempt, message, remaining_s)
        except Exception as error:  # without an outcome the request would hang for ever
            return Failure("INTERNAL", f"plan {attempt.plan.id}: {error!r}")

    def _send(self, attempt, message, remaining_s):
        call = self._own_call(message, timeout=remaining_s + _GRACE_S)
        attempt.stops_by(call.cancel)
        try:
            arrays = wire.decode_response(next(call))
            return Answer([self._pb_utils.Tensor(name, array) for name, array in arrays])
        except grpc.RpcError as error:
            return classify(error.code().name, error.details() or "")
        finally:
            with contextlib.suppress(grpc.RpcError):
                for _ in call:
                    pass


def _code_name(error):
    """Name of a TritonError's code, such as UNAVAILABLE."""
    return str(error.code()).rpartition(".")[2]
