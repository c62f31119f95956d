"""What codecs of wires cost on a server: a small model with and without one at its border."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from onnx import helper

from tritier.divider import CodecNodes, decoder, encoder
from tritier.documents import FLOAT_CODECS, WIRE_DTYPES, Codec, CodingTiming, PlanTensor
from tritier.graph import ELEMENT_TYPES
from tritier.repository import TRITON_TYPES
from tritier.timing import NS_PER_MS, Border, CodingRun, duration, fit_coding, fit_serving
from tritier.timing.durations import MIB
from tritier.workflow.timing_bench import ServerBench
from tritier.workflow.timing_pieces import Piece
from tritier.workflow.timing_store import Stored

# Floats in a tensor: what is mostly a constant, and what most tensors that cross have.
_SIZES = (1 << 14, 1 << 20)
_FLOAT_BYTES = 4
_LIMITS = (-1.0, 1.0)  # nominal: times don't hang on ranges
Side = Literal["encode", "decode"]
_SIDES: tuple[Side, ...] = ("encode", "decode")


@dataclass(frozen=True)
class Codings:
    """What codecs cost, and the measurement behind it, which may be older than the profile."""

    timings: tuple[CodingTiming, ...]
    stored: Stored


def measure_codings(bench: ServerBench, copies: Sequence[Piece]) -> Codings:
    """Serve models with a codec in turn with the same ones without, and with `copies`, which do
    nothing. Nothing hangs on the model that is profiled: for the next one on the same server it is
    known. Raises as `fit_serving`."""
    plain = {elements: coding_piece(elements) for elements in _SIZES}
    coding = {
        (codec, side, elements): coding_piece(elements, codec, side)
        for codec in FLOAT_CODECS
        for side in _SIDES
        for elements in _SIZES
    }
    rounds = bench.serve([*copies, *plain.values(), *coding.values()])
    times = {name: item["runs_ns"] for name, item in rounds.result.items()}
    serving = fit_serving([(x.border, duration(times[x.name]).median_ms) for x in copies])

    def fit(codec: Codec, side: Side) -> tuple[float, float]:
        pairs = [(plain[elements], coding[codec, side, elements]) for elements in _SIZES]
        return fit_coding(serving, [_run(n, *x, times) for n, x in zip(_SIZES, pairs, strict=True)])

    found = tuple(
        _timing(codec, fit(codec, "encode"), fit(codec, "decode")) for codec in FLOAT_CODECS
    )
    return Codings(found, rounds)


def _run(
    elements: int, plain: Piece, coding: Piece, times: Mapping[str, Sequence[float]]
) -> CodingRun:
    """Differences are of the same round: the machine may be faster in another one."""
    more = [b - a for a, b in zip(times[plain.name], times[coding.name], strict=True)]
    return CodingRun(
        elements * _FLOAT_BYTES / MIB,
        coding.border,
        plain.border,
        duration(times[coding.name]).median_ms,
        statistics.median(more) / NS_PER_MS,
    )


def _timing(
    codec: Codec, encoding: tuple[float, float], decoding: tuple[float, float]
) -> CodingTiming:
    return CodingTiming.model_validate(
        {
            "codec": codec,
            "encoding_ms": encoding[0],
            "encoding_ms_per_mib": encoding[1],
            "decoding_ms": decoding[0],
            "decoding_ms_per_mib": decoding[1],
        }
    )


def coding_piece(elements: int, codec: Codec | None = None, side: Side = "encode") -> Piece:
    """A model of one cheap layer, which ONNX Runtime fuses with nothing, on a vector of that many
    floats. With a codec, its output is coded, or its input decoded, by the nodes of a component."""
    types, nodes = ["float32", "float32"], CodecNodes("codec")
    read, made = "t0", "t1"
    if codec is not None and side == "encode":
        types[1], made = WIRE_DTYPES[codec], "made"
        nodes = encoder(made, "t1", codec, "float32", _LIMITS)
    elif codec is not None:
        types[0], read = WIRE_DTYPES[codec], "read"
        nodes = decoder("t0", read, codec, "float32", _LIMITS, "codec")
    layer = helper.make_node("Neg", [read], [made])
    ordered = [layer, *nodes.nodes] if side == "encode" else [*nodes.nodes, layer]
    values = [
        helper.make_tensor_value_info(f"t{end}", ELEMENT_TYPES[dtype], [elements])
        for end, dtype in enumerate(types)
    ]
    graph = helper.make_graph(ordered, "coding", values[:1], values[1:], nodes.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    datatype = TRITON_TYPES[types[0]].removeprefix("TYPE_")
    return Piece(
        f"{side}_{codec}_{elements}" if codec else f"layer_{elements}",
        model.SerializeToString(),
        (),
        False,
        {"t0": {"datatype": datatype, "shape": [elements]}},
        ("t1",),
        tuple(_tensor(f"t{end}", dtype, elements) for end, dtype in enumerate(types)),
        Border(2, elements * sum(np.dtype(dtype).itemsize for dtype in types)),
    )


def _tensor(id: str, dtype: str, elements: int) -> PlanTensor:
    fields: dict[str, Any] = {"id": id, "name": id, "dtype": dtype, "shape": (elements,)}
    return PlanTensor.model_validate(fields)
