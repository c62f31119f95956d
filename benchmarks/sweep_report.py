"""Tables, pictures and conclusions of `super_resolution_sweep`, all from the results.

A conclusion is drawn only where the intervals of what it compares do not overlap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.kept import markdown
from tritier.documents import BenchLevel, BenchResult, ModelShare

# Published: (batch, concurrency) -> infer/s, mean ms.
PUBLISHED: dict[tuple[int, int], tuple[float, float | None]] = {
    (1, 1): (5.76, 171.9),
    (1, 3): (5.88, None),
    (1, 5): (5.82, None),
    (1, 7): (5.99, None),
    (1, 9): (5.87, None),
    (8, 1): (5.32, 1420.0),
}
Results = Mapping[str, BenchResult]


def rate_interval(level: BenchLevel) -> tuple[float, float]:
    """A 95 % interval of inferences per second: in a closed loop, load x batch over the mean
    latency, with the interval of that."""
    share = (level.high_ms - level.low_ms) / 2 / level.mean_ms if level.mean_ms else 0.0
    return level.infer_per_s * (1 - share), level.infer_per_s * (1 + share)


def differ(one: BenchLevel, other: BenchLevel) -> bool:
    """Whether their throughputs are surely different."""
    (low, high), (low2, high2) = rate_interval(one), rate_interval(other)
    return high < low2 or high2 < low


def best_of(levels: Iterable[BenchLevel]) -> BenchLevel | None:
    """The lowest load whose throughput is not surely less than the highest: more load only waits
    longer. Of stable levels; None if there is none."""
    stable = [level for level in levels if level.stable]
    if not stable:
        return None
    highest = max(stable, key=lambda level: level.infer_per_s)
    as_good = (level for level in stable if level is highest or not differ(level, highest))
    return min(as_good, key=lambda level: level.offered)


def service_ms(level: BenchLevel) -> dict[str, float]:
    """Server -> ms of computing per image, of all its models that compute; of those servers that
    count executions."""
    found = {}
    for server, shares in level.servers.items():
        work = [item for item in shares if _computes(item) and item.requests]
        times = [item.executing_ms for item in work]
        if work and None not in times:
            images = [level.batch * item.requests for item in work]
            found[server] = sum(x / n for x, n in zip(times, images, strict=True) if x is not None)
    return found


def run_batch(level: BenchLevel) -> float | None:
    """Images per execution of the first component, which tells what Triton batched itself."""
    work = [item for shares in level.servers.values() for item in shares if _computes(item)]
    return _images(level, work[0]) if work else None


def _computes(item: ModelShare) -> bool:
    """Whether it is a component: those have an id at the end of their names."""
    return re.search(r"__c[0-9]+$", item.model) is not None


def _images(level: BenchLevel, item: ModelShare) -> float:
    """Images per execution."""
    return level.batch * item.requests / item.executions if item.executions else level.batch


def table(results: Results) -> str:
    """A line per level, with what was published for the same load."""
    lines = []
    for kind, result in results.items():
        for level in result.levels:
            known = PUBLISHED.get((level.batch, int(level.offered)))
            shown = "" if known is None else f"{known[0]:.2f}"
            if known and known[1]:
                shown += f" ({known[1]:g} ms)"
            services = ", ".join(f"{k} {v:.1f}" for k, v in service_ms(level).items())
            images = run_batch(level)
            lines.append(
                (
                    kind,
                    level.batch,
                    f"{level.offered:g}",
                    "yes" if level.stable else f"no: {level.unstable_because}",
                    level.requests,
                    f"{level.infer_per_s:.2f}",
                    f"{level.mean_ms:.1f}",
                    f"{level.low_ms:.1f} to {level.high_ms:.1f}",
                    f"{level.p50_ms:.1f}",
                    f"{level.p95_ms:.1f}",
                    f"{level.p99_ms:.1f}",
                    services,
                    _check(level),
                    "" if images is None else f"{images:.2f}",
                    shown,
                )
            )
    columns = ("model", "batch", "concurrency", "stable", "n", "infer/s", "mean ms",
               "95 % interval", "p50", "p95", "p99", "computing ms per image", "check",
               "images a run",
               "published infer/s")  # fmt: skip
    return markdown(columns, lines)


def _check(level: BenchLevel) -> str:
    """The same load by this tool's own generator: by how much it differs."""
    if level.check is None:
        return ""
    return f"{100 * level.check.difference:.1f} %" + ("" if level.check.agrees else ": differs")


def conclusions(results: Results, dropped: Mapping[str, Sequence[str]] | None = None) -> str:
    """What the data says, as a list. `dropped` has, by kind, what was measured and was unstable
    before it was measured again."""
    found: list[str] = []
    for kind, result in results.items():
        found += _of(kind, result, (dropped or {}).get(kind, ()))
    for kind, result in results.items():
        if kind != "whole" and "whole" in results:
            found += _split(kind, results["whole"], result)
    return "".join(f"- {line}\n" for line in found)


