"""The model that apps call when it has several plans: sends each request to one that can answer it.

A request names its class (parameter `class`); the class has a list of plans, the best first. The
router asks the first that is healthy and quick enough, and another if that one fails, before the
deadline passes. It is configured by the parameters of its config.pbtxt, see table.py, and described
in docs/router.md.

One instance carries any number of requests in flight, up to its bound: `execute` hands them to
threads and returns.
"""

import contextlib
import json
import os
import time

import peers
import telemetry
import triton_python_backend_utils as pb_utils
from budget import Admission, Slots, Tokens
from callers import Callers
from checks import Checker, Refused
from choice import Chooser
from failures import CANCELLED, INVALID, REJECTED
from flight import Answer, Flight
from health import Health
from latency import Latencies
from numbers_kept import Numbers
from pace import Pace
from probes import Prober, model_ready_call, ready_call, zeros
from table import read_table
from transports import Payload, Transports
from watch import Watch
from withdrawal import withdraw

_CLOSE_PATIENCE_S = 2.0
_POLL_S = 0.02


class TritonPythonModel:
    """What all requests share; flights call it `router`."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {k: v["string_value"] for k, v in config["parameters"].items()}
        self._table = table = read_table(parameters)
        self._name = args["model_name"]
        peers.keep_freed_memory()
        self._log = telemetry.Log(server=table.entry, model=self._name, family=table.family_id)
        self._tracer = telemetry.Tracer(table.entry)
        self._numbers = Numbers(self._name, table)
        self._outputs = [item["name"] for item in config["output"]]
        self._checker = Checker(config, table)
        self._latencies = {plan: Latencies() for plan in table.plans}
        self._admission = Admission()
        self._pace = Pace()
        # Of a class that may take less, less may wait, too.
        self._most_in_flight = max(item.most_in_flight for item in table.classes.values())
        self._slots = Slots(table.bls_calls)
        self.tokens = Tokens(table.retry_share)
        self.health = Health(
            table.plans, table.eject_after, table.probe_interval_s, self._plan_changed
        )
        self._chooser = Chooser(table.plans, self.health, self._latencies)
        self._has_parameters = "parameters" in (pb_utils.InferenceResponse.__init__.__doc__ or "")
        self._callers = Callers()
        self.watch = Watch()
        self._open(config)
        telemetry.begin()

    def _open(self, config):
        """Channels to this server itself and to those of the plans, and the probes."""
        table = self._table
        known = peers.peers_of_environment()
        self._channels, ready_calls, own_call, model_ready = [], {}, None, None
        own_url = known.get(table.entry, table.urls.get(table.entry))
        types = {item["data_type"] for item in (*config["input"], *config["output"])}
        if own_url:
            channel, own_call = peers.open_channel(own_url)
            self._channels.append(channel)
            model_ready = model_ready_call(channel)
            if types & {"TYPE_STRING", "TYPE_BF16"}:  # wire.py does not read these
                own_call = None
        self._prober = Prober(
            table,
            self.health,
            ready_calls,
            model_ready,
            own_call,
            zeros(config, table.probe_dims),
            self._callers.start,
        )
        for server in {server for plan in table.plans.values() for server in plan.servers}:
            url = known.get(server, table.urls.get(server))
            if url and server != table.entry:
                channel, _ = peers.open_channel(url, self._prober.connection_changed)
                self._channels.append(channel)
                ready_calls[server] = ready_call(channel)
            elif server != table.entry:
                self._log.event("probe", status=f"no address of server '{server}': not probed")
        self._transports = Transports(pb_utils, own_call, self._outputs, self._slots, self.health)
        self._prober.begin()

    def execute(self, requests):
        now = time.monotonic()
        for request in requests:
            reply = Reply(self, request)
            try:
                self._accept(request, reply, now)
            except Refused as error:
                reply.refuse("INVALID_ARGUMENT", str(error), pb_utils.TritonError.INVALID_ARG)
            except Exception as error:  # one bad request must not take the others with it
                reply.refuse("INTERNAL", str(error), pb_utils.TritonError.INTERNAL)

    def finalize(self):
        self._prober.close(_CLOSE_PATIENCE_S)
        # BLS calls that nobody waits for any more must return while their memory is there. Those
        # that wait for a killed stub never will.
        until = time.monotonic() + self._table.deadline_s
        while self._slots.taken and time.monotonic() < until:
            time.sleep(_POLL_S)
        self.watch.close(_CLOSE_PATIENCE_S)
        # A thread that is in a call of pb_utils when this process ends can bring the server down.
        ended = self._callers.close(_CLOSE_PATIENCE_S)
        for channel in self._channels:
            channel.close()
        if not ended:
            self._callers.close(_CLOSE_PATIENCE_S)  # their calls were ended with the channels
        telemetry.close()

    def _accept(self, request, reply, now):
        wanted = self._checker.wanted(request.parameters(), request.timeout())
        tensors = request.inputs()
        outputs = list(request.requested_output_names())
        self._checker.tensors(tensors, outputs)
        payload = Payload(
            request.request_id() or reply.id, tensors, outputs, {"tritier_request": reply.id}
        )
        most = wanted.request_class.most_in_flight
        in_time = self._pace.most(wanted.budget_s * most / self._most_in_flight, now)
        if not self._admission.enter(most if in_time is None else min(most, in_time)):
            self._numbers.rejected(wanted.request_class.name)
            reply.refuse(
                REJECTED,
                self._overloaded(wanted, most, in_time),
                pb_utils.TritonError.UNAVAILABLE,
            )
            return
        self._numbers.came(self._admission.count)
        self.tokens.earn()
        reply.accepted(wanted)
        Flight(self, wanted, payload, reply, now).start()

    def _overloaded(self, wanted, most, in_time):
        """Why a request may not come in."""
        text = f"overloaded: {self._admission.count} requests are in flight; "
        if in_time is not None and in_time < most:
            budget_ms = wanted.budget_s * 1000
            text += f"with more than {in_time} one with {budget_ms:.0f} ms would not end in time"
        else:
            text += f"class '{wanted.request_class.name}' may come in below {most}"
        return f"{text}. Try again later"

    # -- what flights ask for -------------------------------------------------------------------

    def call(self, attempt, flight):
        """An attempt's Answer or Failure; blocks."""
        return self._transports.call(attempt, flight.payload)

    def run_elsewhere(self, job, *arguments):
        """In another thread."""
        self._callers.start(job, *arguments)

    def withdraw(self, flight, plan_id):
        """Tell the proxies of a plan that nobody waits for a request any more. In another thread:
        it reads a list of all sockets of the machine."""
        entry = self._table.entry
        if set(self._table.plans[plan_id].servers) <= {entry}:
            return  # it has no proxies
        request = flight.payload.handed_down["tritier_request"]
        with contextlib.suppress(RuntimeError):  # no thread to be had: calls end by their deadlines
            self._callers.start(withdraw, entry, plan_id, request)

    def choose(self, *arguments):
        """See Chooser."""
        return self._chooser.choose(*arguments)

    def fallback(self, *arguments):
        """See Chooser."""
        return self._chooser.fallback(*arguments)

    def p95_s(self, plan_id, now):
        """What a plan usually takes; None if it is not known yet."""
        return self._latencies[plan_id].p95_s(now)

    def span(self, flight, plan, number):
        """A span for an attempt."""
        return self._tracer.start("attempt", flight.trace_parent, plan=plan.id, attempt=number)

    def succeeded(self, attempt, now):
        """It gave an answer, used or not."""
        self._latencies[attempt.plan.id].add(now - attempt.started, now)
        self.health.succeeded(attempt.plan.id, now)

    def failed(self, attempt, failure, now):
        """It gave none, and its plan is to blame."""
        self._numbers.failed(attempt.plan.id, failure.kind)
        self._log.event(
            "attempt",
            plan=attempt.plan.id,
            attempt=attempt.number,
            ms=round((now - attempt.started) * 1000, 1),
            status=failure.kind,
            reason=failure.text,
        )
        self.health.failed(attempt.plan.id, f"{failure.kind}: {failure.text}", now)

    def retried(self, attempt):
        """An attempt is a retry."""
        self._numbers.retried(attempt.plan.id)

    def hedged(self, attempt):
        """An attempt is a hedge."""
        self._numbers.hedged(attempt.plan.id)

    def _plan_changed(self, plan_id, is_ejected, reason):
        # Of now: it may have changed again, and been told by another thread.
        self._numbers.ejected(plan_id, not self.health.is_closed(plan_id))
        self._log.event("ejected" if is_ejected else "returned", plan=plan_id, reason=reason)
        self._pace.start_anew()
        if is_ejected:
            self.watch.look_at_all()  # what is in flight there goes to the next plan at once

    # -- what replies ask for -------------------------------------------------------------------

    def answered(self, reply, flight, attempt, status, text):
        """A request that came in was answered."""
        self._admission.leave()
        if status == "OK":
            self._pace.answered(self._admission.count, time.monotonic())
        plan = attempt.plan.id if attempt is not None else None
        name = flight.request_class.name
        self._numbers.answered(name, plan or "none", status, self._admission.count, self._slots)
        self._log.request(
            "request",
            status=status,
            plan=plan,
            request=reply.id,
            attempt=len(flight.attempts),
            ms=round((time.monotonic() - flight.started) * 1000, 1),
            reason=text,
            **{"class": name},
        )

    def response(self, tensors, parameters):
        """An InferenceResponse, with its parameters where this Triton has them (24.10: not)."""
        if self._has_parameters:
            return pb_utils.InferenceResponse(tensors, parameters=parameters)
        return pb_utils.InferenceResponse(tensors)

    def start_span(self, traceparent):
        """The span of a request."""
        return self._tracer.start("router", traceparent, root=False)


