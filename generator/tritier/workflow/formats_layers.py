"""Which layers int8 formats are tried on, and which of them really run as int8 kernels."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx
from onnx import TensorProto

from tritier.documents import ModelProfile
from tritier.graph import LayerGraph, LoadedModel
from tritier.timing import KernelTracer, ModelNode
from tritier.workflow.timing_run import without_unquantizable

# Types that ONNX Runtime has int8 kernels for, or that only move values; the first ones compute
# most of what a model computes.
_MAIN = ("Conv", "Gemm", "MatMul")
_AROUND = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool",
    "Mul", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
)  # fmt: skip
# What a Conv may be behind, of the layers after which no other counts.
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_MOVING = ("Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
_EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)
# What reads 8 bits and makes something else.
_ENDING = ("DequantizeLinear", "Cast", "Shape", "MatMulInteger", "MatMulIntegerToFloat")
_CODERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def averages_of(graph: LayerGraph) -> set[str]:
    """Convolutions that read a Softmax: they take the mean of a distribution (the head of detectors
    that predict one for each box edge), and what they make is too fine for 8 bits."""
    found = set()
    for layer in graph.layers:
        source = graph.source.get(layer.inputs[0]) if layer.inputs else None
        while source is not None and source.op_type in _MOVING and source.inputs:
            source = graph.source.get(source.inputs[0])
        if layer.op_type in _CONVOLUTIONS and source is not None and source.op_type == "Softmax":
            found.add(layer.name)
    return found


def layers_before_the_end(graph: LayerGraph) -> set[str]:
    """Layers that a convolution follows, and the convolutions themselves. What comes after the last
    ones is left out, as are convolutions that take averages: a single joint range for boxes in
    pixels and for scores rounds all scores to zero. All layers of a model without convolutions."""
    ends = averages_of(graph)
    kept = {x.name for x in graph.layers if x.op_type in _CONVOLUTIONS and x.name not in ends}
    if not kept:
        return set(graph.by_name)
    for layer in reversed(graph.layers):
        readers = [x.name for name in layer.outputs for x in graph.consumers.get(name, ())]
        if layer.name not in ends and any(name in kept for name in readers):
            kept.add(layer.name)
    return kept


def layers_of_all_types(
    model: LoadedModel, graph: LayerGraph, profile: ModelProfile
) -> tuple[str, ...]:
    """Layers of all types that have int8 kernels, in the model's order, but for its end."""
    kept = layers_before_the_end(graph)
    chosen = {x.name for x in graph.layers if x.op_type in (*_MAIN, *_AROUND) and x.name in kept}
    usable, _ = without_unquantizable(model, with_layers(profile, chosen))
    return usable.quantizable_layers


def with_layers(profile: ModelProfile, layers: Collection[str]) -> ModelProfile:
    """The profile with these layers quantizable and no others."""
    marked = tuple(
        layer.model_copy(update={"quantizable": layer.name in layers}) for layer in profile.layers
    )
    return profile.model_copy(update={"layers": marked})


def int8_layers(
    nodes: Sequence[ModelNode], optimised: onnx.GraphProto, layers: Collection[str]
) -> tuple[str, ...]:
    """Those of the layers that run as kernels on 8-bit values, by the graph that ONNX Runtime has
    made of the nodes, or are done by such a kernel on the way (a Relu by the limits of what it is
    rounded to). The others compute with floats between two conversions."""
    coded = _eight_bit_tensors(optimised)
    covered = KernelTracer(nodes, optimised).covered
    working = [kernel for kernel in optimised.node if kernel.op_type not in _CODERS]
    kernels: dict[str, bool] = {}
    for kernel in working:
        for node in covered.get(kernel.name, ()):
            kernels[node.name] = bool(coded.intersection(kernel.input))
    found: set[str] = set()
    made: set[str] = set()  # by layers that run as int8, and what that becomes between layers
    for node in nodes:
        is_coder = node.op_type in _CODERS
        if kernels.get(node.name, False) or (
            (is_coder or node.name not in kernels) and made.intersection(node.inputs)
        ):
            made.update(node.outputs)
            found.update([] if is_coder else [node.layer])
    return tuple(name for name in layers if name in found)


def _eight_bit_tensors(graph: onnx.GraphProto) -> set[str]:
    """Activations of 8 bits in a graph whose nodes are in topological order."""
    constants = {t.name for t in graph.initializer}
    found = {v.name for v in graph.input if v.type.tensor_type.elem_type in _EIGHT_BITS}
    for node in graph.node:
        read = found.intersection(node.input) - constants
        if node.op_type == "QuantizeLinear" or (read and node.op_type not in _ENDING):
            found.update(name for name in node.output if name)
    return found
