"""Charts as PNG and SVG files, by matplotlib."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

from tritier.errors import InputError
from tritier.report.drawing import Drawing
from tritier.report.palette import colours
from tritier.report.parts import Chart, Report, Series
from tritier.report.picture_files import drawable, plain_texts, saved
from tritier.report.plotting import on_its_side, role

_MARKERS = {"circle": "o", "diamond": "D", "square": "s", "star": "*", "cross": "X"}
_KINDS: tuple[Literal["png", "svg"], ...] = ("png", "svg")


def require_pictures() -> None:
    """Raise InputError if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--figures needs matplotlib: install it with pip install 'tritier[plots]'")


def render_pictures(report: Report) -> dict[str, bytes]:
    """File name -> content: each chart and drawing as PNG and SVG."""
    found = {}
    for figure in report.figures:
        for kind in _KINDS:
            content = figure.picture(kind) if isinstance(figure, Drawing) else picture(figure, kind)
            found[f"{figure.id}.{kind}"] = content
    return found


def picture(chart: Chart, kind: Literal["png", "svg"]) -> bytes:
    """One chart as the content of a file, with its title and where its figures are from."""
    from matplotlib.figure import Figure  # only here: it takes long to import

    with plain_texts(**{"font.size": 10}):
        side = on_its_side(chart)
        names = list(dict.fromkeys(str(x) for s in chart.series for x in s.x))
        height = max(3.2, 1.6 + 0.34 * len(names)) if side else 4.4
        figure = Figure(figsize=(8, height), layout="constrained")
        axes = figure.subplots()
        for index, series in enumerate(chart.series):
            _draw(axes, chart, series, index, names, side)
        _dress(axes, chart, names, side)
        figure.suptitle(drawable(chart.title), x=0.01, ha="left", fontsize=12, fontweight="bold")
        figure.supxlabel(_wrapped(drawable(chart.evidence.line)), x=0.01, ha="left", fontsize=7)
        return saved(figure, kind, dpi=150)


def _draw(
    axes: Any, chart: Chart, series: Series, index: int, names: list[str], side: bool
) -> None:
    colour = colours("light")[role(series)]
    if series.kind == "bars":
        _draw_bars(axes, chart, series, index, names, side, colour)
        return
    marker = _MARKERS[series.symbol]
    if series.kind == "line":
        drawn = "steps-post" if series.steps else "default"
        axes.plot(series.x, series.y, "--" if series.dashed else "-", color=colour, linewidth=1.6,
                  drawstyle=drawn)  # fmt: skip
    marker = "" if series.steps else marker
    hollow = series.hollow or (False,) * len(series.x)
    for doubt in (False, True):
        chosen = [k for k, value in enumerate(hollow) if value == doubt]
        if chosen:
            axes.plot(
                [series.x[k] for k in chosen], [series.y[k] for k in chosen], marker,
                color=colour, markerfacecolor="none" if doubt else colour,
                markersize=13 if marker == "*" else 6,
            )  # fmt: skip
    if series.low:
        axes.errorbar(series.x, series.y, yerr=_ends(series), fmt="none", ecolor=colour, capsize=3)
    style = "--" if series.dashed else "-"
    axes.plot([], [], marker=marker, linestyle=style if series.kind == "line" else "none",
              color=colour, label=drawable(series.name))  # fmt: skip


def _draw_bars(
    axes: Any, chart: Chart, series: Series, index: int, names: list[str], side: bool, colour: str
) -> None:
    all_names = [x for one in chart.series for x in one.x]
    beside = len(all_names) != len(set(all_names))
    width = 0.8 / len(chart.series) if beside else 0.8
    shift = (index - (len(chart.series) - 1) / 2) * width if beside else 0.0
    places = [names.index(str(x)) + shift for x in series.x]
    ends = _ends(series) if series.low else None
    hollow = series.hollow or (False,) * len(places)
    if side:
        bars = axes.barh(
            places, series.y, width, xerr=ends, color=colour, label=drawable(series.name)
        )
    else:
        bars = axes.bar(
            places, series.y, width, yerr=ends, color=colour, label=drawable(series.name)
        )
    for bar, doubt in zip(bars, hollow, strict=True):
        bar.set_edgecolor(colour)
        if doubt:
            bar.set_facecolor("white")
            bar.set_hatch("///")


def _ends(series: Series) -> list[list[float]]:
    return [
        [value - low for value, low in zip(series.y, series.low, strict=True)],
        [high - value for value, high in zip(series.y, series.high, strict=True)],
    ]


def _dress(axes: Any, chart: Chart, names: list[str], side: bool) -> None:
    """Labels, ticks, marks, legend."""
    axes.set_axisbelow(True)
    axes.grid(alpha=0.3, axis="x" if side else "y" if chart.x.kind == "category" else "both")
    across, up = ("y", "x") if side else ("x", "y")
    if not side:
        axes.set_xlabel(drawable(chart.x.label))
    getattr(axes, f"set_{up}label")(drawable(chart.y.label))
    if chart.x.kind == "category":
        getattr(axes, f"set_{across}ticks")(range(len(names)), [drawable(name) for name in names])
        if side:
            axes.invert_yaxis()
    if chart.x.kind == "log":
        axes.set_xscale("log", base=2)
        ticks = sorted({x for s in chart.series for x in s.x if not isinstance(x, str)})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
    elif chart.x.from_zero:
        axes.set_xlim(left=0)
    if chart.y.from_zero:
        getattr(axes, f"set_{up}lim")(0)
    for mark in chart.marks:
        (axes.axvline if side else axes.axhline)(
            mark.y, linestyle=":", color=colours("light")["accent"], label=drawable(mark.text)
        )
    if len(chart.series) > 1 or chart.marks:
        axes.legend(fontsize=8)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)


def _wrapped(text: str, width: int = 150) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
