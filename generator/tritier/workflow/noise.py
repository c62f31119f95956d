"""Learn the noise of quantized layers: from a model and inputs to the document."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from tritier.calibration import Arrays, Inputs, input_files
from tritier.documents import (
    ExcludedLayer,
    InputFile,
    MeasuredSubset,
    NoiseModel,
    NoiseSettings,
    OutputSignal,
    PlanModel,
    Quantization,
    Ranges,
    SelfCheck,
)
from tritier.errors import InputError, did_you_mean
from tritier.graph import LayerGraph, LoadedModel, build_layer_graph
from tritier.network.contact import timestamp
from tritier.noise import (
    Executor,
    Metric,
    SignalMeter,
    built_in,
    check_alive,
    count_terms,
    design,
    excluded_layers,
    random_design,
    screen_input,
    self_check,
    verification,
)
from tritier.workflow.noise_fit import fit_outputs
from tritier.workflow.noise_measure import Measurer, NoiseMeans, Report
from tritier.workflow.noise_spread import Where
from tritier.workflow.processor import processor_name

Kind = Literal["squared", "polynomial"]
DEFAULT_INPUTS = 20
DEFAULT_VERIFICATION = 20
MOST_EXHAUSTIVE = 14
_SCREENED_INPUTS = 3
_SELF_CHECKED = 3


@dataclass(frozen=True)
class NoiseFit:
    """What is fitted to which subsets: the squared noise on the design, or a polynomial of some
    degree on random subsets. `verification` subsets, drawn by the seed, give margin and figures;
    `more` random ones are fitted besides the design."""

    kind: Kind = "squared"
    degree: int = 3
    samples: int = 1000
    verification: int = DEFAULT_VERIFICATION
    exhaustive: bool = False
    more: int = 0


@dataclass(frozen=True)
class NoiseRequest:
    """What noise is to be learned of, and how. `outputs` are all if left out; `shape_inputs` is how
    many inputs the design is measured on, None for all; `where` is in which processes."""

    model: LoadedModel
    layers: tuple[str, ...]
    inputs: Inputs
    ranges: Ranges
    store: Path
    settings: Quantization = field(default_factory=Quantization)
    metric: Metric = field(default_factory=lambda: built_in("mean_abs"))
    outputs: tuple[str, ...] = ()
    fit: NoiseFit = field(default_factory=NoiseFit)
    kernels: bool = False
    shape_inputs: int | None = None
    keep_sensitive: bool = False
    seed: int = 0
    where: Where = field(default_factory=Where)
    fresh: bool = False


def learn_noise(request: NoiseRequest, report: Report = lambda _: None) -> NoiseModel:
    """Measure and fit; `report` is told what is being done.

    Raises InputError when the model can't be quantized, its outputs don't hang on the input, or
    the ranges were calibrated on inputs that noise would be measured on.
    """
    return _Learner(request, report).learn()


def measurer_of(noise: NoiseModel, request: NoiseRequest) -> Measurer:
    """Measures more choices of a noise model's layers, such as the pick of a plan, on the inputs of
    a request. Raises InputError when it was learned of another model, format, metric or ranges."""
    noise.check_model(request.model.sha256)
    wanted = (request.settings, request.metric.name, request.ranges.sha256)
    found = (noise.settings.quantization, noise.settings.metric, noise.ranges_sha256)
    for what, own, other in zip(("format", "metric", "ranges"), found, wanted, strict=True):
        if own != other:
            raise InputError(
                f"the noise model was learned with the {what} {own}, here it is {other}: learn it "
                "again with `tritier noise`"
            )
    executor = Executor(
        request.model, build_layer_graph(request.model.proto), noise.layers, request.ranges,
        request.settings, noise.settings.kernels == "real",
    )  # fmt: skip
    outputs = check_choice(executor.graph, noise.layers, request.outputs, NoiseFit())
    return Measurer(
        executor,
        request.metric,
        outputs,
        request.inputs,
        request.store,
        request.fresh,
        request.where,
    )


class _Learner:
    def __init__(self, request: NoiseRequest, report: Report) -> None:
        self._request = request
        self._report = report
        self._graph = build_layer_graph(request.model.proto)
        self._outputs = check_choice(self._graph, request.layers, request.outputs, request.fit)
        self._started = time.monotonic()

    def learn(self) -> NoiseModel:
        request = self._request
        _check(request)
        files = input_files(request.inputs)
        _refuse_shared(files, request.ranges)
        executor = self._executor(request.layers)
        signals = self._signals(executor)
        executor, excluded = self._screened(executor)
        executor, checked = self._self_checked(executor)
        measurer = Measurer(
            executor, request.metric, self._outputs, request.inputs, request.store, request.fresh,
            request.where, self._report,
        )  # fmt: skip
        return self._document(measurer, files, signals, excluded, checked)

    def _executor(self, layers: Sequence[str]) -> Executor:
        request = self._request
        return Executor(
            request.model, self._graph, tuple(layers), request.ranges, request.settings,
            request.kernels,
        )  # fmt: skip

    def _signals(self, executor: Executor) -> dict[str, OutputSignal]:
        """Of the float model's outputs; a model that is dead is refused."""
        self._report("the float model")
        program = executor.compile([0])
        meter = SignalMeter()
        for arrays in self._request.inputs:
            executor.run(program, arrays, lambda _, found: meter.add(self._chosen(found)))
        signals = meter.signals()
        check_alive(signals)
        return signals

    def _chosen(self, outputs: Arrays) -> Arrays:
        return {name: outputs[name] for name in self._outputs}

    def _screened(self, executor: Executor) -> tuple[Executor, tuple[ExcludedLayer, ...]]:
        """An executor for the layers that stay, and those that don't."""
        request = self._request
        if request.keep_sensitive:
            return executor, ()
        self._report(f"each of {len(request.layers)} layers alone")
        some = [arrays for _, arrays in zip(range(_SCREENED_INPUTS), request.inputs, strict=False)]
        program = executor.compile_singles()
        found = [screen_input(executor, program, arrays, self._outputs) for arrays in some]
        excluded = excluded_layers(request.layers, found)
        names = {item.name for item in excluded}
        kept = [name for name in request.layers if name not in names]
        if not kept:
            raise InputError(
                [
                    "no layer is left that could be quantized: choose others, or pass "
                    "--keep-sensitive to measure them nevertheless",
                    *(f"'{item.name}': {item.reason}" for item in excluded[:3]),
                ]
            )
        return (self._executor(kept) if excluded else executor), excluded

    def _self_checked(self, executor: Executor) -> tuple[Executor, SelfCheck]:
        """Outputs of a few subsets are those of the really quantized model, bit for bit. Where
        they are not, whole models are run instead."""
        count = len(executor.layers)
        every = (1 << count) - 1
        drawn = verification(count, _SELF_CHECKED, self._request.seed + 1, (every,))
        self._report(f"self-check on {len(drawn) + 1} subsets")
        first = next(iter(self._request.inputs))
        gap = self_check(executor, [*drawn, every], first)
        if gap:
            self._report(
                f"the parts differ from the whole quantized model by {gap:.2g}: whole models are "
                "run instead, which takes longer"
            )
            executor = replace(executor, memoise=False)
        return executor, SelfCheck(subsets=len(drawn) + 1, max_abs_diff=gap)

    def _document(
        self,
        measurer: Measurer,
        files: tuple[InputFile, ...],
        signals: Mapping[str, OutputSignal],
        excluded: tuple[ExcludedLayer, ...],
        checked: SelfCheck,
    ) -> NoiseModel:
        request = self._request
        means = self._measured(measurer)
        layers = measurer.executor.layers
        settings = self._settings()
        measured = tuple(
            MeasuredSubset(
                layers=measurer.executor.names(subset),
                use="design" if subset in means.design else "verification",
                noise=noise,
                inputs=means.inputs[subset],
                scaled=means.inputs[subset] < len(request.inputs),
            )
            for subset, noise in means.noise.items()
        )
        return NoiseModel(
            model=PlanModel(name=request.model.default_name, sha256=request.model.sha256),
            settings=settings,
            layers=layers,
            excluded=excluded,
            outputs=fit_outputs(settings, request.metric.power, layers, measured, signals),
            measured=measured,
            ranges_sha256=request.ranges.sha256,
            calibration=request.ranges.inputs,
            inputs=files,
            self_check=checked,
            measured_at=timestamp(),
            elapsed_s=round(time.monotonic() - self._started, 1),
        )

    def _settings(self) -> NoiseSettings:
        request = self._request
        return NoiseSettings(
            metric=request.metric.name,
            quantization=request.settings,
            kernels="real" if request.kernels else "simulated",
            degree=request.fit.degree if request.fit.kind == "polynomial" else None,
            seed=request.seed,
            onnxruntime=ort.__version__,
            processor=processor_name(),
        )

    def _measured(self, measurer: Measurer) -> NoiseMeans:
        """Noise of the subsets to fit to and of those to verify with."""
        request, fit = self._request, self._request.fit
        count = len(measurer.executor.layers)
        if fit.kind == "polynomial":
            chosen = random_design(count, fit.samples, request.seed)
        else:
            chosen = design(count, request.seed, fit.more)
        others = (1 << count) - 1 if fit.exhaustive else fit.verification
        held = verification(count, others, request.seed, chosen)
        few = None if fit.exhaustive else request.shape_inputs
        return measurer.means(chosen, held, few)


