"""Plan: from documents to the best placement, a plan of it, and a report of why.

The noise of a plan's quantized layers can be measured before the plan is final: then predictions
need no margin, and a choice that breaks the limit is refused and the plan solved again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from tritier.documents import NoiseModel, Plan, PlanReport, Predictions, WireNoise
from tritier.errors import InfeasibleError, InputError, UsageError
from tritier.noise import Candidate, Outcome, Settled, layers_of
from tritier.planner import Group
from tritier.planner.objective import MILLIONTHS
from tritier.planner.problem import Problem
from tritier.planner.pulp_bottleneck import bottleneck_ms
from tritier.workflow.coding import code_plan
from tritier.workflow.noise_fit import settle_pick
from tritier.workflow.plan import plan_from_groups
from tritier.workflow.planning_codecs import find_with_codecs, losses_of
from tritier.workflow.planning_explain import (
    alternative_entries,
    baseline_entries,
    best_figures,
    front_entries,
    gain_entries,
    limit_uses,
    link_shares,
    server_shares,
    throughput_entries,
)
from tritier.workflow.planning_figures import Predictor
from tritier.workflow.planning_goals import Goals
from tritier.workflow.planning_infeasible import infeasible
from tritier.workflow.planning_search import Found, find
from tritier.workflow.planning_wires import (
    largest_share,
    uncounted,
    unmeasured,
    with_one_wire,
)
from tritier.workflow.problem import BuiltProblem, build_problem
from tritier.workflow.problem_noise import known_losses, translated
from tritier.workflow.problem_request import PlanningRequest, listed

MeasureNoise = Callable[[Collection[str]], Mapping[str, float]]
Report = Callable[[str], None]


@dataclass(frozen=True)
class NoiseCheck:
    """Measures the noise of really quantized layers, on so many inputs; `runs` choices at most.

    `measure_plan` measures a whole plan, with the codecs of its wires; without it, what these lose
    is not known.
    """

    measure: MeasureNoise
    inputs: int
    runs: int = 6
    measure_plan: Callable[[Plan], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Planned:
    """A plan, why it is so, and what both came from. `noise` are the noise models with what was
    measured for the plan."""

    plan: Plan
    report: PlanReport
    built: BuiltProblem
    found: Found
    noise: tuple[NoiseModel, ...] = ()


def make_plan(
    request: PlanningRequest,
    goals: Goals,
    name: str | None = None,
    check: NoiseCheck | None = None,
    report: Report = lambda _: None,
) -> Planned:
    """The best plan for the goals.

    Raises InfeasibleError with the limits that conflict, InputError for documents that don't fit
    together, UsageError for goals that can't be met by an option's choice.
    """
    report("the problem")
    if check is not None:
        request = replace(request, noise_margin=False)
    return plan_built(build_problem(request), goals, name, check, report)


def plan_built(
    built: BuiltProblem,
    goals: Goals,
    name: str | None = None,
    check: NoiseCheck | None = None,
    report: Report = lambda _: None,
    earlier: Planned | None = None,
) -> Planned:
    """As `make_plan`, for a problem that is built: also to plan again for another network (see
    `problem.replan`), with what an `earlier` plan of the same model and servers has found out that
    does not depend on it. With a `check`, the problem is to be built without the margin of noise.
    """
    if goals.objective == "cost" and built.problem.money is None:
        raise UsageError("the objective cost needs prices of all servers, and the request has none")
    started = time.monotonic()
    order = earlier.found.search.order if earlier else None
    while True:
        settled = _Settled(built, goals, report, order)
        if check is not None and built.problem.noise.rows:
            found = settled.measured(check)
        else:
            found = settled.once(built.problem)
        if found.placement is None:
            raise infeasible(settled.predictor, found)
        plan = _plan(settled.predictor, found, name)
        changed = settled.with_quieter_wires(plan, found, check)
        if changed is None:
            break
        built, order = changed, found.search.order
    solve_s = time.monotonic() - started
    report("explaining")
    document = _report(plan, settled, found, goals, solve_s)
    figures = document.figures
    noise = max(document.measured_noise.values(), default=None)
    if noise is None and plan.quantized_layers:
        noise = max(figures.noise.values(), default=None)
    plan = plan.with_predictions(
        Predictions(latency_ms=figures.latency_ms, energy_joule=figures.energy_joule, noise=noise)
    )
    return Planned(plan, document, settled.predictor.built, found, settled.noise)


class _Settled:
    """The search, once or until a measured choice of quantized layers is within its limits."""

    def __init__(
        self,
        built: BuiltProblem,
        goals: Goals,
        report: Report,
        order: Sequence[int] | None = None,
    ) -> None:
        self._goals, self._report, self._order = goals, report, order
        self._built = built
        self.problem = built.problem
        self._overlap = goals.objective == "makespan"
        self.predictor = Predictor(built, overlap=self._overlap)
        self.noise: tuple[NoiseModel, ...] = tuple(built.request.noise)
        self.measured_noise: dict[str, float] = {}
        self.warnings: tuple[str, ...] = ()
        self.runs = 0

    def once(self, problem: Problem) -> Found:
        """Solve it; the codecs of wires are settled then, if it is known what they lose."""
        self._report("solving")
        losses = losses_of(self._built, problem)
        if losses.count:
            settling = find_with_codecs(self._built, problem, self._goals, losses, self._order)
            self.problem, found = settling.problem, settling.found
            self.predictor = Predictor(settling.built, settling.problem, self._overlap)
        else:
            self.problem = problem
            self.predictor = Predictor(self._built, problem, self._overlap)
            found = find(problem, self._goals, self.predictor, self._order)
        self._order = found.search.order  # limits of noise don't change it
        return found

    def measured(self, check: NoiseCheck) -> Found:
        """Solve, measure the noise of the choice, and solve again if it breaks the limit."""
        built = self._built
        if len(built.request.noise) != 1:
            raise InputError(
                f"{len(built.request.noise)} noise models: the noise of a plan is measured in one "
                "format; give the servers the same quantization setting, or plan without measuring"
            )
        noise, limits = built.request.noise[0], built.request.noise_limits
        known: dict[int, tuple[Predictor, Found]] = {}

        def pick(model: NoiseModel, share: float, refused: Collection[int]) -> Candidate | None:
            rows = built.rows_for(model, share=share, with_margin=False)
            problem = built.with_noise(rows, refused, of=noise.layers)
            found = self.once(problem)
            if found.placement is None:
                return None
            mask = translated(found.placement.quantized, built.quantizable, noise.layers)
            assert mask is not None
            known[mask] = (self.predictor, found)
            return Candidate(mask, -self._worth(found))

        def measure(mask: int) -> Mapping[str, float]:
            names = layers_of(noise.layers, mask)
            self._report(f"measuring the noise of {len(names)} int8 layers")
            self.runs += 1
            return check.measure(names)

        settled = settle_pick(noise, limits, pick, measure, check.inputs, check.runs)
        self.noise = (settled.model,)
        if settled.pick is None:
            return self._nothing(settled)
        predictor, found = known[settled.pick.mask]
        self.problem = predictor.problem
        self._built = _with_noise_models(built, self.noise)
        chosen = _with_noise_models(predictor.built, self.noise)
        self.predictor = Predictor(chosen, self.problem, self._overlap)
        layers = set(layers_of(noise.layers, settled.pick.mask))
        for item in settled.model.measured:
            if set(item.layers) == layers:
                self.measured_noise = dict(item.noise)
        return found

    def with_quieter_wires(
        self, plan: Plan, found: Found, check: NoiseCheck | None
    ) -> BuiltProblem | None:
        """The problem to solve again, if the plan, really run, breaks a limit because of its coded
        tensors: with what they lose alone or, if that is known and was not enough, without the
        codec that loses most. None if the plan is within its limits, or can't be run."""
        assert found.placement is not None
        coded = self.predictor.coded(found.placement)
        losses = known_losses(self._built.request.noise)
        unknown = [name for name, codec in coded.items() if (name, codec) not in losses]
        if check is None or check.measure_plan is None:
            self.warnings = (unmeasured(unknown),) if unknown else ()
            return None
        if not coded:
            return None
        limits = self._built.request.noise_limits
        wires = "1 coded tensor" if len(coded) == 1 else f"{len(coded)} coded tensors"
        self._report(f"measuring the noise of the plan with {wires}")
        noise = dict(check.measure_plan(plan))
        if largest_share(noise, limits) <= 1:
            self.measured_noise = noise
            return None
        if unknown:
            alone = [
                WireNoise.model_validate(
                    {
                        "tensor": name,
                        "codec": coded[name],
                        "noise": dict(check.measure_plan(with_one_wire(plan, name))),
                        "inputs": check.inputs,
                    }
                )
                for name in unknown
            ]
            models = tuple(model.with_wires(alone) for model in self._built.request.noise)
            return _with_noise_models(self._built, models)
        worst = max(coded.items(), key=lambda item: largest_share(losses[item], limits))
        return self._built.without_codecs([self._built.flow_at[worst[0]]])

    def _nothing(self, settled: Settled[NoiseModel]) -> Found:
        """What is found where no choice is left: why there is none."""
        if settled.outcome is Outcome.NOT_FOUND:
            raise InfeasibleError(
                f"all {settled.runs} choices of int8 layers that were measured are too noisy: "
                "measure more choices with --noise-runs, or loosen the noise limit"
            )
        built = self._built
        rows = built.rows_for(settled.model, with_margin=False)
        return self.once(built.with_noise(rows, settled.refused, of=settled.model.layers))

    def _worth(self, found: Found) -> float:
        assert found.placement is not None
        predicted = self.predictor.predict(found.placement)
        if self._goals.objective == "throughput":
            return bottleneck_ms(predicted.costs)
        if self._goals.objective == "makespan":
            return predicted.simulated_ms
        return predicted.costs.value(found.weights)


