"""Make the timing profile of a model on one server."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tritier.documents import (
    BorderTiming,
    ComponentCheck,
    Duration,
    LayerTiming,
    MemoryFigures,
    ModelProfile,
    ServingTiming,
    TimingProfile,
    TimingSettings,
    activation_peak_bytes,
    weight_bytes,
)
from tritier.graph import LayerGraph
from tritier.timing import (
    Corrected,
    MemorySample,
    correct,
    correct_profiles,
    duration,
    fit_serving,
    memory_factors,
    predict_component_ms,
    predictions_of_others,
    serving_ms,
)
from tritier.workflow.timing_bench import ServerBench
from tritier.workflow.timing_codings import Codings, measure_codings
from tritier.workflow.timing_energy import energy_of_models
from tritier.workflow.timing_layers import (
    LayerTimes,
    neighbours_of,
    times_by_layers,
    times_by_profiler,
)
from tritier.workflow.timing_pieces import Piece, PieceMaker, copying_piece

Method = Literal["profiler", "layers"]
# Tensors, and floats in each, of the models that only hand on what they get.
_COPIES = ((1, 256), (8, 256), (1, 1 << 18), (1, 1 << 20), (4, 1 << 17))
_LEAST_LAYERS = 2  # of a component that is checked
_ALPHA = 4  # float32 over int8


@dataclass(frozen=True)
class Task:
    """A model that is to be profiled on a server."""

    bench: ServerBench
    maker: PieceMaker
    profile: ModelProfile
    graph: LayerGraph
    components: int = 5
    seed: int = 0


@dataclass(frozen=True)
class _Served:
    """What was measured of the models that a profile needs whole, and of those that do nothing."""

    bases: tuple[Piece, ...]
    copies: tuple[Piece, ...]
    times: Mapping[str, Duration]
    alone: Mapping[str, Mapping[str, Any]]
    # Of the whole model, then of the components that are checked.
    memory: tuple[MemorySample, ...]
    codings: Codings
    measured_at: str
    profiling_s: float

    @property
    def whole(self) -> Duration:
        return self.times["whole"]

    @property
    def mixed(self) -> Duration | None:
        return self.times.get("mixed")


def profile_on_server(task: Task, method: Method) -> TimingProfile:
    """Measure, correct and check.

    `task.components` random contiguous components are cut out, float and mixed, and measured beside
    the whole model. Raises ServerError when the server fails, CheckFailed when the times make no
    sense, InputError for a method that the server's provider does not have.
    """
    bench, maker = task.bench, task.maker
    if method == "profiler":
        times, stored = times_by_profiler(bench, maker, task.profile)
    else:
        times, stored = times_by_layers(bench, maker, task.graph)
    bases = (maker.whole(False), *([maker.whole(True)] if maker.quantizable else []))
    copies = tuple(copying_piece(*shape) for shape in _COPIES)
    checked = random_components(task)
    rounds = bench.serve([*bases, *copies, *checked])
    codings = measure_codings(bench, copies)
    # What layers add up to is compared with the whole, which must have rested as they have.
    pause_ms = bench.runs.pause_ms if method == "profiler" else 0.0
    apart = [copies[0], *checked]
    ran = [*bench.run_all_alone(bases, pause_ms), *bench.run_all_alone(apart)]
    alone = {x.name: item for x, item in zip([*bases, *apart], ran, strict=True)}
    answers = {name: item.result for name, item in alone.items()}
    stored = [*stored, *(alone[piece.name] for piece in (*bases, copies[0]))]
    nothing = answers[copies[0].name]["memory"]
    served = _Served(
        bases,
        copies,
        {name: duration(item["runs_ns"]) for name, item in rounds.result.items()},
        answers,
        tuple(
            _memory_sample(task, piece, answers[piece.name]["memory"], nothing)
            for piece in (bases[0], *checked)
        ),
        codings,
        min(item.measured_at for item in (*stored, codings.stored, rounds)),
        sum(item.elapsed_s for item in (*stored, codings.stored))
        + sum(rounds.result[piece.name]["spent_s"] for piece in (*bases, *copies)),
    )
    found = _assemble(task, method, times, served)
    predicted = predictions_of_others(served.memory)
    checks = tuple(
        _check(task, found, piece, served.times[piece.name], predicted_bytes, sample.peak)
        for piece, predicted_bytes, sample in zip(
            checked, predicted[1:], served.memory[1:], strict=True
        )
    )
    return found.model_copy(update={"components": checks})


def random_components(task: Task) -> list[Piece]:
    """Runs of at least two layers in the model's order, float and mixed: the model is cut in three
    at random places until there are as many as asked for. None of a model below six layers."""
    draw = random.Random(task.seed)  # noqa: S311 - a sample, not a secret
    count = len(task.graph.layers)
    pieces: list[Piece] = []
    number = 0
    while count >= 3 * _LEAST_LAYERS and number < task.components:
        cuts = sorted(draw.sample(range(1, count), 2))
        if min(cuts[0], cuts[1] - cuts[0], count - cuts[1]) < _LEAST_LAYERS:
            continue
        wanted = min(3, task.components - number)
        kinds = [False, True] if task.maker.quantizable else [False]
        for quantized in kinds:
            prefix = f"{'mixed' if quantized else 'float'}_{number}_"
            pieces += task.maker.pieces(cuts, quantized, prefix)[:wanted]
        number += wanted
    return pieces


def _assemble(task: Task, method: Method, times: LayerTimes, served: _Served) -> TimingProfile:
    serving = fit_serving([(p.border, served.times[p.name].median_ms) for p in served.copies])
    if method == "layers":  # the published formula knows of no other time than that of layers
        serving = ServingTiming(call_ms=0.0, tensor_ms=0.0, copy_ms_per_mib=0.0)
    corrected = _corrected(task, times, served, serving_ms(serving, served.bases[0].border))
    scale = corrected.corrections.float_scale
    return TimingProfile(
        model=task.profile.model,
        dims=task.profile.dims,
        server=task.bench.server.name,
        host=task.bench.host,
        measured_at=served.measured_at,
        settings=_settings(task.bench, method),
        layers=tuple(
            LayerTiming(
                name=layer.name,
                float_ms=corrected.float_ms[layer.name],
                int8_ms=corrected.int8_ms.get(layer.name),
                measured_float=times.floats[layer.name],
                measured_int8=times.int8.get(layer.name),
            )
            for layer in task.profile.layers
        ),
        borders=tuple(
            BorderTiming(
                tensor=name, making_ms=cost.making * scale, reading_ms=cost.reading * scale
            )
            for name, cost in times.borders.items()
        ),
        fused=times.fused,
        whole=served.whole,
        mixed=served.mixed,
        whole_alone=duration(served.alone["whole"]["runs_ns"]),
        serving=serving,
        codings=served.codings.timings,
        corrections=corrected.corrections,
        unmapped_float_ms=times.unmapped_float_ms,
        unmapped_int8_ms=times.unmapped_int8_ms,
        memory=_memory(served),
        energy=energy_of_models(
            task.bench,
            served.bases,
            [served.alone[piece.name] for piece in served.bases],
            [served.times[piece.name] for piece in served.bases],
        ),
        profiling_s=served.profiling_s,
    )


def _settings(bench: ServerBench, method: Method) -> TimingSettings:
    return TimingSettings(
        method=method,
        execution_provider=bench.server.execution_provider,
        threads=bench.server.threads,
        quantization=bench.server.quantization,
        warmup=bench.runs.warmup,
        runs=bench.runs.runs,
        pause_ms=bench.runs.pause_ms,
    )


def _corrected(task: Task, times: LayerTimes, served: _Served, spent_ms: float) -> Corrected:
    floats = {name: item.median_ms for name, item in times.floats.items()}
    whole_ms, mixed = served.whole.median_ms, served.mixed
    if times.mixed and mixed is not None:
        return correct_profiles(
            floats,
            {name: item.median_ms for name, item in times.mixed.items()},
            neighbours_of(task.graph),
            task.maker.quantizable,
            whole_ms,
            mixed.median_ms,
            spent_ms,
        )
    int8 = {name: item.median_ms for name, item in times.int8.items()}
    return correct(floats, int8, whole_ms, mixed.median_ms if mixed else None, spent_ms)


def _check(
    task: Task,
    found: TimingProfile,
    piece: Piece,
    measured: Duration,
    predicted_bytes: int | None,
    measured_bytes: int,
) -> ComponentCheck:
    quantized = task.maker.quantizable if piece.quantized else ()
    return ComponentCheck(
        first_layer=piece.layers[0],
        last_layer=piece.layers[-1],
        layers=len(piece.layers),
        quantized=piece.quantized,
        predicted_ms=predict_component_ms(
            found, set(piece.layers), quantized, piece.reads, piece.makes, piece.border
        ),
        measured=measured,
        predicted_bytes=predicted_bytes,
        measured_bytes=measured_bytes,
    )


def stated_weight_bytes(
    profile: ModelProfile, layers: Sequence[str], quantized: Sequence[str]
) -> int:
    """Weights of a component; those of quantized layers are in 8 bits, and each has its own."""
    chosen = set(layers) & set(quantized)
    coded = sum(x.weight_bytes for x in profile.layers if x.name in chosen)
    return weight_bytes(profile, set(layers) - chosen) + coded // _ALPHA


def _memory_sample(
    task: Task, piece: Piece, memory: Mapping[str, int], nothing: Mapping[str, int]
) -> MemorySample:
    """`nothing` is the memory of a model that does nothing."""
    quantized = task.maker.quantizable if piece.quantized else ()
    return MemorySample(
        stated_weight_bytes(task.profile, piece.layers, quantized),
        activation_peak_bytes(task.profile, piece.layers),
        max(0, memory["loaded_bytes"] - nothing["loaded_bytes"]),
        max(0, memory["peak_bytes"] - nothing["peak_bytes"]),
    )


def _memory(served: _Served) -> MemoryFigures:
    whole, factors = served.memory[0], memory_factors(served.memory)
    return MemoryFigures(
        weight_bytes=whole.weights,
        activation_peak_bytes=whole.activations,
        measured_bytes=whole.peak,
        weight_factor=factors.weight,
        activation_factor=factors.activation,
        process_bytes=max(0, served.alone[served.copies[0].name]["memory"]["peak_bytes"]),
    )
