"""What a request says of itself: until when, as which attempt of what, in which trace.

A server hands `timeout` and all parameters of a request to an ensemble on to each of its steps.

  timeout              Triton's own, microseconds, from when the request comes here
  tritier_deadline_ns  the end of its budget on this machine's CLOCK_MONOTONIC; never sent to
                       another machine, whose clock shows something else
  tritier_request      the id of the app's request, made once
  tritier_attempt      which attempt of it this is, from 1
  tritier_probe        present in requests that the router makes up to see whether a plan works
  traceparent, tracestate  W3C trace context
"""

import json
import time

_MAX_TEXT = 512
_MAX_ATTEMPT = 1000
# What goes on to other servers as it came; attempt and traceparent are written anew.
_HANDED_ON = ("tritier_request", "tritier_probe", "tracestate")


class Context:
    """Read from a request that comes now. ValueError names a parameter that cannot be used."""

    def __init__(self, request, limit_s):
        now = time.monotonic()
        text = request.parameters()
        parameters = json.loads(text) if text and text != "{}" else {}
        budget_s = min(limit_s, request.timeout() / 1e6 or limit_s)
        self.deadline_s = now + budget_s
        if "tritier_deadline_ns" in parameters:
            told_ns = _whole_number(parameters, "tritier_deadline_ns")
            self.deadline_s = min(self.deadline_s, told_ns / 1e9)
        self.attempt = 1
        if "tritier_attempt" in parameters:
            self.attempt = _whole_number(parameters, "tritier_attempt")
            if not 1 <= self.attempt <= _MAX_ATTEMPT:
                raise ValueError(
                    f"parameter 'tritier_attempt' is {self.attempt}; allowed are 1 to "
                    f"{_MAX_ATTEMPT}"
                )
        self.traceparent = parameters.get("traceparent")
        self._onwards = {
            name: str(parameters[name])[:_MAX_TEXT] for name in _HANDED_ON if name in parameters
        }
        # For logs: the id of the app's request, else whatever its client calls it.
        self.request = self._onwards.get("tritier_request") or request.request_id() or None

    def left_s(self):
        """Seconds until the budget ends; negative when it has."""
        return self.deadline_s - time.monotonic()

    def onwards(self, traceparent):
        """Parameters of a request to another server that is made for this one."""
        parameters = dict(self._onwards)
        if self.attempt > 1:
            parameters["tritier_attempt"] = self.attempt
        if traceparent:
            parameters["traceparent"] = str(traceparent)[:_MAX_TEXT]
        return parameters


def _whole_number(parameters, name):
    value = parameters[name]
    try:
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise ValueError(f"parameter '{name}' is {str(value)[:80]!r}; allowed is a whole number")
