"""Run a PuLP program with a solver of choice, and answer what is proven and what is not.

What PuLP reports is not enough: it calls a run that was stopped by its time limit "Optimal", leaves
the temporary files of a solver that failed, and passes no bound on; and CBC calls a program
infeasible when it is stopped early. PuLP is called here, in
`pulp_rows` and in `thesis_model` only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pulp

from tritier.errors import CheckFailed, UsageError
from tritier.planner.solution import GAP, Status

DEFAULT_SOLVER = "HiGHS"
CBC = "CBC"
# CBC ends with "optimal" if only so much is left: a part of the gap, so that the whole proves it.
_CBC_SHARE = 0.5
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Outcome:
    """How a run ended; the values are in the variables. `objective` is that of the best point
    found, infinite without one, `bound` a proven lower bound of the objective."""

    status: Status
    objective: float
    bound: float


def run(
    program: pulp.LpProblem,
    *,
    solver: str = DEFAULT_SOLVER,
    time_limit_s: float = 60.0,
    gap: float = GAP,
) -> Outcome:
    """Minimise with one thread, silently, to the relative `gap` or to the time limit.

    Raises UsageError if there is no such solver, CheckFailed if it breaks.
    """
    name = solver_named(solver)
    if name == DEFAULT_SOLVER:
        return _run_highs(program, time_limit_s, gap)
    made = _maker(name)
    start = time.perf_counter()
    _solve(program, name, made(msg=False, timeLimit=time_limit_s, **_gaps(name, gap)))
    stopped = time.perf_counter() - start >= time_limit_s
    if program.sol_status == pulp.LpSolutionOptimal and program.status == pulp.LpStatusOptimal:
        objective = _objective(program)
        return Outcome(Status.OPTIMAL, objective, objective - gap * _CBC_SHARE * abs(objective))
    if program.status == pulp.LpStatusInfeasible and not stopped:
        return Outcome(Status.INFEASIBLE, math.inf, math.inf)
    found = program.sol_status == pulp.LpSolutionIntegerFeasible and _holds(program)
    objective = _objective(program) if found else math.inf
    status = Status.FEASIBLE if found else Status.UNKNOWN
    return Outcome(status, objective, _relaxed_bound(program, name, made, time_limit_s))


def solver_named(name: str) -> str:
    """The name of a solver as it is called here, whatever the case of its letters.

    Raises UsageError naming those that are installed.
    """
    for known, others in ((DEFAULT_SOLVER, ()), (CBC, ("PULP_CBC_CMD",))):
        if name.casefold() in {known.casefold(), *(other.casefold() for other in others)}:
            return known
    installed = [solver for solver in installed_solvers() if solver != CBC]
    for known in installed:
        if name.casefold() == known.casefold():
            return known
    allowed = ", ".join(dict.fromkeys([DEFAULT_SOLVER, CBC, *installed]))
    raise UsageError(
        f"solver '{name}' is not installed or not known to PuLP; choose one of: {allowed}"
    )


def installed_solvers() -> list[str]:
    """Names of the solvers that can be called here, as `solver_named` knows them."""
    found = pulp.listSolvers(onlyAvailable=True)
    return [CBC if name == "PULP_CBC_CMD" else str(name) for name in found]


def _run_highs(program: pulp.LpProblem, time_limit_s: float, gap: float) -> Outcome:
    # The absolute gap of HiGHS, 1e-6, is not small beside an energy in joule.
    limits = {"timeLimit": max(time_limit_s, 1e-3), "gapRel": gap, "gapAbs": 1e-9}
    _solve(program, DEFAULT_SOLVER, pulp.HiGHS(msg=False, threads=1, **limits))
    model = program.solverModel
    if program.status == pulp.LpStatusInfeasible:
        return Outcome(Status.INFEASIBLE, math.inf, math.inf)
    proven = program.sol_status == pulp.LpSolutionOptimal
    found = proven or (program.sol_status == pulp.LpSolutionIntegerFeasible and _holds(program))
    objective = _objective(program) if found else math.inf
    constant = program.objective.constant if program.objective is not None else 0.0
    if program.isMIP():
        info = model.getInfo()
        bound = float(info.mip_dual_bound) + constant if info.mip_node_count >= 0 else -math.inf
    else:
        bound = objective if proven else -math.inf
    if proven:
        # A program that presolving empties has no bound of its own.
        bound = objective if not math.isfinite(bound) else min(bound, objective)
        return Outcome(Status.OPTIMAL, objective, bound)
    bound = bound if abs(bound) < 1e100 else -math.inf
    return Outcome(Status.FEASIBLE if found else Status.UNKNOWN, objective, bound)


def _maker(name: str) -> Callable[..., Any]:
    """What makes the solver of that name, with as many of the settings as it takes."""

    def made(**settings: Any) -> Any:
        try:
            if name != CBC:
                return pulp.getSolver(name, threads=1, **settings)
            # The CBC that comes with PuLP, by the name that PuLP 4 keeps.
            path = getattr(getattr(pulp, "PULP_CBC_CMD", None), "pulp_cbc_path", None)
            return pulp.COIN_CMD(path=path, threads=1, **settings)
        except TypeError:  # it knows no threads or gaps
            common = {key: settings[key] for key in ("mip", "msg", "timeLimit") if key in settings}
            return pulp.getSolver(name, **common)

    return made


def _gaps(name: str, gap: float) -> dict[str, float]:
    return {"gapRel": gap * _CBC_SHARE} | ({"gapAbs": 0.0} if name == CBC else {})


def _solve(program: pulp.LpProblem, name: str, solver: Any) -> None:
    """Solve, and leave no temporary file, however it ends."""
    files: list[str] = []
    if hasattr(solver, "create_tmp_files"):
        create = solver.create_tmp_files

        def noted(*names: str) -> tuple[str, ...]:
            paths = tuple(create(*names))
            files.extend(paths)
            return paths

        solver.create_tmp_files = noted
    try:
        program.solve(solver)
    # HiGHS refuses extreme numbers, after which PuLP looks for values that are not there
    except (pulp.PulpSolverError, IndexError) as error:
        raise CheckFailed(
            f"solver '{name}' failed: {error}; limits or times may be too large or too small for "
            f"it; try another one, such as {DEFAULT_SOLVER}"
        ) from error
    finally:
        if files:
            solver.delete_tmp_files(*files)


def _relaxed_bound(
    program: pulp.LpProblem, name: str, made: Callable[..., Any], time_limit_s: float
) -> float:
    """The optimum with fractions allowed, or minus infinity if there is no time for it."""
    values = [(variable, variable.varValue) for variable in program.variables()]
    status = program.status, program.sol_status
    limit_s = max(time_limit_s / 4, 1.0)
    start = time.perf_counter()
    _solve(program, name, made(msg=False, mip=False, timeLimit=limit_s))
    proven = time.perf_counter() - start < limit_s and (
        (program.status, program.sol_status) == (pulp.LpStatusOptimal, pulp.LpSolutionOptimal)
    )
    bound = _objective(program) if proven else -math.inf
    for variable, value in values:
        variable.varValue = value
    program.status, program.sol_status = status
    return bound - _TOLERANCE * abs(bound) if math.isfinite(bound) else -math.inf


def _objective(program: pulp.LpProblem) -> float:
    value = None if program.objective is None else program.objective.value()
    return 0.0 if value is None else float(value)


def _holds(program: pulp.LpProblem) -> bool:
    """Whether the values are a point of the program: a run that was stopped may leave any."""
    values = [variable.varValue for variable in program.variables()]
    if any(value is None or not math.isfinite(value) for value in values):
        return False
    return bool(program.valid(1e-5))
