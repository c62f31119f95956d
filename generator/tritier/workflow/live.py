"""Do deployed plans answer right? A check for deployments, with all that it compares with at hand.

What the whole model answers is computed before, so that checking takes no longer than asking.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tritier.deployment.access import connect
from tritier.divider import Arrays, Comparison, Difference, WholeModel
from tritier.documents import WHOLE, Optimisation, Plan, Tolerance
from tritier.errors import CheckFailed, InputError, ServerError
from tritier.graph import LoadedModel
from tritier.repository import PlanPart, Repositories
from tritier.workflow.verify import ask, like, realised_whole

# What the router says in its answers, where this Triton has parameters of responses.
PLAN_PARAMETER = "tritier_plan"
_ORIGINAL = Tolerance(
    optimisation="all", absolute=1e-5, relative=1e-4, reason="the same model in another process"
)


@dataclass(frozen=True)
class _Expected:
    """What a plan should answer to each input, and how far it may be from that."""

    answers: tuple[Arrays, ...]
    tolerance: Tolerance
    slack: dict[str, float]


class LiveCheck:
    """Asks Triton models of a folder the same inputs and compares (rule R4).

    Call it with the name of a Triton model, the id of the plan that it is (None for the router) and
    the address of the entry. It raises CheckFailed for a wrong answer, ServerError for none.
    """

    def __init__(
        self, repositories: Repositories, model: LoadedModel, inputs: Sequence[Arrays]
    ) -> None:
        if not inputs:
            raise InputError("there is no input to compare outputs on: ask for at least one")
        self._inputs = tuple(inputs)
        self._wholes: dict[Optimisation, WholeModel] = {}
        self._model = model
        parts = repositories.parts()
        self._expected = {part.plan.id: self._of_plan(part) for part in parts}
        served = parts[0].tolerances[-1].optimisation
        tolerance = _ORIGINAL.model_copy(update={"optimisation": served})
        self._expected[WHOLE] = _Expected(self._original(served), tolerance, {})
        # What a router may ask for a request without a class, where it can't say which it was.
        family = repositories.family
        self._of_router: Sequence[str] = (
            family.request_class(family.default_class).plans if family else [parts[0].plan.id]
        )

    @property
    def expected(self) -> Mapping[str, _Expected]:
        """Plan id, or 'whole' -> what it should answer to the inputs."""
        return self._expected

    @property
    def of_router(self) -> Sequence[str]:
        """Plans that may answer a request without a class."""
        return self._of_router

    def __call__(self, name: str, plan_id: str | None, url: str) -> None:
        """Raise unless the model answers right."""
        client = connect(url)
        try:
            found = [ask(client, name, arrays) for arrays in self._inputs]
        finally:
            client.close()
        for position, (outputs, parameters) in enumerate(found):
            answered = plan_id or parameters.get(PLAN_PARAMETER)
            if answered is not None and answered not in self._expected:
                raise ServerError(
                    f"model '{name}' was answered by plan {answered}, which is not in this folder"
                )
            self._compare_any(name, [answered] if answered else self._of_router, position, outputs)

    def _compare_any(
        self, name: str, plan_ids: Sequence[str], position: int, outputs: Arrays
    ) -> None:
        """Raise unless the answer is that of one of these plans; what is said is of the first."""
        failures = []
        for plan_id in plan_ids:
            try:
                return self._compare(name, plan_id, self._expected[plan_id], position, outputs)
            except CheckFailed as error:
                failures.append(error)
        raise failures[0]

    def _compare(
        self, name: str, plan_id: str, expected: _Expected, position: int, outputs: Arrays
    ) -> None:
        reference, tolerance = expected.answers[position], expected.tolerance
        comparison = Comparison(tolerance.absolute, tolerance.relative)
        comparison.add(reference, like(outputs, reference))
        for found in comparison.differences():
            if not _with_slack(found, expected).ok:
                raise CheckFailed(
                    f"model '{name}' (plan {plan_id}): output '{found.output}' is "
                    f"{found.max_abs:.3g} from what it should be, allowed are "
                    f"{tolerance.absolute:g} + {tolerance.relative:g} |whole| "
                    f"+ {expected.slack.get(found.output, 0.0):.2g} (rule R4): verify the folder "
                    "with `tritier verify`"
                )

    def _of_plan(self, part: PlanPart) -> _Expected:
        plan, tolerance = part.plan, part.tolerances[-1]
        original = self._original(tolerance.optimisation)
        if plan.is_exact:
            return _Expected(original, tolerance, {})
        answers = self._realised(plan, tolerance)
        noise = Comparison(0.0, 0.0)
        for exact, answer in zip(original, answers, strict=True):
            noise.add(exact, answer)
        slack = {d.output: tolerance.share_of_noise * d.max_abs for d in noise.differences()}
        return _Expected(answers, tolerance, slack)

    def _original(self, level: Optimisation) -> tuple[Arrays, ...]:
        if level not in self._wholes:
            self._wholes[level] = WholeModel(self._model.path, level)
        return tuple(self._wholes[level].run(arrays) for arrays in self._inputs)

    def _realised(self, plan: Plan, tolerance: Tolerance) -> tuple[Arrays, ...]:
        whole = realised_whole(plan, self._model, tolerance.optimisation)
        return tuple(whole.run(arrays) for arrays in self._inputs)


def _with_slack(found: Difference, expected: _Expected) -> Difference:
    return dataclasses.replace(found, slack=expected.slack.get(found.output, 0.0))
