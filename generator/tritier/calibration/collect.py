"""ONNX Runtime's calibrators, run on chosen tensors and one input at a time.

They reduce float16 and float32 tensors, or make histograms of them. What they don't do is added to
the model that they get: integers and float64 tensors become outputs whose least and greatest value
is taken here, and a sum of absolute values per float tensor tells of NaN, which ONNX Runtime's
ReduceMin and ReduceMax don't always pass on.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import calibrate as runtime

from tritier.calibration.inputs import Arrays
from tritier.documents import Range
from tritier.errors import InputError
from tritier.graph import ELEMENT_TYPES, constant_bytes

Histogram = Literal["entropy", "percentile"]
REDUCED = ("float16", "float32")  # the types that ONNX Runtime's calibrators take

# With ONNX Runtime's own 128 bins, entropy has one threshold to choose from: the greatest value.
# More than 512 take minutes for a model of hundreds of tensors.
_ENTROPY = {"num_bins": 512, "num_quantized_bins": 128}
# Each side for itself: what a tensor rarely reaches below 0 says nothing of what it does above.
_PERCENTILE = {"num_bins": 2048, "percentile": 99.999, "symmetric": False}
_NAN = "tritier-nan//"
# A protobuf message can hold 2 GiB, and calibrators add to the model.
_ONE_FILE_BYTES = 1_500_000_000


class Extremes:
    """The least and greatest value of each tensor; `dtypes` maps tensors to numpy's type names.

    Raises InputError when ONNX Runtime refuses the model.
    """

    def __init__(self, model: onnx.ModelProto, dtypes: Mapping[str, str], folder: Path) -> None:
        self._dtypes = dtypes
        self._number = 0
        self._inputs: Arrays = {}
        self._found: dict[str, Range] = {}
        path = _write(_with_probes(model, dtypes), folder / "extremes.onnx")
        self._calibrator = _prepare(runtime.MinMaxCalibrater, path, dtypes, self._watch)

    def of(self, number: int, inputs: Arrays) -> dict[str, Range]:
        """Ranges over one input, the `number`-th; tensors without elements have none.

        Raises InputError for values that are not finite, and when ONNX Runtime refuses the input.
        """
        self._number, self._inputs, self._found = number, inputs, {}
        for name in inputs.keys() & self._dtypes.keys():
            self._add(name, inputs[name])
        if any(dtype in REDUCED for dtype in self._dtypes.values()):
            ranges = _collect(self._calibrator, inputs)
            self._calibrator.calibrate_tensors_range = None  # or it would merge with the next
        else:
            self._calibrator.infer_session.run(None, inputs)
            ranges = {}
        for name, (low, high) in ranges.items():
            self._add(name, np.array([low, high]) if low <= high else np.array([]))
        return self._found

    def _watch(self, outputs: Arrays) -> None:
        """What the session gives besides what the calibrator asked for."""
        bad = [
            name.removeprefix(_NAN)
            for name, array in outputs.items()
            if name.startswith(_NAN) and np.isnan(array).any()
        ]
        if bad:
            raise InputError(self._fault(bad[0]))
        for name, dtype in self._dtypes.items():
            if dtype not in REDUCED and name not in self._inputs:
                self._add(name, outputs[name])

    def _add(self, name: str, values: np.typing.NDArray[Any]) -> None:
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError(self._fault(name))
        self._found[name] = (low, high)

    def _fault(self, name: str) -> str:
        return (
            f"input {self._number}: tensor '{name}' has values that are not finite: leave the "
            "input out, repair the model, or name the tensors that are needed with --tensor"
        )


def histogram_ranges(
    model: onnx.ModelProto,
    method: Histogram,
    extremes: Mapping[str, Range],
    dtypes: Mapping[str, str],
    inputs: Iterable[Arrays],
    folder: Path,
) -> dict[str, Range]:
    """Ranges within the extremes of the tensors, which are of the types that are `REDUCED`.

    All tensors of one input are in memory at a time. The bins are made for the extremes, so the
    order of the inputs changes nothing and their number does not grow.
    """
    dtypes = {name: dtypes[name] for name in extremes}
    path = _write(_with_types(model, dtypes), folder / "histograms.onnx")
    is_entropy = method == "entropy"
    kind = runtime.EntropyCalibrater if is_entropy else runtime.PercentileCalibrater
    calibrator = _prepare(kind, path, dtypes, None, **(_ENTROPY if is_entropy else _PERCENTILE))
    calibrator.collector = _collector(calibrator)
    seeds = {n: np.array([low, 0, high], dtypes[n]) for n, (low, high) in extremes.items()}
    with _silence():
        calibrator.collector.collect(seeds)
    for arrays in inputs:
        with _silence():
            calibrator.collect_data(_Once(arrays))
    with _silence():
        found = _ranges(calibrator.compute_data())
    return {name: _within(found[name], extremes[name]) for name in extremes}


class _Session:
    """What a calibrator uses as its session: gives the outputs to `watch` as well."""

    def __init__(self, path: Path, watch: Callable[[Arrays], None] | None) -> None:
        options = ort.SessionOptions()
        # Ranges are of the tensors of the model, not of what is left when layers are fused.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        # In the model's order, what is only reduced is freed at once; without an arena, what was
        # needed for an input of another size goes back. Together: less than half the memory.
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        options.enable_cpu_mem_arena = False
        self._watch = watch
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own types, one per status code
            raise InputError(f"ONNX Runtime can't load the model: {error}") from None
        self.get_inputs = self._session.get_inputs
        self.get_outputs = self._session.get_outputs

    def run(self, _: None, inputs: Arrays) -> list[np.typing.NDArray[Any]]:
        """All outputs; raises InputError when ONNX Runtime refuses the inputs."""
        try:
            outputs = self._session.run(None, inputs)
        except Exception as error:
            raise InputError(f"ONNX Runtime can't run the model: {error}") from None
        if self._watch is not None:
            names = [node.name for node in self.get_outputs()]
            self._watch(dict(zip(names, outputs, strict=True)))
        return list(outputs)


def _within(found: Range, extremes: Range) -> Range:
    """What of the extremes is left. Thresholds nearer to 0 than all values of a tensor leave
    nothing: then they are not used."""
    low, high = max(found[0], extremes[0]), min(found[1], extremes[1])
    return (low, high) if low <= high else extremes


class _Once:
    """A calibrator's reader of one input."""

    def __init__(self, arrays: Arrays) -> None:
        self._left = [arrays]

    def get_next(self) -> Arrays | None:
        return self._left.pop() if self._left else None


