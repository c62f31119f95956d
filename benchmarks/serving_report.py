"""The table and the picture of `serving_overhead`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.kept import markdown
from tritier.workflow.compare_rounds import interval_text

ENTRY_SHARE, ENTRY_MS, SPLIT_RATIO, PIPELINE_SPEEDUP = 0.05, 2.0, 1.05, 1.6
LEAST_WINDOWS = 3  # one or two say nothing of how much windows differ
PAST_ENSEMBLE = "whole, past the ensemble"
SHARED = "whole, by shared memory"
FLOOR = "floor: a model that only returns tensors of these sizes"
Found = Mapping[str, Mapping[str, Any]]


def summary(found: Found) -> str:
    """Tables of all models, each with what was promised and whether it was kept."""
    return "\n".join(
        [f"### {name}\n\n{_split(parts['split'])}\n{_pipeline(parts['pipeline'])}"
         for name, parts in found.items()]
    )  # fmt: skip


def _split(rows: Mapping[str, Any]) -> str:
    lines = []
    for kind, row in rows.items():
        cut = row["cut"]
        lines.append(
            (
                kind,
                row["n"],
                f"{row['median_ms']:.2f}",
                interval_text(row["n"], row["low_ms"], row["high_ms"]),
                f"{row['p90_ms']:.2f}",
                "" if row["components_ms"] is None else f"{row['components_ms']:.2f}",
                "" if kind in ("in process", FLOOR) else f"{row['added_ms']:+.2f}",
                ""
                if kind in ("in process", FLOOR)
                else "{paired_ratio:.3f} ({ratio_low:.3f} to {ratio_high:.3f})".format(**row),
                "" if cut is None else f"{cut['crossing_bytes'] / 2**20:.2f}",
                promise(kind, rows),
            )
        )
    columns = ("request", "n", "median ms", "95 % interval", "p90 ms",
               "components ms (mean)", "added ms", "ratio", "MiB cut", "goal")  # fmt: skip
    return markdown(columns, lines)


def promise(kind: str, rows: Mapping[str, Any]) -> str:
    """What holds of a row: the promise, and whether it is kept."""
    row = rows[kind]
    if kind in ("in process", PAST_ENSEMBLE, FLOOR):
        return ""
    if kind in ("whole", SHARED):
        limit_ms = ENTRY_SHARE * rows["in process"]["median_ms"] + ENTRY_MS
        return f"<= +{limit_ms:.2f} ms: {judged(row['added_low'], row['added_high'], limit_ms)}"
    return f"<= {SPLIT_RATIO}: {judged(row['ratio_low'], row['ratio_high'], SPLIT_RATIO)}"


def judged(low: float, high: float, limit: float) -> str:
    """Whether what lies in an interval is within a limit."""
    return "kept" if high <= limit else "missed" if low > limit else "undecided"


def _pipeline(found: Mapping[str, Any]) -> str:
    lines = []
    for kind, levels in found["levels"].items():
        for level, row in levels.items():
            told = ""
            if int(level) >= 4:
                least, most = row["speedup_from_to"]
                kept = "kept" if least >= PIPELINE_SPEEDUP else "undecided"
                kept = "missed" if most < PIPELINE_SPEEDUP else kept
                if row["n"] < LEAST_WINDOWS:
                    kept = f"undecided (of {row['n']} windows)"
                told = f">= {PIPELINE_SPEEDUP}: {kept}"
            lines.append(
                (
                    kind,
                    level,
                    row["n"],
                    f"{row['infer_per_s']:.2f}",
                    f"{row['least_per_s']:.2f} to {row['most_per_s']:.2f}",
                    "{:.2f} ({:.2f} to {:.2f})".format(row["speedup"], *row["speedup_from_to"]),
                    f"{row['beside_whole']:.2f}",
                    " + ".join("?" if x is None else f"{x:.1f}" for x in row["stage_ms"]),
                    f"{found['cut']['crossing_bytes'] / 2**20:.2f}",
                    told,
                )
            )
    columns = ("pipeline", "concurrency", "windows", "infer/s", "from to", "speed-up",
               "beside one core", "stages ms per image", "MiB cut", "goal")  # fmt: skip
    return markdown(columns, lines)


def write_plot(found: Found, path: Path) -> None:
    """Throughput of the pipelines against concurrency."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, parts in found.items():
        for kind, rows in parts["pipeline"]["levels"].items():
            levels = sorted(map(int, rows))
            speedups = [rows[str(x)]["speedup"] for x in levels]
            axes.plot(levels, speedups, marker="o", label=f"{name}, {kind}")
    axes.axhline(PIPELINE_SPEEDUP, color="grey", linestyle="--", linewidth=1)
    axes.set_xlabel("concurrency")
    axes.set_ylabel("throughput beside concurrency 1")
    axes.set_title("Two stages on a core each")
    axes.legend()
    figure.savefig(path, dpi=120)
