"""Floating-point operations of ONNX nodes, from the shapes of their tensors.

Convention: 1 multiply-add is 2 FLOPs. An addition, multiplication, division, comparison or
elementary function (exp, log, tanh of a recurrent cell ...) is 1. Moving, reshaping, selecting by
index and casting data is 0. Operations on integers count as those on floats. `out` is the number of
elements of the first output, `in` of the first input, `kernel` the product of the kernel sizes:

    Conv, ConvInteger, QLinearConv         2 out (C_in / group) kernel + out if there is a bias
    ConvTranspose                          2 in (C_out / group) kernel + out if there is a bias
    MatMul, MatMulInteger, QLinearMatMul   2 out K
    Gemm                                   2 out K + out if there is a C
    LSTM, GRU, RNN                         2 steps batch directions gates H (I + H): products only
    MaxPool, AveragePool, LpPool           out kernel (LpPool: 2 out kernel)
    GlobalMaxPool, GlobalAveragePool       in (GlobalLpPool: 2 in)
    Resize, Upsample                       nearest 0, linear 2 out 2^d, cubic 2 out 4^d with d
                                           resized dimensions
    Reduce*, ArgMax, TopK ...              in times the operations per element (TopK: 1, the least)
    Softmax, LogSoftmax                    5 in: maximum, difference, exp, sum, division (log)
    BatchNormalization                     2 out: folded into a scale and a shift
    Layer-, Instance-, GroupNormalization  8 in: mean, difference, square, variance, root, division,
                                           scale, shift
    other elementwise operations           out times the operations per element

A node with a size that is unknown, or an operator that is not here (Einsum, If, Loop, Scan, custom
operators ...), has no known number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

Shape = tuple[int, ...]
_STANDARD = ("", "ai.onnx")
_CONTRIB = "com.microsoft"
_TAPS = {"nearest": 0, "linear": 2, "cubic": 4}  # of an interpolation, per dimension


@dataclass(frozen=True)
class SizedNode:
    """A node with the shapes of its inputs and outputs; None where a name is left out ('') or a
    shape is not known."""

    node: onnx.NodeProto
    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape | None, ...]

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute; text as str."""
        for item in self.node.attribute:
            if item.name == name:
                value = onnx.helper.get_attribute_value(item)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def has_input(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def input(self, index: int) -> Shape:
        """Shape of an input; raises _Unknown."""
        return _at(self.inputs, index)

    @property
    def taken(self) -> int:
        """Elements of the first input; raises _Unknown."""
        return math.prod(self.input(0))

    @property
    def made(self) -> int:
        """Elements of the first output; raises _Unknown."""
        return math.prod(_at(self.outputs, 0))


class _Unknown(Exception):
    """A shape that the formula needs is not known."""


def _at(shapes: tuple[Shape | None, ...], index: int) -> Shape:
    shape = shapes[index] if index < len(shapes) else None
    if shape is None:
        raise _Unknown
    return shape


def node_flops(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int | None:
    """FLOPs of one execution of a node, None if they are unknown.

    `shapes` holds the tensors all of whose sizes are known.
    """
    formula = _formula(node)
    if formula is None:
        return None
    sized = SizedNode(
        node,
        tuple(shapes.get(name) for name in node.input),
        tuple(shapes.get(name) for name in node.output),
    )
    try:
        return formula(sized)
    except (_Unknown, IndexError, ValueError):  # missing, or of a wrong number of dimensions
        return None


def has_formula(node: onnx.NodeProto) -> bool:
    """Whether the FLOPs of such a node are known if its sizes are."""
    return _formula(node) is not None


Formula = Callable[[SizedNode], int]


def _formula(node: onnx.NodeProto) -> Formula | None:
    if node.domain in _STANDARD:
        return _FORMULAS.get(node.op_type)
    return _CONTRIB_FORMULAS.get(node.op_type) if node.domain == _CONTRIB else None


def _conv(weight: int, bias: int) -> Formula:
    """Convolution with its weights (C_out, C_in / group, kernel...) and bias at these inputs."""

    def count(sized: SizedNode) -> int:
        per_output = math.prod(sized.input(weight)[1:])
        return 2 * sized.made * per_output + (sized.made if sized.has_input(bias) else 0)

    return count


def _conv_transpose(sized: SizedNode) -> int:
    per_input = math.prod(sized.input(1)[1:])
    return 2 * sized.taken * per_input + (sized.made if sized.has_input(2) else 0)


def _matmul(sized: SizedNode) -> int:
    return 2 * sized.made * sized.input(0)[-1]


def _gemm(sized: SizedNode) -> int:
    depth = sized.input(0)[0 if sized.attribute("transA", 0) else 1]
    return 2 * sized.made * depth + (sized.made if sized.has_input(2) else 0)


def _recurrent(sized: SizedNode) -> int:
    """X is (steps, batch, I), or (batch, steps, I); W is (directions, gates H, I)."""
    steps, batch, width = sized.input(0)
    directions, gates_hidden, _ = sized.input(1)
    hidden = sized.input(2)[2]
    return 2 * steps * batch * directions * gates_hidden * (width + hidden)


def _pool(per_element: int) -> Formula:
    def count(sized: SizedNode) -> int:
        kernel: tuple[int, ...] = tuple(sized.attribute("kernel_shape", ()))
        return per_element * sized.made * math.prod(kernel)

    return count


def _resize(sized: SizedNode) -> int:
    before, after = sized.input(0), _at(sized.outputs, 0)
    taps = _TAPS.get(sized.attribute("mode", "nearest"))
    if taps is None or sized.attribute("antialias", 0):
        raise _Unknown
    resized = sum(a != b for a, b in zip(before, after, strict=True))
    return 2 * sized.made * math.prod([taps] * resized) if resized else 0


def _scatter(sized: SizedNode) -> int:
    """An operation per update, unless updates replace what is there."""
    return 0 if sized.attribute("reduction", "none") == "none" else math.prod(sized.input(2))


def _normalisation_by_lrn(sized: SizedNode) -> int:
    """Sum of squares over `size` channels, then scale, shift, power, division."""
    return sized.made * (2 * int(sized.attribute("size", 1)) + 4)


def _variadic(sized: SizedNode) -> int:
    return sized.made * (len(sized.node.input) - 1)


def _mean(sized: SizedNode) -> int:
    return sized.made * len(sized.node.input)


def _clip(sized: SizedNode) -> int:
    """One comparison per bound; before opset 11 the bounds are attributes."""
    names = {item.name for item in sized.node.attribute}
    return sized.made * sum(
        sized.has_input(index) or name in names for index, name in ((1, "min"), (2, "max"))
    )


def _per_output(count: int) -> Formula:
    return lambda sized: count * sized.made


def _per_input(count: int) -> Formula:
    return lambda sized: count * sized.taken


def _nothing(_: SizedNode) -> int:
    return 0


def _table(rows: Mapping[str, Formula]) -> dict[str, Formula]:
    """Each row's key is a text with the names of operators that share a formula."""
    return {name: formula for names, formula in rows.items() for name in names.split()}


_FORMULAS = _table({
    # Only moves, selects by index, or looks at shapes.
    "BitCast Cast CastLike CenterCropPad Compress Concat Constant ConstantOfShape DepthToSpace "
    "Dropout Expand EyeLike Flatten Gather GatherElements GatherND Identity MaxUnpool OneHot Pad "
    "Range Reshape ReverseSequence Scatter Shape Size Slice SpaceToDepth Split Squeeze "
    "TensorScatter Tile Transpose Trilu Unsqueeze": _nothing,
    "Conv": _conv(1, 2),
    "ConvInteger": _conv(1, 4),
    "QLinearConv": _conv(3, 8),
    "ConvTranspose": _conv_transpose,
    "MatMul MatMulInteger QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "GRU LSTM RNN": _recurrent,
    "AveragePool MaxPool": _pool(1),
    "LpPool": _pool(2),
    "GlobalAveragePool GlobalMaxPool": _per_input(1),
    "GlobalLpPool": _per_input(2),
    "Resize Upsample": _resize,
    "ArgMax ArgMin CumProd CumSum Hardmax NonZero ReduceLogSum ReduceMax ReduceMean ReduceMin "
    "ReduceProd ReduceSum TopK": _per_input(1),
    "ScatterElements ScatterND": _scatter,
    "ReduceL1 ReduceL2 ReduceLogSumExp ReduceSumSquare": _per_input(2),
    "LpNormalization": _per_input(3),
    "LogSoftmax Softmax": _per_input(5),
    "BatchNormalization": _per_output(2),
    "GroupNormalization InstanceNormalization LayerNormalization": _per_input(8),
    "MeanVarianceNormalization": _per_input(6),
    "RMSNormalization": _per_input(5),
    "LRN": _normalisation_by_lrn,
    "Max Min Sum": _variadic,
    "Mean": _mean,
    "Clip": _clip,
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr "
    "BitwiseXor Ceil Cos Cosh Div Equal Erf Exp Floor Greater GreaterOrEqual IsInf IsNaN Less "
    "LessOrEqual Log Mod Mul Neg Not Or Pow Reciprocal Relu Round Sign Sin Sinh Sqrt Sub Tan Tanh "
    "Where Xor": _per_output(1),
    "DequantizeLinear LeakyRelu PRelu Shrink Softsign ThresholdedRelu": _per_output(2),
    "Elu Softplus": _per_output(3),
    "Celu HardSigmoid QuantizeLinear Selu Sigmoid": _per_output(4),
    "Gelu HardSwish Mish Swish": _per_output(5),
    "DynamicQuantizeLinear": _per_output(6),
})  # fmt: skip

_CONTRIB_FORMULAS = _table({
    "DequantizeLinear": _per_output(2),
    "QuantizeLinear": _per_output(4),
    "Gelu QuickGelu": _per_output(5),
})  # fmt: skip
