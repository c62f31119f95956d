"""What a mailbox tells: log lines of what failed, metrics, and spans of those who wait."""

import time

import telemetry


class Report:
    """Of one mailbox."""

    def __init__(self, parameters, model, slots):
        here = {"server": parameters["server"], "plan": parameters["plan_id"]}
        self._slots = slots
        self._log = telemetry.Log(**here, model=model)
        self._tracer = telemetry.Tracer(parameters["server"])
        labels = {**here, "model": model}
        self._bytes = telemetry.gauge("tritier_mailbox_bytes", "bytes that lie here", labels)
        self._waiting = telemetry.gauge("tritier_mailbox_waiting", "takes that wait here", labels)
        self._keys = telemetry.gauge("tritier_mailbox_keys", "keys that are known here", labels)
        self._refused = telemetry.counter(
            "tritier_mailbox_refused_total", "requests that were refused", labels
        )
        self._failed = telemetry.counter(
            "tritier_mailbox_failed_total", "takes that got no tensors", labels
        )
        self._wait = telemetry.histogram(
            "tritier_mailbox_wait_ms", "milliseconds that takes waited", labels
        )
        telemetry.begin()

    def state(self):
        """How much lies here now."""
        self._bytes.set(self._slots.bytes)
        self._waiting.set(self._slots.waiting)
        self._keys.set(self._slots.keys)

    def refused(self, reason):
        """A request was refused."""
        self._refused.add()
        self._log.event("refused", reason=reason)

    def start(self, context, names):
        """The record of a take that begins."""
        span = self._tracer.start(
            "mailbox take",
            context.traceparent,
            tensors=", ".join(names),
            attempt=context.attempt,
            request=context.request,
        )
        return _Record(self, context, span, names)

    def ended(self, record, error):
        """A take got its tensors, or the reason why not."""
        elapsed_ms = (time.monotonic() - record.started) * 1000
        self._wait.observe(elapsed_ms)
        if error:
            self._failed.add()
        record.span.end(error)
        self._log.request(
            "take",
            "FAILED" if error else "OK",
            ms=round(elapsed_ms, 2),
            tensors=record.names,
            attempt=record.context.attempt,
            request=record.context.request,
            reason=error,
        )


class _Record:
    def __init__(self, report, context, span, names):
        self._report = report
        self.context = context
        self.span = span
        self.names = names
        self.started = time.monotonic()

    def end(self, error=None):
        self._report.ended(self, error)
