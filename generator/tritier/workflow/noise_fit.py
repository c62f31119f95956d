"""The noise of outputs by measured subsets; a plan's choice, measured before it is final."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from tritier.documents import (
    MeasuredSubset,
    NoiseModel,
    NoiseSettings,
    NoiseTerm,
    OutputNoise,
    OutputSignal,
)
from tritier.errors import CheckFailed, InputError
from tritier.noise import (
    figures,
    fit_polynomial,
    fit_squared,
    layers_of,
    margin,
    predict,
    subset_of,
)
from tritier.noise.settle import RUNS, SLACK, Candidate, Settled, settle

# Fewer verification subsets give no margin of 95 % coverage.
LEAST_VERIFICATION = 19


def fit_outputs(
    settings: NoiseSettings,
    power: int,
    layers: Sequence[str],
    measured: Sequence[MeasuredSubset],
    signals: Mapping[str, OutputSignal],
) -> tuple[OutputNoise, ...]:
    """Fitted to the subsets of the design and to picks; margin and held-out figures come from the
    verification subsets. `power` is the metric's."""
    masks = [(subset_of(layers, item.layers), item) for item in measured]
    found = []
    for output in measured[0].noise:
        fitted = {mask: x.noise[output] for mask, x in masks if x.use != "verification"}
        held = {mask: x.noise[output] for mask, x in masks if x.use == "verification"}
        found.append(
            _fit_output(output, settings, power, layers, fitted, held, signals.get(output))
        )
    return tuple(found)


def _fit_output(
    output: str,
    settings: NoiseSettings,
    power: int,
    layers: Sequence[str],
    fitted: Mapping[int, float],
    held: Mapping[int, float],
    signal: OutputSignal | None,
) -> OutputNoise:
    count, constant = len(layers), 0.0
    if settings.degree is not None:
        power = 1
        constant, terms = fit_polynomial(fitted, count, settings.degree)
    else:
        terms = fit_squared(fitted, count, power)

    def predicted(subset: int) -> float:
        return predict(terms, constant, power, subset)

    return OutputNoise(
        output=output,
        power=1 if power == 1 else 2,
        constant=constant,
        terms=tuple(NoiseTerm(layers=layers_of(layers, k), value=v) for k, v in terms.items()),
        margin=_margin(fitted, held, predicted, count),
        signal=signal,
        fitted=figures(fitted, predicted),
        held_out=figures(held, predicted) if held else None,
    )


def _margin(
    fitted: Mapping[int, float],
    held: Mapping[int, float],
    predicted: Callable[[int], float],
    count: int,
) -> float | None:
    """It covers 95 % of all subsets or, of fewer than 19 held out, n of n + 1; where all subsets
    are measured, it covers those. None if no factor is enough."""
    every = len({*fitted, *held}) == 2**count - 1
    covered = {**fitted, **held} if every else held
    if not covered:
        return 1.0
    enough = len(held) >= LEAST_VERIFICATION and not every
    try:
        if enough:
            return margin(held, predicted)
        return margin(covered, predicted, round(len(covered) / (len(covered) + 1) - 1e-6, 6))
    except CheckFailed:
        return None


def refit(noise: NoiseModel, picks: Iterable[MeasuredSubset]) -> NoiseModel:
    """The noise model with more measured subsets, fitted again. They take the place of what was
    known of the same subsets, perhaps on fewer inputs."""
    added = list(picks)
    again = {frozenset(item.layers) for item in added}
    kept = [item for item in noise.measured if frozenset(item.layers) not in again]
    measured = (*kept, *added)
    power = noise.outputs[0].power
    signals = {x.output: x.signal for x in noise.outputs if x.signal is not None}
    outputs = fit_outputs(noise.settings, power, noise.layers, measured, signals)
    return noise.model_copy(update={"measured": measured, "outputs": outputs})


def settle_pick(
    noise: NoiseModel,
    limits: Mapping[str, float],
    pick: Callable[[NoiseModel, float, Collection[int]], Candidate | None],
    measure: Callable[[int], Mapping[str, float]],
    inputs: int,
    runs: int = RUNS,
    slack: float | None = None,
) -> Settled[NoiseModel]:
    """The best choice of layers whose measured noise is within the limit of each output.

    `pick(noise model, share, refused)` is the planner: the best subset (bit i stands for layer i of
    the noise model) whose predicted noise, without a margin, is within that share of each limit and
    that is not refused. `measure` really measures a subset on all `inputs`. Each subset that was
    measured joins the noise model, which is fitted again; what the noise model knows from fewer
    inputs is measured again. Noise in the result is the largest share of a limit. The slack, if
    left out, is how much predictions are off on average, 2 % at least. Raises InputError for limits
    that are not positive or of unknown outputs.
    """
    for name, limit in limits.items():
        noise.output(name)
        if not limit > 0:
            raise InputError(f"the noise limit of '{name}' is {limit}: it must be above 0")
    if not limits:
        raise InputError("no noise limit: give one for an output at least")
    added: list[MeasuredSubset] = []

    def share(found: Mapping[str, float]) -> float:
        return max(found[name] / limit for name, limit in limits.items())

    def measured(subset: int) -> float:
        found = dict(measure(subset))
        names = layers_of(noise.layers, subset)
        added.append(MeasuredSubset(layers=names, use="pick", noise=found, inputs=inputs))
        return share(found)

    if slack is None:
        figures_of = [noise.output(name).held_out for name in limits]
        slack = max([SLACK, *(item.mape for item in figures_of if item is not None)])
    samples = {subset: share(found) for subset, found in _known(noise, inputs).items()}
    return settle(
        pick, measured, lambda _: refit(noise, added) if added else noise, samples, 1.0, runs, slack
    )


def _known(noise: NoiseModel, inputs: int) -> dict[int, dict[str, float]]:
    """Subset -> noise that was measured on so many inputs."""
    return {
        subset_of(noise.layers, item.layers): item.noise
        for item in noise.measured
        if item.inputs >= inputs and not item.scaled
    }
