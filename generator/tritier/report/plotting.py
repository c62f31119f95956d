"""Charts for the page: traces and layouts of plotly, as plain data.

Colours are written as `--tt-...`; the page's script puts the theme's colour there.
"""

from __future__ import annotations

import html
from typing import Any

from tritier.report.palette import SERVER_COLOURS
from tritier.report.parts import Axis, Chart, Mark, Series, Value

_COLOURS = len(SERVER_COLOURS["light"])
_WIDE_LABELS = 12  # bars with longer names lie on their side


def role(series: Series) -> str:
    """The palette's role of a series."""
    return f"s{series.colour % _COLOURS}"


def on_its_side(chart: Chart) -> bool:
    """Whether bars go from left to right, as their names are long."""
    names = [x for series in chart.series for x in series.x if isinstance(x, str)]
    return any(len(name) > _WIDE_LABELS for name in names)


def plot(chart: Chart) -> dict[str, Any]:
    """What `Plotly.newPlot` takes: `data` and `layout`."""
    side = on_its_side(chart)
    bars = chart.x.kind == "category"
    names = list(dict.fromkeys(plain(x) for s in chart.series for x in s.x)) if bars else []
    across, up = _axis(chart.x), _axis(chart.y)
    ticks = sorted({x for s in chart.series for x in s.x if not isinstance(x, str)})
    if bars:
        across |= {"categoryorder": "array", "categoryarray": names[:: -1 if side else 1]}
    elif 0 < len(ticks) <= 12 and all(float(x).is_integer() for x in ticks):
        across |= {"tickvals": ticks, "ticktext": [f"{x:g}" for x in ticks]}
    layout: dict[str, Any] = {
        "xaxis": up if side else across,
        "yaxis": across if side else up,
        "shapes": [_line(mark, side) for mark in chart.marks],
        "annotations": [_text(mark, side) for mark in chart.marks],
        "height": max(300, 90 + 34 * len(names)) if side else 380,
        "barmode": "overlay" if _one_bar_each(chart) else "group",
        "showlegend": len(chart.series) > 1,
    }
    if side:
        layout["yaxis"].pop("title")
        layout["yaxis"]["automargin"] = True
    return {"data": [_trace(series, side) for series in chart.series], "layout": layout}


def plain(value: Value) -> Value:
    """A text that plotly shows as it is: it would take tags for markup."""
    return html.escape(value, quote=False) if isinstance(value, str) else value


def _one_bar_each(chart: Chart) -> bool:
    names = [x for series in chart.series for x in series.x]
    return len(names) == len(set(names))


def _axis(axis: Axis) -> dict[str, Any]:
    found: dict[str, Any] = {"title": {"text": plain(axis.label)}, "type": axis.kind}
    if axis.from_zero:
        found["rangemode"] = "tozero"
    return found


def _trace(series: Series, side: bool) -> dict[str, Any]:
    colour = f"--tt-{role(series)}"
    hollow = series.hollow or (False,) * len(series.x)
    x, y = [plain(value) for value in series.x], list(series.y)
    notes = [plain(text) for text in series.notes]
    found: dict[str, Any] = {
        "name": plain(series.name),
        "x": y if side else x,
        "y": x if side else y,
        "customdata": notes or [""] * len(x),
        "hovertemplate": "%{x}<br>%{y}<br>%{customdata}" if any(notes) else "%{x}<br>%{y}",
    }
    if series.low:
        ends = {
            "type": "data", "symmetric": False, "color": "--tt-ink" if series.kind == "bars"
            else colour, "thickness": 1.5, "width": 5,
            "array": [high - value for high, value in zip(series.high, y, strict=True)],
            "arrayminus": [value - low for low, value in zip(series.low, y, strict=True)],
        }  # fmt: skip
        found["error_x" if side else "error_y"] = ends
    if series.kind == "bars":
        found |= {"type": "bar", "orientation": "h" if side else "v", "marker": {
            "color": ["--tt-bg" if doubt else colour for doubt in hollow],
            "line": {"color": colour, "width": 2},
            "pattern": {"shape": ["/" if doubt else "" for doubt in hollow], "size": 8,
                        "fgcolor": [colour] * len(x), "solidity": 0.25},
        }}  # fmt: skip
        return found
    found |= {
        "type": "scatter",
        "mode": "markers"
        if series.kind == "points"
        else "lines"
        if series.steps
        else "lines+markers",
        "line": {
            "color": colour,
            "width": 2,
            "dash": "dash" if series.dashed else "solid",
            "shape": "hv" if series.steps else "linear",
        },
        "marker": {
            "symbol": [f"{series.symbol}-open" if doubt else series.symbol for doubt in hollow],
            "color": colour,
            "size": 16 if series.symbol == "star" else 9,
            "line": {"color": colour, "width": 2},
        },
    }
    return found


def _line(mark: Mark, side: bool) -> dict[str, Any]:
    span = {"xref": "paper", "x0": 0, "x1": 1, "y0": mark.y, "y1": mark.y}
    if side:
        span = {"yref": "paper", "y0": 0, "y1": 1, "x0": mark.y, "x1": mark.y}
    return {"type": "line", "line": {"color": "--tt-accent", "width": 2, "dash": "dot"}, **span}


def _text(mark: Mark, side: bool) -> dict[str, Any]:
    place: dict[str, Any] = {"xref": "paper", "x": 1, "y": mark.y, "xanchor": "right",
                             "yanchor": "bottom"}  # fmt: skip
    if side:
        place = {"yref": "paper", "y": 1, "x": mark.y, "xanchor": "left", "yanchor": "top"}
    return {"text": plain(mark.text), "showarrow": False, "font": {"color": "--tt-accent"}, **place}
