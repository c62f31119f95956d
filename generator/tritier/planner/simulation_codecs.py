"""Components of a pipeline that only code and decode: what is generated besides the plan's own.

Inputs of the model that cross a link in fewer bits are coded by one component on the entry before
they leave; outputs that arrive so are decoded by one for each component that makes some.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tritier.planner.problem import MIB
from tritier.planner.simulation_graph import Conditions, SimComponent, SimMessage


@dataclass(frozen=True)
class Decoding:
    """An output of the model that comes to the entry coded: bytes of both forms, components on the
    entry that read it, and what decoding it takes."""

    sizes: tuple[float, float]
    readers: tuple[int, ...]
    ms: float = 0.0


@dataclass(frozen=True)
class Coding:
    """What is coded and decoded on the `entry`: inputs of the model, with the bytes of each as it
    is and in every form in which it leaves; outputs, by the component that makes them. Coding all
    inputs takes `inputs_ms`."""

    entry: int
    inputs: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    outputs: Mapping[int, Mapping[int, Decoding]] = field(default_factory=dict)
    inputs_ms: float = 0.0


def with_coding(
    components: Sequence[SimComponent],
    messages: Sequence[SimMessage],
    coding: Coding,
    conditions: Conditions,
) -> tuple[tuple[SimComponent, ...], tuple[SimMessage, ...]]:
    """The same with components that code, after all others: first that of the inputs, then those of
    the outputs, by component. They take what serving and coding take."""
    found, sent = list(components), list(messages)

    def add(sizes: Sequence[float], coding_ms: float) -> int:
        cost_ms = serving_ms(conditions, coding.entry, sizes) + coding_ms
        found.append(SimComponent(coding.entry, cost_ms, (), conditions.instances))
        return len(found) - 1

    if coding.inputs:
        sizes = [size for forms in coding.inputs.values() for size in forms]
        coder = add(sizes, coding.inputs_ms)
        for position, item in enumerate(sent):
            if item.source_server == coding.entry and not coding.inputs.keys().isdisjoint(
                item.tensors
            ):
                sent[position] = replace(item, sources=(*item.sources, coder))
    for maker, outputs in sorted(coding.outputs.items()):
        sizes = [size for item in outputs.values() for size in item.sizes]
        decoder = add(sizes, math.fsum(item.ms for item in outputs.values()))
        for position, item in enumerate(sent):
            if item.kind == "answer" and item.sources == (maker,):
                sent[position] = replace(item, targets=(*item.targets, decoder))
        for reader in sorted({reader for item in outputs.values() for reader in item.readers}):
            found[reader] = replace(found[reader], after=(*found[reader].after, decoder))
    return tuple(found), tuple(sent)


def serving_ms(conditions: Conditions, server: int, sizes: Sequence[float]) -> float:
    """What serving a component costs that has inputs and outputs of these bytes."""
    if conditions.serving is None:
        return 0.0
    cost = conditions.serving[server]
    return cost.call_ms + cost.tensor_ms * len(sizes) + cost.copy_ms_per_mib * sum(sizes) / MIB
