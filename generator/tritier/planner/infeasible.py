"""Why no placement keeps the limits: the fewest that conflict, and what each would have to be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tritier.planner.evaluate import Costs
from tritier.planner.noise_sets import NoiseRow
from tritier.planner.problem import INFINITE, MIB, Limits, Placement, Problem, Weights
from tritier.planner.pulp_model import minimum_of
from tritier.planner.pulp_noise import load_sum
from tritier.planner.pulp_rows import Sum
from tritier.planner.pulp_solve import Settings
from tritier.planner.pulp_sums import Model
from tritier.planner.solution import Solution, Status

Solve = Callable[[Problem, Weights], Solution]
LATENCY, ENERGY = Weights(1.0, 0.0), Weights(0.0, 1.0)
# Sets of limits that are tried, beyond those of the first search, to find a smaller one.
_MOST_TRIES = 60


@dataclass(frozen=True)
class Limit:
    """One limit of a problem. `kind` is 'latency' (ms), 'energy', 'server energy' (joule),
    'memory' (bytes), 'noise' (load of an output), 'refused' (masks of quantized layers) or
    'allowed' (servers of layers). `index` is the server, or the row of the noise."""

    kind: str
    index: int | None
    value: float


@dataclass(frozen=True)
class Conflict:
    """A limit that conflicts with the others of a list, and the least that it would have to be if
    it alone were relaxed.

    For 'allowed' that is the number of layers that stand where they may not, for 'refused' 1 if a
    refused mask is needed. `nearest` and `placement` are None if relaxing it alone doesn't help, or
    if that was not found in time; `proven` tells whether `nearest` (or that there is none) is.
    """

    limit: Limit
    nearest: float | None
    placement: Placement | None
    proven: bool


def relaxations(
    problem: Problem, *, solve: Solve, settings: Settings | None = None
) -> list[Conflict]:
    """The smallest set of limits that no placement keeps together, each as a `Conflict`.

    `solve` is any exact solver, which decides what is feasible; `settings` are those of PuLP, which
    minimises memory, noise and energy of a server. The set can't be made smaller by leaving limits
    out; for few limits it is the smallest of all. Without a limit to blame, where layers have no
    server or tensors no way, the list is empty. Raises ValueError if the problem is feasible.
    """
    settings = settings or Settings()
    limits = limits_of(problem)

    def conflict(kept: Iterable[Limit]) -> bool:
        chosen = set(kept)
        rest = without_limits(problem, [limit for limit in limits if limit not in chosen])
        return solve(rest, LATENCY).status == Status.INFEASIBLE

    if not conflict(limits):
        raise ValueError("the problem is feasible, or was not shown to be infeasible in time")
    if conflict(()):
        return []
    return [
        _relaxed(problem, limit, solve, settings) for limit in _smallest_conflict(limits, conflict)
    ]


def limits_of(problem: Problem) -> list[Limit]:
    """Every limit that a problem has."""
    limits, noise = problem.limits, problem.noise
    found = [Limit("latency", None, limits.latency_ms), Limit("energy", None, limits.energy_joule)]
    found += [Limit("server energy", k, x) for k, x in enumerate(limits.server_energy_joule)]
    found += [Limit("memory", k, x) for k, x in enumerate(limits.memory_bytes)]
    found = [limit for limit in found if math.isfinite(limit.value)]
    found += [Limit("noise", i, row.budget) for i, row in enumerate(noise.rows)]
    found += [Limit("refused", None, 0.0)] if noise.refused else []
    return found + ([Limit("allowed", None, 0.0)] if not problem.allowed[1:-1].all() else [])


def without_limits(problem: Problem, gone: Sequence[Limit]) -> Problem:
    """The problem without some of its limits. Generator and receiver stay on the entry (R2)."""
    kinds = {limit.kind for limit in gone}
    at = {(limit.kind, limit.index) for limit in gone}
    limits, noise, allowed = problem.limits, problem.noise, problem.allowed.copy()
    if "allowed" in kinds:
        allowed[1:-1] = True

    def kept(kind: str, values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(INFINITE if (kind, k) in at else x for k, x in enumerate(values))

    rows = tuple(row for index, row in enumerate(noise.rows) if ("noise", index) not in at)
    refused = frozenset[int]() if "refused" in kinds else noise.refused
    return replace(
        problem,
        allowed=allowed,
        noise=replace(noise, rows=rows, refused=refused),
        limits=Limits(
            energy_joule=INFINITE if "energy" in kinds else limits.energy_joule,
            latency_ms=INFINITE if "latency" in kinds else limits.latency_ms,
            server_energy_joule=kept("server energy", limits.server_energy_joule),
            memory_bytes=kept("memory", limits.memory_bytes),
        ),
    )


def _smallest_conflict(
    limits: Sequence[Limit], conflict: Callable[[Iterable[Limit]], bool]
) -> list[Limit]:
    """Leave out what is not needed for the conflict, then look for a set with fewer members."""
    harmless: list[frozenset[Limit]] = []

    def conflicts(chosen: Sequence[Limit]) -> bool:
        if any(known.issuperset(chosen) for known in harmless):
            return False
        if conflict(chosen):
            return True
        harmless.append(frozenset(chosen))
        return False

    found = list(limits)
    for limit in limits:
        rest = [other for other in found if other != limit]
        if conflicts(rest):
            found = rest
    smaller = (
        chosen for size in range(1, len(found)) for chosen in itertools.combinations(limits, size)
    )
    for chosen in itertools.islice(smaller, _MOST_TRIES):
        if conflicts(chosen):
            return list(chosen)
    return found


def _relaxed(problem: Problem, limit: Limit, solve: Solve, settings: Settings) -> Conflict:
    rest = without_limits(problem, [limit])
    if limit.kind == "latency":
        found = solve(rest, LATENCY)
    elif limit.kind == "energy":
        found = solve(rest, ENERGY)
    else:
        quantity = _Quantity(problem, limit)
        found = minimum_of(rest, quantity.of_model, quantity.of_placement, settings=settings)
    proven = found.status in (Status.OPTIMAL, Status.INFEASIBLE)
    return Conflict(
        limit, None if found.placement is None else found.value, found.placement, proven
    )


@dataclass(frozen=True)
class _Quantity:
    """What a limit limits, as a sum of variables to minimise, and of a placement."""

    problem: Problem
    limit: Limit

    @property
    def _index(self) -> int:
        assert self.limit.index is not None
        return self.limit.index

    @property
    def _row(self) -> NoiseRow:
        return self.problem.noise.rows[self._index]

    def of_model(self, model: Model) -> Sum:
        """The sum; new variables and rows are added for it."""
        kind = self.limit.kind
        if kind == "server energy":
            return model.server_energy_joule(self._index)
        if kind == "memory":
            return model.memory_mib(self._index).times(MIB)
        if kind == "noise":
            return load_sum(model.rows, self._row, model.quantized, "least")
        if kind == "refused":
            return Sum(1.0)
        return Sum.of(
            here
            for layer, stands in enumerate(model.stands)
            for server, here in stands.items()
            if not self.problem.allowed[layer, server]
        )

    def of_placement(self, placement: Placement, costs: Costs) -> float:
        """The same by plain evaluation."""
        kind = self.limit.kind
        if kind == "server energy":
            return costs.server_energy_joule[self._index]
        if kind == "memory":
            return costs.memory_bytes[self._index]
        if kind == "noise":
            return self._row.load(placement.quantized)
        if kind == "refused":
            return 1.0
        return float(sum(not self.problem.allowed[i, k] for i, k in enumerate(placement.servers)))
