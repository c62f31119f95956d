"""The chapter that holds noise against speed: what int8 layers lose, and what they gain."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tritier.documents import NoiseModel, OutputNoise, PlanReport, TimingProfile
from tritier.report.commands import noise_command, profile_command
from tritier.report.material import Material
from tritier.report.parts import (
    Axis,
    Block,
    Chart,
    Evidence,
    Mark,
    Missing,
    Section,
    Series,
    Table,
    number,
    percent,
    spanned,
    table,
)

_DRAWN_OUTPUTS = 4
_WITH_MARGIN = " with its margin"


def noise_section(material: Material) -> Section:
    """Of the noise model, and of the plan's own noise and limits."""
    title = "Noise against speed"
    blocks: list[Block] = []
    missing = []
    if material.noise is None:
        missing.append(Missing("how far int8 layers move the outputs", noise_command(material)))
    else:
        model = material.noise.document
        for index, output in enumerate(model.outputs[:_DRAWN_OUTPUTS]):
            blocks.append(_chart(material, model, output, index))
        blocks.append(_quality(model))
        if not material.timing:
            what = "what int8 layers gain (timing profiles)"
            missing.append(Missing(what, profile_command(material)))
    if material.planning is not None and (rows := list(_plan_rows(material.planning.document))):
        blocks.insert(0, _plan_table(material.planning.document, rows))
    lead = ("What quantizing layers does to the outputs, beside the time that it saves.",)
    return Section("noise", title, tuple(blocks), lead if blocks else (), tuple(missing))


def _plan_rows(report: PlanReport) -> Iterable[tuple[str, ...]]:
    outputs = dict.fromkeys([*report.figures.noise, *report.measured_noise])
    for output in outputs:
        limits = _limits_of(report, output)
        yield (
            output,
            number(report.figures.noise.get(output)),
            number(report.measured_noise.get(output)),
            number(limits[0][1]) if limits else "none",
        )


def _plan_table(report: PlanReport, rows: list[tuple[str, ...]]) -> Table:
    if report.measured_noise:
        runs = report.noise_runs
        evidence = Evidence(
            "of the metric of the noise model", "predicted, measured and configured",
            f"{runs} choices of int8 layers measured, each on all inputs of the noise model",
            "not stored: a mean over the inputs",
        )  # fmt: skip
    else:
        evidence = Evidence("of the metric of the noise model", "predicted (no margin), configured")
    return table(
        "plan-noise", f"Noise of this plan ({report.figures.quantized_layers} int8 layers)",
        ("output", "predicted, without a margin", "measured", "limit"), rows, evidence,
    )  # fmt: skip


def _chart(material: Material, model: NoiseModel, output: OutputNoise, index: int) -> Chart:
    timing = _fastest_gain(material)
    metric = model.settings.metric
    measured = [x for x in model.measured if output.output in x.noise]
    series = [
        Series(
            "measured choices",
            tuple(_place(timing, x.layers) for x in measured),
            tuple(x.noise[output.output] for x in measured),
            kind="points",
            notes=tuple(f"{len(x.layers)} int8 layers ({x.use})" for x in measured),
            colour=0,
        ),
        _greedy(timing, model, output),
    ]
    series += _of_plan(material, timing, model, output)
    inputs = sorted({x.inputs for x in measured})
    label = "int8 layers" if timing is None else f"all layers on {timing.server}, predicted (ms)"
    which = "the number of int8 layers" if timing is None else (
        f"the time of all layers on '{timing.server}', the server that gains most"
    )  # fmt: skip
    return Chart(
        "noise-speed" if index == 0 else f"noise-speed-{index}",
        f"Noise of '{output.output}' against {'int8 layers' if timing is None else 'time'}",
        f"Every point is a choice of int8 layers; across stands {which}. The dashed line quantizes "
        "one layer after the other, that with the most time gained per noise first.",
        Axis(label),
        Axis(f"{metric} of '{output.output}'", from_zero=True),
        tuple(series),
        Evidence(
            f"{metric}; {'layers' if timing is None else 'ms'}",
            "noise measured (points) and predicted (line), times predicted from the profile",
            f"{len(measured)} choices, on {spanned(inputs, 'inputs')} each",
            f"mean error of predictions {percent(_mape(output))}" + (
                f", factor {number(output.margin)} covers 95 %" if output.margin else ""),
        ),
        tuple(_limits(material, output)),
    )  # fmt: skip


