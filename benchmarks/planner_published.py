"""Our plans beside the published ones, under the cost model that reproduces their predictions.

    python -m benchmarks.planner_published [--nominal] [--repeat 5] [--all] [--json FILE]

Every recorded plan of yolo11x-seg: three sets of servers (one of them with two kinds of edge), max
noise 0 to 0.5, weight of latency 1, 0.5 and 0. A published plan and ours are evaluated on the same
`Problem`. What is compared is what was asked for: latency, energy, or the weighted sum of both,
each from 0 at our best to 1 at the worse of our two ends (design, section 6). Costs of the
published plan as we evaluate them differ from what was recorded by what the fit leaves, see
`tests.helpers.published`: a gain that is within that error is marked with ~ and says nothing.

`--nominal` takes the recorded profiles and the links as they were set (5 / 20 / 100 MB/s,
5 / 50 / 55 ms), for which the published plans were not made: their planner measured slower links.

Times are processor seconds of one thread, medians over the repeats: making the problem and its
tables, and solving it for least latency, least energy and the weighted sum.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.helpers.published import (
    NOMINAL,
    SETTINGS,
    Recorded,
    Setting,
    problem,
    recorded_plans,
)
from tritier.planner.components import group_layers
from tritier.planner.evaluate import Costs, evaluate, violations
from tritier.planner.objective import Extremes, solve_weighted
from tritier.planner.problem import Placement, Problem
from tritier.planner.search import Search
from tritier.planner.solution import Solution

# Relative differences below are those of sums in another order and of published solver gaps.
EQUAL = 1e-5


@dataclass(frozen=True)
class Row:
    """A case. `theirs_*` are of the published plan, `recorded_*` as it predicted itself; `score`
    is the normalised weighted objective; `better` what ours saves, as a share of the aim."""

    case: str
    max_noise: float
    latency_weight: float
    recorded_ms: float
    recorded_joule: float
    theirs_ms: float
    theirs_joule: float
    ours_ms: float
    ours_joule: float
    theirs_score: float
    ours_score: float
    better: float
    within_fit: bool
    theirs_layers: list[int]
    ours_layers: list[int]
    theirs_components: int
    ours_components: int
    theirs_int8: int
    ours_int8: int
    moved: int
    broken: list[str]
    method: str
    proven: bool
    published_s: float
    build_s: float
    solve_s: float

    @property
    def verdict(self) -> str:
        """In words."""
        if self.better < -EQUAL:
            return "WORSE"
        if self.better <= EQUAL:
            return "same"
        return f"{'~' if self.within_fit else ''}-{self.better:.2%}"


@dataclass(frozen=True)
class Solved:
    """An optimum, the ends of its front, and processor seconds."""

    problem: Problem
    solution: Solution
    ends: Extremes
    build_s: float
    solve_s: float


def setting_of(plan: Recorded, nominal: bool) -> Setting:
    """The links and machines to plan for."""
    return NOMINAL.first(len(plan.cpus)) if nominal else SETTINGS[plan.case]


def solved(plan: Recorded, setting: Setting, repeat: int) -> Solved:
    """Our answer to what a recorded plan was made for."""
    build, solve = [], []
    for _ in range(repeat):
        started = time.process_time()
        built = problem(plan.model, setting, max_noise=plan.max_noise)
        search = Search(built)
        ready = time.process_time()
        solution, ends = solve_weighted(search, plan.latency_weight)
        solve.append(time.process_time() - ready)
        build.append(ready - started)
    return Solved(built, solution, ends, statistics.median(build), statistics.median(solve))


def compare(plan: Recorded, setting: Setting, error: float, repeat: int) -> Row:
    """One recorded plan and ours. `error` is the largest relative error of the setting."""
    ours = solved(plan, setting, repeat)
    found, costs = ours.solution.placement, ours.solution.costs
    assert found is not None
    assert costs is not None
    theirs = evaluate(ours.problem, plan.placement)
    weight = plan.latency_weight
    saved = better(ours, theirs, costs, weight)
    broken = [v.kind for v in violations(ours.problem, plan.placement, theirs)]
    return Row(
        case=plan.case,
        max_noise=plan.max_noise,
        latency_weight=weight,
        recorded_ms=plan.latency_ms,
        recorded_joule=plan.energy_joule,
        theirs_ms=theirs.latency_ms,
        theirs_joule=theirs.energy_joule,
        ours_ms=costs.latency_ms,
        ours_joule=costs.energy_joule,
        theirs_score=ours.ends.score(theirs, weight),
        ours_score=ours.ends.score(costs, weight),
        better=saved,
        within_fit=saved <= slack(ours, theirs, weight, error),
        theirs_layers=per_server(ours.problem, plan.placement),
        ours_layers=per_server(ours.problem, found),
        theirs_components=plan.components,
        ours_components=components(ours.problem, found),
        theirs_int8=plan.placement.quantized.bit_count(),
        ours_int8=found.quantized.bit_count(),
        moved=sum(a != b for a, b in zip(plan.placement.servers, found.servers, strict=True)),
        broken=broken,
        method=ours.solution.method,
        proven=ours.solution.gap == 0,
        published_s=plan.generated_s,
        build_s=ours.build_s,
        solve_s=ours.solve_s,
    )


def better(ours: Solved, theirs: Costs, costs: Costs, weight: float) -> float:
    """What ours saves of the aim: of latency, of energy, or of the weighted score in its range."""
    if weight == 1:
        return 1 - costs.latency_ms / theirs.latency_ms
    if weight == 0:
        return 1 - costs.energy_joule / theirs.energy_joule
    return ours.ends.score(theirs, weight) - ours.ends.score(costs, weight)


def slack(ours: Solved, theirs: Costs, weight: float, error: float) -> float:
    """By how much the aim is uncertain if latency and energy are, by `error`."""
    if weight in (0, 1):
        return error
    weights = ours.ends.weights(weight)
    return error * theirs.value(weights)


def errors(plans: Sequence[Recorded]) -> dict[str, float]:
    """Of each case, the largest relative error of our costs beside the recorded ones."""
    found: dict[str, float] = {}
    for plan in plans:
        costs = evaluate(problem(plan.model, SETTINGS[plan.case]), plan.placement)
        both = (costs.latency_ms / plan.latency_ms, costs.energy_joule / plan.energy_joule)
        found[plan.case] = max(found.get(plan.case, 0.0), *(abs(x - 1) for x in both))
    return found


def per_server(problem: Problem, placement: Placement) -> list[int]:
    """Layers on each server, without the generator and the receiver."""
    return [placement.servers[1:-1].count(k) for k in range(len(problem.servers))]


def components(problem: Problem, placement: Placement) -> int:
    """How many there are, the generator and the receiver counted, as published."""
    before: dict[str, list[str]] = {name: [] for name in problem.layers}
    for flow in problem.flows:
        for reader in flow.consumers:
            before[problem.layers[reader]].append(problem.layers[flow.source])
    inner = problem.layers[1:-1]
    outside = {problem.layers[0], problem.layers[-1]}
    server_of = {
        name: problem.servers[server]
        for name, server in zip(problem.layers, placement.servers, strict=True)
    }
    kept = {name: [x for x in before[name] if x not in outside] for name in inner}
    return len(group_layers(inner, kept, server_of)) + 2


def show(rows: list[Row], every: bool) -> None:
    """The table on stdout; runs of equal cases in one line unless `every`."""
    table = Table(title="recorded plans and ours, same cost model", title_justify="left")
    for name in ("servers", "noise <=", "w_t", "recorded", "evaluated", "ours", "aim", "layers",
                 "ours", "int8", "parts", "theirs s", "ours s"):  # fmt: skip
        table.add_column(name, justify="left" if name == "servers" else "right")
    for row in rows:
        if not every and row.max_noise not in (0.0, 0.025, 0.05, 0.1, 0.2, 0.5):
            continue
        table.add_row(
            row.case,
            f"{row.max_noise:g}",
            f"{row.latency_weight:g}",
            f"{row.recorded_ms:.0f} ms {row.recorded_joule:.3f} J",
            f"{row.theirs_ms:.0f} ms {row.theirs_joule:.3f} J",
            f"{row.ours_ms:.0f} ms {row.ours_joule:.3f} J",
            row.verdict,
            "/".join(map(str, row.theirs_layers)),
            "/".join(map(str, row.ours_layers)),
            f"{row.theirs_int8} {row.ours_int8}",
            f"{row.theirs_components} {row.ours_components}",
            f"{row.published_s:.1f}",
            f"{row.build_s + row.solve_s:.3f}",
        )
    Console(width=190).print(table)


def summary(rows: list[Row]) -> None:
    """What it comes to."""
    for case in dict.fromkeys(row.case for row in rows):
        some = [row for row in rows if row.case == case]
        gains = [row for row in some if row.better > EQUAL]
        worst = max((row.better for row in gains), default=0.0)
        print(
            f"{case}: {len(some)} plans, {sum(abs(r.better) <= EQUAL for r in some)} the same, "
            f"{len(gains)} better (by {worst:.2%} of the aim at most; "
            f"{sum(r.within_fit for r in gains)} of them within the error of the costs), "
            f"{sum(r.better < -EQUAL for r in some)} worse; {sum(r.proven for r in some)} proven; "
            f"median {statistics.median(r.published_s for r in some):.1f} s published, "
            f"{statistics.median(r.build_s for r in some) * 1000:.0f} ms to build and "
            f"{statistics.median(r.solve_s for r in some) * 1000:.0f} ms to solve here"
        )


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nominal", action="store_true", help="links as they were set")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--all", action="store_true", help="every noise limit in the table")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    plans = recorded_plans()
    if options.nominal:  # nothing was recorded of an edge with two CPUs
        plans = [plan for plan in plans if plan.case != "DeviceEdge-2cpu"]
    error = dict.fromkeys(SETTINGS, 0.0) if options.nominal else errors(plans)
    rows = [
        compare(plan, setting_of(plan, options.nominal), error[plan.case], options.repeat)
        for plan in plans
    ]
    show(rows, options.all)
    summary(rows)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
