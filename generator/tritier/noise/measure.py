"""Measure the noise of many subsets on one input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tritier.calibration import Arrays
from tritier.calibration.images import Array
from tritier.errors import InputError
from tritier.noise.executor import Executor, Program
from tritier.noise.metrics import Metric, Score

# Scores of one input: subset -> output -> score.
InputScores = dict[int, dict[str, Score]]


def measure_input(
    executor: Executor,
    program: Program,
    metric: Metric,
    outputs: Sequence[str],
    inputs: Arrays,
    number: int,
) -> InputScores:
    """Scores of the subsets of a program, whose first subset is the empty one: the float model.

    Raises InputError for scores that are not finite, naming the layers.
    """
    reference: Arrays = {}

    def fold(subset: int, arrays: Arrays) -> dict[str, Score]:
        chosen = {name: arrays[name] for name in outputs}
        if subset == 0:
            reference.update({name: array.copy() for name, array in chosen.items()})
            return {}
        scores = metric.of_input(reference, chosen, number)
        bad = [name for name, x in scores.items() if isinstance(x, float) and not math.isfinite(x)]
        if bad:
            names = executor.names(subset)
            layers = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise InputError(
                f"{metric.name} of '{bad[0]}' is {scores[bad[0]]} on input {number} with "
                f"{subset.bit_count()} layers quantized ({layers}): leave layers out, or choose "
                "other outputs with --model-output or another --metric"
            )
        return scores

    found = executor.run(program, inputs, fold)
    return {subset: scores for subset, scores in found.items() if subset}


def self_check(executor: Executor, subsets: Sequence[int], inputs: Arrays) -> float:
    """The largest difference between outputs of the executor and of the whole quantized model
    in one session, at the same level of optimisation: they are to be the same bit for bit."""

    def fold(subset: int, arrays: Arrays) -> float:
        whole = executor.run_whole(subset, inputs)
        return max((_gap(whole[name], arrays[name]) for name in whole), default=0.0)

    # All in one program, so that cached values are used as they are in measurements.
    found = executor.run(executor.compile([0, *subsets]), inputs, fold)
    return max(found.values())


def _gap(whole: Array, parts: Array) -> float:
    if whole.shape != parts.shape or whole.dtype != parts.dtype:
        return math.inf
    if np.array_equal(whole, parts, equal_nan=whole.dtype.kind == "f"):
        return 0.0
    if whole.dtype.kind not in "fiub":
        return math.inf
    gap = float(np.nanmax(np.abs(whole.astype(np.float64) - parts.astype(np.float64))))
    return gap or math.inf
