"""A whole model in which one tensor goes through a wire codec: what the codec alone loses."""

from __future__ import annotations

import onnx

from tritier.divider.codec_nodes import check_opset, decoder, encoder
from tritier.divider.quantized import in_order, uncut_model
from tritier.divider.rename import rename_in_place
from tritier.documents import Codec, Range

_MARK = "tritier_coded"


def coded_model(
    model: onnx.ModelProto, tensor: str, codec: Codec, dtype: str, limits: Range | None
) -> onnx.ModelProto:
    """The model where whatever reads the tensor, a model output too, reads it coded and decoded.

    `dtype` is numpy's name of its type; `limits` its range, for codecs of 8 bits. Raises InputError
    when the model is too old for the codec.
    """
    check_opset(model.opset_import, [codec])
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    inside, outside = f"{tensor}/{_MARK}/in", f"{tensor}/{_MARK}/out"
    if any(tensor == value.name for value in model.graph.output):
        made, read = inside, tensor  # the output keeps its name
        for node in nodes:
            if tensor in node.output:
                rename_in_place(node, {tensor: made}, {})
    else:
        made, read = tensor, outside
        for node in nodes:
            if tensor not in node.output:
                rename_in_place(node, {tensor: read}, {})
    first = encoder(made, f"{tensor}/{_MARK}/{codec}", codec, dtype, limits)
    last = decoder(f"{tensor}/{_MARK}/{codec}", read, codec, dtype, limits, f"{tensor}/{_MARK}")
    constants = {item.name: item for item in model.graph.initializer}
    constants |= {item.name: item for part in (first, last) for item in part.constants}
    ordered = in_order([*nodes, *first.nodes, *last.nodes], constants)
    return uncut_model(model, tuple(ordered), constants, tuple(model.opset_import))
