"""The published product form of the problem (design, section 6), for comparison.

Its variables, all binary: x_ik, layer i on server k; q_i, layer i quantized; y_tn, tensor t over
link n from k to h; xq_ik = x_ik q_i; yq_tn = y_tn c_t; products of q in the noise; p, anything is
quantized. Published, c_t is the q of the tensor's source. Where other layers may code it, c_t is 1
if one of them is quantized.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tritier.planner.problem import MIB, Floats, Problem, Weights
from tritier.planner.pulp_noise import add_terms
from tritier.planner.pulp_rows import Rows, Sum, safe
from tritier.planner.pulp_solve import Settings, settle
from tritier.planner.pulp_solvers import DEFAULT_SOLVER
from tritier.planner.pulp_sums import Model, add_limits
from tritier.planner.solution import GAP, Solution


def solve_thesis(
    problem: Problem,
    weights: Weights,
    *,
    solver: str = DEFAULT_SOLVER,
    time_limit_s: float = 60.0,
    gap: float = GAP,
) -> Solution:
    """The placement of the least value, or the best one found in the time.

    Raises UsageError for an unknown solver.
    """
    model = build_thesis(problem, weights)
    settings = Settings(solver, time_limit_s, gap, f"PuLP, published form ({solver})")
    return settle(model, lambda _, costs: costs.value(weights), settings)


def build_thesis(problem: Problem, weights: Weights) -> Model:
    """The program with all rows and the objective."""
    rows, count = Rows("published"), len(problem.servers)
    model = Model(
        problem,
        rows,
        stands=[_servers_of(rows, problem, layer) for layer in range(len(problem.layers))],
        quantized=[
            rows.variable(f"q_{layer}_{safe(problem.layers[layer])}", binary=True)
            for layer in problem.quantizable
        ],
        busy_ms=[Sum() for _ in range(count)],
        held_mib=[Sum() for _ in range(count)],
    )
    for layer in range(len(problem.layers)):
        _add_layer(model, layer)
    for index in range(len(problem.flows)):
        _add_tensor(model, index)
    add_terms(rows, problem.noise, model.quantized, published=True)
    add_limits(model)
    rows.minimise(model.objective(weights))
    return model


def _servers_of(rows: Rows, problem: Problem, layer: int) -> dict[int, Sum]:
    """x_ik where layer i may stand, and: each layer on one server."""
    name = f"{layer}_{safe(problem.layers[layer])}"
    stands = {
        server: rows.variable(f"x_{name}_{server}", binary=True)
        for server in sorted({server for server, _ in problem.labels[layer]})
    }
    rows.equal(f"server_{name}", Sum.of(stands.values()), 1.0)
    return stands


def _add_layer(model: Model, layer: int) -> None:
    """f(i,0) x_ik - (f(i,0) - f(i,1)) xq_ik for time and weights, and the rows of xq_ik."""
    problem, rows = model.problem, model.rows
    name = f"{layer}_{safe(problem.layers[layer])}"
    for server, stands in model.stands[layer].items():
        labels = problem.labels[layer]
        product = Sum()
        if layer in problem.bit_of:
            quantized = model.quantized[problem.bit_of[layer]]
            if (server, True) in labels:
                product = _product(rows, f"xq_{name}_{server}", stands, quantized)
                if (server, False) not in labels:
                    rows.at_most(f"only_int8_{name}_{server}", stands, product)
            else:
                neither = Sum.of([stands, quantized])
                rows.at_most(f"no_int8_{name}_{server}", neither, 1.0)
        tables = (problem.float_ms, problem.int8_ms), (problem.float_bytes, problem.int8_bytes)
        (float_ms, int8_ms), (float_bytes, int8_bytes) = (
            _pair(plain, int8, layer, server) for plain, int8 in tables
        )
        _mix(model.busy_ms[server], stands, product, float_ms, int8_ms)
        _mix(model.held_mib[server], stands, product, float_bytes / MIB, int8_bytes / MIB)


def _add_tensor(model: Model, index: int) -> None:
    """Time of y_tn and yq_tn, and their rows."""
    problem, rows, flow = model.problem, model.rows, model.problem.flows[index]
    name = f"{index}_{safe(flow.name)}"
    coded = _coded(model, index, name)
    for source, stands in model.stands[flow.source].items():
        for target in range(len(problem.servers)):
            arrivals = [own[target] for j in flow.consumers if target in (own := model.stands[j])]
            if target == source or not arrivals:
                continue
            link = f"{name}_{source}_{target}"
            crosses = rows.variable(f"y_{link}", binary=True)
            rows.at_most(f"y_{link}_from", crosses, stands)
            rows.at_most(f"y_{link}_to", crosses, Sum.of(arrivals))
            for number, arrives in enumerate(arrivals):
                both = Sum.of([stands, arrives, Sum(-1.0)])
                rows.at_least(f"y_{link}_{number}", crosses, both)
            time = model.links_ms.setdefault((source, target), Sum())
            costs = [
                (time, *_pair_at(problem.transfer_ms, problem.coded_ms, index, source, target))
            ]
            if (money := problem.money) is not None:
                tables = money.crossing, money.coded_crossing
                costs.append((model.crossing_usd, *_pair_at(*tables, index, source, target)))
            _add_crossing(rows, costs, crosses, coded, link)


def _add_crossing(
    rows: Rows,
    costs: Sequence[tuple[Sum, float, float]],
    crosses: Sum,
    coded: Sum | None,
    link: str,
) -> None:
    """`costs`: a total, and what the tensor adds to it as it is and in 8 bits; times are first."""
    _, plain_ms, coded_ms = costs[0]
    never = not math.isfinite(plain_ms) and (coded is None or not math.isfinite(coded_ms))
    if never:
        rows.equal(f"never_{link}", crosses, 0.0)
        return
    if coded is None or all(plain == other for _, plain, other in costs):
        for total, plain, _ in costs:
            total.add(crosses, plain)
        return
    product = Sum()
    if math.isfinite(coded_ms):
        product = _product(rows, f"yq_{link}", crosses, coded)
        if not math.isfinite(plain_ms):
            rows.at_most(f"only_coded_{link}", crosses, product)
    else:
        rows.at_most(f"never_coded_{link}", Sum.of([crosses, coded]), 1.0)
    for total, plain, other in costs:
        finite = [x for x in (plain, other) if math.isfinite(x)]
        plain = plain if math.isfinite(plain) else finite[0]
        _mix(total, crosses, product, plain, other if math.isfinite(other) else finite[0])


def _coded(model: Model, index: int, name: str) -> Sum | None:
    """c_t, or None if nothing codes the tensor."""
    problem, rows = model.problem, model.rows
    coders = [model.quantized[problem.bit_of[i]] for i in problem.flows[index].coded_by
              if i in problem.bit_of]  # fmt: skip
    if len(coders) < 2:
        return coders[0] if coders else None
    coded = rows.variable(f"c_{name}", binary=True)
    for number, coder in enumerate(coders):
        rows.at_least(f"c_{name}_{number}", coded, coder)
    rows.at_most(f"c_{name}_any", coded, Sum.of(coders))
    return coded


def _product(rows: Rows, name: str, first: Sum, second: Sum) -> Sum:
    product = rows.variable(name, binary=True)
    rows.at_most(f"{name}_a", product, first)
    rows.at_most(f"{name}_b", product, second)
    rows.at_least(f"{name}_c", product, Sum.of([first, second, Sum(-1.0)]))
    return product


def _mix(total: Sum, whole: Sum, product: Sum, plain: float, other: float) -> None:
    total.add(whole, plain)
    total.add(product, other - plain)


def _pair(plain: Floats, int8: Floats, layer: int, server: int) -> tuple[float, float]:
    """Both values; one that can't be stands for nothing and is replaced by the other."""
    first, second = float(plain[layer, server]), float(int8[layer, server])
    if not math.isfinite(first):
        return second, second
    return first, second if math.isfinite(second) else first


def _pair_at(
    plain: Floats, coded: Floats, index: int, source: int, target: int
) -> tuple[float, float]:
    return float(plain[index, source, target]), float(coded[index, source, target])
