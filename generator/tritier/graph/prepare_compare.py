"""Whether a prepared model answers as the original one does, on random inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.reference
import onnxruntime as ort

from tritier.documents import Preprocessing
from tritier.graph.image_input import normalised, pixel_shape
from tritier.graph.prepare_sizes import dims_of
from tritier.graph.tensors import DTYPES, Dim, model_inputs

Arrays = dict[str, npt.NDArray[Any]]
RUNS = 2
# Difference that is allowed, relative to the largest magnitude in the same output. Folding changes
# no bit; merged nodes and other opsets round differently.
TOLERANCE = {"float32": 1e-5, "float64": 1e-5, "float16": 2e-3}
_BATCHES = (2, 3)
_SIZES = (64, 48, 32, 160, 320, 224, 16, 8, 3, 2, 1)  # tried for sizes that stay symbolic


class NotComparable(Exception):
    """The original does not run on random inputs; the text says why."""


@dataclass(frozen=True)
class Trial:
    """Inputs for a prepared model, and what the original gives for them."""

    inputs: Arrays
    expected: Arrays


@dataclass(frozen=True)
class Difference:
    """The largest differences over all runs and outputs. `relative` is to the largest magnitude in
    the same output; `fault` says what is beyond the tolerance, if anything is."""

    absolute: float = 0.0
    relative: float = 0.0
    fault: str = ""


def make_trials(
    original: Path | onnx.ModelProto, sized: onnx.ModelProto, preprocessing: Preprocessing | None
) -> list[Trial]:
    """Run the original, a file or a model, `RUNS` times, on sizes that `sized` allows.

    Sizes that stay symbolic are different in each run if the model can take others. Raises
    NotComparable.
    """
    values = [(v.name, _dtype(v), dims_of(v)) for v in model_inputs(sized.graph)]
    run = _runner(original)
    trials: list[Trial] = []
    reason = "no sizes were found that it takes"
    random = np.random.default_rng(0)
    for sizes in _size_choices([dims for _, _, dims in values]):
        given, plain = _random_inputs(values, sizes, preprocessing, random)
        try:
            expected = run(plain)
        except Exception as error:  # ONNX Runtime's own types
            reason = _short(error)
            continue
        trials.append(Trial(given, expected))
        if len(trials) == RUNS:
            return trials
    raise NotComparable(reason)


def compare(candidate: Path | bytes, folder: Path, trials: Sequence[Trial]) -> Difference:
    """How far a model is from what the original gave. `folder` holds the external data of a model
    that is given as bytes."""
    try:
        session = _session(candidate, folder)
    except Exception as error:  # ONNX Runtime's own types
        text = "ONNX Runtime refuses it (an old model may need --opset)"
        return Difference(fault=f"{text}: {_short(error)}")
    worst = Difference()
    for trial in trials:
        try:
            found = _run(session, trial.inputs)
        except Exception as error:
            return Difference(fault=f"it does not run: {_short(error)}")
        if found.keys() != trial.expected.keys():
            return Difference(fault=f"its outputs are {', '.join(found)}")
        for name, wanted in trial.expected.items():
            one = _difference(name, wanted, found[name])
            worst = Difference(
                max(worst.absolute, one.absolute),
                max(worst.relative, one.relative),
                worst.fault or one.fault,
            )
    return worst


def _difference(name: str, wanted: npt.NDArray[Any], found: npt.NDArray[Any]) -> Difference:
    if (wanted.dtype, wanted.shape) != (found.dtype, found.shape):
        return Difference(
            fault=f"output '{name}' is {found.dtype} {found.shape}, not {wanted.dtype} "
            f"{wanted.shape}"
        )
    if wanted.tobytes() == found.tobytes():
        return Difference()
    if wanted.dtype.kind not in "fiub":
        return Difference(fault=f"output '{name}' has other values")
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    absolute = float(np.nan_to_num(gap, nan=np.inf).max(initial=0.0))
    finite = np.abs(a[np.isfinite(a)])
    scale = float(finite.max(initial=0.0))
    relative = absolute / scale if scale else (np.inf if absolute else 0.0)
    allowed = TOLERANCE.get(str(wanted.dtype), 0.0)
    fault = ""
    if relative > allowed:
        fault = f"output '{name}' differs by {relative:.1e} of its maximum; allowed is {allowed:g}"
    return Difference(absolute, float(relative), fault)


def _runner(original: Path | onnx.ModelProto) -> Any:
    """What runs the original: ONNX Runtime or, for operators so old that it has none, ONNX."""
    source = original if isinstance(original, Path) else original.SerializeToString()
    try:
        session = _session(source, Path())
    except Exception as error:  # ONNX Runtime's own types
        reason = f"ONNX Runtime refuses the original: {_short(error)}"
    else:
        return lambda inputs: _run(session, inputs)
    try:
        slow = onnx.reference.ReferenceEvaluator(str(original) if source is original else original)
    except Exception:
        raise NotComparable(reason) from None
    names = list(slow.output_names)
    return lambda inputs: dict(zip(names, slow.run(None, inputs), strict=True))


def _session(source: Path | bytes, folder: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False  # it doubles what it takes, and each model runs twice only
    options.add_session_config_entry("session.disable_prepacking", "1")
    if isinstance(source, bytes):
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, str(folder))
    model = source if isinstance(source, bytes) else str(source)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, inputs: Arrays) -> Arrays:
    options = ort.RunOptions()
    options.log_severity_level = 4
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs, options), strict=True))


def _size_choices(shapes: Sequence[list[Dim]]) -> Iterator[dict[str, int]]:
    """Numbers for the symbols; a leading symbol counts as a batch. First all sizes differ, then
    they are equal, as some models need; last the batch is 1."""
    symbols = list(dict.fromkeys(d for dims in shapes for d in dims if isinstance(d, str)))
    if not symbols:
        yield from ({} for _ in range(RUNS))
        return
    leading = {dims[0] for dims in shapes if dims}
    for step, batches in ((1, _BATCHES), (0, _BATCHES), (0, (1, 1))):
        for start in range(len(_SIZES)):
            others = (_SIZES[(start + step * i) % len(_SIZES)] for i in itertools.count())
            batch = batches[start % 2]
            yield {s: batch if s in leading else next(others) for s in symbols}


def _random_inputs(
    values: Sequence[tuple[str, str, list[Dim]]],
    sizes: Mapping[str, int],
    preprocessing: Preprocessing | None,
    random: np.random.Generator,
) -> tuple[Arrays, Arrays]:
    """Inputs of the prepared model and the same for the original."""
    given: Arrays = {}
    plain: Arrays = {}
    for name, dtype, dims in values:
        is_image = preprocessing is not None and (preprocessing.input or name) == name
        asked = pixel_shape(dims, preprocessing) if preprocessing and is_image else dims
        shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in asked)
        if preprocessing and is_image:
            given[name] = random.integers(0, 256, shape, np.uint8)
            plain[name] = normalised(given[name], preprocessing, dtype)
        elif dtype.startswith("float"):
            given[name] = plain[name] = random.random(shape).astype(dtype)
        else:  # 0 and 1 are what indices, flags and counts may be
            given[name] = plain[name] = random.integers(0, 2, shape).astype(dtype)
    return given, plain


def _dtype(value: onnx.ValueInfoProto) -> str:
    kind = value.type.WhichOneof("value")
    dtype = DTYPES.get(value.type.tensor_type.elem_type) if kind == "tensor_type" else None
    if dtype is None:
        raise NotComparable(f"no random values are known for the type of input '{value.name}'")
    return dtype


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
