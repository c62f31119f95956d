"""Simplification of a graph by onnxslim, with the names and ends that the model had."""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Mapping

import onnx

# Constants that are computed from less are folded up to this size; above, the file would swell.
_MOST_FOLDED_BYTES = 1 << 20
_TEXTS = (
    "ir_version",
    "producer_name",
    "producer_version",
    "domain",
    "model_version",
    "doc_string",
)
_LISTS = ("metadata_props", "functions")


def simplified(model: onnx.ModelProto, merge: bool) -> onnx.ModelProto:
    """The model in a simpler form; `model` itself is used up. With `merge`, neighbours such as Conv
    and BatchNormalization become one, which changes how results are rounded; without, only
    constants are folded and doubles removed.

    Raises whatever onnxslim does when it fails.
    """
    import onnxslim  # takes half a second, which no other command should wait for

    frame = _frame(model)
    source = {name: (n.name, n.op_type) for n in model.graph.node for name in n.output if name}
    skipped = None if merge else ["graph_fusion"]
    silent = io.StringIO()  # its logger writes on the streams that it finds first
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        result: onnx.ModelProto = onnxslim.slim(
            model, skip_optimizations=skipped, size_threshold=_MOST_FOLDED_BYTES
        )
    del model
    gc.collect()  # its graphs are cycles, which hold the constants of every step
    _set_frame(result, frame)
    _restore_names(result, source)
    return result


def _frame(model: onnx.ModelProto) -> onnx.ModelProto:
    """All but nodes and constants."""
    frame = onnx.ModelProto()
    for field in _TEXTS:
        if model.HasField(field):
            setattr(frame, field, getattr(model, field))
    for field in _LISTS:
        getattr(frame, field).extend(getattr(model, field))
    frame.graph.name = model.graph.name
    frame.graph.doc_string = model.graph.doc_string
    constants = {tensor.name for tensor in model.graph.initializer}
    frame.graph.input.extend(v for v in model.graph.input if v.name not in constants)
    frame.graph.output.extend(model.graph.output)
    return frame


def _set_frame(result: onnx.ModelProto, frame: onnx.ModelProto) -> None:
    """Put back what onnxslim drops or changes: metadata, functions, inputs that nothing reads."""
    for field in (*_TEXTS, *_LISTS):
        result.ClearField(field)
    for field in ("input", "output", "name", "doc_string"):
        result.graph.ClearField(field)
    result.MergeFrom(frame)


def _restore_names(result: onnx.ModelProto, source: Mapping[str, tuple[str, str]]) -> None:
    """A merged node is called by the tensor that its first node made: give it that node's name.
    `source` maps a tensor to the name and type of the node that made it."""
    taken = {node.name for node in result.graph.node}
    old = {name for name, _ in source.values()}
    for node in result.graph.node:
        name, op_type = source.get(node.name, ("", ""))
        if node.name not in old and op_type == node.op_type and name not in taken:
            node.name = name
            taken.add(name)
