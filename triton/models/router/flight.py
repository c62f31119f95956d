"""One request on its way: the attempts that are made for it, and its one answer.

An attempt blocks the thread that makes it. What must happen meanwhile (the time of an attempt is
up, its plan was ejected, a hedge is due, the app cancelled, the deadline passed) is seen by `look`,
from the thread of the watch, which hands new attempts to other threads. The first answer is the
answer; what comes later is thrown away.
"""

import contextlib
import threading
import time
from dataclasses import dataclass

from budget import attempt_s
from failures import CANCELLED, DEADLINE, INVALID, REJECTED, Failure
from watch import LOOK_S

MAX_RETRIES = 2
# An answer needs a while to reach the app: this part of the budget is left for it, at most so much.
_MARGIN, _MOST_MARGIN_S = 0.05, 0.02
_LEAST_ATTEMPT_S = 0.001
# Only an attempt that had this many times what the plan usually takes says that the plan is ill.
_FAIR_TRY = 1.2


@dataclass(frozen=True)
class Answer:
    """Outputs of a plan, in whatever form they came."""

    outputs: list


class Attempt:
    """A call of one plan for a request."""

    def __init__(self, plan, number, started, deadline, span):
        self.plan = plan
        self.number = number
        self.started = started
        self.deadline = deadline
        self.span = span
        self.is_over = False
        self.is_blamed = False  # its plan was told, once
        self.is_given_up = False  # its time is up or its plan is out: another one was asked
        self.is_stopped = False  # nobody waits for it any more
        self._cancel = None

    def stops_by(self, cancel):
        """Told by the transport, once something can be cancelled."""
        self._cancel = cancel
        if self.is_stopped:  # meanwhile; whoever comes second sees the other
            self.stop()

    def stop(self):
        """Nobody waits for it any more."""
        self.is_stopped = True
        if self._cancel is not None:
            with contextlib.suppress(Exception):  # the answer must still be given
                self._cancel()


