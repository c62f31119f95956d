"""Load and check ONNX models; the layer graph; types and shapes of tensors."""

from tritier.graph.layers import Layer, LayerGraph, border_tensors, build_layer_graph, free_names
from tritier.graph.load import LoadedModel, load_model
from tritier.graph.tensors import DTYPES, ELEMENT_TYPES, TensorInfo, infer_tensors

__all__ = [
    "DTYPES",
    "ELEMENT_TYPES",
    "Layer",
    "LayerGraph",
    "LoadedModel",
    "TensorInfo",
    "border_tensors",
    "build_layer_graph",
    "free_names",
    "infer_tensors",
    "load_model",
]
