"""The chapter of sweeps: throughput and latency against load, and against the batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tritier.documents import BenchLevel, BenchResult, ModelShare
from tritier.report.commands import bench_command
from tritier.report.material import Material
from tritier.report.parts import (
    Axis,
    Block,
    Chart,
    Evidence,
    Mark,
    Missing,
    Notice,
    Section,
    Series,
    Table,
    number,
    percent,
    spanned,
    table,
)

_UNSTABLE = "unstable: perf_analyzer saw no steady state"
_DRAWN_LOADS = 3
_PLAN = "plan"
_TIMES = {
    "timestamps": "perf_analyzer, client's timestamps",
    "perf_analyzer": "perf_analyzer's own figures",
}
_LOADS = {"concurrency": "concurrency (requests at once)", "request_rate": "offered requests/s"}


def bench_section(material: Material) -> Section:
    """All sweeps, the plan's and the whole model's beside it; predictions where they are known."""
    title = "Throughput and latency under load"
    if not material.bench:
        missing = Missing("measured throughput and latency", bench_command(material))
        return Section("bench", title, tuple(_predicted_only(material)), missing=(missing,))
    results = [read.document for read in material.bench]
    blocks: list[Block] = []
    for mode in ("concurrency", "request_rate"):
        chosen = [item for item in results if item.mode == mode and item.levels]
        if chosen:
            blocks += _mode_blocks(material, chosen, mode)
    blocks += _doubts(results)
    for index, result in enumerate(results):
        blocks += _tables(material, result, index)
    lead = (
        "Each level is driven by perf_analyzer until its windows agree. Bars around the mean are "
        "its 95 % interval. Levels that never became steady are kept, and marked.",
    )
    return Section("bench", title, tuple(blocks), lead)


def _mode_blocks(material: Material, results: Sequence[BenchResult], mode: str) -> Iterable[Chart]:
    lines = list(_lines(material, results))
    axis = Axis(_LOADS[mode], from_zero=True)
    suffix = "concurrency" if mode == "concurrency" else "rate"
    ours = (colour for name, colour, _ in lines if name.startswith(_PLAN))
    predicted = list(_predicted(material, mode, next(ours, len(lines))))
    evidence = _evidence(
        [level for _, _, levels in lines for level in levels],
        "inferences per second (requests x batch)",
        " and predicted (dashed)" if predicted else "",
    )
    yield Chart(
        f"throughput-{suffix}",
        f"Throughput against {suffix}",
        _loads_caption(lines, mode),
        axis,
        Axis("throughput (inferences/s)", from_zero=True),
        (*(_throughput(name, levels, colour) for name, colour, levels in lines),
         *predicted),
        evidence,
        hollow_means=_UNSTABLE,
    )  # fmt: skip
    batches = sorted({level.batch for _, _, levels in lines for level in levels})
    for batch in batches:
        chosen = [line for line in lines if line[2][0].batch == batch]
        several = len(batches) > 1
        yield Chart(
            f"latency-{suffix}-{batch}" if several else f"latency-{suffix}",
            f"Latency against {suffix}{f', batch {batch}' if several else ''}",
            "Means with their interval, medians and the 95th percentile, from the client's side.",
            axis,
            Axis("latency of a request (ms)", from_zero=True),
            tuple(part for name, colour, levels in chosen
                  for part in _latency(name, levels, colour)),
            _evidence([level for _, _, levels in chosen for level in levels], "ms"),
            tuple(Mark(limit, f"limit {number(limit)} ms") for limit in _limits(results)),
            hollow_means=_UNSTABLE,
        )  # fmt: skip
    yield from _batch_charts(material, results, mode)


def _lines(
    material: Material, results: Sequence[BenchResult]
) -> Iterable[tuple[str, int, list[BenchLevel]]]:
    """A line for each model and batch: name, colour, levels by load."""
    colour = 0
    for number_of_result, result in enumerate(results):
        who = _who(material, results, number_of_result)
        batches = sorted({level.batch for level in result.levels})
        for batch in batches:
            levels = [level for level in result.levels if level.batch == batch]
            name = f"{who}, batch {batch}" if len(batches) > 1 or batch > 1 else who
            yield name, colour, sorted(levels, key=lambda level: level.offered)
            colour += 1


def _who(material: Material, results: Sequence[BenchResult], index: int) -> str:
    names = [_PLAN if material.is_split(item.model) else "whole model" for item in results]
    same = names.count(names[index])
    which = names[: index + 1].count(names[index])
    return names[index] if same == 1 else f"{names[index]} (run {which})"


def _throughput(name: str, levels: Sequence[BenchLevel], colour: int) -> Series:
    return Series(
        f"{name}, measured",
        tuple(level.offered for level in levels),
        tuple(level.infer_per_s for level in levels),
        notes=tuple(f"{level.requests} requests" for level in levels),
        hollow=tuple(not level.stable for level in levels),
        colour=colour,
    )


def _latency(name: str, levels: Sequence[BenchLevel], colour: int) -> Iterable[Series]:
    loads = tuple(level.offered for level in levels)
    hollow = tuple(not level.stable for level in levels)
    yield Series(
        f"{name}, mean", loads, tuple(level.mean_ms for level in levels),
        low=tuple(level.low_ms for level in levels), high=tuple(level.high_ms for level in levels),
        hollow=hollow, colour=colour,
    )  # fmt: skip
    yield Series(
        f"{name}, p50", loads, tuple(level.p50_ms for level in levels),
        hollow=hollow, colour=colour, dashed=True, symbol="square",
    )  # fmt: skip
    yield Series(
        f"{name}, p95", loads, tuple(level.p95_ms for level in levels),
        hollow=hollow, colour=colour, dashed=True, symbol="diamond",
    )  # fmt: skip


def _predicted(material: Material, mode: str, colour: int = 0) -> Iterable[Series]:
    """What the planner predicts of so many users, who send one input each, in the colour of the
    plan's first line."""
    if material.planning is None or mode != "concurrency":
        return
    entries = sorted(material.planning.document.throughput, key=lambda item: item.concurrency)
    if entries:
        yield Series(
            "plan, predicted",
            tuple(item.concurrency for item in entries),
            tuple(item.infer_per_s for item in entries),
            colour=colour,
            dashed=True,
            symbol="diamond",
        )


