"""The optimum for two servers as a minimum cut, where nothing is quantized.

A layer on the side of the source is on server 0. A tensor has a node for each direction, so that it
is paid once however many consumers read it: its source pays to a node that stands before all
consumers, and a node behind all consumers pays to the source. Capacities are whole numbers, as
algorithms of flow expect.
"""

from __future__ import annotations

import math
from typing import Any

import networkx

from tritier.planner.evaluate import evaluate
from tritier.planner.problem import Placement, Problem, Weights

# What a unit of the objective is in capacities.
FINE = 1e9


def minimum_cut(problem: Problem, weights: Weights) -> tuple[float, Placement | None]:
    """The least value and a placement that has it; infinite and None if nothing is feasible."""
    assert len(problem.servers) == 2
    assert not problem.quantizable
    worth = [weights.per_ms + weights.per_joule * w / 1000.0 for w in problem.compute_watt]
    graph: Any = networkx.DiGraph()
    for layer in range(len(problem.layers)):
        on = [
            float(problem.float_ms[layer, k]) * worth[k] if problem.allowed[layer, k] else math.inf
            for k in range(2)
        ]
        _pay(graph, "first", layer, on[1])
        _pay(graph, layer, "second", on[0])
    for index, flow in enumerate(problem.flows):
        sent = [
            float(problem.transfer_ms[index, k, 1 - k])
            * (weights.per_ms + weights.per_joule * float(problem.send_watt[k]) / 1000.0)
            for k in range(2)
        ]
        _pay(graph, flow.source, ("to", index), sent[0])
        _pay(graph, ("back", index), flow.source, sent[1])
        for layer in flow.consumers:
            _pay(graph, ("to", index), layer, math.inf)
            _pay(graph, layer, ("back", index), math.inf)
    try:
        _, (first, _) = networkx.minimum_cut(graph, "first", "second")
    except networkx.NetworkXUnbounded:
        return math.inf, None
    placement = Placement(tuple(0 if i in first else 1 for i in range(len(problem.layers))))
    return evaluate(problem, placement).value(weights), placement


def _pay(graph: Any, source: Any, target: Any, price: float) -> None:
    """What it costs if one is first and the other second; without a capacity it can't be."""
    if math.isinf(price):
        graph.add_edge(source, target)
    else:
        graph.add_edge(source, target, capacity=round(price * FINE))
