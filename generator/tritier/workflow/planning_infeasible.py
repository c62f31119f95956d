"""Say why there is no plan: which limits conflict, and how much each would have to be alone."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context

from tritier.errors import InfeasibleError
from tritier.planner.evaluate import TOLERANCE
from tritier.planner.infeasible import Conflict, Limit, relaxations, without_limits
from tritier.planner.problem import Problem, Weights
from tritier.planner.search import solve
from tritier.planner.solution import Status
from tritier.timing.durations import MIB
from tritier.workflow.planning_figures import Predictor
from tritier.workflow.planning_search import Found

# Digits of a value that is enough. Rounded down, it would not be.
_UP = Context(prec=6, rounding=ROUND_CEILING)
_UNITS = {"latency": " ms", "energy": " J", "server energy": " J", "memory": " MiB", "noise": ""}


def infeasible(predictor: Predictor, found: Found) -> InfeasibleError:
    """What to raise for a problem of which no placement was found."""
    if found.solution.status is Status.UNKNOWN:
        return InfeasibleError(
            f"no plan was found in the time limit, nor proven that there is none "
            f"({found.solution.method}): allow more with --time-limit, or loosen a limit"
        )
    sets = _conflicts(predictor.problem)
    if not sets:
        return InfeasibleError(
            "no plan: a layer may stand on no server, or a tensor may not go where it is needed, "
            "even without any limit; check pins, forbidden servers, local tensors and closed links"
        )
    lines = []
    for conflicts in sets:
        texts = [_conflict_text(predictor, item) for item in conflicts]
        if any(item.limit.kind == "allowed" for item in conflicts) and _ways_are_closed(predictor):
            texts.append("tensors that stay local, or closed links")
        lines += [f"  - {texts[0]}", *(f"    with {text}" for text in texts[1:])]
    if len(sets) > 1:
        advice = "loosen one of each group (-)"
    else:
        advice = "loosen it" if len(lines) == 1 else "loosen one of them"
    return InfeasibleError(
        "no plan keeps all limits; what conflicts, and what is enough if it alone is loosened:\n"
        + "\n".join(lines)
        + f"\n{advice}, or add a server"
    )


def _conflicts(problem: Problem) -> list[list[Conflict]]:
    """Sets of limits that can't be kept together, each with the others out of the way."""
    found: list[list[Conflict]] = []
    left = problem
    while solve(left, Weights(1.0, 0.0)).status is Status.INFEASIBLE:
        conflicts = relaxations(left, solve=solve)
        if not conflicts:
            break
        found.append(conflicts)
        left = without_limits(left, [item.limit for item in conflicts])
    if len(found) < 2:
        return found
    return [
        relaxations(
            without_limits(
                problem, [x.limit for other in found if other is not conflicts for x in other]
            ),
            solve=solve,
        )
        for conflicts in found
    ]


def _ways_are_closed(predictor: Predictor) -> bool:
    """Whether the request says so; those are no limits that can be relaxed by a number."""
    request = predictor.built.request
    return bool(request.local_tensors or request.closed_links)


def _conflict_text(predictor: Predictor, item: Conflict) -> str:
    perhaps = "" if item.proven else ", perhaps less"
    kind, least = item.limit.kind, item.nearest
    if kind == "allowed":
        what = "pins and forbidden servers"
        count = "1 layer" if least == 1 else f"{least or 0:g} layers"
        enough = f"enough if {count} may stand elsewhere{perhaps}" if least else None
    elif kind == "refused":
        what = "choices of int8 layers that were measured as too noisy"
        enough = f"one of them is needed{perhaps}" if least else None
    else:
        unit = _UNITS[kind]
        limit = _value(predictor, item.limit, item.limit.value)
        what = f"{_name(predictor, item.limit)}, at most {limit:.6g}{unit}"
        enough = None
        if least is not None:
            needed = _value(predictor, item.limit, least)
            # What all limits but those of noise tolerate need not be rounded up.
            slack = 0.0 if kind == "noise" else TOLERANCE / 2
            needed = float(_UP.create_decimal(needed * (1 - slack)))
            enough = f"{needed:.6g}{unit} is enough{perhaps}"
    return f"{what}: {enough or 'to loosen it alone is not enough'}"


def _name(predictor: Predictor, limit: Limit) -> str:
    problem = predictor.problem
    if limit.index is None:
        return limit.kind
    if limit.kind == "noise":
        return f"noise of '{problem.noise.rows[limit.index].output}'"
    return f"{limit.kind.removeprefix('server ')} of '{problem.servers[limit.index]}'"


def _value(predictor: Predictor, limit: Limit, value: float) -> float:
    """As the user gives it: memory in MiB with what the server takes anyway, noise as it is."""
    if limit.kind == "memory" and limit.index is not None:
        return (value + predictor.process_bytes(limit.index)) / MIB
    if limit.kind == "noise" and limit.index is not None:
        return predictor.noise_of_load(limit.index, value)
    return value
