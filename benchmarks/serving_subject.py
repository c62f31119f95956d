"""The models of `serving_overhead`, their plans, and the same in this process."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort

from benchmarks.serving_cuts import Cut, cuts_of, two_parts
from tests.helpers.ocr import DETECTION
from tritier.calibration import calibrate
from tritier.divider import Arrays
from tritier.documents import Codec, Plan, ServersSpec
from tritier.graph import (
    LoadedModel,
    PrepareOptions,
    build_layer_graph,
    load_model,
    prepare_model,
    profile_model,
)
from tritier.resources import example_dir
from tritier.workflow.coding import code_plan

SUPER_RESOLUTION, DETECTOR = "super-resolution", "text detection"
_SHAPES = {SUPER_RESOLUTION: ("luminance", (1, 1, 224, 224)), DETECTOR: ("x", (1, 3, 320, 640))}


class Subject:
    """A model, its input, and the plans that are compared."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        if name == SUPER_RESOLUTION:
            path = example_dir("super_resolution") / "espcn_x3.onnx"
        else:
            path = folder / "text_detection.onnx"
            if not path.exists():
                options = PrepareOptions(shapes={"x": _SHAPES[name][1]}, opset=17)
                prepare_model(DETECTION, options).write(path)
        self.model: LoadedModel = load_model(path)
        self.path = path
        self.graph = build_layer_graph(self.model.proto)
        tensor, shape = _SHAPES[name]
        dims = {"batch": 1} if name == SUPER_RESOLUTION else {}
        self.cuts = cuts_of(profile_model(self.model, dims), self.graph)
        self.halves: Cut | None = None
        self.arrays: Arrays = {tensor: np.random.default_rng(0).random(shape, np.float32)}

    def plan(self, spec: ServersSpec, kind: str, after: int, *servers: str) -> Plan:
        """A plan with a name of its own, so that several are served side by side."""
        first, second = servers
        name = f"{kind}-{'sr' if self.name == SUPER_RESOLUTION else 'ocr'}-{after}"
        return two_parts(self.model, self.graph, spec, after, (first, second), name)

    def coded(self, plan: Plan) -> Plan:
        """The same with what goes from the edge to the entry in 8 bits."""
        names = {tensor.id: tensor.name for tensor in plan.tensors}
        wires = {names[w.tensor]: "int8" for w in plan.wires if w.target == "device"}
        ranges = calibrate(self.model, [self.arrays])
        codecs = cast("dict[str, Codec]", wires)
        return code_plan(plan, self.model, self.graph, (), ranges, wire_codecs=codecs)


class Direct:
    """ONNX Runtime in this process, as the embedded server runs it: one thread that does not spin,
    all graph optimisations, and a malloc that keeps what was freed."""

    def __init__(self, subject: Subject) -> None:
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 32 << 20)
        libc.mallopt(-1, 256 << 20)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            str(subject.path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._arrays = subject.arrays
        self.answer: Any = None

    def __call__(self) -> float:
        """Milliseconds of a run."""
        started = time.perf_counter()
        self.answer = self._session.run(None, self._arrays)
        return (time.perf_counter() - started) * 1000.0
