"""A scene: boxes, lines and texts, of which the SVG and the matplotlib picture are both made.

Coordinates go right and down from the upper left corner; a unit is a CSS pixel at zoom 1. Colours
are named by their role in the palette: 'ink', 'line', 's0', 's0-soft', ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Box:
    """A rectangle, by its upper left corner. `hatch` is the role of its stripes: one that has it
    has nothing else, and is seen only from far away."""

    x: float
    y: float
    width: float
    height: float
    fill: str | None = None
    stroke: str | None = None
    stroke_width: float = 1.5
    radius: float = 0.0
    dashed: bool = False
    hatch: str | None = None
    kind: str = ""  # a class of its own, for CSS


@dataclass(frozen=True)
class Line:
    """A line through points: straight pieces, or pieces that start and end going down."""

    points: tuple[Point, ...]
    stroke: str = "line"
    width: float = 1.5
    arrow: bool = False  # its tip stands at the last point
    dashed: bool = False
    smooth: bool = False
    kind: str = ""

    @property
    def head(self) -> float:
        """Length and width of the arrow's head."""
        return 0.0 if not self.arrow else 8.0 if self.width < 2.5 else 13.0

    @property
    def shaft(self) -> tuple[Point, ...]:
        """The points without the arrow's head."""
        (x, y), (to_x, to_y) = self.points[-2:]
        if self.smooth:  # it comes from above
            return (*self.points[:-1], (to_x, to_y - self.head))
        share = self.head / (math.hypot(to_x - x, to_y - y) or 1.0)
        return (*self.points[:-1], (to_x - share * (to_x - x), to_y - share * (to_y - y)))


@dataclass(frozen=True)
class Text:
    """One line of text; `y` is its base line. `halo` is the role of a rim that keeps lines behind
    it away from it."""

    x: float
    y: float
    text: str
    role: str = "ink"
    size: float = 12.0
    anchor: Anchor = "start"
    bold: bool = False
    halo: str | None = None


Shape = Box | Line | Text


@dataclass(frozen=True)
class Group:
    """Shapes that belong together. `title` is shown where the mouse rests; `data` are numbers for
    the script (`row`: its row of the table)."""

    shapes: tuple[Shape, ...]
    title: str = ""
    kind: str = ""
    data: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Scene:
    """What is drawn, from back to front. `legend` is drawn above it in pictures, and beside it in
    pages."""

    width: float
    height: float
    groups: tuple[Group, ...]
    legend: tuple[tuple[str, Box | Line], ...] = ()
