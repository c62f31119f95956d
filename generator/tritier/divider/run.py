"""Run whole models and chained sub-models in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from tritier.documents import Optimisation, Plan, PlanTensor, wire_up
from tritier.errors import InputError
from tritier.graph import without_weights

Array = npt.NDArray[np.generic]
Arrays = dict[str, Array]

_LEVELS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def open_session(
    model: bytes | Path, optimisation: Optimisation, threads: int | None = None
) -> ort.InferenceSession:
    """A CPU session; raises InputError when ONNX Runtime refuses the model."""
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS[optimisation]
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    options.log_severity_level = 4
    # A chain opens a session per component; the threads of those that wait would take the
    # processor from the one that runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own types, one per status code
        raise InputError(f"ONNX Runtime can't load the model: {error}") from None


def check_loads(model: bytes) -> None:
    """Raise InputError unless ONNX Runtime loads a model.

    It is asked with large constants as inputs, which spares it several copies of them; only what it
    then refuses, perhaps for want of a constant, is loaded as a whole.
    """
    light = without_weights(onnx.load_model_from_string(model))
    try:
        open_session(light.SerializeToString(), "disabled", 1)
    except InputError:
        open_session(model, "disabled", 1)


def _run(
    session: ort.InferenceSession, outputs: list[str], inputs: Mapping[str, Array], what: str
) -> list[Array]:
    try:
        return list(session.run(outputs, dict(inputs)))
    except Exception as error:  # ONNX Runtime's own types, one per status code
        raise InputError(f"ONNX Runtime can't run {what}: {error}") from None


class WholeModel:
    """The uncut model, by its own tensor names."""

    def __init__(self, model: bytes | Path, optimisation: Optimisation) -> None:
        self._session = open_session(model, optimisation)
        self.outputs = [node.name for node in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """Outputs by name; raises InputError when ONNX Runtime refuses the inputs."""
        results = _run(self._session, self.outputs, inputs, "the model")
        return dict(zip(self.outputs, results, strict=True))


class Chain:
    """The sub-models of a plan, run in turn; inputs and outputs by the names of the model."""

    def __init__(
        self, plan: Plan, models: Mapping[str, bytes | Path], optimisation: Optimisation
    ) -> None:
        self._plan = wire_up(plan)
        self._sessions = {
            component.id: open_session(models[component.id], optimisation)
            for component in self._plan.components
        }

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """Outputs by name; raises InputError when ONNX Runtime refuses the inputs."""
        values = {t: np.atleast_1d(inputs[self._plan.tensor(t).name]) for t in self._plan.inputs}
        for component in self._plan.components:
            outputs = list(component.outputs)
            feed = {t: values[t] for t in component.inputs}
            session = self._sessions[component.id]
            results = _run(session, outputs, feed, f"component {component.id}")
            values.update(zip(outputs, results, strict=True))
        tensors = [self._plan.tensor(t) for t in self._plan.outputs]
        return {t.name: values[t.id] if t.shape else values[t.id].reshape(()) for t in tensors}


def random_inputs(
    plan: Plan, generator: np.random.Generator, dims: Mapping[str, int] | None = None
) -> Arrays:
    """Inputs of the plan's model: floats in [0, 1), integers 0 or 1, by name.

    `dims` gives sizes of symbolic dimensions. Raises InputError for one that it does not name.
    """
    return {
        tensor.name: _random_array(tensor, generator, dims or {})
        for tensor in map(plan.tensor, plan.inputs)
    }


def _random_array(
    tensor: PlanTensor, generator: np.random.Generator, dims: Mapping[str, int]
) -> Array:
    missing = [d for d in tensor.shape if isinstance(d, str) and d not in dims]
    if missing:
        raise InputError(
            f"input '{tensor.name}' has the symbolic size '{missing[0]}': give it a number with "
            f"--dim {missing[0]}=N"
        )
    shape = [dim if isinstance(dim, int) else dims[dim] for dim in tensor.shape]
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return generator.random(shape).astype(dtype)
    return generator.integers(0, 2, shape).astype(dtype)