def _prepare(
    kind: Any,
    path: Path,
    dtypes: Mapping[str, str],
    watch: Callable[[Arrays], None] | None,
    **options: Any,
) -> Any:
    """A calibrator of these tensors, with its session. `create_calibrator` does the same for all
    tensors, or for those of whole types of layers."""
    target = path.with_suffix(".augmented.onnx")
    large = path.with_name(_data_name(path)).exists()
    chosen = dict.fromkeys(name for name, dtype in dtypes.items() if dtype in REDUCED)
    try:
        calibrator = kind(
            path, augmented_model_path=str(target), use_external_data_format=large, **options
        )
        select = calibrator.select_tensors_to_calibrate
        calibrator.select_tensors_to_calibrate = lambda model: (chosen, select(model)[1])
        calibrator.augment_graph()
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise InputError(f"ONNX Runtime can't calibrate the model: {error}") from None
    calibrator.infer_session = _Session(target, watch)
    return calibrator


def _collector(calibrator: Any) -> Any:
    """The collector that the calibrator would make of its first input."""
    names = ("method", "symmetric", "num_bins", "num_quantized_bins", "percentile", "scenario")
    return runtime.HistogramCollector(**{name: getattr(calibrator, name) for name in names})


def _collect(calibrator: Any, inputs: Arrays) -> dict[str, Range]:
    with _silence():
        calibrator.collect_data(_Once(inputs))
        return _ranges(calibrator.compute_data())


def _ranges(data: Any) -> dict[str, Range]:
    """Ranges out of ONNX Runtime's type for them, whose values are arrays of one element or none,
    which are infinite the wrong way round if the tensor had no elements."""
    found = {}
    for name, item in data.items():
        low, high = (np.ravel(value) for value in item.range_value)
        found[name] = (float(low[0]), float(high[0])) if low.size else (np.inf, -np.inf)
    return found


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Calibrators print what they do."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _with_types(model: onnx.ModelProto, dtypes: Mapping[str, str]) -> onnx.ModelProto:
    """A copy in which the types of these tensors stand: calibrators know only what is declared or
    what ONNX infers."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    declared = {v.name for v in (*graph.value_info, *graph.input, *graph.output)}
    graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, ELEMENT_TYPES[dtype], None)
        for name, dtype in dtypes.items()
        if name not in declared
    )
    return result


def _with_probes(model: onnx.ModelProto, dtypes: Mapping[str, str]) -> onnx.ModelProto:
    """A copy that also gives what calibrators don't."""
    result = _with_types(model, dtypes)
    graph = result.graph
    ends = {value.name for value in (*graph.input, *graph.output)}
    added = [n for n, dtype in dtypes.items() if dtype not in REDUCED and n not in ends]
    # A sum stands right behind its tensor, which could not be freed before it.
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        for name in (n for n in node.output if dtypes.get(n) in REDUCED):
            nodes.append(onnx.helper.make_node("ReduceL1", [name], [_NAN + name], _NAN + name))
    sums = [(n.name, dtypes[n.input[0]]) for n in nodes if n.name.startswith(_NAN)]
    outputs = [*((name, dtypes[name]) for name in added), *sums]
    graph.output.extend(
        onnx.helper.make_tensor_value_info(name, ELEMENT_TYPES[dtype], None)
        for name, dtype in outputs
    )
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return result


def _write(model: onnx.ModelProto, path: Path) -> Path:
    """Write the model, its weights beside it if it is large; then they leave `model`."""
    if constant_bytes(model) > _ONE_FILE_BYTES:
        onnx.save(model, str(path), save_as_external_data=True, location=_data_name(path))
    else:
        onnx.save(model, str(path))
    return path


def _data_name(path: Path) -> str:
    return path.name + ".data"
