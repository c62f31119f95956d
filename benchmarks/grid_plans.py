"""What is compared in a cell of `baseline_grid`: the planner's plan and all baselines (R8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from benchmarks.prediction_plans import Maker
from tritier.documents import NetworkState, Plan, TimingProfile
from tritier.errors import InfeasibleError
from tritier.planner.baselines import Baseline, baselines, best_cuts
from tritier.planner.objective import Aim
from tritier.planner.problem import Problem
from tritier.workflow.compare import Known, predict_plan
from tritier.workflow.planning import make_plan
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem import build_problem
from tritier.workflow.problem_request import PlanningRequest, WireCodec

CODECS: tuple[WireCodec, ...] = ("as_is", "fp16", "int8")
_CUTS = 12  # to each server: all of the super-resolution network, the best of larger models
_GOALS = Goals("latency", time_limit_s=10.0, explain=False)


@dataclass(frozen=True)
class Variant:
    """One of the plans of a cell. `family` is "raw" or "coded" for baselines, "planner" for what
    the planner finds."""

    name: str
    family: str
    plan: Plan
    predicted_ms: float

    @property
    def where(self) -> str:
        """The way of a request through the servers, with what is quantized."""
        places = " > ".join(part.server for part in self.plan.components)
        int8 = len(self.plan.quantized_layers)
        codecs = sorted({w.codec for w in self.plan.wires if w.codec != "as_is"})
        more = [f"{int8} int8 layers"] * bool(int8) + [f"wires {', '.join(codecs)}"] * bool(codecs)
        return ", ".join([places, *more])


@dataclass(frozen=True)
class Planning:
    """Plans of cells, from one set of measurements."""

    maker: Maker
    noise_limit: float

    def variants(
        self, timings: Mapping[str, TimingProfile], network: NetworkState
    ) -> dict[str, Variant]:
        """All baselines of both families, and under "plan" what is used: the planner's plan or, if
        a baseline is predicted to be faster, that (rule R8)."""
        maker = replace(self.maker, timings=timings, network=network)
        known = Known(maker.subject.model, maker.spec, timings, network)
        found: dict[str, Variant] = {}

        names = tuple(timings)

        def made(request: PlanningRequest) -> tuple[Plan, float] | None:
            try:
                plan = maker.named(make_plan(request, _GOALS, maker.prefix).plan)
            except InfeasibleError:
                return None
            return plan, predict_plan(plan, known).latency_ms

        for family, limit in (("raw", 0.0), ("coded", self.noise_limit)):
            request = maker.request(names, limit, CODECS)
            problem = build_problem(request).problem
            for what, group in baseline_groups(problem):
                best = best_of(map(made, (pinned(request, problem, item) for item in group)))
                if best is not None:
                    name = f"{what}, {family}"
                    found[name] = Variant(name, family, *best)
        whole = made(maker.request(names, self.noise_limit, CODECS))
        assert whole is not None  # all on the entry keeps every limit
        found["planner"] = Variant("planner", "planner", *whole)
        chosen = min(found.values(), key=lambda x: (x.predicted_ms, x.family != "planner"))
        found["plan"] = replace(chosen, name="plan", family="planner")
        return found


def baseline_groups(problem: Problem) -> Iterator[tuple[str, list[Baseline]]]:
    """All on each server, by itself; and for each server the cuts of which one will be the best:
    codecs, int8 layers and waiting are settled only when each is planned as a whole."""
    for item in baselines(problem, Aim.LATENCY.value):
        where = problem.servers[item.server]
        if item.cut_after is None:
            yield f"all on {where}", [item]
        else:
            yield f"best cut to {where}", best_cuts(problem, Aim.LATENCY.value, item.server, _CUTS)


def pinned(request: PlanningRequest, problem: Problem, item: Baseline) -> PlanningRequest:
    """To plan with all layers where the baseline has them."""
    pins = {
        layer: problem.servers[server]
        for layer, server in zip(problem.layers[1:-1], item.placement.servers[1:-1], strict=True)
    }
    return replace(request, pins=pins)


def best_of(made: Iterable[tuple[Plan, float] | None]) -> tuple[Plan, float] | None:
    """The plan that is predicted to be the fastest, of those that can be made."""
    return min((x for x in made if x is not None), key=lambda x: x[1], default=None)
