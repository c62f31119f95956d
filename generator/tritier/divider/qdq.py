"""Run ONNX Runtime's quantizer on a model, and take back from it only what it is to change."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from tritier.divider.rename import rename_in_place
from tritier.documents import Quantization, Range
from tritier.errors import InputError
from tritier.graph import free_names

# Types of nodes that only the quantizer sees: a DequantizeLinear that was there before, and one
# more reader of what outputs and sub-graphs read.
HIDDEN = "Dequantized"
READER = "Reader"


class MarkedNames:
    """Keeps the names that the quantizer makes up (`h_scale`) apart from those that are there.

    While it runs, what chosen layers read and make has a mark in its name, which all that it makes
    up then has too.
    """

    def __init__(
        self,
        nodes: Collection[onnx.NodeProto],
        constants: Collection[str],
        layers: Collection[str],
    ) -> None:
        tensors = {n for node in nodes for n in (*free_names(node), *node.output) if n}
        self._tensors = tensors | set(constants)
        self._nodes = {node.name for node in nodes}
        self._mark = "//"
        while any(self._mark in name for name in (*self._tensors, *self._nodes)):
            self._mark += "/"
        chosen = [node for node in nodes if node.name in layers]
        names = {n for node in chosen for n in (*free_names(node), *node.output) if n}
        self.marked = {name: name + self._mark for name in names}

    def mark(self, model: onnx.ModelProto) -> None:
        """Give the tensors of chosen layers their marks, in place."""
        self._rename(model, self.marked)

    def unmark(self, model: onnx.ModelProto) -> None:
        """Give them their own names back, in place; what was made up loses the mark where the name
        without it is free."""
        graph = model.graph
        names = [n for node in graph.node for n in (*node.input, *node.output)]
        back = {marked: name for name, marked in self.marked.items()}
        for name in dict.fromkeys((*names, *(t.name for t in graph.initializer))):
            short = name.replace(self._mark, "")
            if self._mark in name and name not in back and short not in self._tensors:
                back[name] = short
                self._tensors.add(short)
        self._rename(model, back)
        for node in graph.node:
            short = node.name.replace(self._mark, "")
            if short != node.name and short not in self._nodes:
                node.name = short
                self._nodes.add(short)

    def _rename(self, model: onnx.ModelProto, rename: Mapping[str, str]) -> None:
        graph = model.graph
        for node in graph.node:
            rename_in_place(node, rename, {})
        for value in (*graph.input, *graph.value_info):
            value.name = rename.get(value.name, value.name)
        for tensor in graph.initializer:
            tensor.name = rename.get(tensor.name, tensor.name)


def shown_again(
    nodes: Iterable[onnx.NodeProto], before: Mapping[str, onnx.NodeProto]
) -> list[onnx.NodeProto]:
    """The nodes without what was there only for the quantizer. Sub-graphs, which it does not look
    into, then read what comes out of the new pairs; a Gemm gets back the factor of its bias, which
    it takes for part of the scale and drops."""
    nodes = [node for node in nodes if node.op_type != READER]
    opened = {n.output[0]: n.input[0] for n in nodes if n.op_type == "QuantizeLinear"}
    after = {
        opened[node.input[0]]: node.output[0]
        for node in nodes
        if node.name not in before and node.input[0] in opened
    }
    for node in nodes:
        if node.op_type == HIDDEN:
            node.op_type = "DequantizeLinear"
        if node.op_type == "Gemm":
            del node.attribute[:]
            node.attribute.extend(before[node.name].attribute)
        if node.name in before and any(a.HasField("g") or a.graphs for a in node.attribute):
            made = list(node.output)
            rename_in_place(node, after, {})
            node.output[:] = made
    return nodes


class _Quantizer(QDQQuantizer):  # type: ignore[misc]
    """Raises the scales of weights whose biases else have no room in 32 bits, as ONNX Runtime does,
    but of uint8 weights too: it clips their biases."""

    def _adjust_weight_quant_params_for_bias_tensors(self) -> None:
        kept = {}
        for name, found in self.initializer_quant_params.items():
            if found["quant_type"] == TensorProto.UINT8:
                kept[name] = (found["quant_type"], found["zero_point"])
                found["quant_type"] = TensorProto.INT8
                found["zero_point"] = np.zeros(found["zero_point"].shape, np.int8)
        super()._adjust_weight_quant_params_for_bias_tensors()
        for name, (quant_type, zero_point) in kept.items():
            self.initializer_quant_params[name]["quant_type"] = quant_type
            self.initializer_quant_params[name]["zero_point"] = zero_point


def run_quantizer(
    model: onnx.ModelProto,
    layers: Collection[str],
    settings: Quantization,
    ranges: Mapping[str, Range],
) -> onnx.ModelProto:
    """The model with these layers quantized; raises InputError when ONNX Runtime refuses."""
    types = sorted({node.op_type for node in model.graph.node if node.name in set(layers)})
    limits = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    unsigned = settings.activation_type == "uint8"
    unsigned_weights = settings.weight_type == "uint8"
    quantizer = _Quantizer(
        model,
        settings.per_channel,
        settings.reduce_range,
        QuantType.QUInt8 if unsigned_weights else QuantType.QInt8,
        QuantType.QUInt8 if unsigned else QuantType.QInt8,
        TensorsData(CalibrationMethod.MinMax, limits),
        list(layers),
        [],
        types,
        {
            "ActivationSymmetric": not unsigned,
            "WeightSymmetric": not unsigned_weights,
            "QDQKeepRemovableActivations": True,
            "ForceQuantizeNoInputCheck": True,
        },
    )
    try:
        with _silence():  # about constants that are computed, which stay as they are
            for node in model.graph.node:
                # By itself it quantizes these only behind another layer that is quantized.
                if node.op_type in ("Relu", "Clip") and node.name in layers:
                    quantizer.quantize_activation_tensor(node.input[0])
            quantized: onnx.ModelProto = quantizer.quantize_model()
    except (ValueError, KeyError, NotImplementedError) as error:
        raise InputError(f"ONNX Runtime's quantizer refuses the layers: {error}") from None
    return quantized


@contextmanager
def _silence() -> Iterator[None]:
    """No warnings from a library that writes them to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
