"""What a proxy tells of its calls: log lines, metrics and spans."""

import time

import telemetry
import tracing

# Counted from the start, so that no metric has to be made when they come.
_USUAL_FAILURES = (
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
)


class Report:
    """Of all calls of one proxy."""

    def __init__(self, parameters, model):
        here = {
            "server": parameters["server"],
            "component": parameters["component"],
            "plan": parameters["plan_id"],
        }
        self._here = here
        self._log = telemetry.Log(**here, model=model, on=parameters.get("on"))
        self._tracer = telemetry.Tracer(parameters.get("on") or "tritier")
        self._span_name = f"call {parameters['model_name']}"
        self._labels = {**here, "model": model}
        self._calls = self._counter("calls", "calls of other servers that ended")
        self._failures = {}
        self._retries = self._counter("call_retries", "calls that were made again")
        self._bytes_out = self._counter("sent_bytes", "bytes of messages to other servers")
        self._bytes_in = self._counter("received_bytes", "bytes of answers of other servers")
        self._in_flight = telemetry.gauge("tritier_calls_in_flight", "calls now", self._labels)
        self._latency = telemetry.histogram(
            "tritier_call_ms", "milliseconds of calls of other servers", self._labels
        )
        for status in _USUAL_FAILURES:
            self._failure(status)
        telemetry.begin()

    def start(self, context):
        """The record of a call that begins now."""
        if not self._tracer.is_on:
            return Record(context, tracing.Passing(context.traceparent))
        span = self._tracer.start(
            self._span_name,
            context.traceparent,
            kind=tracing.CLIENT,
            attempt=context.attempt,
            request=context.request,
            **self._here,
        )
        return Record(context, span)

    def retried(self):
        """A call is made again."""
        self._retries.add()

    def ended(self, record, status="OK", error=None, in_flight=0):
        """The call ended; `status` is OK or the name of a gRPC status."""
        elapsed_ms = record.elapsed_ms()
        self._calls.add()
        self._bytes_out.add(record.bytes_out)
        self._bytes_in.add(record.bytes_in)
        self._latency.observe(elapsed_ms)
        self._in_flight.set(in_flight)
        if status != "OK":
            self._failure(status).add()
        sizes = {"bytes_out": record.bytes_out, "bytes_in": record.bytes_in}
        record.span.end(error, status=status, tries=record.tries, **sizes)
        self._log.request(
            "call",
            status,
            **sizes,
            ms=round(elapsed_ms, 2),
            attempt=record.context.attempt,
            tries=record.tries,
            request=record.context.request,
            reason=error,
        )

    def _failure(self, status):
        if status not in self._failures:
            self._failures[status] = self._counter(
                "call_failures", "calls of other servers that failed", code=status
            )
        return self._failures[status]

    def _counter(self, name, help_text, **labels):
        return telemetry.counter(f"tritier_{name}_total", help_text, {**self._labels, **labels})


class Record:
    """One call: when it began, what was sent and received, how often it was tried."""

    def __init__(self, context, span):
        self.context = context
        self.span = span
        self.started = time.monotonic()
        self.bytes_out = 0
        self.bytes_in = 0
        self.tries = 1

    def elapsed_ms(self):
        """Since it began."""
        return (time.monotonic() - self.started) * 1000
