"""Prove that every plan of a family, and the router, give what the whole model gives (rule R4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import tritonclient.grpc as triton

from tritier.deployment.access import connect
from tritier.divider import Arrays
from tritier.documents import WHOLE, FamilyClass
from tritier.errors import CheckFailed
from tritier.graph import LoadedModel
from tritier.repository import PlanPart, Repositories, entry_name
from tritier.workflow.live import PLAN_PARAMETER
from tritier.workflow.verify import Verdict, ask, compare_runs, infer, verify_part_chained

Report = Callable[[str], None]


@dataclass(frozen=True)
class FamilyVerdict:
    """What was asked, which plan answered, and how far the answers are from what is right."""

    asked: str
    plan_id: str
    verdict: Verdict


def verify_family_chained(
    repositories: Repositories,
    model: LoadedModel,
    inputs: Sequence[Arrays],
    report: Report = lambda _: None,
) -> list[FamilyVerdict]:
    """The sub-models of each plan one after the other in ONNX Runtime, next to the whole model."""
    found = []
    for part in repositories.parts():
        for tolerance in part.tolerances:
            report(f"plan {part.plan.id} chained, graph optimisation {tolerance.optimisation}")
            verdict = verify_part_chained(part, model, inputs, tolerance)
            found.append(FamilyVerdict("sub-models", part.plan.id, verdict))
    return found


def verify_family_live(
    repositories: Repositories,
    model: LoadedModel,
    inputs: Sequence[Arrays],
    url: str,
    report: Report = lambda _: None,
) -> list[FamilyVerdict]:
    """Ask each plan by its own name, the whole model, and the router as each class of requests.

    The router's answers are compared with the plan that it says has answered; where this Triton
    can't carry that, with the plans of the class, the first that fits.
    """
    live = _Live(repositories, model, inputs, connect(url), report)
    try:
        return [*live.plans(), *live.whole(), *live.router()]
    finally:
        live.client.close()


@dataclass(frozen=True)
class _Live:
    repositories: Repositories
    model: LoadedModel
    inputs: Sequence[Arrays]
    client: triton.InferenceServerClient
    report: Report

    def plans(self) -> Iterator[FamilyVerdict]:
        for part in self.repositories.parts():
            self.report(f"live: {part.entry_model}")
            answers = [infer(self.client, part.entry_model, arrays) for arrays in self.inputs]
            verdict = self._verdict(part.plan.id, self.inputs, answers)
            yield FamilyVerdict(part.entry_model, part.plan.id, verdict)

    def whole(self) -> Iterator[FamilyVerdict]:
        if any(model.kind == "whole" for model in self.repositories.manifest.models):
            name = entry_name(self.repositories.plan.model.name, WHOLE)
            self.report(f"live: {name}")
            answers = [infer(self.client, name, arrays) for arrays in self.inputs]
            yield FamilyVerdict(name, WHOLE, self._verdict(WHOLE, self.inputs, answers))

    def router(self) -> Iterator[FamilyVerdict]:
        name = self.repositories.plan.model.name
        family = self.repositories.family
        for item in family.classes if family else ():
            self.report(f"live: {name}, class {item.name}")
            rows: dict[str, list[tuple[Arrays, Arrays]]] = defaultdict(list)
            for arrays in self.inputs:
                answer, said = ask(self.client, name, arrays, {"class": item.name})
                plan_id = said.get(PLAN_PARAMETER) or self._fitting(item, arrays, answer)
                if plan_id not in item.plans:
                    raise CheckFailed(
                        f"model '{name}' answered class '{item.name}' by plan {plan_id}, which is "
                        f"not among its plans in this folder, {', '.join(item.plans)}: deploy it "
                        "first"
                    )
                rows[plan_id].append((arrays, answer))
            for plan_id, found in rows.items():
                sent, answers = [row[0] for row in found], [row[1] for row in found]
                verdict = self._verdict(plan_id, sent, answers)
                yield FamilyVerdict(f"{name} as {item.name}", plan_id, verdict)

    def _fitting(self, item: FamilyClass, arrays: Arrays, answer: Arrays) -> str:
        fitting = (x for x in item.plans if self._verdict(x, [arrays], [answer]).ok)
        return next(fitting, item.plans[0])

    def _verdict(
        self, plan_id: str, inputs: Sequence[Arrays], answers: Sequence[Arrays]
    ) -> Verdict:
        """Of answers that were given already; they are compared in their order."""
        parts = self.repositories.parts()
        known: dict[str, PlanPart] = {part.plan.id: part for part in parts}
        part = known.get(plan_id)
        given = iter(answers)
        return compare_runs(
            "live",
            part.plan if part else None,
            self.model,
            inputs,
            (part or parts[0]).tolerances[-1],
            lambda _: next(given),
        )
