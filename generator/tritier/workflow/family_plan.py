"""A family of plans: for each class of requests the best plan, and one for each server that may be
lost.

What answers a class when its plan can't: its plans without each server, the one of least predicted
latency first, then plans of other classes that keep within its noise, then the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tritier.documents import (
    WHOLE,
    Classes,
    Family,
    FamilyClass,
    FamilyPlan,
    Plan,
    PlanReport,
    RequestClass,
)
from tritier.errors import InfeasibleError, InputError
from tritier.repository import plan_file
from tritier.workflow.family_classes import ClassTask, class_task, unknown_wires, without_server
from tritier.workflow.planning import NoiseCheck, Planned, make_plan
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem_request import PlanningRequest, listed

Report = Callable[[str], None]


@dataclass(frozen=True)
class PlannedFamily:
    """A family, its plans in its order, a report for each, and what is to be warned of."""

    family: Family
    plans: tuple[Plan, ...]
    reports: Mapping[str, PlanReport]
    warnings: tuple[str, ...]


def plan_family(
    request: PlanningRequest,
    goals: Goals,
    classes: Classes,
    name: str | None = None,
    check: NoiseCheck | None = None,
    with_whole: bool = True,
    report: Report = lambda _: None,
) -> PlannedFamily:
    """Plan every class, and each class again without each server that its plan uses.

    `request`, `goals` and `check` are those of one plan; a class changes limits of noise and goals.
    Without `with_whole` the whole model answers nobody. Raises what `make_plan` raises, with the
    name of the class; a class that can't do without a server is only warned of.
    """
    solver = _Solver(name, check, report)
    found = [
        solver.solve(class_task(key, item, request, goals, check is not None))
        for key, item in classes.classes.items()
    ]
    return _family(classes, found, with_whole, solver)


@dataclass
class _Solver:
    """Solves tasks, equal ones once, and remembers what is to be warned of."""

    name: str | None
    check: NoiseCheck | None
    report: Report
    warnings: list[str] = field(default_factory=list)
    _known: dict[tuple[object, ...], Planned] = field(default_factory=dict)

    def solve(self, task: ClassTask) -> _Solved:
        """The plan of a class, and those without each server that it uses."""
        best = self._plan(task, None, f"class {task.name}")
        solved = _Solved(task, best)
        used = {component.server for component in best.plan.components}
        for server in task.request.planned_servers:
            if server == task.request.servers.entry.name:
                continue
            if server not in used:
                solved.without[server] = best
                continue
            try:
                what = f"class {task.name} without {server}"
                solved.without[server] = self._plan(task, server, what)
            except (InfeasibleError, InputError) as error:  # what the class alone does not raise
                self.warnings.append(f"no plan for {what}: {error}")
        return solved

    def _plan(self, task: ClassTask, lost: str | None, what: str) -> Planned:
        key = (*task.key, lost)
        if key not in self._known:
            self.report(what)
            self._known[key] = self._made(task, lost, what)
        return self._known[key]

    def _made(self, task: ClassTask, lost: str | None, what: str) -> Planned:
        request = task.request if lost is None else without_server(task.request, lost)
        goals = task.goals if lost is None else replace(task.goals, explain=False, front=None)
        check = self.check if task.measured else None

        def step(text: str) -> None:
            self.report(f"{what}: {text}")

        try:
            planned = make_plan(request, goals, self.name, check, step)
            names = unknown_wires(planned, request) if request.noise_limits and not check else []
            if not names:
                return planned
            self.warnings.append(
                f"{what}: {listed(names)} could cross in fewer bits, and what that loses is not "
                "known: give --images or --data to have it measured; everything crosses as it is"
            )
            return make_plan(replace(request, wire_codecs={}), goals, self.name, check, step)
        except (InfeasibleError, InputError) as error:
            if lost is not None:
                raise
            if isinstance(error, InputError):
                raise InputError([f"{what}: {fault}" for fault in error.faults]) from None
            raise InfeasibleError(f"no plan for {what}: {error}") from None


@dataclass
class _Solved:
    """The plan of a class and, by lost server, those without."""

    task: ClassTask
    best: Planned
    without: dict[str, Planned] = field(default_factory=dict)

    def fallbacks(self) -> list[Planned]:
        """Plans without a server, the least predicted latency first; each once."""
        others = [x for x in self.without.values() if x.plan.id != self.best.plan.id]
        return _once(sorted(others, key=_latency_ms))


def _family(
    classes: Classes, found: Sequence[_Solved], with_whole: bool, solver: _Solver
) -> PlannedFamily:
    every = _once([x for solved in found for x in (solved.best, *solved.fallbacks())])
    main = {solved.best.plan.id for solved in found}
    if with_whole:  # a fallback that is the whole model on the entry would be there twice
        every = [x for x in every if x.plan.id in main or not _is_whole(x.plan)]
    rows = [_row(planned, found) for planned in every]
    limits = {row.id: row.noise_limits for row in rows}
    family = Family(
        model=every[0].plan.model,
        plans=tuple(rows),
        classes=tuple(
            _class(classes.classes[s.task.name], s, every, limits, with_whole) for s in found
        ),
        default_class=classes.default_class,
    )
    warnings = [*_told_once(found), *solver.warnings, *_late(family)]
    if with_whole:
        warnings += _broken_by_whole(found)
    return PlannedFamily(
        family,
        tuple(planned.plan for planned in every),
        {planned.plan.id: planned.report for planned in every},
        tuple(dict.fromkeys(warnings)),
    )


def _row(planned: Planned, found: Sequence[_Solved]) -> FamilyPlan:
    """A plan that several classes have keeps the limits of all of them."""
    plan, figures = planned.plan, planned.report.figures
    lost: dict[str, None] = {}
    limits: dict[str, float] = {}
    for solved in found:
        mine = [server for server, x in solved.without.items() if x.plan.id == plan.id]
        lost |= dict.fromkeys(mine)
        if mine or solved.best.plan.id == plan.id:
            for output, limit in solved.task.limits.items():
                limits[output] = min(limit, limits.get(output, limit))
    outputs = [plan.tensor(t).name for t in plan.outputs]
    noise = dict(planned.report.measured_noise or figures.noise)
    return FamilyPlan(
        id=plan.id,
        file=plan_file(plan.id),
        servers=tuple(server.name for server in plan.servers),
        without=tuple(lost),
        noise_limits=dict.fromkeys(outputs, 0.0) if plan.is_exact else limits,
        noise=dict.fromkeys(outputs, 0.0) if plan.is_exact else noise,
        latency_ms=figures.latency_ms,
        energy_joule=figures.energy_joule,
    )


def _class(
    item: RequestClass,
    solved: _Solved,
    every: Sequence[Planned],
    limits: Mapping[str, Mapping[str, float]],
    with_whole: bool,
) -> FamilyClass:
    own = _once([solved.best, *solved.fallbacks()])
    others = [x for x in every if x.plan.id not in {planned.plan.id for planned in own}]
    allowed = [
        planned
        for planned in sorted(others, key=_latency_ms)
        if all(
            limits[planned.plan.id].get(output, float("inf")) <= limit
            for output, limit in solved.task.limits.items()
        )
    ]
    ids = [x.plan.id for x in (*own, *allowed) if x.plan.id in limits]
    return FamilyClass(
        name=solved.task.name,
        plans=(*ids, WHOLE) if with_whole else tuple(ids),
        deadline_ms=item.deadline_ms,
        hedge=item.hedge,
        noise_limits=dict(solved.task.limits),
    )


def _late(family: Family) -> list[str]:
    """Classes whose own plan is predicted to be late."""
    found = []
    for item in family.classes:
        if item.plans[0] == WHOLE:
            continue
        expected = family.plan(item.plans[0]).latency_ms
        if expected is not None and expected > item.deadline_ms:
            found.append(
                f"class '{item.name}': its plan is predicted to take {expected:.4g} ms, more than "
                f"its deadline of {item.deadline_ms} ms"
            )
    return found


def _told_once(found: Sequence[_Solved]) -> list[str]:
    """Warnings of planning; what all classes have in common is of none of them."""
    texts = dict.fromkeys(text for solved in found for text in solved.best.report.warnings)
    told = []
    for text in texts:
        names = [s.task.name for s in found if text in s.best.report.warnings]
        whose = "" if len(names) == len(found) else f"class '{', '.join(names)}': "
        told.append(whose + text)
    return told


def _broken_by_whole(found: Sequence[_Solved]) -> list[str]:
    """Limits that the whole model on the entry does not keep."""
    texts = []
    for solved in found:
        entry = solved.task.request.servers.entry.name
        rows = [x for x in solved.best.report.baselines if x.what == f"all on {entry}"]
        texts += [
            f"class '{solved.task.name}': the whole model on '{entry}', which answers last, breaks "
            f"{limit}: --no-whole leaves it out"
            for row in rows
            for limit in row.broken
        ]
    return texts


def _is_whole(plan: Plan) -> bool:
    return plan.is_exact and all(c.server == plan.entry.name for c in plan.components)


def _latency_ms(planned: Planned) -> float:
    return planned.report.figures.latency_ms


def _once(planned: Sequence[Planned]) -> list[Planned]:
    found: dict[str, Planned] = {}
    for item in planned:
        found.setdefault(item.plan.id, item)
    return list(found.values())
