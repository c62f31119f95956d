"""Which plan is asked next."""


class Chooser:
    """Picks plans of a class by their order, their health, and what time is left."""

    def __init__(self, plans, health, latencies):
        self._plans = plans
        self._health = health
        self._latencies = latencies

    def choose(self, request_class, tried, remaining_s, now, again):
        """The plan for the next attempt, or None.

        The first in the order of the class that is in use, was not tried, and usually answers in
        the time that is left; if none is so quick, the quickest. `again`: a plan that was tried may
        be tried once more if no other is left. For a first attempt there is always one: if all are
        out, the last of the list, which is the fallback.
        """
        order = request_class.plans
        fresh = [plan for plan in order if plan not in tried]
        usable = [plan for plan in fresh if self._health.is_usable(plan)]
        if not usable and again:
            usable = [plan for plan in order if self._health.is_closed(plan)]
        if not usable:
            return self._plans[order[-1]] if order[-1] in fresh else None
        usual_s = {plan: self._latencies[plan].p95_s(now) or 0.0 for plan in usable}
        quick = [plan for plan in usable if usual_s[plan] <= remaining_s]
        for plan in quick or sorted(usable, key=usual_s.__getitem__):
            if self._health.claim(plan):
                return self._plans[plan]
        return self._plans[order[-1]] if order[-1] in fresh else None

    def fallback(self, request_class, tried):
        """Id of the plan that would be next, or None."""
        fresh = [plan for plan in request_class.plans if plan not in tried]
        closed = [plan for plan in fresh if self._health.is_closed(plan)]
        if closed:
            return closed[0]
        return request_class.plans[-1] if request_class.plans[-1] in fresh else None
