"""Is an answer right? Asked for every one, while the load goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tritier.bench.locust_job import LoadJob, Questions
from tritier.divider import Array, Arrays, Comparison

# What is allowed is made so much smaller for the quick comparison, which rounds.
_SURE = 1 - 1e-5
_QUICK_TYPES = (np.float32, np.float64)


class Judge:
    """Compares answers with the right ones of a job.

    Comparing holds up the other users of a process: what is clearly right is found with little
    computing, and only the rest is compared as everywhere else in this tool.
    """

    def __init__(self, job: LoadJob, questions: Questions) -> None:
        self._job, self._questions = job, questions
        self._margins: dict[tuple[str, int], Arrays] = {}

    def judge(self, request_class: str, said: str, k: int, found: Arrays) -> tuple[str, str]:
        """The plan that answered question `k`, as far as it is known, and what is wrong.

        `said` is the plan that the server named, or empty: then it may be any that answers this
        class.
        """
        plans: Sequence[str] = self._job.class_plans[request_class]
        if said and said not in self._job.plans:
            return said, f"plan {said} answered, which is not in the folder that is compared with"
        if said and said not in plans:
            return said, f"plan {said} answered, which is none of its class ({', '.join(plans)})"
        candidates = [said] if said else plans
        faults = []
        for plan in candidates:
            fault = self.difference(plan, k, found)
            if not fault:
                return (plan if len(candidates) == 1 else ""), ""
            faults.append(fault)
        return said, faults[0]

    def difference(self, plan: str, k: int, found: Arrays) -> str:
        """What is wrong with the answer of a plan to question `k`; empty if nothing is."""
        right, allowed = self._questions.answers[plan][k], self._job.plans[plan]
        if self._is_clearly_right(plan, k, found):
            return ""
        comparison = Comparison(allowed.absolute, allowed.relative)
        comparison.add(right, found)
        for item in comparison.differences():
            slack = allowed.slack.get(item.output, 0.0)
            if not dataclasses.replace(item, slack=slack).ok:
                return (
                    f"output '{item.output}' is {item.max_abs:.3g} from what plan {plan} should "
                    f"answer, allowed are {allowed.absolute:g} + {allowed.relative:g} |whole| "
                    f"+ {slack:.2g} (rule R4)"
                )
        return ""

    def _is_clearly_right(self, plan: str, k: int, found: Arrays) -> bool:
        right = self._questions.answers[plan][k]
        if right.keys() != found.keys():
            return False
        margins: Arrays | None = None
        for name, array in right.items():
            if array.dtype != found[name].dtype or array.shape != found[name].shape:
                return False
            if _bits_equal(array, found[name]):
                continue
            if array.dtype not in _QUICK_TYPES:
                return False
            margins = margins or self._margins_of(plan, k)
            with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is not below anything
                gap = np.abs(np.subtract(found[name], array))
                if not bool((gap <= margins[name]).all()):
                    return False
        return True

    def _margins_of(self, plan: str, k: int) -> Arrays:
        """By output, how far each value may surely be off; in the type of the output."""
        if (plan, k) not in self._margins:
            allowed = self._job.plans[plan]
            self._margins[plan, k] = {
                name: (
                    (
                        allowed.absolute
                        + allowed.slack.get(name, 0.0)
                        + allowed.relative * np.abs(np.nan_to_num(array))
                    )
                    * _SURE
                ).astype(array.dtype)
                for name, array in self._questions.answers[plan][k].items()
                if array.dtype in _QUICK_TYPES
            }
        return self._margins[plan, k]


def _bits_equal(one: Array, other: Array) -> bool:
    if not (one.flags.c_contiguous and other.flags.c_contiguous):
        return False
    return bool(np.array_equal(one.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8)))
