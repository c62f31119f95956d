"""The head of the page: what the plan is, how it compares, what to be careful about."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from tritier.documents import Baseline, BenchLevel, PlanFigures, PlanReport
from tritier.report.material import Material
from tritier.report.parts import (
    Block,
    Evidence,
    Notice,
    Section,
    Table,
    Tile,
    number,
    percent,
    size,
    table,
)

# Less than this is the same for a reader.
_SAME = 0.005
_AIMS = {
    "latency": ("latency_ms", "latency", "ms"),
    "makespan": ("latency_ms", "latency", "ms"),
    "energy": ("energy_joule", "energy", "J"),
    "cost": ("cost_usd", "cost", "USD"),
    "throughput": ("bottleneck_ms", "time of the busiest server or link", "ms"),
}


def summary_section(material: Material) -> Section:
    """Verdict, figures at a glance, components, warnings."""
    plan = material.plan
    used = {component.server for component in plan.components}
    places = [server.name for server in plan.servers if server.name in used]
    layers = sum(len(component.layers) for component in plan.components)
    lead = (
        f"Plan {plan.id} runs {layers} layers of {plan.model.name} as {len(plan.components)} "
        f"{'component' if len(plan.components) == 1 else 'components'} on {_list(places)}; "
        f"{len(plan.wires)} {'tensor crosses' if len(plan.wires) == 1 else 'tensors cross'} links. "
        f"Apps call {plan.entry.name}.",
    )
    blocks: list[Block] = [*_verdicts(material), *_warnings(material), _placement(material)]
    return Section("summary", "Summary", tuple(blocks), lead, tiles=tuple(_tiles(material)))


def _tiles(material: Material) -> Iterable[Tile]:
    predicted = _predicted_ms(material)
    measured = material.comparison.document.measured if material.comparison else None
    if predicted is not None:
        yield Tile("Latency, predicted", number(predicted), "ms", "simulated, one request")
    if measured is not None:
        found = measured.latency
        detail = f"median of {found.n}; {number(found.low_ms)} to {number(found.high_ms)} ms"
        yield Tile("Latency, measured", number(found.median_ms), "ms", detail)
    elif (level := _lightest(material)) is not None:
        yield Tile("Latency, measured", number(level.p50_ms), "ms",
                   f"median of {level.requests}; mean {number(level.low_ms)} to "
                   f"{number(level.high_ms)} ms")  # fmt: skip
    if (best := _most(material)) is not None:
        detail = f"batch {best.batch} at load {number(best.offered)}, {best.requests} requests"
        yield Tile("Throughput, measured", number(best.infer_per_s), "infer/s", detail)
    energy = material.plan.predictions.energy_joule if material.plan.predictions else None
    if energy:
        yield Tile("Energy, predicted", number(energy), "J", "all servers, one request")
    sizes = [material.plan.wire_bytes(wire) for wire in material.plan.wires]
    if sizes and None not in sizes:
        total = sum(item for item in sizes if item is not None)
        text, _, unit = size(total).partition(" ")
        yield Tile("On links, predicted", text, unit, f"{len(sizes)} tensors, one request")


def _predicted_ms(material: Material) -> float | None:
    if material.planning is not None:
        return material.planning.document.figures.latency_ms
    if material.comparison is not None:
        return material.comparison.document.predicted.latency_ms
    return material.plan.predictions.latency_ms if material.plan.predictions else None


def _levels(material: Material, split: bool = True) -> list[BenchLevel]:
    return [
        level
        for read in material.bench
        if read.document.mode == "concurrency" and material.is_split(read.document.model) == split
        for level in read.document.levels
        if level.stable
    ]


def _lightest(material: Material, split: bool = True) -> BenchLevel | None:
    """One request at a time, of one input."""
    return next((x for x in _levels(material, split) if x.key == (1, 1.0)), None)


def _batches(material: Material, split: bool = True) -> set[int]:
    return {level.batch for level in _levels(material, split)}


def _most(
    material: Material, split: bool = True, batches: Collection[int] | None = None
) -> BenchLevel | None:
    """The highest throughput, of these batches or of all."""
    levels = _levels(material, split)
    able = [x for x in levels if batches is None or x.batch in batches]
    return max(able, key=lambda x: x.infer_per_s, default=None)


def _verdicts(material: Material) -> Iterable[Notice]:
    """Rule R8: predicted, and measured against the whole model if both were."""
    if material.planning is not None:
        yield _verdict(material.planning.document)
    else:
        yield Notice(
            "Whether a baseline would be better is not known here: no planning report was given."
        )
    both = _batches(material) & _batches(material, split=False)
    ours, whole = _most(material, True, both), _most(material, False, both)
    if ours and whole:
        listed = ", ".join(map(str, sorted(both)))
        yield _measured("throughput", ours.infer_per_s / whole.infer_per_s - 1,
                        f"{number(ours.infer_per_s)} against {number(whole.infer_per_s)} "
                        f"inferences/s, each at its best load of batch {listed}",
                        more_is_better=True)  # fmt: skip
    ours, whole = _lightest(material), _lightest(material, split=False)
    if ours and whole:
        yield _measured("median latency of single requests", ours.p50_ms / whole.p50_ms - 1,
                        f"{number(ours.p50_ms)} against {number(whole.p50_ms)} ms",
                        more_is_better=False)  # fmt: skip


def _verdict(report: PlanReport) -> Notice:
    kept = [item for item in report.baselines if not item.broken]
    chosen = [item for item in kept if item.chosen]
    if chosen:
        return Notice(
            f"Predicted: nothing beats the baseline '{chosen[0].what}', so it is the plan.", "info"
        )
    if not kept:
        return Notice("Predicted: no baseline keeps the limits that this plan keeps.", "win")
    if report.objective == "weighted":
        return _weighted(report, kept)
    field, what, unit = _AIMS[report.objective]
    best = min(kept, key=lambda item: _of(item.figures, field))
    ours, theirs = _of(report.figures, field), _of(best.figures, field)
    text = f"{number(ours)} against {number(theirs)} {unit}"
    change = ours / theirs - 1 if theirs else 0.0
    if change > _SAME:
        return Notice(
            f"Predicted: the baseline '{best.what}' wins: {what} {text}. The plan is best at "
            f"{_aim(report)}, which is not the same.",
            "loss",
        )
    if change > -_SAME:
        return Notice(f"Predicted: as good as the best baseline, '{best.what}': {what} {text}.")
    return Notice(
        f"Predicted: {percent(-change)} less {what} than the best baseline, '{best.what}' ({text})."
        + _among(kept),
        "win",
    )


def _weighted(report: PlanReport, kept: list[Baseline]) -> Notice:
    """By two aims at once: a baseline wins if it is better in one and no worse in the other."""
    ours = report.figures
    for item in kept:
        ratios = [
            theirs / mine - 1 if mine else 0.0
            for theirs, mine in ((item.figures.latency_ms, ours.latency_ms),
                                 (item.figures.energy_joule, ours.energy_joule))
        ]  # fmt: skip
        if max(ratios) < _SAME and min(ratios) < -_SAME:
            return Notice(
                f"Predicted: the baseline '{item.what}' wins in latency and energy: "
                f"{_both(item.figures)} against {_both(ours)} of the plan.",
                "loss",
            )
    quick = min(kept, key=lambda item: item.figures.latency_ms)
    thrifty = min(kept, key=lambda item: item.figures.energy_joule)
    return Notice(
        f"Predicted: {_both(ours)}; none of the {len(kept)} baselines beats that in both. The "
        f"quickest, '{quick.what}', takes {_both(quick.figures)}; the thriftiest, "
        f"'{thrifty.what}', {_both(thrifty.figures)}.",
        "win",
    )


def _both(figures: PlanFigures) -> str:
    return f"{number(figures.latency_ms)} ms and {number(figures.energy_joule)} J"


def _aim(report: PlanReport) -> str:
    return "the sum of all times" if report.objective == "latency" else report.objective


def _among(kept: list[Baseline]) -> str:
    return f" {len(kept)} baselines keep the limits."


def _of(figures: PlanFigures, field: str) -> float:
    return float(getattr(figures, field))


def _measured(what: str, change: float, text: str, more_is_better: bool) -> Notice:
    if abs(change) < _SAME:
        return Notice(f"Measured: {what} as that of the whole model ({text}).")
    kind: Literal["win", "loss"] = "win" if (change > 0) == more_is_better else "loss"
    if change >= 1:
        return Notice(
            f"Measured: {number(change + 1, 2)} times the {what} of the whole model ({text}).", kind
        )
    word = "more" if change > 0 else "less"
    return Notice(
        f"Measured: {percent(abs(change))} {word} {what} than the whole model ({text}).", kind
    )


def _warnings(material: Material) -> Iterable[Notice]:
    report = material.planning.document if material.planning else None
    for text in report.warnings if report else ():
        yield Notice(text, "warn")
    if report and report.gap > 1e-6:
        yield Notice(
            f"The plan is not proven to be best: a better one may exist, by at most "
            f"{percent(report.gap)} ({report.status}).",
            "warn",
        )
    for name, least in (("failed", "failures"), ("gave wrong answers", "wrong")):
        count = sum(getattr(read.document, least) for read in material.load)
        if count:
            total = sum(read.document.requests for read in material.load)
            yield Notice(f"Load tests: {count} of {total} requests {name}.", "warn")


def _placement(material: Material) -> Table:
    plan = material.plan
    quantized = set(plan.quantized_layers)
    return table(
        "components-table",
        "Components",
        ("component", "server", "layers", "int8 layers", "first layer", "last layer"),
        [
            (c.id, c.server, str(len(c.layers)), str(len(quantized.intersection(c.layers))),
             c.layers[0], c.layers[-1])
            for c in plan.components
        ],
        Evidence("layers", "configured (the plan)"),
        note=_tolerances(material),
    )  # fmt: skip


def _tolerances(material: Material) -> str:
    """What rule R4 promises of a generated folder."""
    if material.manifest is None or not material.manifest.tolerances:
        return ""
    items = [
        f"{x.optimisation}: "
        + ("bit-equal" if not (x.absolute or x.relative or x.share_of_noise)
           else f"within {x.absolute:g} + {x.relative:g} x |value|"
           + (f" + {x.share_of_noise:g} x noise" if x.share_of_noise else ""))
        for x in material.manifest.tolerances
    ]  # fmt: skip
    return "Answers against the whole model, by ONNX Runtime's optimisation: " + "; ".join(items)


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