class Reply:
    """The one answer of a request."""

    def __init__(self, router, request):
        self._router = router
        self._request = request
        self._sender = request.get_response_sender()
        self._span = None
        self.id = os.urandom(8).hex()

    def accepted(self, wanted):
        """It will be tried."""
        self._span = self._router.start_span(wanted.traceparent)

    @property
    def traceparent(self):
        """What spans below stand under; None if there is no trace."""
        return self._span.traceparent

    def is_cancelled(self):
        """Whether the app cancelled it; not to be asked once it is answered."""
        return self._request.is_cancelled()

    def give(self, flight, attempt, outcome):
        """Send what came of it. Whether that works or not, the request is over."""
        plan = attempt.plan.id if attempt is not None else "none"
        name = flight.request_class.name
        try:
            status, text = self._give(flight, attempt, outcome, plan, name)
        except Exception as error:  # e.g. shared memory is full
            status, text = "INTERNAL", f"the answer could not be sent: {error}"
            with contextlib.suppress(Exception):
                self.refuse(status, text, pb_utils.TritonError.INTERNAL)
        self._span.end(error=text, plan=plan, attempts=len(flight.attempts), **{"class": name})
        self._router.answered(self, flight, attempt, status, text)

    def _give(self, flight, attempt, outcome, plan, name):
        """(status, text) of the answer."""
        if isinstance(outcome, Answer):
            wanted = set(flight.payload.outputs)
            tensors = [t for t in outcome.outputs if not wanted or t.name() in wanted]
            parameters = {
                "tritier_plan": plan,
                "tritier_class": name,
                "tritier_attempts": len(flight.attempts),
            }
            self._send(self._router.response(tensors, parameters))
            return "OK", None
        number = attempt.number if attempt is not None else 0
        self._send_error(
            f"class '{name}', plan {plan}, attempt {number}: {outcome.text}", _code(outcome)
        )
        return outcome.kind, outcome.text

    def refuse(self, status, text, code):
        """Send an error for a request that is not tried, unless it has its answer."""
        with contextlib.suppress(Exception):  # what leaves `execute` would end the whole server
            self._send_error(f"{status}: {text}", code)

    def _send_error(self, text, code):
        error = pb_utils.TritonError(text, code)
        self._send(pb_utils.InferenceResponse(output_tensors=[], error=error))

    def _send(self, response):
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _code(failure):
    """Triton's code for a failure; it has none for deadlines, overload and refused credentials."""
    if failure.kind == INVALID:
        return pb_utils.TritonError.INVALID_ARG
    if failure.kind == CANCELLED:
        return pb_utils.TritonError.CANCELLED
    if not failure.may_retry and failure.kind != REJECTED:
        return pb_utils.TritonError.INTERNAL
    return pb_utils.TritonError.UNAVAILABLE
