"""What is expected of every model that onnx ships: a new refusal is noticed, and a new pass.

Every reason is a part of the text that a user reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.conformance.cuts import Result

Reasons = tuple[str, ...]

# Multi-node models that are equal in every cut.
EQUAL = (
    "light/bvlc_alexnet", "light/densenet121", "light/inception_v1", "light/inception_v2",
    "light/resnet50", "light/shufflenet", "light/squeezenet", "light/vgg19", "light/zfnet512",
    "pytorch-converted/test_PixelShuffle", "pytorch-converted/test_Softmin",
    "pytorch-operator/test_operator_index",
    "pytorch-operator/test_operator_repeat_dim_overflow",
    "pytorch-operator/test_operator_symbolic_override_nested",
)  # fmt: skip


def _sequences(*names: str) -> Reasons:
    return tuple(f"tensor '{name}' is a sequence; only tensors of bool, " for name in names)


# Multi-node models that are refused in every cut; all layers together may go to any server.
SEQUENCES = {
    "simple/test_sequence_model1": _sequences("Seq_1", "Seq_2", "Seq_3"),
    "simple/test_sequence_model2": _sequences("seq_1", "seq_2"),
    "simple/test_sequence_model3": _sequences("seq_1", "seq_2", "seq_3"),
    "simple/test_sequence_model4": _sequences("seq_1"),
    "simple/test_sequence_model5": _sequences("seq_1"),
    "simple/test_sequence_model6": _sequences("seq_1"),
    "simple/test_sequence_model7": _sequences("seq_1"),
    "simple/test_sequence_model8": _sequences("seq_1"),
}

_TEXTS = tuple(f"tensor '{name}' is a tensor of string; only tensors of bool, " for name in "xy")
_GRADIENT = ("ai.onnx.preview.training:Gradient(-1) is not a registered function/op",)


def _no_kernel(operator: str) -> Reasons:
    return (f"ONNX Runtime can't load the model: [ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could "
            f"not find an implementation for {operator} node",)  # fmt: skip


# Multi-node models that ONNX Runtime refuses as shipped, and runs in opset 7.
OLD_OPSET = {
    "pytorch-converted/test_AvgPool1d": _no_kernel("AveragePool(1)"),
    "pytorch-converted/test_AvgPool1d_stride": _no_kernel("AveragePool(1)"),
    "pytorch-converted/test_GLU": _no_kernel("Mul(6)"),
    "pytorch-converted/test_GLU_dim": _no_kernel("Mul(6)"),
    "pytorch-converted/test_PoissonNLLLLoss_no_reduce": _no_kernel("Mul(6)"),
    "pytorch-converted/test_Softsign": _no_kernel("Add(6)"),
    "pytorch-operator/test_operator_addmm": _no_kernel("Gemm(6)"),
    "pytorch-operator/test_operator_basic": _no_kernel("Add(6)"),
    "pytorch-operator/test_operator_non_float_params": _no_kernel("Add(6)"),
    "pytorch-operator/test_operator_params": _no_kernel("Add(6)"),
}
# Multi-node models that ONNX Runtime refuses in any opset.
TRAINING = {
    "simple/test_gradient_of_add": _GRADIENT,
    "simple/test_gradient_of_add_and_mul": _GRADIENT,
}
REFUSED = SEQUENCES | OLD_OPSET | TRAINING

# Models of one layer can't be cut; these can't be moved to another server either.
STUCK = {
    "pytorch-converted/test_AvgPool2d": _no_kernel("AveragePool(1)"),
    "pytorch-converted/test_AvgPool2d_stride": _no_kernel("AveragePool(1)"),
    "pytorch-converted/test_AvgPool3d": _no_kernel("AveragePool(1)"),
    "pytorch-converted/test_AvgPool3d_stride": _no_kernel("AveragePool(1)"),
    "pytorch-converted/test_AvgPool3d_stride1_pad0_gpu_input": _no_kernel("AveragePool(1)"),
    "pytorch-converted/test_BatchNorm1d_3d_input_eval": _no_kernel("BatchNormalization(6)"),
    "pytorch-converted/test_BatchNorm2d_eval": _no_kernel("BatchNormalization(6)"),
    "pytorch-converted/test_BatchNorm2d_momentum_eval": _no_kernel("BatchNormalization(6)"),
    "pytorch-converted/test_BatchNorm3d_eval": _no_kernel("BatchNormalization(6)"),
    "pytorch-converted/test_BatchNorm3d_momentum_eval": _no_kernel("BatchNormalization(6)"),
    "pytorch-converted/test_Linear": _no_kernel("Gemm(6)"),
    "pytorch-converted/test_PReLU_1d": _no_kernel("PRelu(6)"),
    "pytorch-converted/test_PReLU_1d_multiparam": _no_kernel("PRelu(6)"),
    "pytorch-converted/test_PReLU_2d": _no_kernel("PRelu(6)"),
    "pytorch-converted/test_PReLU_2d_multiparam": _no_kernel("PRelu(6)"),
    "pytorch-converted/test_PReLU_3d": _no_kernel("PRelu(6)"),
    "pytorch-converted/test_PReLU_3d_multiparam": _no_kernel("PRelu(6)"),
    "pytorch-operator/test_operator_add_broadcast": _no_kernel("Add(6)"),
    "pytorch-operator/test_operator_add_size1_broadcast": _no_kernel("Add(6)"),
    "pytorch-operator/test_operator_add_size1_right_broadcast": _no_kernel("Add(6)"),
    "pytorch-operator/test_operator_add_size1_singleton_broadcast": _no_kernel("Add(6)"),
    "pytorch-operator/test_operator_addconstant": _no_kernel("Add(6)"),
    "pytorch-operator/test_operator_mm": _no_kernel("Gemm(6)"),
    "pytorch-operator/test_operator_pow": _no_kernel("Pow(1)"),
    "simple/test_strnorm_model_monday_casesensintive_lower": _TEXTS,
    "simple/test_strnorm_model_monday_casesensintive_nochangecase": _TEXTS,
    "simple/test_strnorm_model_monday_casesensintive_upper": _TEXTS,
    "simple/test_strnorm_model_monday_empty_output": _TEXTS,
    "simple/test_strnorm_model_monday_insensintive_upper_twodim": _TEXTS,
    "simple/test_strnorm_model_nostopwords_nochangecase": _TEXTS,
}

# How many models end in which way; together all that onnx ships.
COUNTS = {"equal": 14, "refused": 20, "not multi-node": 115}


@dataclass(frozen=True)
class Expectation:
    """How a model's cuts end, and whether all its layers together run on any server."""

    outcome: str
    movable: bool
    reasons: Reasons = ()


def expectation(name: str) -> Expectation:
    """What is expected of a shipped model; `EQUAL` and `REFUSED` name all that are multi-node."""
    if name in EQUAL:
        return Expectation("equal", movable=True)
    if name in REFUSED:
        return Expectation("refused", movable=name in SEQUENCES, reasons=REFUSED[name])
    return Expectation("not multi-node", movable=name not in STUCK, reasons=STUCK.get(name, ()))


def surprises(result: Result, expected: Expectation) -> list[str]:
    """How a result differs from what was expected; nothing if it doesn't."""
    found = []
    if result.outcome != expected.outcome:
        found.append(f"{result.name}: {result.outcome}, expected {expected.outcome}")
    wrong = result.stuck if expected.movable else result.moved
    if wrong:
        found.append(f"{result.name}: moved {result.moved}, stuck {result.stuck}")
    found += [
        f"{result.name}: refused for another reason: {reason}"
        for reason in result.reasons
        if not any(part in reason for part in expected.reasons)
    ]
    return found + [
        f"{result.name}: no longer refused because of: {part}"
        for part in expected.reasons
        if not _occurs(part, result.reasons)
    ]


def _occurs(part: str, reasons: Iterable[str]) -> bool:
    return any(part in reason for reason in reasons)
