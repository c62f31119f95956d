"""Pictures of the planner on the published cases.

    python -m benchmarks.planner_plots --plots FOLDER [--scaling FILE] [--only NAME ...]

- `pareto.png`: latency and energy of all best compromises, for some noise limits; rings are the
  recorded plans.
- `layers.png`: layers on each server against the noise limit; lines are the recorded plans.
- `device_energy.png`: where layers go as the energy of the device is limited, beside the recorded
  experiment. That was with other machines: limits are shares of what the device takes alone. Pale
  bars are the best placements known, of this or a lower limit, not proven.
- `scaling.png`: how long planning takes, beside the recorded medians. FILE is what
  `benchmarks.planner_scaling --json` wrote; without it, everything is measured once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.planner_published import per_server
from benchmarks.planner_scaling import scaled, sizes
from tests.helpers.published import SETTINGS, Recorded, fixture, problem, recorded_plans
from tritier.planner.objective import pareto_front, solve_weighted
from tritier.planner.problem import Limits, Weights
from tritier.planner.search import Search, solve
from tritier.planner.solution import Status

Bar = tuple[float, int, int, bool]  # share, layers on device and edge, proven
MODEL = "yolo11x-seg"
CASES = {
    "DeviceEdge-1cpu": "device and edge",
    "DeviceEdgeCloud": "device, edge and cloud",
}
COLOURS = ("#4477aa", "#ddaa33", "#bb5566")  # device, edge, cloud
NOISE = (0.0, 0.025, 0.05, 0.1, 0.2, 0.5)
SHADES = ("#888888", "#4477aa", "#66ccee", "#228833", "#ddaa33", "#bb5566")  # by noise
WEIGHTS = (1.0, 0.5, 0.0)
ENERGY_CASE, ENERGY_NOISE = "DeviceEdge-2cpu", 0.1  # where the device is best, but not by much
LIMITS, TIME_LIMIT_S = 16, 10.0  # of device energy
SHOWN_SERVERS = (1, 3, 6)


def recorded(case: str, weight: float | None = None) -> list[Recorded]:
    """The plans of a case, by noise limit."""
    found = [
        plan
        for plan in recorded_plans()
        if plan.case == case and weight in (None, plan.latency_weight)
    ]
    return sorted(found, key=lambda plan: plan.max_noise)


def pareto() -> Figure:
    """Fronts of two cases."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    grid = figure.subplots(1, 2)
    for axes, (case, title) in zip(grid, CASES.items(), strict=True):
        for noise, colour in zip(NOISE, SHADES, strict=True):
            points = pareto_front(Search(problem(MODEL, SETTINGS[case], max_noise=noise)))
            x = [point.costs.latency_ms / 1000 for point in points]
            y = [point.costs.energy_joule for point in points]
            axes.plot(x, y, "o-", color=colour, markersize=5, label=f"noise $\\leq$ {noise:g}")
        plans = [plan for plan in recorded(case) if plan.max_noise in NOISE]
        axes.plot(
            [plan.latency_ms / 1000 for plan in plans],
            [plan.energy_joule for plan in plans],
            "o", color="black", fillstyle="none", markersize=10, label="recorded",
        )  # fmt: skip
        axes.set(title=title, xlabel="latency (s)", ylabel="energy (J)")
        axes.grid(alpha=0.3)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    return figure


