"""A scene as a picture, drawn by matplotlib: no browser is needed."""

from __future__ import annotations

import importlib.util
import io
import warnings
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from tritier.errors import InputError
from tritier.report.palette import Theme, colours
from tritier.report.scene import Box, Line, Scene, Text
from tritier.report.scene_svg import drawable
from tritier.report.text_size import text_width

_DPI = 150
_UNITS_PER_INCH = 96.0
_LEGEND_HEIGHT = 34.0
# A scene that is much higher than wide is cut into bands that stand side by side.
_HIGHEST_RATIO = 2.0
_BAND_GAP = 24.0
_MOST_BANDS = 24
_LARGEST_PIXELS = 7_000


def scene_picture(scene: Scene, kind: str, *, dark: bool = False) -> bytes:
    """The content of a PNG or PDF file; the same scene gives the same bytes.

    Raises InputError when matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("pictures need matplotlib: install it with pip install 'tritier[plots]'")
    from matplotlib.figure import Figure

    theme: Theme = "dark" if dark else "light"
    found = colours(theme)
    bands = _bands(scene)
    width = sum(band.width for band in bands) + (len(bands) - 1) * _BAND_GAP
    above = _LEGEND_HEIGHT if scene.legend else 0.0
    width, height = max(width, _legend_width(scene)), bands[0].height + above
    dpi = min(_DPI, _LARGEST_PIXELS * _UNITS_PER_INCH / max(width, height))
    figure = Figure(
        figsize=(width / _UNITS_PER_INCH, height / _UNITS_PER_INCH), dpi=dpi, facecolor=found["bg"]
    )
    x = 0.0
    for band in bands:
        axes = figure.add_axes((x / width, 0, band.width / width, band.height / height))
        _view(axes, band)
        _draw(axes, scene, found, band)
        x += band.width + _BAND_GAP
    if scene.legend:
        axes = figure.add_axes((0, bands[0].height / height, 1, above / height))
        _view(axes, _Band(0, width, 0, above))
        _draw_legend(axes, scene, found)
    return _saved(figure, kind)


@dataclass(frozen=True)
class _Band:
    """A part of a scene."""

    left: float
    right: float
    top: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


def _saved(figure: Any, kind: str) -> bytes:
    content = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else {"CreationDate": None, "Producer": None}
    with warnings.catch_warnings():
        # Names of layers may have characters that the font does not have: they become boxes.
        warnings.filterwarnings("ignore", message=".*missing from font.*")
        # Large pictures are mostly empty: more effort makes them later, hardly smaller.
        effort = {"pil_kwargs": {"compress_level": 4}} if kind == "png" else {}
        figure.savefig(
            content, format=kind, metadata=metadata, facecolor=figure.get_facecolor(), **effort
        )
    return content.getvalue()


def _bands(scene: Scene) -> list[_Band]:
    """The scene, or bands of it of equal height, so many that they are about as wide as high."""
    if scene.height <= _HIGHEST_RATIO * scene.width:
        return [_Band(0, scene.width, 0, scene.height)]
    bands: list[_Band] = []
    for count in range(1, _MOST_BANDS + 1):
        high = scene.height / count
        bands = [_cropped(scene, index * high, (index + 1) * high) for index in range(count)]
        if sum(band.width + _BAND_GAP for band in bands) >= high:
            break
    return bands


def _cropped(scene: Scene, top: float, bottom: float) -> _Band:
    """A band without what is empty at its left and right."""
    xs: list[float] = []
    for group in scene.groups:
        for shape in group.shapes:
            if isinstance(shape, Box) and shape.y < bottom and shape.y + shape.height > top:
                xs += [shape.x, shape.x + shape.width]
            elif isinstance(shape, Line):
                for (x, y), (to_x, to_y) in pairwise(shape.points):
                    if y < bottom and to_y > top:
                        xs += [x, to_x]
    if not xs:
        return _Band(0, _BAND_GAP, top, bottom)
    return _Band(min(xs) - _BAND_GAP / 2, max(xs) + _BAND_GAP / 2, top, bottom)


def _view(axes: Any, band: _Band) -> None:
    axes.set_xlim(band.left, band.right)
    axes.set_ylim(band.bottom, band.top)
    axes.axis("off")


def _draw(axes: Any, scene: Scene, found: dict[str, str], band: _Band) -> None:
    for group in scene.groups:
        for shape in group.shapes:
            if isinstance(shape, Box):
                if shape.y < band.bottom and shape.y + shape.height > band.top:
                    _draw_box(axes, shape, found)
            elif isinstance(shape, Line):
                ys = [y for _, y in shape.points]
                if min(ys) < band.bottom and max(ys) > band.top:
                    _draw_line(axes, shape, found)
            elif band.top <= shape.y <= band.bottom + shape.size:
                _draw_text(axes, shape, found)


def _draw_box(axes: Any, box: Box, found: dict[str, str]) -> None:
    from matplotlib.patches import FancyBboxPatch

    if box.hatch:
        return  # it is for views from far away
    rounded = f"round,pad=0,rounding_size={box.radius}" if box.radius else "square,pad=0"
    axes.add_artist(
        FancyBboxPatch(
            (box.x, box.y), box.width, box.height, boxstyle=rounded,
            facecolor=found[box.fill] if box.fill else "none",
            edgecolor=found[box.stroke] if box.stroke else "none",
            linewidth=_points(box.stroke_width) if box.stroke else 0,
            linestyle=(0, (3.5, 2)) if box.dashed else "-",
        )
    )  # fmt: skip


def _draw_line(axes: Any, line: Line, found: dict[str, str]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    (x, y), *rest = line.shaft
    points, codes = [(x, y)], [Path.MOVETO]
    for to_x, to_y in rest:
        if line.smooth and to_x != x:
            middle = (y + to_y) / 2
            points += [(x, middle), (to_x, middle), (to_x, to_y)]
            codes += [Path.CURVE4] * 3
        else:
            points.append((to_x, to_y))
            codes.append(Path.LINETO)
        x, y = to_x, to_y
    colour = found[line.stroke]
    axes.add_artist(
        FancyArrowPatch(
            path=Path(points, codes), color=colour, fill=False, linewidth=_points(line.width),
            arrowstyle="-", shrinkA=0, shrinkB=0,
            linestyle=(0, (4, 3)) if line.dashed else "-", capstyle="butt",
        )
    )  # fmt: skip
    if line.arrow:
        _draw_head(axes, line, colour)


def _draw_head(axes: Any, line: Line, colour: str) -> None:
    from matplotlib.patches import Polygon

    (tip_x, tip_y), (back_x, back_y) = line.points[-1], line.shaft[-1]
    x, y = (tip_x - back_x) / 2, (tip_y - back_y) / 2  # half as wide to each side as long
    corners = [(tip_x, tip_y), (back_x - y, back_y + x), (back_x + y, back_y - x)]
    axes.add_artist(Polygon(corners, closed=True, facecolor=colour, edgecolor="none"))


def _draw_text(axes: Any, text: Text, found: dict[str, str]) -> None:
    from matplotlib.patheffects import withStroke

    axes.text(
        text.x, text.y, drawable(text.text), fontsize=_points(text.size), color=found[text.role],
        ha={"start": "left", "middle": "center", "end": "right"}[text.anchor], va="baseline",
        fontweight="bold" if text.bold else "normal", parse_math=False, clip_on=True,
        path_effects=[withStroke(linewidth=_points(4), foreground=found[text.halo])] if text.halo
        else None,
    )  # fmt: skip


def _draw_legend(axes: Any, scene: Scene, found: dict[str, str]) -> None:
    x = 12.0
    for label, shape in scene.legend:
        if isinstance(shape, Box):
            _draw_box(axes, replace(shape, x=shape.x + x, y=shape.y + 9), found)
        else:
            points = tuple((a + x, b + 9) for a, b in shape.points)
            _draw_line(axes, replace(shape, points=points), found)
        _draw_text(axes, Text(x + 32, 21, label), found)
        x += 32 + text_width(label, 12) + 18


def _legend_width(scene: Scene) -> float:
    return 12.0 + sum(50 + text_width(label, 12) for label, _ in scene.legend)


def _points(units: float) -> float:
    """Points (1/72 inch) of so many units."""
    return units * 72 / _UNITS_PER_INCH
