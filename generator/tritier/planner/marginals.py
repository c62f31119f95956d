"""The least cost with each label: what no placement that is good enough can use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tritier.planner.elimination import MOST_NUMBERS, Choice, Elimination, Pass
from tritier.planner.factors import Worth
from tritier.planner.problem import Floats


def min_marginals(
    elimination: Elimination, worth: Worth, choices: Sequence[Choice]
) -> dict[int, Floats]:
    """Layer with more than one label -> the least cost, over all choices, of any placement with
    each of its labels; [labels]."""
    size = max(1, MOST_NUMBERS // (4 * elimination.total or 1))
    found: dict[int, Floats] = {}
    for start in range(0, len(choices), size):
        done = elimination.run([worth], choices[start : start + size])
        for layer, costs in _of_pass(elimination, done).items():
            found[layer] = np.minimum(found[layer], costs) if layer in found else costs
    return found


def _of_pass(elimination: Elimination, done: Pass) -> dict[int, Floats]:
    """Down from the last step to the first: what all else costs, for each state of a step's scope
    ("beyond"), is the least of the user's table without what the step itself gave to it."""
    steps, tables = elimination.steps, done.tables
    layers = len(elimination.factors.labels)
    beyond: dict[int, Floats] = {}
    found = {}
    for number in reversed(range(len(steps))):
        step, table = steps[number], tables[number]
        if number in beyond:
            rest = beyond.pop(number)
        else:
            rest = _difference(done.values, table.min(axis=-1))
        whole = table + rest[..., np.newaxis]
        if step.variable < layers:
            found[step.variable] = whole.reshape(-1, whole.shape[-1]).min(axis=0)
        full = (*step.scope, step.variable)
        for part in step.parts:
            if part.factor is not None:
                continue
            scope = steps[part.step].scope
            dropped = tuple(axis + 2 for axis, v in enumerate(full) if v not in scope)
            least = whole.min(axis=dropped) if dropped else whole
            kept = [v for v in full if v in scope]
            least = least.transpose((0, 1, *(kept.index(v) + 2 for v in scope)))
            beyond[part.step] = _difference(least, tables[part.step].min(axis=-1))
    return found


def _difference(whole: Floats, part: Floats) -> Floats:
    """Without a part; where that is infinite, the whole is and stays so."""
    finite = np.isfinite(part)
    return np.where(finite, whole - np.where(finite, part, 0.0), 0.0)