def _predicted_only(material: Material) -> Iterable[Chart]:
    for series in _predicted(material, "concurrency"):
        yield Chart(
            "throughput-concurrency",
            "Predicted throughput against concurrency",
            "By simulation of the data plane; nothing was measured.",
            Axis(_LOADS["concurrency"], from_zero=True),
            Axis("throughput (inferences/s)", from_zero=True),
            (series,),
            Evidence("inferences per second", "predicted (simulator of the data plane)"),
        )


def _batch_charts(material: Material, results: Sequence[BenchResult], mode: str) -> Iterable[Chart]:
    """Against the batch, one line for each load that was measured with several batches."""
    throughput: list[Series] = []
    latency: list[Series] = []
    used: list[BenchLevel] = []
    for index, result in enumerate(results):
        for load in _drawn_loads(result):
            levels = sorted((x for x in result.levels if x.offered == load), key=lambda x: x.batch)
            if len(levels) < 2:
                continue
            name = f"{_who(material, results, index)}, {_load_text(mode, load)}"
            batches = tuple(level.batch for level in levels)
            hollow = tuple(not level.stable for level in levels)
            shared = {"hollow": hollow, "colour": len(throughput)}
            throughput.append(
                Series(name, batches, tuple(x.infer_per_s for x in levels), **shared)  # type: ignore[arg-type]
            )
            latency.append(
                Series(name, batches, tuple(x.mean_ms for x in levels),
                       low=tuple(x.low_ms for x in levels), high=tuple(x.high_ms for x in levels),
                       **shared)  # type: ignore[arg-type]
            )  # fmt: skip
            used += levels
    for what, y, series in (
        ("throughput", Axis("throughput (inferences/s)", from_zero=True), throughput),
        ("latency", Axis("mean latency of a request (ms)", from_zero=True), latency),
    ):
        if series:
            yield Chart(
                f"{what}-batch" if mode == "concurrency" else f"{what}-batch-rate",
                f"{what.capitalize()} against batch",
                "Inferences are requests times batch; a request has the latency of its batch. At "
                f"most {_DRAWN_LOADS} loads of a sweep are drawn, all are in its table.",
                Axis("batch (inputs per request)", "log"),
                y,
                tuple(series),
                _evidence(used, y.label.rpartition("(")[2].rstrip(")")),
                hollow_means=_UNSTABLE,
            )


