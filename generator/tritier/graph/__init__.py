"""Load and check ONNX models; the layer graph; types and shapes of tensors; model profiles."""

from tritier.graph.bounds import holds, integer_bounds
from tritier.graph.flops import has_formula, node_flops
from tritier.graph.layers import Layer, LayerGraph, border_tensors, build_layer_graph, free_names
from tritier.graph.load import LoadedModel, load_model
from tritier.graph.prepare import (
    Prepared,
    PrepareOptions,
    PrepareReport,
    Tensor,
    prepare_model,
)
from tritier.graph.profile import (
    DEFAULT_QUANTIZABLE,
    DEFAULT_QUANTIZABLE_TYPES,
    Quantizable,
    graph_with_ends,
    profile_model,
)
from tritier.graph.sizes import constant_bytes, fits_one_file
from tritier.graph.tensors import (
    DTYPES,
    ELEMENT_TYPES,
    TensorInfo,
    infer_tensors,
    without_weights,
)

__all__ = [
    "DEFAULT_QUANTIZABLE",
    "DEFAULT_QUANTIZABLE_TYPES",
    "DTYPES",
    "ELEMENT_TYPES",
    "Layer",
    "LayerGraph",
    "LoadedModel",
    "PrepareOptions",
    "PrepareReport",
    "Prepared",
    "Quantizable",
    "Tensor",
    "TensorInfo",
    "border_tensors",
    "build_layer_graph",
    "constant_bytes",
    "fits_one_file",
    "free_names",
    "graph_with_ends",
    "has_formula",
    "holds",
    "infer_tensors",
    "integer_bounds",
    "load_model",
    "node_flops",
    "prepare_model",
    "profile_model",
    "without_weights",
]
