"""The range of every tensor of a model over real inputs."""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from tritier.calibration.collect import REDUCED, Extremes, histogram_ranges
from tritier.calibration.inputs import Arrays, FileInputs, ImageInputs, input_files
from tritier.documents import Range, Ranges
from tritier.errors import InputError, did_you_mean
from tritier.graph import LoadedModel, build_layer_graph
from tritier.graph.sizes import tensor_sizes

Method = Literal["minmax", "entropy", "percentile"]
Report = Callable[[str, int], None]


def calibrate(
    model: LoadedModel,
    inputs: Iterable[Arrays],
    method: Method = "minmax",
    tensors: Iterable[str] | None = None,
    source: str = "",
    report: Report | None = None,
) -> Ranges:
    """Run the model on each input and gather the ranges of its tensors.

    `inputs` holds one mapping of all input names to arrays per run, each with its own sizes; the
    methods with histograms iterate over it twice, so they need a collection, no iterator.
    `tensors` are all that depend on an input if left out (see `calibratable`); those that never
    have an element have no range. minmax covers all values; the other methods cut float16 and
    float32 tensors to less, and leave the rest as minmax has it. Where the inputs are files, their
    hashes are kept. `report` is told what is done with each input and its number from 1.

    Raises InputError for a tensor that has no range, for values that are not finite, without
    inputs, and when ONNX Runtime refuses the model or an input.
    """
    known = calibratable(model)
    dtypes = _chosen(known, tensors)
    say = report or (lambda _what, _number: None)
    if method != "minmax" and isinstance(inputs, Iterator):
        raise TypeError(f"{method} reads the inputs twice: give a list, not an iterator")
    with tempfile.TemporaryDirectory(prefix="tritier-ranges-") as temporary:
        folder = Path(temporary)
        samples, found = _extremes(Extremes(model.proto, dtypes, folder), inputs, say)
        if method != "minmax":
            reduced = {n: found[n] for n in dtypes if dtypes[n] in REDUCED and n in found}
            again = _reported(inputs, say, "histograms of input")
            if reduced:
                found |= histogram_ranges(model.proto, method, reduced, dtypes, again, folder)
    return Ranges(
        model_sha256=model.sha256,
        method=method,
        samples=samples,
        source=source,
        inputs=input_files(inputs) if isinstance(inputs, ImageInputs | FileInputs) else (),
        ranges={name: found[name] for name in dtypes if name in found},
    )


def calibratable(model: LoadedModel) -> dict[str, str]:
    """Tensors that can have a range, with numpy's names of their types: inputs of the model, then
    outputs of layers in their order, that hold floats or integers."""
    graph = build_layer_graph(model.proto)
    sizes = tensor_sizes(model.proto, {})
    found = {}
    for name in (*graph.inputs, *graph.source):
        dtype = sizes[name].dtype if name in sizes else None
        if dtype is not None and _is_number(dtype):
            found[name] = dtype
    return found


def choose_tensors(model: LoadedModel, patterns: Iterable[str]) -> list[str]:
    """Tensors that names or shell patterns stand for, in the order of `calibratable`.

    Raises InputError for patterns that stand for none.
    """
    known = calibratable(model)
    chosen: set[str] = set()
    faults = []
    for pattern in patterns:
        # A name may look like a pattern: "x[0]".
        matches = [pattern] if pattern in known else fnmatch.filter(known, pattern)
        if not matches:
            faults.append(_unknown(pattern, known))
        chosen.update(matches)
    if faults:
        raise InputError(faults)
    return [name for name in known if name in chosen]


def _chosen(known: Mapping[str, str], tensors: Iterable[str] | None) -> dict[str, str]:
    wanted = set(known) if tensors is None else set(tensors)
    unknown = sorted(wanted - known.keys())
    if unknown:
        raise InputError([_unknown(name, known) for name in unknown])
    if not wanted:
        raise InputError("no tensor to find the range of: the model has no floats or integers")
    return {name: dtype for name, dtype in known.items() if name in wanted}


def _unknown(name: str, known: Mapping[str, str]) -> str:
    return (
        f"'{name}' is no tensor of floats or integers that depends on an input"
        f"{did_you_mean(name, known)}"
    )


def _is_number(dtype: str) -> bool:
    """Whether a type is one of numpy's for floats and integers; ONNX has more."""
    try:
        return np.dtype(dtype).kind in "fiu"
    except TypeError:
        return False


def _extremes(
    extremes: Extremes, inputs: Iterable[Arrays], say: Report
) -> tuple[int, dict[str, Range]]:
    """The number of inputs and the ranges over all of them."""
    found: dict[str, Range] = {}
    samples = 0
    for samples, arrays in enumerate(_reported(inputs, say, "input"), 1):
        for name, (low, high) in extremes.of(samples, arrays).items():
            before = found.get(name, (low, high))
            found[name] = (min(low, before[0]), max(high, before[1]))
    if not samples:
        raise InputError("no inputs: ranges come from at least one")
    return samples, found


def _reported(inputs: Iterable[Arrays], say: Report, what: str) -> Iterator[Arrays]:
    for number, arrays in enumerate(inputs, 1):
        say(what, number)
        yield arrays