def _mape(output: OutputNoise) -> float:
    return (output.held_out or output.fitted).mape


def _fastest_gain(material: Material) -> TimingProfile | None:
    """The profile of the server of the plan where int8 saves most."""
    names = {server.name for server in material.plan.servers}
    profiles = [read.document for read in material.timing if read.document.server in names]
    gains = [sum(max(layer.gain_ms, 0.0) for layer in x.layers) for x in profiles]
    return profiles[gains.index(max(gains))] if profiles else None


def _place(timing: TimingProfile | None, layers: Collection[str]) -> float:
    """Time of all layers with these in int8, or how many these are."""
    if timing is None:
        return float(len(layers))
    gain = sum(layer.gain_ms for layer in timing.layers if layer.name in layers)
    return sum(layer.float_ms for layer in timing.layers) - gain


def _greedy(timing: TimingProfile | None, model: NoiseModel, output: OutputNoise) -> Series:
    """Predicted: from no int8 layer to all, the best exchange of noise for time first."""
    gains = {} if timing is None else {x.name: x.gain_ms for x in timing.layers}
    alone = {name: output.predict([name]) for name in model.layers}

    def worth(name: str) -> tuple[float, float]:
        return (-gains.get(name, 0.0) / max(alone[name], 1e-30), alone[name])

    order = sorted(model.layers, key=worth)
    if timing is not None:
        order = [name for name in order if gains.get(name, 0.0) > 0]
    steps = [order[:count] for count in range(len(order) + 1)]
    return Series(
        "predicted, layer by layer",
        tuple(_place(timing, step) for step in steps),
        tuple(output.predict(step) for step in steps),
        notes=tuple(f"with {step[-1]}" if step else "no int8 layer" for step in steps),
        colour=1,
        dashed=True,
        symbol="square",
    )


def _of_plan(
    material: Material, timing: TimingProfile | None, model: NoiseModel, output: OutputNoise
) -> Iterable[Series]:
    """The plan's choice, measured if it was."""
    chosen = material.plan.quantized_layers
    report = material.planning.document if material.planning else None
    if report and output.output in report.measured_noise:
        value, how = report.measured_noise[output.output], "measured"
    elif set(chosen) <= set(model.layers):
        value, how = output.predict(chosen), "predicted"
    else:
        return
    yield Series(
        f"this plan's choice ({how})", (_place(timing, chosen),), (value,), kind="points",
        notes=(f"{len(chosen)} int8 layers",), colour=2, symbol="star",
    )  # fmt: skip


def _limits(material: Material, output: OutputNoise) -> Iterable[Mark]:
    """What is measured has to keep a limit as it is; what is predicted, with the margin: without
    it, as it is drawn, it has to be lower by that factor."""
    report = material.planning.document if material.planning else None
    for what, limit in _limits_of(report, output.output) if report else ():
        yield Mark(limit, f"limit {number(limit)}")
        if what.endswith(_WITH_MARGIN) and output.margin and output.margin > 1:
            yield Mark(limit / output.margin, f"limit of predictions: {number(limit)} less the "
                       f"margin, a factor of {number(output.margin)}")  # fmt: skip


def _limits_of(report: PlanReport, output: str) -> list[tuple[str, float]]:
    """Of the noise of an output; the planner's names say whether it holds with the margin."""
    names = (f"noise of {output}", f"noise of {output}{_WITH_MARGIN}",
             f"noise of {output}, measured")  # fmt: skip
    return [(item.what, item.limit) for item in report.limits if item.what in names]


def _quality(model: NoiseModel) -> Table:
    rows = []
    for item in model.outputs:
        for name, found in (("fitted", item.fitted), ("held out", item.held_out)):
            if found is not None:
                rows.append((
                    item.output, name, str(found.subsets), number(found.r2), percent(found.mape),
                    number(found.spearman), percent(found.worst_under), percent(found.worst_over),
                    number(item.margin) or "none",
                ))  # fmt: skip
    return table(
        "noise-model", "How well noise is predicted",
        ("output", "choices", "n", "R2", "mean error", "rank correlation", "most too low",
         "most too high", "margin"),
        rows,
        Evidence(f"{model.settings.metric}, kernels {model.settings.kernels}",
                 "predicted against measured", f"column n, on {len(model.inputs)} inputs",
                 "mean and largest errors in the table"),
        folded=True,
    )  # fmt: skip
