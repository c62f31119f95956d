"""The ONNX nodes of wire codecs (rule R5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tritier.documents import NARROWING, WIRE_DTYPES, Codec, Range
from tritier.errors import InputError
from tritier.graph import ELEMENT_TYPES

# Versions from which on Clip has its bounds as inputs, QuantizeLinear exists, Clip takes integers.
_FIRST_OPSETS: dict[Codec, int] = {
    "fp16": 11, "int8": 10, "uint8": 10, **dict.fromkeys(NARROWING, 12),
}  # fmt: skip


@dataclass
class CodecNodes:
    """Nodes and constants of one passage, or of its end; all names begin with the prefix."""

    prefix: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, op_type: str, inputs: Iterable[str], output: str, **attributes: Any) -> str:
        """Append a node; the name of what it makes."""
        name = f"{self.prefix}/{op_type}{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op_type, list(inputs), [output], name=name, **attributes)
        )
        return output

    def clip(self, name: str, output: str, dtype: str, to: str) -> str:
        """Append a node that sets values of a type to the nearest that another type holds."""
        bounds = [
            self.constant(end, np.dtype(dtype).type(value))
            for end, value in zip(("low", "high"), _limits_of(to), strict=True)
        ]
        return self.add("Clip", [name, *bounds], output)

    def constant(self, name: str, value: np.generic) -> str:
        """Append a scalar constant; its full name."""
        full = f"{self.prefix}/{name}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), full))
        return full


def check_opset(opsets: Iterable[onnx.OperatorSetIdProto], codecs: Iterable[Codec]) -> None:
    """Raise InputError when a model is too old for codecs."""
    opset = next((o.version for o in opsets if o.domain in ("", "ai.onnx")), 0)
    for codec in codecs:
        if opset < _FIRST_OPSETS[codec]:
            raise InputError(
                f"the model has opset {opset}, the wire codec {codec} needs {_FIRST_OPSETS[codec]} "
                "or more: convert it with `tritier prepare --opset 17`, or let the wire be as_is"
            )


def encoder(name: str, coded: str, codec: Codec, dtype: str, limits: Range | None) -> CodecNodes:
    """Nodes that make `coded` of the tensor `name`. Values that the type on the wire can't hold are
    set to the nearest that it can."""
    made = CodecNodes(coded)
    if codec == "fp16" or codec in NARROWING:
        if dtype == "int64":
            # ONNX Runtime's Clip, Min and Max of int64 take 2**31 for less than 0 (1.31).
            # float64 holds every bound and all between two bounds.
            name = made.add("Cast", [name], f"{coded}/float64", to=onnx.TensorProto.DOUBLE)
            dtype = "float64"
        clipped = made.clip(name, f"{coded}/clipped", dtype, WIRE_DTYPES[codec])
        made.add("Cast", [clipped], coded, to=ELEMENT_TYPES[WIRE_DTYPES[codec]])
        return made
    if dtype != "float32":
        name = made.add("Cast", [name], f"{coded}/float32", to=onnx.TensorProto.FLOAT)
    made.add("QuantizeLinear", [name, *_parameters(made, codec, limits)], coded)
    return made


def decoder(
    coded: str, name: str, codec: Codec, dtype: str, limits: Range | None, prefix: str
) -> CodecNodes:
    """Nodes that make `name`, of the tensor's own type, of `coded`."""
    made = CodecNodes(prefix)
    if codec == "fp16" or codec in NARROWING:
        made.add("Cast", [coded], name, to=ELEMENT_TYPES[dtype])
        return made
    wide = name if dtype == "float32" else f"{prefix}/float32"
    made.add("DequantizeLinear", [coded, *_parameters(made, codec, limits)], wide)
    if dtype == "float16":  # the ends of the scale may lie half a step outside the range
        wide = made.clip(wide, f"{prefix}/clipped", "float32", dtype)
    if dtype != "float32":
        made.add("Cast", [wide], name, to=ELEMENT_TYPES[dtype])
    return made


def scale_and_zero_point(codec: Codec, limits: Range) -> tuple[np.float32, int]:
    """Real = scale * (quantized - zero point), with 0 held exactly: the affine quantization of
    Jacob et al., 2018 (arXiv 1712.05877), over the range widened to hold 0."""
    # The ends of the scale lie up to half a step outside the range, and must be finite as well.
    most = 0.99 * float(np.finfo(np.float32).max)
    low, high = (min(max(end, -most), most) for end in (min(limits[0], 0.0), max(limits[1], 0.0)))
    info = np.iinfo(WIRE_DTYPES[codec])
    scale = np.float32((high - low) / (int(info.max) - int(info.min)))
    if not scale >= np.finfo(np.float32).tiny:  # a tensor that is always 0
        return np.float32(1.0), 0
    zero_point = round(int(info.min) - low / float(scale))
    return scale, min(max(zero_point, int(info.min)), int(info.max))


def _parameters(made: CodecNodes, codec: Codec, limits: Range | None) -> list[str]:
    assert limits is not None, "the plan document asks for the range"
    scale, zero_point = scale_and_zero_point(codec, limits)
    return [
        made.constant("scale", scale),
        made.constant("zero_point", np.dtype(WIRE_DTYPES[codec]).type(zero_point)),
    ]


def _limits_of(dtype: str) -> tuple[float, float]:
    info = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    return float(info.min), float(info.max)
