"""Times of the layers of a model on a server, by either method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from tritier.documents import Duration, ModelProfile
from tritier.errors import InputError
from tritier.graph import LayerGraph
from tritier.timing import (
    NS_PER_MS,
    CutCost,
    KernelTracer,
    cut_costs,
    duration,
    merged_summaries,
)
from tritier.workflow.timing_bench import ServerBench
from tritier.workflow.timing_pieces import Piece, PieceMaker, Profiled
from tritier.workflow.timing_store import Stored


@dataclass(frozen=True)
class LayerTimes:
    """What was measured, uncorrected. `mixed` are all layers of the mixed model, where it was
    profiled; `borders` are in ms."""

    floats: dict[str, Duration]
    int8: dict[str, Duration] = field(default_factory=dict)
    mixed: dict[str, Duration] = field(default_factory=dict)
    borders: dict[str, CutCost] = field(default_factory=dict)
    fused: tuple[tuple[str, ...], ...] = ()
    unmapped_float_ms: float = 0.0
    unmapped_int8_ms: float = 0.0


def times_by_profiler(
    bench: ServerBench, maker: PieceMaker, profile: ModelProfile
) -> tuple[LayerTimes, list[Stored]]:
    """From ONNX Runtime's own profiles of the whole model and of the mixed one; and what they come
    from. Raises InputError for a provider that has no profile of use."""
    if bench.server.execution_provider != "cpu":
        raise InputError(
            f"server '{bench.server.name}' has the provider {bench.server.execution_provider}, "
            "which compiles layers together or runs them beside the processor: ONNX Runtime's "
            "profile does not tell their times; use --method layers"
        )
    models = {"float": maker.profiled(quantized=False)}
    if maker.quantizable:
        models["mixed"] = maker.profiled(quantized=True)
    stored = bench.profile(models)
    rounds = stored.result
    times = _of_profile(models["float"], rounds["float"], profile)
    if "mixed" in models:
        mixed = _of_profile(models["mixed"], rounds["mixed"], profile)
        int8 = {name: mixed.floats[name] for name in maker.quantizable}
        times = replace(
            times, int8=int8, mixed=mixed.floats, unmapped_int8_ms=mixed.unmapped_float_ms
        )
    return times, [stored]


def times_by_layers(
    bench: ServerBench, maker: PieceMaker, graph: LayerGraph
) -> tuple[LayerTimes, list[Stored]]:
    """From every layer cut out as a model of its own: the published way, kept as a reference."""
    cuts = range(1, len(graph.layers))
    pieces = maker.pieces(cuts, quantized=False, prefix="layer")
    alone = bench.run_all_alone(pieces)
    times = LayerTimes(_durations(pieces, alone))
    if maker.quantizable:
        every = maker.pieces(cuts, quantized=True, prefix="layer")
        quantized = [piece for piece in every if piece.layers[0] in maker.quantizable]
        more = bench.run_all_alone(quantized)
        times, alone = replace(times, int8=_durations(quantized, more)), [*alone, *more]
    return times, alone


def _durations(pieces: Sequence[Piece], answers: Sequence[Stored]) -> dict[str, Duration]:
    return {
        piece.layers[0]: duration(answer.result["runs_ns"])
        for piece, answer in zip(pieces, answers, strict=True)
    }


def neighbours_of(graph: LayerGraph) -> dict[str, list[str]]:
    """Layers that hand a tensor to each other, in both directions."""
    makers = {name: layer.name for layer in graph.layers for name in layer.outputs}
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for layer in graph.layers:
        for name in layer.inputs:
            if name in makers:
                found[makers[name]][layer.name] = None
                found[layer.name][makers[name]] = None
    return {name: list(others) for name, others in found.items()}


def _of_profile(
    model: Profiled, rounds: Sequence[Mapping[str, Any]], profile: ModelProfile
) -> LayerTimes:
    """Of one model, whatever its layers are computed in."""
    graph = onnx.load_model_from_string(bytes.fromhex(rounds[0]["graph"])).graph
    kernels = _kernels(rounds)
    medians = {name: x["median_ns"] / NS_PER_MS for name, x in kernels.items()}
    tracer = KernelTracer(model.nodes, graph)
    found = tracer.attribute(medians)
    means = tracer.attribute(_column(kernels, "mean_ns"))
    # Deviations of a layer's kernels are taken as independent.
    squares = tracer.attribute({n: x["std_ns"] ** 2 for n, x in kernels.items()})
    runs = int(max((x["n"] for x in kernels.values()), default=1))
    times = {
        layer.name: Duration(
            median_ms=found.layers.get(layer.name, 0.0),
            mean_ms=means.layers.get(layer.name, 0.0) / NS_PER_MS,
            std_ms=squares.layers.get(layer.name, 0.0) ** 0.5 / NS_PER_MS,
            n=runs,
        )
        for layer in profile.layers
    }
    sizes = {t.name: t.bytes for t in profile.tensors if t.bytes}
    return LayerTimes(
        times,
        borders=cut_costs(sizes, found.makers, graph, medians),
        fused=tuple(found.groups),
        unmapped_float_ms=sum(found.unmapped.values()),
    )


def _kernels(rounds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    by_name: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for answer in rounds:
        for kernel in answer["kernels"]:
            by_name[kernel["name"]].append(kernel)
    return {name: merged_summaries(items) for name, items in by_name.items()}


def _column(kernels: Mapping[str, Mapping[str, float]], key: str) -> dict[str, float]:
    return {name: values[key] for name, values in kernels.items()}