def _check(request: NoiseRequest) -> None:
    if len(request.inputs) < 2:
        raise InputError(f"{len(request.inputs)} inputs: noise is measured on at least two")
    if request.ranges.model_sha256 != request.model.sha256:
        raise InputError(
            f"the ranges are for another model ({request.ranges.model_sha256[:12]}...), not for "
            f"'{request.model.default_name}': calibrate it with `tritier ranges`"
        )


def _refuse_shared(files: Sequence[InputFile], ranges: Ranges) -> None:
    calibrated = {item.sha256: item.name for item in ranges.inputs}
    shared = [item.name for item in files if item.sha256 in calibrated]
    if shared:
        raise InputError(
            f"the ranges were calibrated on {len(shared)} of the inputs, among them '{shared[0]}': "
            "noise would look smaller than it is. Measure it on other inputs"
        )


def check_choice(
    graph: LayerGraph, layers: Sequence[str], outputs: Sequence[str], fit: NoiseFit
) -> tuple[str, ...]:
    """The chosen outputs of a model, all if none is named. Raises InputError for outputs that it
    does not have, without layers, and for more layers than can be measured exhaustively or than a
    polynomial can have."""
    if not layers:
        raise InputError("no layers to learn the noise of: choose at least one")
    if fit.exhaustive and len(layers) > MOST_EXHAUSTIVE:
        raise InputError(
            f"{len(layers)} layers have {2 ** len(layers):,} subsets: --exhaustive measures all of "
            f"at most {MOST_EXHAUSTIVE} layers; choose fewer, or leave --exhaustive out"
        )
    if fit.kind == "polynomial":
        count_terms(len(layers), fit.degree)
    unknown = [name for name in outputs if name not in graph.outputs]
    if unknown:
        raise InputError(
            [
                f"'{name}' is no output of the model{did_you_mean(name, graph.outputs)}; it has "
                f"{', '.join(graph.outputs)}"
                for name in unknown
            ]
        )
    return tuple(name for name in graph.outputs if not outputs or name in outputs)
