"""Correct measured times of layers so that they add up to what the whole model takes.

    f(i, 0) is scaled by (T_whole - s) / sum_j f(j, 0)
    gains f(i, 0) - f(i, 1) by (T_whole - T_mixed) / sum of the gains of the quantized layers

where s is what serving a model costs whatever it computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tritier.documents import Corrections
from tritier.errors import CheckFailed

# Gains are scaled if they are not below this share of gains and losses, by this factor at most.
_LEAST_SHARE, _MOST_SCALE = 0.1, 4.0


@dataclass(frozen=True)
class Corrected:
    """Times in ms by layer; `int8` has the layers that can be quantized."""

    float_ms: dict[str, float]
    int8_ms: dict[str, float]
    corrections: Corrections


def correct(
    float_ms: Mapping[str, float],
    int8_ms: Mapping[str, float],
    whole_ms: float,
    mixed_ms: float | None,
    serving_ms: float = 0.0,
) -> Corrected:
    """Corrected times. `int8_ms` are the quantized layers' times, measured as `float_ms` were;
    `serving_ms` is in `whole_ms` and `mixed_ms`. Raises CheckFailed when there is nothing to
    scale."""
    scale = scale_to(whole_ms - serving_ms, float_ms)
    scaled = {name: time * scale for name, time in float_ms.items()}
    gains = {name: scaled[name] - time * scale for name, time in int8_ms.items()}
    return _corrected(scaled, gains, whole_ms, mixed_ms, scale)


def correct_profiles(
    float_ms: Mapping[str, float],
    mixed_layers_ms: Mapping[str, float],
    neighbours: Mapping[str, Sequence[str]],
    quantized: Sequence[str],
    whole_ms: float,
    mixed_ms: float,
    serving_ms: float,
) -> Corrected:
    """Corrected times from the layers of the whole model and of the mixed one. Each set is first
    scaled to its own model's time: both models are served in turn, but profiled one after another,
    and a machine that others share does not keep its speed so long. Raises CheckFailed when there
    is nothing to scale."""
    scale = scale_to(whole_ms - serving_ms, float_ms)
    scaled = {name: time * scale for name, time in float_ms.items()}
    mixed_scale = scale_to(mixed_ms - serving_ms, mixed_layers_ms)
    mixed = {name: time * mixed_scale for name, time in mixed_layers_ms.items()}
    times = times_when_quantized(scaled, mixed, neighbours, quantized)
    gains = {name: scaled[name] - time for name, time in times.items()}
    return _corrected(scaled, gains, whole_ms, mixed_ms, scale)


def scale_to(wanted_ms: float, times_ms: Mapping[str, float]) -> float:
    """What times are multiplied by so that they add up; raises CheckFailed if nothing can be."""
    total = sum(times_ms.values())
    if total <= 0:
        raise CheckFailed("no kernel could be traced to a layer: use --method layers")
    if wanted_ms <= 0:
        raise CheckFailed(
            f"the layers take {total:.3f} ms and should add up to {wanted_ms:.3f} ms, the model's "
            "time without serving: nothing can be scaled; measure again with more --runs"
        )
    return wanted_ms / total


def _corrected(
    scaled: dict[str, float],
    gains: Mapping[str, float],
    whole_ms: float,
    mixed_ms: float | None,
    scale: float,
) -> Corrected:
    """What the factor of the gains leaves over is spread evenly over the layers."""
    gain_scale = shift = None
    if mixed_ms is not None and gains:
        wanted, found = whole_ms - mixed_ms, sum(gains.values())
        gain_scale = _gain_scale(wanted, found, gains)
        shift = (wanted - gain_scale * found) / len(gains)
        gains = {name: gain * gain_scale + shift for name, gain in gains.items()}
    return Corrected(
        scaled,
        {name: max(scaled[name] - gain, 0.0) for name, gain in gains.items()},
        Corrections(float_scale=scale, gain_scale=gain_scale, gain_shift_ms=shift),
    )


def _gain_scale(wanted: float, found: float, gains: Mapping[str, float]) -> float:
    """The factor (docs/profile.md), or 1 where gains and losses nearly cancel and where it would be
    negative or far from 1: it would turn them into nonsense."""
    size = sum(abs(gain) for gain in gains.values())
    if found == 0 or abs(found) < _LEAST_SHARE * size:
        return 1.0
    factor = wanted / found
    return factor if 1 / _MOST_SCALE <= factor <= _MOST_SCALE else 1.0


def times_when_quantized(
    float_ms: Mapping[str, float],
    mixed_ms: Mapping[str, float],
    neighbours: Mapping[str, Sequence[str]],
    quantized: Sequence[str],
    reach: int = 3,
) -> dict[str, float]:
    """Time of each quantized layer in the mixed model, with what its quantization changes around.

    A quantized convolution breaks fusions and memory layouts of the layers next to it. Each layer
    within `reach` steps in the graph (`neighbours`) of a quantized one gives it the difference
    between its own times in the two models; layers farther away did not change but for noise.
    """
    owner: dict[str, str] = {name: name for name in quantized}
    edge = list(quantized)
    for _ in range(reach):
        following = []
        for name in edge:
            for other in neighbours.get(name, ()):
                if other not in owner:
                    owner[other] = owner[name]
                    following.append(other)
        edge = following
    found = {name: float_ms[name] for name in quantized}
    for name, layer in owner.items():
        found[layer] += mixed_ms.get(name, 0.0) - float_ms.get(name, 0.0)
    return found