def _with_noise_models(built: BuiltProblem, models: tuple[NoiseModel, ...]) -> BuiltProblem:
    """With more that was measured; the limits of the problem stay as they are."""
    return replace(built, request=replace(built.request, noise=models))


def _plan(predictor: Predictor, found: Found, name: str | None) -> Plan:
    """The plan of a placement, with its layers quantized and its wires coded."""
    assert found.placement is not None
    built, request = predictor.built, predictor.built.request
    placement = found.placement
    problem = built.problem
    groups = [
        Group(problem.servers[placement.servers[group[0]]], tuple(problem.layers[i] for i in group))
        for group in predictor.predict(placement).groups
    ]
    plan = plan_from_groups(request.model, request.graph, groups, request.servers, name)
    quantized = predictor.quantized(placement)
    if quantized and request.ranges is None:
        raise InputError(
            f"{listed(quantized)} {'is' if len(quantized) == 1 else 'are'} to be quantized, and "
            "there are no ranges: pass those that `tritier ranges` or `tritier noise` wrote with "
            "--ranges"
        )
    return code_plan(
        plan,
        request.model,
        request.graph,
        quantized,
        request.ranges,
        wire_codecs=predictor.coded(placement),
    )


def _report(
    plan: Plan, settled: _Settled, found: Found, goals: Goals, solve_s: float
) -> PlanReport:
    predictor, solution = settled.predictor, found.solution
    assert found.placement is not None
    explain = goals.explain
    unit = MILLIONTHS if goals.objective == "cost" else 1.0  # the solver's, of a USD
    return PlanReport(
        plan_id=plan.id,
        objective=goals.objective,
        latency_weight=goals.latency_weight if goals.objective == "weighted" else None,
        status=solution.status.value,
        method=solution.method,
        value=solution.value / unit,
        bound=solution.bound / unit,
        gap=solution.gap,
        solve_s=solve_s,
        figures=best_figures(predictor, found),
        measured_noise=settled.measured_noise,
        noise_runs=settled.runs,
        servers=server_shares(predictor, found.placement),
        links=link_shares(predictor, found.placement),
        limits=limit_uses(predictor, found.placement, settled.measured_noise),
        baselines=baseline_entries(predictor, found),
        alternatives=tuple(alternative_entries(predictor, found, goals)) if explain else (),
        gains=tuple(gain_entries(predictor, found, goals)) if explain else (),
        front=tuple(front_entries(predictor, found, goals)),
        throughput=tuple(throughput_entries(predictor, found.placement, goals)),
        sources={key: str(value) for key, value in predictor.built.sources.items()},
        warnings=(
            *predictor.built.warnings,
            *settled.warnings,
            *uncounted(plan, predictor.built, found.placement),
        ),
    )
