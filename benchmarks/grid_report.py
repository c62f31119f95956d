"""The tables and heat maps of `baseline_grid`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.grid_cells import (
    ALL,
    FAMILIES,
    FASTER,
    NEVER_WORSE,
    SHARE,
    Cell,
    Verdict,
    heat,
    outcome,
    verdict,
)
from benchmarks.kept import markdown
from tritier.workflow.compare_rounds import interval_text

Measured = Mapping[Cell, Mapping[str, Any]]


def verdicts_of(measured: Measured) -> dict[str, dict[Cell, Verdict]]:
    """By family of baselines and cell."""
    return {
        family: {cell: verdict(family, data) for cell, data in measured.items()}
        for family in (ALL, *FAMILIES)
    }


def describe(family: str) -> str:
    """What baselines of a family use."""
    return "the best of all baselines" if family == ALL else f"baselines with {FAMILIES[family]}"


def summary(measured: Measured) -> str:
    """What it comes to, then a line for each cell."""
    found = verdicts_of(measured)
    lines = []
    for family, cells in found.items():
        all_of = outcome(list(cells.values()))
        lines.append(
            (
                family,
                describe(family),
                all_of.cells,
                f"{100 * (1 / all_of.worst - 1):+.1f} %",
                all_of.never_worse,
                f"{100 * all_of.faster:.0f} %",
                all_of.often_faster,
                f"{100 * all_of.same:.0f} %",
                f"{all_of.median:.2f}",
            )
        )
    columns = ("baselines", "what they use", "cells", "plan slower at most",
               f"<= {NEVER_WORSE:.0%}", f"cells with {FASTER:.0%} less time", f">= {SHARE:.0%}",
               "plan is a baseline", "median ratio")  # fmt: skip
    return "\n".join([markdown(columns, lines, left=2), _noise(measured), _each(measured, found)])


def _noise(measured: Measured) -> str:
    """How many answers keep the limit that the planner kept by prediction."""
    all_of = [
        (item["noise"], data["noise_limit"])
        for data in measured.values()
        for item in data["variants"].values()
        if item["family"] != "raw"
    ]
    kept = sum(noise <= limit for noise, limit in all_of)
    return (
        f"Noise on the picture that was sent, which nothing was fitted to: {kept} of "
        f"{len(all_of)} plans and coded baselines keep the limit of {all_of[0][1]:.4f}; at most "
        f"{max(noise for noise, _ in all_of):.4f}.\n"
    )


def _each(measured: Measured, found: Mapping[str, Mapping[Cell, Verdict]]) -> str:
    lines = []
    for cell, data in sorted(measured.items(), key=lambda x: (x[0].slowdown, x[0].uplink_mb_s)):
        raw, coded = found["raw"][cell], found["coded"][cell]
        lines.append(
            (
                f"{cell.slowdown:g}",
                f"{cell.uplink_mb_s:g}",
                data["variants"]["plan"]["where"],
                f"{data['variants']['plan']['predicted_ms']:.1f}",
                f"{raw.plan_ms:.1f}",
                f"{data['variants']['plan']['noise']:.4f}",
                *_against(raw),
                *_against(coded),
            )
        )
    columns = ("slow-down", "uplink MB/s", "plan", "predicted ms", "measured ms", "noise",
               "best raw", "ms", "ratio", "n", "best coded", "ms", "ratio", "n")  # fmt: skip
    return markdown(columns, lines, left=3)


def _against(item: Verdict) -> tuple[str, ...]:
    ratio = "1 (the same)"
    if not item.is_baseline:
        ratio = f"{item.ratio:.3f} ({interval_text(item.n, item.low, item.high, 3)})"
    return item.best, f"{item.best_ms:.1f}", ratio, str(item.n)


def write_heat_map(
    found: Mapping[Cell, Verdict],
    uplinks: Sequence[float],
    slowdowns: Sequence[float],
    title: str,
    path: Path,
) -> None:
    """The time of the best baseline over that of the plan, in every cell."""
    ratios = np.array(heat(found, uplinks, slowdowns))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    reach = max(0.2, float(np.nanmax(np.abs(np.log2(ratios)))))
    image = axes.imshow(
        np.log2(ratios), cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto", origin="lower"
    )
    for row, slowdown in enumerate(slowdowns):
        for column, uplink in enumerate(uplinks):
            value = ratios[row, column]
            if np.isnan(value):
                continue
            same = found[Cell(uplink, slowdown)].is_baseline
            dark = abs(np.log2(value)) > 0.6 * reach
            axes.text(
                column, row, "=" if same else f"{value:.2f}", ha="center", va="center", fontsize=9,
                color="white" if dark else "black",
            )  # fmt: skip
    axes.set_xticks(range(len(uplinks)), [f"{x:g}" for x in uplinks])
    axes.set_yticks(range(len(slowdowns)), [f"{x:g}" for x in slowdowns])
    axes.set(xlabel="uplink of the device, MB/s", ylabel="slow-down of the device")
    figure.suptitle(title, fontsize=10)  # over the whole width: names of families are long
    bar = figure.colorbar(
        image, ax=axes, label="best baseline / plan (above 1: the plan is faster)"
    )
    ticks = np.linspace(-reach, reach, 5)
    bar.set_ticks(list(ticks), labels=[f"{2**x:.2f}" for x in ticks])
    figure.savefig(path, dpi=120)