def _of(kind: str, result: BenchResult, dropped: Sequence[str]) -> Iterator[str]:
    unstable = [level for level in result.levels if not level.stable]
    count = len(result.levels)
    if unstable:
        names = ", ".join(f"batch {x.batch} at {x.offered:g}" for x in unstable)
        yield (
            f"{kind}: {len(unstable)} of {count} levels did not become stable and are left out "
            f"below: {names}."
        )
    else:
        yield f"{kind}: all {count} levels are stable."
    if dropped:
        yield f"{kind}: unstable at first, and measured again: {', '.join(dropped)}."
    odd = [x for x in result.levels if x.check is not None and not x.check.agrees]
    if odd:
        names = ", ".join(f"batch {x.batch} at {x.offered:g}" for x in odd)
        yield f"{kind}: this tool's own generator finds another figure for {names}."
    stable = [level for level in result.levels if level.stable]
    best = {}
    for batch in sorted({level.batch for level in stable}):
        levels = [level for level in stable if level.batch == batch]
        chosen = best_of(levels)
        assert chosen is not None
        best[batch] = chosen
        yield (
            f"{kind}, batch {batch}: {_rate(chosen)} infer/s at concurrency {chosen.offered:g}, "
            "the lowest whose throughput is not surely less than the highest; mean latency there "
            f"{chosen.mean_ms:.0f} ms ({chosen.low_ms:.0f} to {chosen.high_ms:.0f})."
        )
        yield from _more_load(kind, levels)
    if 1 in best and 8 in best:
        yield _batching(kind, best[1], best[8], {x.key: x for x in stable})


def _rate(level: BenchLevel) -> str:
    low, high = rate_interval(level)
    return f"{level.infer_per_s:.2f} ({low:.2f} to {high:.2f})"


def _times(one: BenchLevel, other: BenchLevel) -> str:
    """The throughput of one over that of another, with what their intervals allow."""
    (low, high), (low2, high2) = rate_interval(one), rate_interval(other)
    ratio = one.infer_per_s / other.infer_per_s
    return f"{ratio:.2f} times ({low / high2:.2f} to {high / low2:.2f})"


def _more_load(kind: str, levels: Sequence[BenchLevel]) -> Iterator[str]:
    first, last = levels[0], levels[-1]
    if first is last:
        return
    waits = f"{last.mean_ms / first.mean_ms:.1f} times the mean latency"
    what = f"{kind}, batch {first.batch}: concurrency {last.offered:g} makes"
    if differ(first, last):
        yield f"{what} {_times(last, first)} the throughput of {first.offered:g}, and {waits}."
    else:
        yield f"{what} no sure difference in throughput to {first.offered:g}, and {waits}."


def _batching(
    kind: str, one: BenchLevel, eight: BenchLevel, levels: Mapping[tuple[int, float], BenchLevel]
) -> str:
    """Computing per image is told of one request at a time: of more, Triton makes batches."""
    parts = []
    for batch, what in ((1, "alone"), (8, "in a batch of 8")):
        level = levels.get((batch, 1.0))
        spent = sum(service_ms(level).values()) if level else 0.0
        if spent:
            parts.append(f"{spent:.1f} ms {what}")
    told = f" Computing per image at concurrency 1: {', '.join(parts)}." if parts else ""
    if not differ(one, eight):
        return f"{kind}: batches of 8 make no sure difference in throughput.{told}"
    pays = "pay" if eight.infer_per_s > one.infer_per_s else "do not pay"
    return (
        f"{kind}: batches of 8 {pays}: {_times(eight, one)} the throughput, "
        f"{eight.mean_ms / one.mean_ms:.1f} times the mean latency.{told}"
    )


def _split(kind: str, whole: BenchResult, split: BenchResult) -> Iterator[str]:
    cores = whole.environment.cores
    for batch in sorted({level.batch for level in whole.levels}):
        single = best_of(level for level in whole.levels if level.batch == batch)
        double = best_of(level for level in split.levels if level.batch == batch)
        if single is None or double is None:
            continue
        times = service_ms(double)
        parts = ", ".join(f"{server} {ms:.1f} ms" for server, ms in times.items())
        answers = (
            f"answers {_times(double, single)} as many as the whole"
            if differ(double, single)
            else f"answers as many as the whole, as far as can be told ({_times(double, single)})"
        )
        told = ""
        if times:
            busy = 1000 / max(times.values())
            told = f"; computing per image: {parts}; the slower half allows {busy:.1f} a second"
        yield f"{kind}, batch {batch}: {answers} (a thread per component, {cores} cores){told}."


def write_plots(results: Results, folder: Path) -> None:
    """Throughput and latency against concurrency."""
    for name, label in (("throughput", "inferences per second"), ("latency", "ms")):
        figure = Figure(figsize=(8.5, 4.5), layout="constrained")
        axes = figure.subplots()
        for kind, result in results.items():
            for batch in sorted({level.batch for level in result.levels}):
                levels = [level for level in result.levels if level.batch == batch]
                _line(
                    axes, name, levels, f"{kind}, batch {batch}", "-" if kind == "whole" else "--"
                )
        if name == "throughput":
            published = [(c, rate) for (b, c), (rate, _) in PUBLISHED.items() if b == 1]
            axes.plot(*zip(*published, strict=True), marker="x", color="grey", linestyle=":",
                      label="published, batch 1")  # fmt: skip
            axes.set_ylim(bottom=0)
        else:
            axes.set_yscale("log")
        axes.set(xlabel="concurrency", ylabel=label)
        figure.legend(loc="outside right center", fontsize=8)  # lines are everywhere inside
        figure.savefig(folder / f"{name}.png", dpi=120)


def _line(axes: object, name: str, levels: list[BenchLevel], label: str, style: str) -> None:
    loads = [level.offered for level in levels]
    draw = axes.plot  # type: ignore[attr-defined]
    if name == "throughput":
        draw(loads, [x.infer_per_s for x in levels], marker="o", linestyle=style, label=label)
    else:
        (line,) = draw(loads, [x.p50_ms for x in levels], marker="o", linestyle=style,
                       label=f"{label}, p50")  # fmt: skip
        draw(loads, [x.p99_ms for x in levels], marker=".", linestyle=":", color=line.get_color(),
             label=f"{label}, p99")  # fmt: skip