def _drawn_loads(result: BenchResult) -> list[float]:
    """Of those with several batches the lowest, the highest and one between."""
    counts: dict[float, int] = {}
    for level in result.levels:
        counts[level.offered] = counts.get(level.offered, 0) + 1
    loads = sorted(load for load, count in counts.items() if count > 1)
    if len(loads) <= _DRAWN_LOADS:
        return loads
    return [loads[0], loads[len(loads) // 2], loads[-1]]


def _load_text(mode: str, load: float) -> str:
    return f"{number(load)} at once" if mode == "concurrency" else f"{number(load)} requests/s"


def _loads_caption(lines: Sequence[tuple[str, int, list[BenchLevel]]], mode: str) -> str:
    best = max((level for _, _, levels in lines for level in levels), key=lambda x: x.infer_per_s)
    return (
        f"Highest: {number(best.infer_per_s)} inferences/s at {_load_text(mode, best.offered)}, "
        f"batch {best.batch}{'' if best.stable else ' (unstable)'}."
    )


def _evidence(
    levels: Sequence[BenchLevel],
    unit: str = "ms; inferences per second (requests x batch)",
    more: str = "",
) -> Evidence:
    kinds = {level.times_from for level in levels}
    how = " or ".join(text for kind, text in _TIMES.items() if kind in kinds or not kinds)
    return Evidence(
        unit,
        f"measured ({how}){more}",
        spanned([level.requests for level in levels], "requests per level"),
        "95 % interval of the mean latency; standard deviation in the table",
    )


def _limits(results: Sequence[BenchResult]) -> list[float]:
    found = {result.settings.latency_limit_ms for result in results}
    return sorted(limit for limit in found if limit is not None)


def _doubts(results: Sequence[BenchResult]) -> Iterable[Notice]:
    """What is to be doubted: no steady state, another generator disagrees, failures."""
    levels = [level for result in results for level in result.levels]
    unstable = [level for level in levels if not level.stable]
    if unstable:
        texts = dict.fromkeys(f"batch {x.batch} at {number(x.offered)}" for x in unstable)
        which = ", ".join(list(texts)[:6])
        yield Notice(f"{len(unstable)} of {len(levels)} levels are unstable: {which}.", "warn")
    checks = [level.check for level in levels] + [x for r in results for x in r.sustained]
    known = [check for check in checks if check is not None and check.agrees is not None]
    apart = [check for check in known if not check.agrees]
    if apart:
        worst = max(abs(check.difference) for check in apart)
        yield Notice(
            f"An independent load generator disagrees with perf_analyzer by more than 5 % (or had "
            f"failures) on {len(apart)} of {len(known)} checks; the largest difference is "
            f"{percent(worst)}.",
            "warn",
        )
    elif known:
        yield Notice(
            f"An independent load generator agrees with perf_analyzer within 5 % on all "
            f"{len(known)} checks."
        )
    for text in dict.fromkeys(text for result in results for text in result.warnings):
        yield Notice(text, "warn")


def _tables(material: Material, result: BenchResult, index: int) -> Iterable[Table]:
    if not result.levels:
        return
    who = "plan" if material.is_split(result.model) else "whole model"
    yield table(
        f"bench-{index}",
        f"{result.model} ({who}): every level",
        ("batch", "load", "inferences/s", "mean ms", "95 % interval ms", "std ms", "p50 ms",
         "p90 ms", "p95 ms", "p99 ms", "requests", "steady", "independent check"),
        [_row(level) for level in result.levels],
        _evidence(result.levels),
        note=f"load: {_LOADS[result.mode]}",
    )  # fmt: skip
    if result.search is not None:
        yield table(
            f"bench-{index}-slo",
            f"Highest load with p{result.search.percentile} within "
            f"{number(result.search.limit_ms)} ms",
            ("batch", "load", "inferences/s", "latency ms", "bounded by"),
            [(str(x.batch), number(x.offered) or "none", number(x.infer_per_s),
              number(x.latency_ms), x.bounded_by) for x in result.search.found],
            _evidence(result.levels),
        )  # fmt: skip
    yield from _steps(result, index)


def _row(level: BenchLevel) -> tuple[str, ...]:
    check = level.check
    return (
        str(level.batch),
        number(level.offered),
        number(level.infer_per_s),
        number(level.mean_ms),
        f"{number(level.low_ms)} to {number(level.high_ms)}",
        number(level.std_ms),
        number(level.p50_ms),
        number(level.p90_ms),
        number(level.p95_ms),
        number(level.p99_ms),
        str(level.requests) + (f" ({level.failures} failed)" if level.failures else ""),
        "yes" if level.stable else f"no: {level.unstable_because}",
        ""
        if check is None
        else f"{number(check.infer_per_s)} inferences/s, "
        f"{number(check.p50_ms)} ms p50" + (": differs" if check.agrees is False else ""),
    )


def _steps(result: BenchResult, index: int) -> Iterable[Table]:
    """Where a request spends its time at the lowest load, server by server."""
    level = min(result.levels, key=lambda level: level.key)
    shares = [(server, share) for server, items in level.servers.items() for share in items]
    if shares:
        yield table(
            f"bench-{index}-steps",
            f"Steps on every server (batch {level.batch}, load {number(level.offered)})",
            ("server", "Triton model", "requests", "queue ms", "input ms", "compute ms",
             "output ms"),
            [_share_row(server, share) for server, share in shares],
            Evidence("ms per request that the model answered", "measured (Triton's statistics)",
                     "the requests of each row", "Triton keeps sums only, no spread"),
            folded=True,
        )  # fmt: skip


def _share_row(server: str, share: ModelShare) -> tuple[str, ...]:
    return (
        server,
        share.model,
        str(share.requests),
        number(share.queue_ms),
        number(share.compute_input_ms),
        number(share.compute_infer_ms),
        number(share.compute_output_ms),
    )
