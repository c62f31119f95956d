"""The placement problem as a PuLP program over labels (design, section 6).

A layer has one binary per label, that is per server and whether it is quantized there, in place of
products of two binaries; what has one label only is a constant. The rows, by their names:

    label_i                 a layer has one label
    z_*, w_*, y_*           tensors cross (see `pulp_flows`)
    sets, sets_b            what is quantized lies in an allowed set (see `pulp_noise`)
    latency_ms, energy_joule, energy_joule_k, memory_mib_k    limits
    working_k_*             the most that a layer on server k needs while it runs, step by step

The objective, the noise and the limits stand there times powers of ten, which suit solvers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tritier.planner.evaluate import Costs
from tritier.planner.problem import MIB, Placement, Problem, Weights
from tritier.planner.pulp_flows import State, add_flow
from tritier.planner.pulp_noise import add_noise
from tritier.planner.pulp_rows import Rows, Sum, safe
from tritier.planner.pulp_solve import Settings, settle
from tritier.planner.pulp_solvers import DEFAULT_SOLVER
from tritier.planner.pulp_sums import Model, add_limits
from tritier.planner.solution import GAP, Solution

# (server, quantized), as in `Problem.labels`
Label = tuple[int, bool]


def solve_pulp(
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
    """The placement of the least value, or the best one found in the time.

    `allowed_labels` (per layer) and `masks` (see `pulp_noise.add_noise`) leave out what is known to
    be of no use; answer and bound are those of the problem without it. `lower_bound` is a bound
    that is known already. Raises UsageError for an unknown solver.
    """
    model = build(problem, weights, allowed_labels=allowed_labels, masks=masks)
    settings = Settings(solver, time_limit_s, gap, f"PuLP ({solver})", lower_bound)
    return settle(model, lambda _, costs: costs.value(weights), settings)


def build(
    problem: Problem,
    weights: Weights,
    *,
    allowed_labels: Sequence[Sequence[Label]] | None = None,
    masks: Sequence[int] | None = None,
) -> Model:
    """The program, all its rows and the objective; see `solve_pulp`."""
    assert weights.per_ms >= 0, weights
    assert weights.per_joule >= 0, weights
    assert weights.per_usd >= 0, weights
    model = constrained(problem, allowed_labels=allowed_labels, masks=masks)
    model.rows.minimise(model.objective(weights))
    return model


def constrained(
    problem: Problem,
    *,
    allowed_labels: Sequence[Sequence[Label]] | None = None,
    masks: Sequence[int] | None = None,
) -> Model:
    """The program with all its rows, and no objective yet."""
    model, labels = _labelled(problem, allowed_labels)
    for index in range(len(problem.flows)):
        add_flow(model, labels, index)
    add_noise(model.rows, problem.noise, model.quantized, masks)
    add_limits(model)
    return model


def minimum_of(
    problem: Problem,
    quantity: Callable[[Model], Sum],
    measure: Callable[[Placement, Costs], float],
    *,
    settings: Settings,
) -> Solution:
    """The placement that keeps all limits and has least of a quantity, which is described as a sum
    of the model's variables and, for checking, as a function of a placement."""
    model = constrained(problem)
    model.rows.minimise(quantity(model))
    return settle(model, measure, settings)


def _labelled(
    problem: Problem, allowed_labels: Sequence[Sequence[Label]] | None
) -> tuple[Model, list[dict[State, Sum]]]:
    """The model with the variables of all layers, and for each layer that of each label."""
    rows, count = Rows("placement"), len(problem.servers)
    labels = [
        _one_label(rows, problem, layer, [x for x in own if _kept(x, allowed_labels, layer)])
        for layer, own in enumerate(problem.labels)
    ]
    model = Model(
        problem,
        rows,
        stands=[_per_server(own) for own in labels],
        quantized=[
            Sum.of(here for (_, mode), here in labels[layer].items() if mode)
            for layer in problem.quantizable
        ],
        busy_ms=[Sum() for _ in range(count)],
        held_mib=[Sum() for _ in range(count)],
    )
    for layer, own in enumerate(labels):
        for (server, mode), here in own.items():
            time = (problem.int8_ms if mode else problem.float_ms)[layer, server]
            held = (problem.int8_bytes if mode else problem.float_bytes)[layer, server]
            model.busy_ms[server].add(here, float(time))
            model.held_mib[server].add(here, float(held) / MIB)
    return model, labels


def _kept(label: Label, allowed: Sequence[Sequence[Label]] | None, layer: int) -> bool:
    return allowed is None or label in allowed[layer]


def _one_label(
    rows: Rows, problem: Problem, layer: int, labels: Sequence[Label]
) -> dict[State, Sum]:
    if len(labels) == 1:
        return {labels[0]: Sum(1.0)}
    name = f"x_{layer}_{safe(problem.layers[layer])}"
    own = {
        (server, mode): rows.variable(
            f"{name}_{server}_{safe(problem.servers[server])}{'_int8' if mode else ''}",
            binary=True,
        )
        for server, mode in labels
    }
    rows.equal(f"label_{layer}", Sum.of(own.values()), 1.0)
    return own


def _per_server(labels: dict[State, Sum]) -> dict[int, Sum]:
    servers = sorted({server for server, _ in labels})
    return {
        server: Sum.of(here for (other, _), here in labels.items() if other == server)
        for server in servers
    }
