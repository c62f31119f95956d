"""Load and check ONNX models; the layer graph; types and shapes of tensors; model profiles."""

from tritier.graph.flops import has_formula, node_flops
from tritier.graph.layers import Layer, LayerGraph, border_tensors, build_layer_graph, free_names
from tritier.graph.load import LoadedModel, load_model
from tritier.graph.profile import (
    DEFAULT_QUANTIZABLE,
    DEFAULT_QUANTIZABLE_TYPES,
    Quantizable,
    graph_with_ends,
    profile_model,
)
from tritier.graph.tensors import DTYPES, ELEMENT_TYPES, TensorInfo, infer_tensors

__all__ = [
    "DEFAULT_QUANTIZABLE",
    "DEFAULT_QUANTIZABLE_TYPES",
    "DTYPES",
    "ELEMENT_TYPES",
    "Layer",
    "LayerGraph",
    "LoadedModel",
    "Quantizable",
    "TensorInfo",
    "border_tensors",
    "build_layer_graph",
    "free_names",
    "graph_with_ends",
    "has_formula",
    "infer_tensors",
    "load_model",
    "node_flops",
    "profile_model",
]
