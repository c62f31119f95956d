"""The router's metrics, on the metrics port of its server."""

import telemetry


class Numbers:
    """Counters and gauges of one router."""

    def __init__(self, model, table):
        self._model = model
        self._in_flight = self._gauge("in_flight", "Requests in flight", family=table.family_id)
        self._taken = self._gauge(
            "bls_calls", "BLS calls that have not returned, those that never will among them"
        )
        self._ejected = {
            plan: self._gauge("ejected", "1 for a plan that is not in use", plan=plan)
            for plan in table.plans
        }
        for measure in self._ejected.values():
            measure.set(0)

    def came(self, in_flight):
        """A request came in."""
        self._in_flight.set(in_flight)

    def answered(self, name, plan, status, in_flight, slots):
        """A request of a class was answered."""
        labels = {"class": name, "plan": plan, "status": status}
        self._counter("requests_total", "Requests that were answered", **labels).add(1)
        self._in_flight.set(in_flight)
        self._taken.set(slots.taken)

    def rejected(self, name):
        """A request of a class was refused because too many were in flight."""
        self._counter("rejected_total", "Requests refused for overload", **{"class": name}).add(1)

    def failed(self, plan, kind):
        """An attempt failed for which its plan is to blame."""
        text = "Attempts that failed through their plan"
        self._counter("failures_total", text, plan=plan, kind=kind).add(1)

    def retried(self, plan):
        """A request was tried once more."""
        self._counter("retries_total", "Attempts that were retries", plan=plan).add(1)

    def hedged(self, plan):
        """A request was sent to a second plan because the first was slow."""
        self._counter("hedges_total", "Attempts that were hedges", plan=plan).add(1)

    def ejected(self, plan, is_ejected):
        """A plan was ejected, or returned."""
        self._ejected[plan].set(int(is_ejected))

    def _counter(self, name, text, **labels):
        return telemetry.counter(f"tritier_router_{name}", text, {"model": self._model, **labels})

    def _gauge(self, name, text, **labels):
        return telemetry.gauge(f"tritier_router_{name}", text, {"model": self._model, **labels})
