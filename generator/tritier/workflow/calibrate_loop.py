"""Plan, measure, correct and plan again, until prediction and measurement agree or it is clear why
they don't."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tritier.documents import Comparison, Plan
from tritier.workflow.calibrate import Corrected, corrected, with_documents
from tritier.workflow.compare import Known, predict_plan

Outcome = Literal["agrees", "unsteady", "unexplained", "flips", "iterations"]
_TIMES_CHOSEN = 3  # how often a plan is chosen, with others between, before that ends the loop


@dataclass(frozen=True)
class Step:
    """A plan that was predicted and measured, and what its times corrected after that."""

    number: int
    comparison: Comparison
    notes: tuple[str, ...] = ()

    @property
    def plan_id(self) -> str:
        """Of the plan."""
        return self.comparison.plan_id

    @property
    def error(self) -> float:
        """Of latency, relative."""
        found = self.comparison.latency_error
        return 0.0 if found is None else found


@dataclass(frozen=True)
class Calibration:
    """How it ended: `why` is for people; `known` has the last corrections."""

    outcome: Outcome
    why: str
    steps: tuple[Step, ...]
    known: Known
    plan: Plan

    @property
    def agrees(self) -> bool:
        """Whether prediction and measurement do."""
        return self.outcome == "agrees"


@dataclass
class Calibrator:
    """`plan_again` gives the best plan by corrected documents; `measure` deploys a plan, predicts
    it by them and measures it. Errors of both go on. `tolerance` is a share of the latency."""

    plan_again: Callable[[Known], Plan]
    measure: Callable[[Plan, Known, int], Comparison]
    tolerance: float = 0.05
    iterations: int = 5
    corrected_so_far: Callable[[Known], None] = lambda _known: None
    _chosen: list[str] = field(default_factory=list)

    def run(self, known: Known, first: Plan | None = None) -> Calibration:
        """From the documents as they are; `first` is measured before the best plan. That prediction
        and measurement agree counts where the measurement is steady, and of the best plan only."""
        steps: list[Step] = []
        plan = first or self.plan_again(known)
        while True:
            self._chosen.append(plan.id)
            comparison = self.measure(plan, known, len(steps) + 1)
            if unsteady := self._unsteady(comparison):
                steps.append(Step(len(steps) + 1, comparison))
                return Calibration("unsteady", unsteady, tuple(steps), known, plan)
            if abs(comparison.latency_error or 0.0) <= self.tolerance:
                steps.append(Step(len(steps) + 1, comparison))
                best = self.plan_again(known) if plan is first else plan
                if best.id != plan.id and len(steps) < self.iterations:
                    plan = best
                    continue
                return Calibration("agrees", self._agreed(steps[-1]), tuple(steps), known, plan)
            fixed = corrected(known, comparison)
            steps.append(Step(len(steps) + 1, comparison, fixed.notes))
            end = self._end(steps[-1], known, fixed)
            known = with_documents(known, fixed)
            self.corrected_so_far(known)
            if end is not None:
                return Calibration(*end, tuple(steps), known, plan)
            plan = self.plan_again(known)

    def _agreed(self, step: Step) -> str:
        return (
            f"plan {step.plan_id} is predicted to {_percent(step.error)}, within "
            f"{_percent(self.tolerance, sign=False)}"
        )

    def _unsteady(self, comparison: Comparison) -> str:
        """Why the measurement says too little, if it does."""
        assert comparison.measured is not None
        latency = comparison.measured.latency
        width = (latency.high_ms - latency.low_ms) / 2 / latency.median_ms
        if width <= self.tolerance:
            return ""
        return (
            f"the median of {latency.n} requests is only known to {_percent(width, False)} of "
            f"it ({latency.low_ms:.2f} to {latency.high_ms:.2f} ms): measure on servers that "
            "do nothing else, or more with --rounds"
        )

    def _end(self, step: Step, known: Known, fixed: Corrected) -> tuple[Outcome, str] | None:
        """Why going on makes no sense, if it does not."""
        assert step.comparison.measured is not None
        latency = step.comparison.measured.latency
        after_ms = predict_plan(step.comparison.plan, with_documents(known, fixed)).latency_ms
        left = (after_ms - latency.median_ms) / latency.median_ms
        if abs(left) > self.tolerance and abs(left) >= abs(step.error) * (1 - 1e-6):
            return "unexplained", (
                f"components and messages are corrected, and {latency.median_ms - after_ms:+.2f} "
                f"ms of the request ({_percent(-left)}) are in none of them: what the entry does "
                "between them, the app's own connection if that was not measured, or messages "
                "without times (see docs/compare.md)"
            )
        if self._chosen.count(step.plan_id) >= _TIMES_CHOSEN and len(set(self._chosen)) > 1:
            others = sorted(set(self._chosen) - {step.plan_id})
            return "flips", (
                f"planning flips between {step.plan_id} and {' and '.join(others)}, and what each "
                "takes is not the same from time to time: measure on servers that do nothing else"
            )
        if step.number >= self.iterations:
            return "iterations", (
                f"after {step.number} plans prediction and measurement still differ by "
                f"{_percent(step.error)}: allow more with --iterations"
            )
        return None


def _percent(share: float, sign: bool = True) -> str:
    return f"{100 * share:+.1f} %" if sign else f"{100 * share:.3g} %"
