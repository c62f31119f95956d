"""Which plans may be used: those that answer.

A plan is *closed* (in use), *open* (ejected) or *half open*. It is ejected after some failures in a
row, or at once when one of its servers is not ready. After a backoff one probe is sent; if that is
answered the plan is closed again. A probe that the model itself refuses (zeros may not suit it)
proves nothing: then one request of an app is let through, with the others as its fallback.
"""

import threading

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half open"
_MAX_BACKOFF_S = 10.0
# A plan that fails again so soon after it returned is left out for longer than the last time.
_RELAPSE_S = 30.0


class PlanHealth:
    """One plan. Times are of a monotonic clock, in seconds."""

    def __init__(self):
        self.state = CLOSED
        self.failures = 0
        self.trusted = False
        self.reason = ""
        self.backoff_s = 0.0
        self.closed_at = None
        self.retry_at = 0.0
        self.last_success = None
        self.last_probe = None
        self.trial_taken = False
        self.server_down = False


class Health:
    """All plans of the table. `changed(plan id, is ejected, reason)` is called without a lock."""

    def __init__(self, plans, eject_after, interval_s, changed):
        self._plans = {plan_id: PlanHealth() for plan_id in plans}
        self._eject_after = eject_after
        self._interval_s = interval_s
        self._changed = changed
        self._lock = threading.Lock()

    def state(self, plan_id):
        """CLOSED, OPEN or HALF_OPEN."""
        return self._plans[plan_id].state

    def reason(self, plan_id):
        """Why it was ejected."""
        return self._plans[plan_id].reason

    def is_closed(self, plan_id):
        """Whether it is in use."""
        return self._plans[plan_id].state == CLOSED

    def is_trusted(self, plan_id):
        """Whether it is in use and the last that was heard of it was an answer."""
        plan = self._plans[plan_id]
        return plan.state == CLOSED and plan.trusted

    def is_usable(self, plan_id):
        """Whether a request may use it now: it is in use, or half open and nobody tries it."""
        plan = self._plans[plan_id]
        return plan.state == CLOSED or (plan.state == HALF_OPEN and not plan.trial_taken)

    def answered_since(self, plan_id, when):
        """Whether it answered anything since then."""
        last = self._plans[plan_id].last_success
        return last is not None and last >= when

    def claim(self, plan_id):
        """Use it now; False if another request was quicker to try a half-open plan."""
        with self._lock:
            plan = self._plans[plan_id]
            if plan.state == HALF_OPEN and not plan.trial_taken:
                plan.trial_taken = True
                return True
            return plan.state == CLOSED

    def succeeded(self, plan_id, now):
        """It answered a request or a probe."""
        plan = self._plans[plan_id]
        plan.last_success = now
        # The usual case needs no lock: the next failure is counted from 0 or from 1.
        if plan.state == CLOSED:
            plan.failures = 0
            plan.trusted = True
            return
        with self._lock:
            returned = plan.state != CLOSED and not plan.server_down
            if returned:
                plan.state, plan.failures, plan.trusted = CLOSED, 0, True
                plan.closed_at, plan.reason = now, ""
        if returned:
            self._changed(plan_id, False, "answered")

    def failed(self, plan_id, reason, now):
        """An attempt failed for which the plan is to blame."""
        with self._lock:
            plan = self._plans[plan_id]
            plan.failures += 1
            plan.trusted = False
            ejected = plan.state == CLOSED and plan.failures >= self._eject_after
            if ejected or plan.state == HALF_OPEN:
                self._open(plan, reason, now)
        if ejected:
            self._changed(plan_id, True, f"{plan.failures} failures in a row, the last: {reason}")

    def server_lost(self, plan_id, reason, now):
        """One of its servers is not ready, or the plan's models are not."""
        with self._lock:
            plan = self._plans[plan_id]
            ejected = plan.state != OPEN
            plan.server_down = True
            plan.trusted = False
            if ejected:
                self._open(plan, reason, now)
        if ejected:
            self._changed(plan_id, True, reason)

    def servers_ready(self, plan_id, now):
        """All that it needs is ready: if that was why it is out, it is probed now."""
        with self._lock:
            plan = self._plans[plan_id]
            if plan.server_down:
                plan.server_down = False
                plan.backoff_s = 0.0
                plan.retry_at = now

    def probe_due(self, plan_id, now, idle_s):
        """Whether to send a probe: it is out and its time has come, or nothing was heard of late.

        `idle_s`: how long a plan in use may be silent; None: for ever.
        """
        plan = self._plans[plan_id]
        if plan.server_down:
            return False
        if plan.state != CLOSED:
            return now >= plan.retry_at
        heard = max(plan.last_success or 0.0, plan.last_probe or 0.0)
        return idle_s is not None and now - heard >= idle_s

    def probe_sent(self, plan_id, now):
        """A probe is on its way."""
        self._plans[plan_id].last_probe = now

    def probe_refused(self, plan_id, now):
        """The model does not take the probe: the next request decides."""
        with self._lock:
            plan = self._plans[plan_id]
            if plan.state != CLOSED and not plan.server_down:
                plan.state = HALF_OPEN
                plan.trial_taken = False
                plan.retry_at = now + plan.backoff_s

    def probe_failed(self, plan_id, reason, now):
        """A probe failed: the next one later, if the plan is out."""
        with self._lock:
            plan = self._plans[plan_id]
            is_out = plan.state != CLOSED
            if is_out:
                self._open(plan, plan.reason, now)
        if not is_out:
            self.failed(plan_id, f"probe: {reason}", now)

    def _open(self, plan, reason, now):
        if plan.state == CLOSED and (plan.closed_at is None or now - plan.closed_at > _RELAPSE_S):
            plan.backoff_s = 0.0
        plan.state = OPEN
        plan.reason = reason
        plan.backoff_s = min(_MAX_BACKOFF_S, max(self._interval_s, 2 * plan.backoff_s))
        plan.retry_at = now + plan.backoff_s
