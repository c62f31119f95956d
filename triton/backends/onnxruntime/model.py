"""ONNX Runtime as a Python-based backend of Triton.

Serves any model whose config.pbtxt says `backend: "onnxruntime"` on a Triton that has only the
Python backend, with the settings that Triton's own ONNX Runtime backend knows: instance kind,
`intra_op_thread_count`, `inter_op_thread_count`, `execution_mode`, the graph optimisation level,
OpenVINO as an execution accelerator, and batching.

What was cancelled, or has no time left, when its turn comes is not run. With TRITIER_OTLP in the
environment each run is a span of the trace of its request (see triton/shared/tracing.py).

TRITIER_SLOWDOWN (a factor >= 1) in the environment makes the machine look slower: each execution
is followed by a sleep of (factor - 1) times its own duration. A laboratory device, nothing else.
"""

import contextlib
import ctypes
import json
import os
import sys
import time

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

# Modules beside this one: in the folder of the backend, not of the model.
sys.path.append(os.path.dirname(os.path.abspath(__file__)))
import background
import tracing
from context import Context

# Numbers of mallopt's parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Values of `optimization.graph.level` in Triton's ONNX Runtime backend; absent means all.
_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
# Asking the server whether a request was cancelled takes some 0.1 ms: only models that run so long
# that this does not matter ask.
_WORTH_ASKING_S = 0.01
_AFTER_CANCELLED_S = 0.002
_NO_LIMIT_S = 1e6


class TritonPythonModel:
    def initialize(self, args):
        _keep_freed_memory()
        config = json.loads(args["model_config"])
        path = os.path.join(
            args["model_repository"],
            args["model_version"],
            config.get("default_model_filename") or "model.onnx",
        )
        self._session = ort.InferenceSession(
            path, sess_options=_session_options(config), providers=_providers(config, args)
        )
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._slowdown = max(1.0, float(os.environ.get("TRITIER_SLOWDOWN") or 1))
        self._typical_s = 0.0
        own = config.get("parameters", {}).get("on", {}).get("string_value", "tritier")
        self._tracer = tracing.Tracer(own)
        self._span_name = f"run {args['model_name']}"

    def execute(self, requests):
        contexts = [_context(request) for request in requests]
        reasons = [self._reason_not_to(r, c) for r, c in zip(requests, contexts, strict=True)]
        wanted = [index for index, reason in enumerate(reasons) if reason is None]
        spans = [self._start_span(contexts[index], len(wanted)) for index in wanted]
        answers = self._run_all([requests[index] for index in wanted])
        for span, answer in zip(spans, answers, strict=True):
            span.end(answer.error().message() if answer.has_error() else None)
        ran = iter(answers)
        return [next(ran) if reason is None else _refusal(*reason) for reason in reasons]

    def finalize(self):
        self._session = None
        background.close()

    def _start_span(self, context, batch):
        if context is None:
            return tracing.Passing(None)
        here = {"batch": batch, "request": context.request}
        return self._tracer.start(self._span_name, context.traceparent, **here)

    def _reason_not_to(self, request, context):
        """(text, code of the error) for a request that nobody waits for any more, else None."""
        if context is not None and context.left_s() <= 0:
            return "deadline exceeded before it ran", pb_utils.TritonError.UNAVAILABLE
        if self._typical_s > _WORTH_ASKING_S and request.is_cancelled():
            # The server's library still uses the request for a moment, and if it is freed then it
            # spoils the memory of this process (Triton 24.10). Nobody waits for the answer.
            time.sleep(_AFTER_CANCELLED_S)
            return "cancelled before it ran", pb_utils.TritonError.CANCELLED
        return None

    def _run_all(self, requests):
        if len(requests) == 0:
            return []
        if len(requests) == 1:
            return [self._respond(requests[0])]
        try:
            return self._run_batch(requests)
        except Exception:
            # One bad request spoils the batch: find out which by running each alone.
            return [self._respond(request) for request in requests]

    def _respond(self, request):
        try:
            return _response(request, self._outputs, self._run(self._feed(request)))
        except Exception as error:
            message = f"onnxruntime: {error}"
            return pb_utils.InferenceResponse(
                output_tensors=[],
                error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG),
            )

    def _run_batch(self, requests):
        feeds = [self._feed(request) for request in requests]
        sizes = [len(feed[self._inputs[0]]) for feed in feeds]
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
        ends = np.cumsum(sizes)[:-1]
        parts = [np.split(array, ends) for array in self._run(joined)]
        return [
            _response(request, self._outputs, [part[index] for part in parts])
            for index, request in enumerate(requests)
        ]

    def _feed(self, request):
        feed = {}
        for name in self._inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                raise ValueError(f"input '{name}' is missing")
            array = tensor.as_numpy()
            if array.size != np.prod(tensor.shape(), dtype=np.int64):
                # What this server does, silently, when its Python environment has numpy 2.
                raise ValueError(f"input '{name}' arrived empty: numpy < 2 is needed here")
            feed[name] = array
        return feed

    def _run(self, feed):
        started = time.perf_counter()
        outputs = self._session.run(self._outputs, feed)
        if self._slowdown > 1:
            time.sleep((self._slowdown - 1) * (time.perf_counter() - started))
        self._typical_s += (time.perf_counter() - started - self._typical_s) / 4
        return outputs


def _context(request):
    """What the request says of itself; None where that is nonsense, which is not this model's."""
    try:
        return Context(request, _NO_LIMIT_S)
    except ValueError:
        return None


def _refusal(text, code):
    return pb_utils.InferenceResponse(
        output_tensors=[], error=pb_utils.TritonError(f"onnxruntime: {text}", code)
    )


def _keep_freed_memory():
    """Let glibc keep the memory of outputs for the next ones.

    By default large arrays go back to the system and are faulted in anew, page by page, for the
    next request: up to a third of the time of a small model with large outputs, and not the same in
    every process.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def _response(request, names, arrays):
    wanted = set(request.requested_output_names()) or set(names)
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor(name, array)
            for name, array in zip(names, arrays, strict=True)
            if name in wanted
        ]
    )


def _session_options(config):
    options = ort.SessionOptions()
    parameters = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
    options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", 0))
    options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", 0))
    if parameters.get("execution_mode") == "1":
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    graph = config.get("optimization", {}).get("graph", {})
    level = int(graph.get("level", 0))
    if level not in _LEVELS:
        raise ValueError(f"optimization.graph.level is {level}; allowed are {sorted(_LEVELS)}")
    options.graph_optimization_level = _LEVELS[level]
    # Several servers share one machine here: a waiting thread must not burn its core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _providers(config, args):
    """Execution providers in the order CUDA, OpenVINO, CPU, as far as asked for and available."""
    available = ort.get_available_providers()
    providers = []
    if args["model_instance_kind"] == "GPU":
        _need("CUDAExecutionProvider", available)
        device = {"device_id": int(args["model_instance_device_id"])}
        providers.append(("CUDAExecutionProvider", device))
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        if accelerator["name"] != "openvino":
            raise ValueError(f"cpu accelerator '{accelerator['name']}'; allowed is 'openvino'")
        _need("OpenVINOExecutionProvider", available)
        providers.append("OpenVINOExecutionProvider")
    return [*providers, "CPUExecutionProvider"]


def _need(provider, available):
    if provider not in available:
        raise ValueError(
            f"{provider} is asked for but this onnxruntime has only {available}: install the "
            "matching onnxruntime wheel or change execution_provider in servers.yaml"
        )
