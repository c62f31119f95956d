"""What a component takes, by a timing profile."""

from __future__ import annotations

from collections.abc import Collection

from tritier.documents import ServingTiming, TimingProfile
from tritier.timing.durations import MIB, Border


def predict_component_ms(
    profile: TimingProfile,
    layers: Collection[str],
    quantized: Collection[str],
    inputs: Collection[str],
    outputs: Collection[str],
    border: Border,
) -> float:
    """Service time of a component in ms.

    The sum of its layers' times, the changes of memory layout at its borders, and what serving
    costs. `inputs` and `outputs` are tensors of the model, `border` is their number and size.
    """
    computing = 0.0
    for layer in profile.layers:
        if layer.name in layers:
            is_int8 = layer.name in quantized and layer.int8_ms is not None
            computing += (layer.int8_ms or 0.0) if is_int8 else layer.float_ms
    for cost in profile.borders:
        if cost.tensor in inputs:
            computing += cost.reading_ms
        if cost.tensor in outputs:
            computing += cost.making_ms
    return computing + serving_ms(profile.serving, border)


def serving_ms(serving: ServingTiming, border: Border) -> float:
    """What serving costs for these inputs and outputs."""
    return (
        serving.call_ms
        + serving.tensor_ms * border.tensors
        + serving.copy_ms_per_mib * border.bytes / MIB
    )
