"""Tensors that cross between servers, by the local polytope.

A tensor has a state: the server of its source, and whether it is coded in 8 bits. For each consumer
z[state, h] says in which state the tensor is, and that the consumer stands on h: z over h adds up
to the state, z over states to the consumer. The tensor crosses from k to h as soon as one z does
(R3), which the linear relaxation knows too: "y >= x + x - 1" would let halves cross for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tritier.planner.problem import Problem
from tritier.planner.pulp_rows import Rows, Sum, safe
from tritier.planner.pulp_sums import Model

# (server of the source, coded in 8 bits)
State = tuple[int, bool]


def add_flow(model: Model, labels: Sequence[Mapping[State, Sum]], index: int) -> None:
    """Rows of one tensor; its times are added to the links of the model, its price to the others'.

    `labels[i]` holds, for each label of layer i, whether the layer has it.
    """
    problem, rows, flow = model.problem, model.rows, model.problem.flows[index]
    name = f"{index}_{safe(flow.name)}"
    states = _states(model, labels, index, name)
    carried: dict[tuple[State, int], list[Sum]] = {}
    consumers = tuple(dict.fromkeys(flow.consumers))
    for consumer in consumers:
        known = _carry(model, index, consumer, states, f"z_{name}_to_{consumer}")
        if consumer in problem.bit_of and consumer in flow.coded_by:
            _keep_plain(rows, labels[consumer], known, f"z_{name}_to_{consumer}_float")
        for place, crossing in known.items():
            carried.setdefault(place, []).append(crossing)
    for ((source, coded), target), crossings in carried.items():
        if source != target:
            label = f"y_{name}_{source}_{target}{'_coded' if coded else ''}"
            crosses = _any_of(rows, crossings, label)
            time = _time(problem, index, (source, coded), target)
            model.links_ms.setdefault((source, target), Sum()).add(crosses, time)
            if problem.money is not None:
                paid = problem.money.coded_crossing if coded else problem.money.crossing
                model.crossing_usd.add(crosses, float(paid[index, source, target]))


def _states(
    model: Model, labels: Sequence[Mapping[State, Sum]], index: int, name: str
) -> dict[State, Sum]:
    """The states that a tensor may have, and for each whether it has it."""
    problem, flow = model.problem, model.problem.flows[index]
    stands = model.stands[flow.source]
    bits = {layer: problem.bit_of[layer] for layer in flow.coded_by if layer in problem.bit_of}
    quantized = {layer: model.quantized[bit] for layer, bit in bits.items()}
    if _costs_the_same_coded(problem, index):
        return {(server, False): here for server, here in stands.items()}
    coders = [i for i, q in quantized.items() if not (q.is_constant and q.constant < 0.5)]
    if not coders or any(quantized[i].is_constant for i in coders):
        return {(server, bool(coders)): here for server, here in stands.items()}
    if coders == [flow.source]:
        return dict(labels[flow.source])
    return _mixed_states(model, labels, flow.source, {i: quantized[i] for i in coders}, name)


def _costs_the_same_coded(problem: Problem, index: int) -> bool:
    money = problem.money
    paid_alike = money is None or np.array_equal(money.coded_crossing[index], money.crossing[index])
    return paid_alike and np.array_equal(problem.coded_ms[index], problem.transfer_ms[index])


def _mixed_states(
    model: Model,
    labels: Sequence[Mapping[State, Sum]],
    source: int,
    coders: Mapping[int, Sum],
    name: str,
) -> dict[State, Sum]:
    """States of a tensor that is coded if one of several layers is quantized."""
    rows = model.rows
    states: dict[State, Sum] = {}
    for server, here in model.stands[source].items():
        plain = rows.variable(f"w_{name}_{server}_plain")
        coded = rows.variable(f"w_{name}_{server}_coded")
        rows.equal(f"w_{name}_{server}", Sum.of([plain, coded]), here)
        if source in coders:
            float_here = labels[source].get((server, False), Sum())
            rows.at_most(f"w_{name}_{server}_float", plain, float_here)
        states |= {(server, False): plain, (server, True): coded}
    every = Sum.of(here for (_, coded), here in states.items() if coded)
    rows.at_most(f"w_{name}_coded_by", every, Sum.of(coders.values()))
    for coder, quantized in coders.items():
        if coder != source:
            rows.at_least(f"w_{name}_coded_by_{coder}", every, quantized)
    return states


def _carry(
    model: Model, index: int, consumer: int, states: Mapping[State, Sum], name: str
) -> dict[tuple[State, int], Sum]:
    """(state, server of the consumer) -> whether both hold, where the tensor may go there."""
    problem, rows, stands = model.problem, model.rows, model.stands[consumer]
    places = [
        (state, target)
        for state in states
        for target in stands
        if math.isfinite(_time(problem, index, state, target))
    ]
    if len(stands) == 1 or len(states) == 1:  # one of both is known: the other one tells
        both = {
            (state, target): here if len(stands) == 1 else there
            for state, here in states.items()
            for target, there in stands.items()
        }
        for (state, target), holds in both.items():
            if (state, target) not in places:
                rows.equal(f"{name}_{_text(state)}_{target}_never", holds, 0.0)
        return {place: both[place] for place in places}
    carried = {
        (state, target): rows.variable(f"{name}_{_text(state)}_{target}")
        for state, target in places
    }
    for state, here in states.items():
        leaving = Sum.of(z for (other, _), z in carried.items() if other == state)
        rows.equal(f"{name}_from_{_text(state)}", leaving, here)
    for target, there in stands.items():
        arriving = Sum.of(z for (_, other), z in carried.items() if other == target)
        rows.equal(f"{name}_at_{target}", arriving, there)
    return carried


def _keep_plain(
    rows: Rows, labels: Mapping[State, Sum], carried: Mapping[tuple[State, int], Sum], name: str
) -> None:
    """What is not coded reaches a layer that codes it only where that is not quantized. Whole
    placements keep this anyway; the relaxation is tighter for it."""
    for target in sorted({target for _, target in carried}):
        plain = [z for ((_, coded), other), z in carried.items() if other == target and not coded]
        if plain and len(plain) < len([1 for _, other in carried if other == target]):
            rows.at_most(f"{name}_{target}", Sum.of(plain), labels.get((target, False), Sum()))


def _any_of(rows: Rows, crossings: Sequence[Sum], name: str) -> Sum:
    """At least the largest of some sums from 0 to 1."""
    if any(crossing.is_constant and crossing.constant > 0.5 for crossing in crossings):
        return Sum(1.0)
    open_ones = [crossing for crossing in crossings if not crossing.is_constant]
    if len(open_ones) < 2:
        return open_ones[0] if open_ones else Sum()
    crosses = rows.variable(name)
    for number, crossing in enumerate(open_ones):
        rows.at_least(f"{name}_{number}", crosses, crossing)
    return crosses


def _time(problem: Problem, index: int, state: State, target: int) -> float:
    source, coded = state
    return float((problem.coded_ms if coded else problem.transfer_ms)[index, source, target])


def _text(state: State) -> str:
    return f"{state[0]}{'c' if state[1] else ''}"