class Flight:
    """A request in flight. `router` has what all requests share (see model.py)."""

    def __init__(self, router, wanted, payload, reply, now):
        self.router = router
        self.payload = payload
        self.request_class = wanted.request_class
        self.started = now
        self.deadline = now + wanted.budget_s - min(_MOST_MARGIN_S, _MARGIN * wanted.budget_s)
        self.attempts = []
        self._reply = reply
        self._lock = threading.Lock()
        self._is_answered = False
        self._retries = 0
        self._hedge_at = None
        self._has_hedged = False
        self._last_failure = None
        self.trace_parent = reply.traceparent

    # -- attempts -------------------------------------------------------------------------------

    def start(self):
        """Begin in another thread. Whatever happens to that, the watch answers by the deadline."""
        self.router.watch.add(self, self.deadline)
        try:
            self.router.run_elsewhere(self.begin)
        except Exception as error:
            self._fail(Failure(REJECTED, f"there is no thread for it: {error}"))

    def begin(self):
        """Make the first attempt, in this thread."""
        now = time.monotonic()
        with self._lock:
            attempt = None if self._is_answered else self._new_attempt(now)
        if attempt is None:
            self._fail(Failure(DEADLINE, "deadline passed before anything was sent"))
            return
        self.router.watch.add(self, self._next_look(now))
        self.run(attempt)

    def run(self, attempt):
        """Make an attempt, and those that follow from its failure, in this thread."""
        while attempt is not None:
            attempt = self._after(attempt, self.router.call(attempt, self))

    def _after(self, attempt, outcome):
        """What became of an attempt; the next one, to be made by this thread."""
        now = time.monotonic()
        succeeded = isinstance(outcome, Answer)
        if succeeded:
            self.router.succeeded(attempt, now)
            attempt.span.end()
        else:
            attempt.span.end(error=outcome.text)
            self._blame(attempt, outcome, now)
        following = None
        with self._lock:
            attempt.is_over = True
            if self._is_answered:
                return None
            if not succeeded:
                self._last_failure = (attempt, outcome)
                following = self._retry(attempt, outcome, now)
                waits = outcome.kind != INVALID and self._others_run(attempt)
                if following is None and waits:
                    return None
            self._is_answered = following is None
        if following is not None:
            self.router.watch.add(self, self._next_look(now))  # it may be due before the last one
            return following
        self._close()
        self._reply.give(self, attempt, outcome)
        return None

    def _retry(self, attempt, outcome, now):
        """The attempt that follows a failed one, if one may; under the lock."""
        if not outcome.may_retry or self._others_run(attempt):
            return None
        free = not self.router.health.is_closed(attempt.plan.id)
        return self._another(now, free)

    def _another(self, now, free):
        """One more attempt; `free`: its plan was ejected, which is a fallback and no retry."""
        if not free and (self._retries >= MAX_RETRIES or not self.router.tokens.take()):
            return None
        attempt = self._new_attempt(now, again=True)
        if attempt is not None and not free:
            self._retries += 1
            self.router.retried(attempt)
        return attempt

    def _new_attempt(self, now, again=False):
        """An attempt with the best plan for what time is left; under the lock."""
        remaining_s = self.deadline - now
        if remaining_s < _LEAST_ATTEMPT_S:
            return None
        tried = [attempt.plan.id for attempt in self.attempts]
        plan = self.router.choose(self.request_class, tried, remaining_s, now, again)
        if plan is None:
            return None
        fallback = self.router.fallback(self.request_class, [*tried, plan.id])
        kept_s = self.router.p95_s(fallback, now) if fallback else None
        budget_s = attempt_s(remaining_s, kept_s, fallback is not None)
        attempt = Attempt(
            plan,
            len(self.attempts) + 1,
            now,
            now + budget_s,
            self.router.span(self, plan, len(self.attempts) + 1),
        )
        self.attempts.append(attempt)
        if self.request_class.hedge and fallback and not self._has_hedged:
            usual_s = self.router.p95_s(plan.id, now)
            self._hedge_at = now + usual_s if usual_s is not None else None
        return attempt

    def _others_run(self, attempt):
        return any(
            not other.is_over and not other.is_given_up
            for other in self.attempts
            if other is not attempt
        )

    def _blame(self, attempt, outcome, now):
        if attempt.is_stopped or not outcome.blames_plan:
            return
        if outcome.kind == DEADLINE and not self._was_fair(attempt, now):
            return
        with self._lock:  # the watch and the thread of the attempt may both come here
            was_blamed, attempt.is_blamed = attempt.is_blamed, True
        if not was_blamed:
            self.router.failed(attempt, outcome, now)

    def _was_fair(self, attempt, now):
        """Whether the plan had the time that it usually needs, or half of what the class allows."""
        had_s = attempt.deadline - attempt.started
        usual_s = self.router.p95_s(attempt.plan.id, now)
        if usual_s is None:
            return had_s >= 0.45 * self.request_class.deadline_s
        return had_s >= _FAIR_TRY * usual_s

    # -- the watch ------------------------------------------------------------------------------

    def look(self, now):
        """What is due now; when to look again, None when it is over."""
        if now >= self.deadline:
            self._time_is_up(now)
            return None
        if self._was_cancelled():
            return None
        for attempt in list(self.attempts):
            if attempt.is_over or attempt.is_given_up:
                continue
            is_late = now >= attempt.deadline
            is_out = not self.router.health.is_closed(attempt.plan.id) and (
                self._can_fall_back() or is_late
            )
            if is_late or is_out:
                self._give_up(attempt, is_late, now)
        self._hedge(now)
        return None if self._is_answered else self._next_look(now)

    def _give_up(self, attempt, is_late, now):
        """Ask another plan; this one may still answer first."""
        if is_late:
            text = f"no answer after {(now - attempt.started) * 1000:.0f} ms"
            self._blame(attempt, Failure(DEADLINE, text), now)
        with self._lock:
            if self._is_answered or attempt.is_over:
                return
            attempt.is_given_up = True
            following = None
            if not self._others_run(attempt):
                free = not self.router.health.is_closed(attempt.plan.id)
                following = self._another(now, free)
        if following is not None:
            if is_late:
                self._stop([attempt])
            self.router.run_elsewhere(self.run, following)

    def _can_fall_back(self):
        tried = [attempt.plan.id for attempt in self.attempts]
        return self.router.fallback(self.request_class, tried) is not None

    def _hedge(self, now):
        if self._hedge_at is None or now < self._hedge_at or self._has_hedged:
            return
        with self._lock:
            running = [a for a in self.attempts if not a.is_over and not a.is_given_up]
            if self._is_answered or len(running) != 1 or not self.router.tokens.take():
                self._hedge_at = None
                return
            self._has_hedged = True
            following = self._new_attempt(now)
        if following is not None:
            self.router.hedged(following)
            self.router.run_elsewhere(self.run, following)

    def _was_cancelled(self):
        with self._lock:
            if self._is_answered:
                return True
            # Under the lock: asking an answered request crashes the server (Triton 2.51).
            if not self._reply.is_cancelled():
                return False
            self._is_answered = True
        self._close()
        self._reply.give(self, None, Failure(CANCELLED, "cancelled by the app"))
        return True

    def _time_is_up(self, now):
        running = [a for a in self.attempts if not a.is_over and not a.is_given_up]
        for attempt in running:
            text = f"no answer after {(now - attempt.started) * 1000:.0f} ms"
            self._blame(attempt, Failure(DEADLINE, text), now)
        asked = ", ".join(f"plan {a.plan.id}" for a in self.attempts)
        text = f"deadline exceeded after {(now - self.started) * 1000:.0f} ms ({asked})"
        if self._last_failure is not None:
            failed, failure = self._last_failure
            text += f"; plan {failed.plan.id} had failed: {failure.text}"
        self._fail(Failure(DEADLINE, text))

    def _next_look(self, now):
        times = [now + LOOK_S, self.deadline]
        times += [a.deadline for a in self.attempts if not a.is_over and not a.is_given_up]
        if self._hedge_at is not None and not self._has_hedged:
            times.append(self._hedge_at)
        return min(times)

    # -- the end --------------------------------------------------------------------------------

    def _fail(self, failure):
        with self._lock:
            if self._is_answered:
                return
            self._is_answered = True
        self._close()
        last = self.attempts[-1] if self.attempts else None
        self._reply.give(self, last, failure)

    def _close(self):
        """It is decided: nobody waits for the attempts that still run."""
        self.router.watch.remove(self)
        self._stop([a for a in self.attempts if not a.is_over and not a.is_stopped])

    def _stop(self, attempts):
        """Nobody waits for them: end the calls, and those of their plans' proxies."""
        for attempt in attempts:
            attempt.stop()
        wanted = {a.plan.id for a in self.attempts if not a.is_over and not a.is_stopped}
        for plan_id in {attempt.plan.id for attempt in attempts} - wanted:
            self.router.withdraw(self, plan_id)
