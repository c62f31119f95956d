"""Which layers may be quantized, how noise limits that, and which tensors then cross in 8 bits."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import onnx

from tritier.divider import ModelQuantizer
from tritier.documents import NoiseModel, Quantization
from tritier.errors import InputError
from tritier.graph import LayerGraph
from tritier.noise import layers_of, subset_of
from tritier.planner.noise_sets import NoiseRow
from tritier.workflow.problem_request import (
    Findings,
    PlanningRequest,
    WireCodec,
    listed,
    settings_text,
)


def candidates(request: PlanningRequest, findings: Findings) -> tuple[str, ...]:
    """Layers that may be quantized as far as noise goes, in the model's order: those that all noise
    models know or, where noise may be unlimited and there is no noise model, those that the model
    profile marks."""
    findings.faults += _limit_faults(request)
    if not request.noise:
        return request.profile.quantizable_layers if request.unlimited_noise else ()
    known = set.intersection(*(set(item.layers) for item in request.noise))
    ordered = request.layer_names
    found = tuple(name for name in ordered if name in known)
    every = {name for item in request.noise for name in item.layers}
    if partly := [name for name in ordered if name in every - known]:
        findings.warnings.append(
            f"{listed(partly)} stay float: not all noise models know them; learn these again with "
            "the same layers"
        )
    findings.warnings += [*_setting_warnings(request), *_untimed(request, found)]
    return found


def _limit_faults(request: PlanningRequest) -> Iterator[str]:
    limits = request.noise_limits
    if limits and not request.noise:
        yield (
            f"the noise of {listed(list(limits))} is limited, but there is no noise model: learn "
            "one with `tritier noise`, or limit nothing"
        )
    if request.noise and not limits and not request.unlimited_noise:
        yield (
            "there is a noise model and no noise limit: limit the noise of an output, or allow it "
            "to be unlimited"
        )
    for item in request.noise:
        for output, limit in limits.items():
            try:
                noise_rows(item, {output: limit}, (), with_margin=request.noise_margin)
            except InputError as error:
                yield from error.faults


def _setting_warnings(request: PlanningRequest) -> Iterator[str]:
    learned = [item.settings.quantization for item in request.noise]
    used = [request.servers.server(name).quantization for name in request.planned_servers]
    for name, settings in zip(request.planned_servers, used, strict=True):
        if settings not in learned:
            yield (
                f"server '{name}' quantizes with {settings_text(settings)}, and no noise model was "
                "learned with that: the noise of its layers may be another than is planned with; "
                f"learn it with `tritier noise --server {name}`"
            )
    for settings in learned:
        if settings not in used:
            yield (
                f"a noise model was learned with {settings_text(settings)}, which no server has: "
                "it limits the plan nevertheless"
            )


def _untimed(request: PlanningRequest, layers: Sequence[str]) -> Iterator[str]:
    """Layers whose noise is known and whose time, quantized, is not."""
    for name in request.planned_servers:
        times = {layer.name: layer.int8_ms for layer in request.timings[name].layers}
        if missing := [x for x in layers if x in times and times[x] is None]:
            yield (
                f"{listed(missing)} stay float on '{name}', whose timing profile has no time for "
                "them quantized: name them with `tritier profile --quantize-layer`"
            )


def noise_rows(
    noise: NoiseModel,
    limits: Mapping[str, float],
    layers: Sequence[str],
    share: float = 1.0,
    with_margin: bool = True,
) -> list[NoiseRow]:
    """A row per limit, for masks whose bit i is layer i of `layers`.

    Layers of the noise model that are not among them are never quantized: their terms go. A limit
    counts by `share`; `with_margin` its row keeps what is measured, not only what is predicted,
    within it. Raises InputError for unknown outputs, limits below 0, and where no margin is enough.
    """
    bit = {name: 1 << index for index, name in enumerate(layers)}
    rows = []
    for name, limit in limits.items():
        output = noise.output(name)
        bare = output if with_margin else output.model_copy(update={"margin": 1.0})
        terms: dict[int, float] = defaultdict(float)
        for term in output.terms:
            if all(layer in bit for layer in term.layers):
                terms[sum(bit[layer] for layer in set(term.layers))] += term.value
        rows.append(NoiseRow(name, output.constant, dict(terms), bare.budget(limit * share)))
    return rows


def translated(mask: int, source: Sequence[str], target: Sequence[str]) -> int | None:
    """A mask over the layers `source` as one over `target`; None if it has another layer."""
    chosen = layers_of(source, mask)
    return subset_of(target, chosen) if set(chosen) <= set(target) else None


def coding_layers(
    model: onnx.ModelProto, graph: LayerGraph, layers: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Tensor -> those of the layers that, quantized, have it in 8 bits.

    All layers are quantized once, together: that tells which tensors the quantizer puts a pair
    behind. Any quantized layer that reads or makes such a tensor does so by itself, and all readers
    then read what comes out of the pair. Raises InputError when a layer can't be quantized.
    """
    if not layers:
        return {}
    touching: dict[str, list[str]] = defaultdict(list)
    for name in layers:
        layer = graph.by_name[name]
        for tensor in dict.fromkeys((*layer.inputs, *layer.outputs)):
            touching[tensor].append(name)
    # Where pairs stand does not hang on ranges or settings.
    ranges = dict.fromkeys(touching, (-1.0, 1.0))
    quantizer = ModelQuantizer(model, graph, ranges)
    pairs = quantizer.quantize({Quantization(): layers}).pairs
    return {name: tuple(found) for name, found in touching.items() if name in pairs}


def known_losses(noise: Sequence[NoiseModel]) -> dict[tuple[str, WireCodec], dict[str, float]]:
    """(tensor, codec) -> output -> noise, the largest of those that noise models have."""
    found: dict[tuple[str, WireCodec], dict[str, float]] = {}
    for item in (item for model in noise for item in model.wires):
        known = found.setdefault((item.tensor, item.codec), {})
        for output, value in item.noise.items():
            known[output] = max(value, known.get(output, 0.0))
    return found


def wire_load(
    losses: Mapping[tuple[str, WireCodec], Mapping[str, float]],
    coded: Mapping[str, WireCodec],
    output: str,
    power: int,
) -> float:
    """What the codecs of tensors (name -> codec) add to the noise of an output, in its power."""
    return math.fsum(losses.get(item, {}).get(output, 0.0) ** power for item in coded.items())
