"""Graphs as ONNX Runtime optimises them, and pieces of models for tests of profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnxruntime as ort

from tritier.documents import Server
from tritier.graph import LoadedModel, Quantizable, build_layer_graph, profile_model
from tritier.timing import ModelNode
from tritier.workflow.timing_pieces import PieceMaker


def optimised(model: bytes, folder: Path) -> onnx.GraphProto:
    """The graph that ONNX Runtime runs, at the level that Triton serves with."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx").graph


def maker_of(
    model: LoadedModel, quantized: Sequence[str] = (), dims: Mapping[str, int] | None = None
) -> PieceMaker:
    """Pieces of a model for a server; no layer may be quantized unless it is named."""
    choice = Quantizable(count=0, layers=tuple(quantized))
    graph = build_layer_graph(model.proto)
    profile = profile_model(model, dims, choice)
    return PieceMaker(model, graph, profile, Server(name="device", tier="device", entry=True))


def nodes_of(model: LoadedModel, quantized: Sequence[str] = ()) -> tuple[bytes, list[ModelNode]]:
    """The model as it is profiled, and its nodes."""
    found = maker_of(model, quantized).profiled(bool(quantized))
    return found.data, list(found.nodes)
