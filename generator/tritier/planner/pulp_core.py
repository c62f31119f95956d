"""The integer program of a folded problem: few variables, tight rows, solved in a fraction of a
second.

A variable of the core has one binary per label; a table has a share for each choice of labels of
its variables, and the shares add up to the binaries (the local polytope over the tables). Noise is
limited as in `pulp_noise`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tritier.planner.evaluate import evaluate, violations
from tritier.planner.factors import Label, TooWide
from tritier.planner.fold import Core, Table, is_possible
from tritier.planner.problem import MIB, Bools, Placement, Problem, Weights
from tritier.planner.pulp_model import solve_pulp
from tritier.planner.pulp_noise import add_noise, refuse
from tritier.planner.pulp_rows import Rows, Sum
from tritier.planner.pulp_solvers import DEFAULT_SOLVER, run, solver_named
from tritier.planner.pulp_sums import largest_need
from tritier.planner.rows import worth_of
from tritier.planner.solution import GAP, Solution, Status, finished, without

_MOST_CUTS = 50
# Of a server's memory, while a layer runs.
_MUCH = 0.2


def solve_folded(
    problem: Problem,
    weights: Weights,
    *,
    solver: str = DEFAULT_SOLVER,
    time_limit_s: float = 60.0,
    gap: float = GAP,
    allowed_labels: Sequence[Sequence[Label]] | None = None,
    lower_bound: float | None = None,
    masks: Sequence[int] | None = None,
) -> Solution:
    """The placement of the least value, of a problem without limits of energy and latency.

    `allowed_labels` (their servers count), `masks` and `lower_bound` are as in
    `pulp_model.solve_pulp`. Raises UsageError for an unknown solver.
    """
    if allowed_labels is not None:
        problem = replace(problem, allowed=_allowed(problem, allowed_labels))
    assert not has_costly_limits(problem), "limits of energy and latency can't be folded"
    solver = solver_named(solver)  # also where nothing is left to solve
    method = f"folded, PuLP ({solver})"
    if not all(problem.labels):
        return without(math.inf, method)
    end = time.perf_counter() + time_limit_s
    known = -math.inf if lower_bound is None else lower_bound
    kept = _kept(problem)
    while True:  # each time more layers are kept, so this ends
        try:
            core = Core(problem, worth_of(problem, weights), kept)
        except TooWide:
            left = max(end - time.perf_counter(), 0.1)
            return solve_pulp(
                problem, weights, solver=solver, time_limit_s=left, gap=gap, masks=masks,
                lower_bound=lower_bound,
            )  # fmt: skip
        if not is_possible(core):
            return without(math.inf, method)
        found = _solve_core(problem, weights, core, solver, end, gap, masks, known, method)
        if isinstance(found, Solution):
            return found
        kept |= found


def has_costly_limits(problem: Problem) -> bool:
    """Whether something is limited that folding hides: energy or latency."""
    return replace(problem, limits=replace(problem.limits, memory_bytes=())).has_rows


def _allowed(problem: Problem, labels: Sequence[Sequence[Label]]) -> Bools:
    allowed = np.zeros_like(problem.allowed)
    for layer, some in enumerate(labels):
        allowed[layer, [server for server, _ in some]] = True
    return allowed


def _kept(problem: Problem) -> set[int]:
    """Layers that limits hang on; of those without weights, the ones that need much memory while
    they run."""
    kept = set(problem.quantizable) if problem.noise.limits else set()
    least = min(problem.limits.memory_bytes, default=math.inf)
    if math.isfinite(least):
        needy = (problem.float_bytes > 0) | (problem.working_bytes > _MUCH * least)
        kept |= set(np.flatnonzero(needy.any(axis=1)).tolist())
    return kept


def _solve_core(
    problem: Problem,
    weights: Weights,
    core: Core,
    solver: str,
    end: float,
    gap: float,
    masks: Sequence[int] | None,
    known: float,
    method: str,
) -> Solution | set[int]:
    """The solution, or layers that must not be folded: while they run they need too much memory."""
    program = _Program(problem, core, masks)
    for cut in range(_MOST_CUTS):
        found = program.solve(solver, max(end - time.perf_counter(), 1e-3), gap)
        bound = max(found.bound, known)
        if found.status in (Status.INFEASIBLE, Status.UNKNOWN):
            return without(bound, method, found.status)
        placement = core.placement(program.labels())
        costs = evaluate(problem, placement)
        broken = violations(problem, placement, costs)
        if not broken:
            return finished(placement, costs, costs.value(weights), bound, method)
        assert all(item.kind in ("noise", "memory") for item in broken), broken
        servers = [item.server for item in broken if item.server is not None]
        needy = {_largest(problem, placement, server) for server in servers}
        if folded := needy - set(core.variables) - _fixed(problem):
            return folded
        # only the tolerance of the solver let it through
        if any(item.kind == "noise" for item in broken):
            refuse(program.rows, placement.quantized, program.quantized, f"cut_{cut}")
        else:
            program.forbid(f"cut_{cut}")
    raise AssertionError(f"{_MOST_CUTS} placements are within the tolerance only")


def _fixed(problem: Problem) -> set[int]:
    """Layers that have one label only."""
    return {layer for layer, labels in enumerate(problem.labels) if len(labels) == 1}


def _largest(problem: Problem, placement: Placement, server: int) -> int:
    """The layer on a server that needs the most memory while it runs."""
    there = [layer for layer, at in enumerate(placement.servers) if at == server]
    return max(there, key=lambda layer: problem.working_bytes[layer, server])


class _Program:
    def __init__(self, problem: Problem, core: Core, masks: Sequence[int] | None) -> None:
        self.rows = Rows("core")
        self._core = core
        self._binaries = {v: self._labels_of(v) for v in core.variables}
        objective = Sum(core.constant)
        for number, table in enumerate(core.tables):
            objective.add(self._shares(number, table))
        self.quantized = [self._quantized(problem, layer) for layer in problem.quantizable]
        add_noise(self.rows, problem.noise, self.quantized, masks)
        for server, limit in enumerate(problem.limits.memory_bytes):
            if math.isfinite(limit):
                self._limit_memory(problem, server, limit)
        self.rows.minimise(objective)

    def solve(self, solver: str, time_limit_s: float, gap: float) -> Solution:
        """Status and bound, in the unit of the objective."""
        if self.rows.impossible:
            return without(math.inf, "")
        if not self.rows.program.variables():
            return Solution(Status.OPTIMAL, None, None, 0.0, self._core.constant, "")
        found = run(self.rows.program, solver=solver, time_limit_s=time_limit_s, gap=gap)
        return without(found.bound / self.rows.objective_scale, "", found.status)

    def labels(self) -> dict[int, int]:
        """The label of each variable of the core."""
        return {
            v: int(np.argmax([binary.value() for binary in binaries]))
            for v, binaries in self._binaries.items()
        }

    def forbid(self, name: str) -> None:
        """Leave out the labels that were found, all together."""
        chosen = [self._binaries[v][label] for v, label in self.labels().items()]
        self.rows.at_most(name, Sum.of(chosen), len(chosen) - 1.0)

    def _labels_of(self, variable: int) -> list[Sum]:
        found = [
            self.rows.variable(f"x_{variable}_{label}", binary=True)
            for label in range(self._core.domains[variable])
        ]
        self.rows.equal(f"label_{variable}", Sum.of(found), 1.0)
        return found

    def _shares(self, number: int, table: Table) -> Sum:
        """Rows of a table, and what it adds to the objective."""
        if len(table.scope) == 1:
            return self._unary(table)
        cost = Sum()
        sides: dict[tuple[int, int], Sum] = {}
        for place, value in np.ndenumerate(table.costs):
            if not math.isfinite(value):
                continue
            share = self.rows.variable(f"z_{number}_{'_'.join(map(str, place))}")
            cost.add(share, float(value))
            for axis, label in enumerate(place):
                sides.setdefault((axis, label), Sum()).add(share)
        for axis, variable in enumerate(table.scope):
            for label, binary in enumerate(self._binaries[variable]):
                total = sides.get((axis, label), Sum())
                self.rows.equal(f"z_{number}_{axis}_{label}", total, binary)
        return cost

    def _unary(self, table: Table) -> Sum:
        cost = Sum()
        for label, value in enumerate(table.costs.tolist()):
            binary = self._binaries[table.scope[0]][label]
            if math.isfinite(value):
                cost.add(binary, value)
            else:
                self.rows.equal(f"never_{table.scope[0]}_{label}", binary, 0.0)
        return cost

    def _limit_memory(self, problem: Problem, server: int, limit: float) -> None:
        """Weights, and the largest need of a layer while it runs; layers that are folded have no
        weights."""
        total, needs = Sum(), []
        for layer, labels in enumerate(problem.labels):
            stands = Sum()
            for label, (there, mode) in enumerate(labels):
                if there != server or (len(labels) > 1 and layer not in self._binaries):
                    continue
                one = Sum(1.0) if len(labels) == 1 else self._binaries[layer][label]
                held = problem.int8_bytes if mode else problem.float_bytes
                total.add(one, float(held[layer, server]) / MIB)
                stands.add(one)
            needs.append((float(problem.working_bytes[layer, server]) / MIB, stands))
        total.add(largest_need(self.rows, f"working_{server}", needs))
        self.rows.limit(f"memory_{server}", total, limit / MIB)

    def _quantized(self, problem: Problem, layer: int) -> Sum:
        labels = problem.labels[layer]
        if len(labels) == 1:
            return Sum(float(labels[0][1]))
        if layer not in self._binaries:  # noise limits nothing
            return Sum()
        chosen = zip(labels, self._binaries[layer], strict=True)
        return Sum.of([binary for (_, mode), binary in chosen if mode])
