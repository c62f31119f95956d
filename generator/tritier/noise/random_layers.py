"""Which layers of a model have weights that may be random, and where their parts lie.

Nothing is known but the graph: a layer counts if it multiplies what depends on an input with
constants, and if these don't look as if somebody had written them down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from tritier.errors import InputError
from tritier.graph import Layer, LayerGraph

Array = npt.NDArray[np.generic]

TYPES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
)
# What bends its input: behind it a mean other than 0 is worth something.
_ACTIVATIONS = {
    "Celu", "Clip", "Elu", "Erf", "FastGelu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu",
    "Mish", "PRelu", "QuickGelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Swish",
    "Tanh", "ThresholdedRelu",
}  # fmt: skip
# Exporters write some activations as several nodes, which begin with one of these and a constant.
_FIRST_STEPS = {"Add", "Div", "Mul", "Sub"}
_MOST_STEPS = 4096  # greater multiples of the least weight than this say nothing
_STEP_TOLERANCE = 1e-3
_FEW_VALUES = 256


@dataclass(frozen=True)
class RandomLayer:
    """A layer whose weights can be rescaled. `bias` is the index of the node, and the place among
    its inputs, where a value per channel is added or can be; None if there is no such place."""

    name: str
    op_type: str
    index: int
    output: str
    channels: int
    groups: int
    weight_axis: int
    bias: tuple[int, int] | None
    is_activated: bool

    @property
    def axis(self) -> int:
        """Where the channels are in the output."""
        return -1 if self.op_type == "MatMul" else 1


@dataclass(frozen=True)
class LeftLayer:
    """A layer with weights that stays as it is."""

    name: str
    reason: str


def find_random_layers(
    model: onnx.ModelProto, graph: LayerGraph
) -> tuple[list[RandomLayer], list[LeftLayer]]:
    """The layers with random-looking weights, and those of the same types that stay, in the model's
    order.

    Raises InputError when there is none, or when batch normalisation stands in the model.
    """
    norms = [layer.name for layer in graph.layers if layer.op_type == "BatchNormalization"]
    if norms:
        raise InputError(
            f"the model has {len(norms)} BatchNormalization layers ('{norms[0]}'), with statistics "
            "of their own: merge them with the layers before them by `tritier prepare` first"
        )
    finder = _Finder(model, graph)
    found: list[RandomLayer] = []
    left: list[LeftLayer] = []
    for layer in graph.layers:
        if layer.op_type in TYPES:
            item = finder.examine(layer)
            if isinstance(item, RandomLayer):
                found.append(item)
            else:
                left.append(LeftLayer(layer.name, item))
    if not found:
        reasons = f"; '{left[0].name}': {left[0].reason}" if left else ""
        raise InputError(
            f"the model has no {', '.join(TYPES)} layer with random-looking weights{reasons}"
        )
    return found, left


def looks_fixed(weights: Array) -> str:
    """Why weights are rather constants that somebody wrote down than random; else an empty text.

    Multiples of their least value (0 to 15, ones, a Sobel filter), or few different values.
    """
    sizes = np.abs(np.asarray(weights, np.float64)).ravel()
    sizes = sizes[sizes > 0]
    if not sizes.size:
        return "its weights are all 0"
    # Random ones show at the first few.
    steps = sizes[:1024] / sizes.min()
    if steps.max() <= _MOST_STEPS and np.all(np.abs(steps - np.rint(steps)) < _STEP_TOLERANCE):
        return f"its weights are multiples of {sizes.min():.3g}: constants, not random ones"
    different = np.unique(sizes).size
    if different < _FEW_VALUES and different <= sizes.size / 2:
        return f"its weights have only {different} different values: constants, not random ones"
    return ""


class _Finder:
    def __init__(self, model: onnx.ModelProto, graph: LayerGraph) -> None:
        self._nodes = model.graph.node
        self._graph = graph
        self._constants: Mapping[str, onnx.TensorProto] = {
            tensor.name: tensor for tensor in model.graph.initializer
        }

    def examine(self, layer: Layer) -> RandomLayer | str:
        """What can be done with a layer, or why nothing can."""
        node = self._nodes[layer.index]
        if node.input[1] in layer.inputs:
            return "its second factor depends on an input"
        weights = self._constants.get(node.input[1])
        if weights is None:
            return "its second factor is no initializer: `tritier prepare` may make it one"
        if weights.data_type not in _FLOATS:
            return "its weights are no floats"
        if len(weights.dims) < 2 or (layer.op_type == "MatMul" and len(weights.dims) > 2):
            return f"its weights have {len(weights.dims)} dimensions"
        if fixed := looks_fixed(numpy_helper.to_array(weights)):
            return fixed
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        groups = int(values.get("group", 1)) if layer.op_type == "ConvTranspose" else 1
        axis = 0 if layer.op_type == "Conv" else 1
        if layer.op_type == "Gemm":
            axis = 0 if values.get("transB", 0) else 1
        channels = weights.dims[axis] * groups
        bias = (layer.index, 2) if layer.op_type != "MatMul" else self._added(layer, channels)
        if fault := self._bias_fault(node, bias, channels, values):
            return fault
        last = layer if bias is None else self._layer_at(bias[0])
        return RandomLayer(
            layer.name,
            layer.op_type,
            layer.index,
            layer.outputs[0],
            channels,
            groups,
            axis,
            bias,
            self._is_activated(last.outputs[0]),
        )

    def _bias_fault(
        self,
        node: onnx.NodeProto,
        bias: tuple[int, int] | None,
        channels: int,
        values: Mapping[str, object],
    ) -> str:
        if node.op_type == "MatMul" or bias is None or len(node.input) < 3 or not node.input[2]:
            return ""
        tensor = self._constants.get(node.input[2])
        if tensor is None or tensor.data_type not in _FLOATS:
            return "its bias is no initializer of floats"
        if not _is_per_channel(tensor, channels):
            return f"its bias of shape {list(tensor.dims)} is not one value per channel"
        return "its bias counts 0 times" if values.get("beta", 1.0) == 0 else ""

    def _added(self, layer: Layer, channels: int) -> tuple[int, int] | None:
        """Where the only reader of a MatMul adds a constant with a value per channel."""
        readers = self._graph.consumers.get(layer.outputs[0], ())
        if len(readers) != 1 or layer.outputs[0] in self._graph.outputs:
            return None
        node = self._nodes[readers[0].index]
        if node.op_type != "Add":
            return None
        for place, name in enumerate(node.input):
            tensor = self._constants.get(name)
            if tensor is None or tensor.data_type not in _FLOATS or not tensor.dims:
                continue
            if _is_per_channel(tensor, channels):
                return readers[0].index, place
        return None

    def _layer_at(self, index: int) -> Layer:
        return next(layer for layer in self._graph.layers if layer.index == index)

    def _is_activated(self, tensor: str) -> bool:
        """Whether an activation reads a tensor, or what becomes of it by a constant."""
        for reader in self._graph.consumers.get(tensor, ()):
            if reader.op_type in _ACTIVATIONS:
                return True
            if reader.op_type in _FIRST_STEPS and reader.inputs == (tensor,):
                after = self._graph.consumers.get(reader.outputs[0], ())
                if any(layer.op_type in _ACTIVATIONS for layer in after):
                    return True
        return False


def _is_per_channel(tensor: onnx.TensorProto, channels: int) -> bool:
    """Whether it has a value per channel, or one for all of them, along its last dimension."""
    sizes = list(tensor.dims)
    return all(size == 1 for size in sizes[:-1]) and (not sizes or sizes[-1] in (1, channels))