def layers() -> Figure:
    """A row per case, a column per weight."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    grid = figure.subplots(len(CASES), len(WEIGHTS), sharey=True)
    for row, (case, title) in zip(grid, CASES.items(), strict=True):
        for axes, weight in zip(row, WEIGHTS, strict=True):
            _bars(axes, case, weight)
            axes.set(title=f"{title}, $w_t$ = {weight:g}", xlabel="noise limit")
        row[0].set_ylabel("layers")
    handles, labels = grid[-1][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _bars(axes: Axes, case: str, weight: float) -> None:
    """Stacked by server; a line where the recorded plan changes from one server to the next."""
    plans = recorded(case, weight)
    places = np.arange(len(plans))
    setting = SETTINGS[case]
    ours, theirs = [], []
    for plan in plans:
        built = problem(MODEL, setting, max_noise=plan.max_noise)
        found, _ = solve_weighted(Search(built), weight)
        assert found.placement is not None
        ours.append(per_server(built, found.placement))
        theirs.append(per_server(built, plan.placement))
    base = np.zeros(len(plans))
    for k, server in enumerate(setting.servers):
        height = np.array(ours)[:, k]
        axes.bar(places, height, bottom=base, color=COLOURS[k], label=server)
        base += height
    for k in range(len(setting.servers) - 1):
        edge = np.array(theirs)[:, : k + 1].sum(axis=1)
        axes.hlines(edge, places - 0.45, places + 0.45, color="black", linewidth=1.5,
                    label="_" if k else "recorded")  # fmt: skip
    axes.set_xticks(places, [f"{plan.max_noise:g}" for plan in plans], rotation=45)


def device_energy() -> Figure:
    """Ours on the left, the recorded experiment on the right."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    built = problem(MODEL, SETTINGS[ENERGY_CASE], max_noise=ENERGY_NOISE)
    free = solve(built, Weights(0.0, 1.0))
    assert free.costs is not None
    alone = free.costs.server_energy_joule[0]
    rows: list[Bar] = []
    best, known_joule = None, np.inf
    for share in np.linspace(1 / LIMITS, 1.0, LIMITS):
        limits = Limits(server_energy_joule=(float(share) * alone, np.inf))
        found = solve(replace(built, limits=limits), Weights(0.0, 1.0), time_limit_s=TIME_LIMIT_S)
        if found.placement is not None and found.value < known_joule:
            best, known_joule = found.placement, found.value
        if best is not None:
            device, edge = per_server(built, best)
            rows.append((float(share), device, edge, found.status is Status.OPTIMAL))
    _areas(left, rows, f"here: least energy, alone {alone:.1f} J")
    table = fixture()["energy_limit"]
    unlimited = next(energy for limit, energy, _, _ in table if limit == 0)
    known: list[Bar] = [
        (limit / unlimited, int(device) - 2, int(edge), True)  # with generator and receiver
        for limit, energy, device, edge in table
        if limit > 0 and energy > 0
    ]
    _areas(right, known, f"recorded, alone {unlimited:.1f} J")
    left.set_ylabel("layers")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _areas(axes: Axes, rows: list[Bar], title: str) -> None:
    """Layers on device and edge against the limit."""
    x, device, edge, proven = (np.array(values) for values in zip(*rows, strict=True))
    width = 0.9 * float(np.diff(x).min())
    for some, alpha in ((proven, 1.0), (~proven, 0.55)):
        label = "" if alpha == 1 else "_"
        axes.bar(x[some], device[some], width=width, color=COLOURS[0], alpha=alpha,
                 label=label + "device")  # fmt: skip
        axes.bar(x[some], edge[some], width=width, bottom=device[some], color=COLOURS[1],
                 alpha=alpha, label=label + "edge")  # fmt: skip
    axes.set(title=title, xlabel="device energy limit / device alone", xlim=(0.0, 1.05))


def scaling(file: Path | None) -> Figure:
    """Chains on the left, random graphs on the right; ours solid, recorded dashed."""
    rows: list[dict[str, Any]]
    if file is None:
        wanted = [size for size in sizes(quick=False) if size[2] in SHOWN_SERVERS]
        rows = [asdict(scaled(*size, 1)) for size in wanted]
    else:
        rows = json.loads(file.read_text())["scaling"]
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("chain", "random"), strict=True):
        for servers, colour in zip(SHOWN_SERVERS, COLOURS, strict=True):
            some = [r for r in rows if r["kind"] == kind and r["servers"] == servers]
            x = [r["layers"] for r in some]
            ours = [r["build_s"] + r["solve_s"] + r["group_s"] for r in some]
            name = f"{servers} server" + "s" * (servers > 1)
            axes.plot(x, ours, "o-", color=colour, label=f"{name}, here")
            recorded_s = [r["published_s"] for r in some]
            axes.plot(x, recorded_s, "s--", color=colour, label=f"{name}, recorded")
        axes.set(title=f"{kind} graphs", xlabel="layers", yscale="log")
        axes.grid(alpha=0.3, which="both")
    first = figure.axes[0]
    first.set_ylabel("build, three solves, grouping (s)")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--plots", type=Path, required=True)
    parser.add_argument("--scaling", type=Path)
    names = ("pareto", "layers", "device_energy", "scaling")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    draw: dict[str, Callable[[], Figure]] = {
        "pareto": pareto,
        "layers": layers,
        "device_energy": device_energy,
        "scaling": lambda: scaling(options.scaling),
    }
    options.plots.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        path = options.plots / f"{name}.png"
        draw[name]().savefig(path, dpi=110)
        print(path)


if __name__ == "__main__":
    main()
