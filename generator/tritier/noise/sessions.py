"""ONNX Runtime sessions of pieces: opened once, shared by threads, and not too many."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort

from tritier.errors import InputError

# Of models, as files; sessions take about twice that.
_MOST_BYTES = 2 << 30


class Sessions:
    """By key; those that were not used for longest go when all together hold too much."""

    def __init__(self, kernels: bool, most_bytes: int = _MOST_BYTES) -> None:
        self._kernels = kernels
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._open: OrderedDict[bytes, tuple[ort.InferenceSession, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: bytes, make: Callable[[], onnx.ModelProto]) -> ort.InferenceSession:
        """The session of a key; opened for the model that `make` returns if it is not there."""
        with self._lock:  # else each thread would open its own
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key][0]
            model = make()
            session = open_session(model, self._kernels)
            self._open[key] = (session, model.ByteSize())
            while len(self._open) > 1 and self._held_bytes() > self._most_bytes:
                self._open.popitem(last=False)
            return session

    def _held_bytes(self) -> int:
        return sum(size for _, size in self._open.values())


def open_session(model: onnx.ModelProto, kernels: bool) -> ort.InferenceSession:
    """One thread, and the level 'extended': at 'all' another memory layout for whole models gives
    other sums than for parts. Raises InputError when ONNX Runtime refuses the model."""
    options = _options()
    if not kernels:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return _open(model, options)


def fused_tensors(model: onnx.ModelProto) -> set[str]:
    """Tensors that nodes of a model make and that are gone when ONNX Runtime has optimised it.

    Raises InputError when it refuses the model.
    """
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder, "model.onnx"))
        _open(model, options)
        left = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    kept = {name for node in left.node for name in node.output}
    return {name for node in model.graph.node for name in node.output} - kept


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return options


def _open(model: onnx.ModelProto, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own types, one per status code
        raise InputError(f"ONNX Runtime can't load the model: {error}") from None
