"""For `serving_overhead`: a Triton model that computes nothing, and what halves take in process."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx.utils
import onnxruntime as ort

from benchmarks.lab_runs import Request, Stage
from tritier.deployment.client import TritonServer
from tritier.divider import Arrays
from tritier.graph import LoadedModel, build_layer_graph

NAME = "floor"
_RUNS = 7
# What a MiB takes from one server to another on the same machine; both stages pay for it.
_COPY_MS_PER_MIB = 1.5
_PROGRAM = """
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        outputs = json.loads(args["model_config"])["output"]
        shapes = {o["name"]: [int(d) for d in o["dims"]] for o in outputs}
        self._made = [(name, np.zeros(shape, np.float32)) for name, shape in shapes.items()]

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in self._made])
            for _ in requests
        ]
"""


def floor_config(arrays: Arrays, outputs: Sequence[Any]) -> str:
    """Of a model that takes these arrays and returns float32 arrays of the shapes of `outputs`."""
    taken = [
        {"name": name, "data_type": "TYPE_FP32", "dims": list(array.shape)}
        for name, array in arrays.items()
    ]
    made = [
        {"name": f"made{index}", "data_type": "TYPE_FP32", "dims": list(array.shape)}
        for index, array in enumerate(outputs)
    ]
    return json.dumps(
        {
            "name": NAME, "backend": "python", "max_batch_size": 0, "input": taken, "output": made,
            "instance_group": [{"kind": "KIND_CPU", "count": 1}],
        }
    )  # fmt: skip


@contextmanager
def floor_served(stage: Stage, arrays: Arrays, outputs: Sequence[Any]) -> Iterator[Request]:
    """The model on the entry, and a request to it; it is taken away at the end."""
    entry = stage.spec.entry.name
    with TritonServer(entry, stage.urls[entry]) as server:
        files = {"file:1/model.py": _PROGRAM.encode()}
        server.load(NAME, floor_config(arrays, outputs), files)
        request = Request(stage.urls[entry], NAME, arrays)
        try:
            yield request
        finally:
            request.close()
            server.unload(NAME)


def halves_ms(model: LoadedModel, after: int) -> tuple[float, float]:
    """Median ms of the first `after` layers and of the rest, in this process with one thread, each
    with what the bytes between them take."""
    graph = build_layer_graph(model.proto)
    first = {layer.name for layer in graph.layers[:after]}
    made = {name for layer in graph.layers[:after] for name in layer.outputs}
    read = {name for layer in graph.layers if layer.name not in first for name in layer.inputs}
    ends = [value.name for value in model.proto.graph.output]
    between = sorted(name for name in made if name in read or name in ends)
    begin = [value.name for value in model.proto.graph.input]
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model.proto))
    first_model = extractor.extract_model(begin, between)
    behind = [name for name in ends if name not in made]
    second_model = extractor.extract_model([*(x for x in between if x in read),
                                            *(x for x in begin if x in read)], behind)  # fmt: skip
    arrays = _random(first_model)
    one_ms, answers = _timed(first_model, arrays)
    known = {**arrays, **dict(zip(between, answers, strict=True))}
    feed = {value.name: known[value.name] for value in second_model.graph.input}
    two_ms, _ = _timed(second_model, feed)
    copy_ms = _COPY_MS_PER_MIB * sum(known[name].nbytes for name in between) / 2**20
    return one_ms + copy_ms, two_ms + copy_ms


def _random(model: onnx.ModelProto) -> Arrays:
    generator = np.random.default_rng(0)
    return {
        value.name: generator.random(
            [max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim], np.float32
        )
        for value in model.graph.input
    }


def _timed(model: onnx.ModelProto, arrays: Arrays) -> tuple[float, list[Any]]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    answers = list(session.run(None, arrays))
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        session.run(None, arrays)
        times.append((time.perf_counter() - started) * 1000.0)
    return statistics.median(times), answers
