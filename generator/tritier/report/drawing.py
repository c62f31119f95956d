"""A drawing of the report: a picture with its text alternative, script and style."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from tritier.report.palette import theme_css
from tritier.report.scene import Scene
from tritier.report.scene_svg import escaped, scene_svg, swatch_svg

Picture = Literal["png", "svg", "pdf"]


@dataclass(frozen=True)
class Table:
    """What a drawing shows, as text: every row has a text for each column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), "a row misses a column"


@dataclass(frozen=True)
class Drawing:
    """One drawing. `id` is unique on a page and safe in HTML and file names.

    A page takes `html` of each drawing, and once the different `style` and `script` of them all.
    With `zoom`, the drawing has a search field and can be zoomed and moved, and a click on a group
    of the scene with data `row` shows that row of the table. Without, it is as wide as the page has
    room, but not narrower than `minimum_width` pixels, where its text can still be read.
    """

    id: str
    title: str
    caption: str
    scene: Scene
    table: Table
    zoom: bool = False
    minimum_width: int = 0

    @property
    def svg(self) -> str:
        """The picture as an SVG element, to stand in a page that has `style`."""
        return scene_svg(self.scene, self.id, self.title, self.caption)

    @property
    def svg_file(self) -> str:
        """The picture as a file of its own, light or dark as the viewer prefers."""
        return scene_svg(self.scene, self.id, self.title, self.caption, self.style)

    @property
    def style(self) -> str:
        """CSS, the same for all drawings."""
        return theme_css() + asset("drawing.css")

    @property
    def script(self) -> str | None:
        """JavaScript, the same for all drawings that need one."""
        return asset("drawing.js") if self.zoom else None

    @property
    def html(self) -> str:
        """A `figure` element: title, caption, picture and table, with all text escaped."""
        kind = "tt-drawing tt-zoom" if self.zoom else "tt-drawing"
        width, height = (f"{size:.0f}px" for size in (self.scene.width, self.scene.height))
        if self.zoom:
            limits = f"--tt-height:{height}"
        else:
            limits = f"--tt-min-width:{self.minimum_width}px;--tt-max-width:{width}"
        return (
            f'<figure class="{kind}" id="{self.id}" style="{limits}">\n'
            f'<figcaption><strong class="tt-title">{escaped(self.title)}</strong> '
            f'<span class="tt-caption">{escaped(self.caption)}</span></figcaption>\n'
            f"{self._legend()}{self._frame()}{self._table()}</figure>\n"
        )

    def _legend(self) -> str:
        items = "".join(
            f"<li>{swatch_svg(shape, self.id)}{escaped(label)}</li>"
            for label, shape in self.scene.legend
        )
        return f'<ul class="tt-legend" aria-label="Legend">{items}</ul>\n' if items else ""

    def _frame(self) -> str:
        label = escaped(self.title)
        if not self.zoom:
            return (
                f'<div class="tt-frame" tabindex="0" role="region" aria-label="{label}">\n'
                f"{self.svg}</div>\n"
            )
        return asset("zoom.html").replace("@ID@", self.id).replace("@LABEL@", label).replace(
            "@SVG@", self.svg
        )  # fmt: skip

    def _table(self) -> str:
        head = "".join(f'<th scope="col">{escaped(text)}</th>' for text in self.table.columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escaped(text)}</td>" for text in row) + "</tr>\n"
            for row in self.table.rows
        )
        label = escaped(f"{self.title}: table")
        return (
            f'<details class="tt-table"><summary>The same as a table ({len(self.table.rows)} '
            f'rows)</summary>\n<div class="tt-scroll" tabindex="0" role="region" '
            f'aria-label="{label}">\n<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}'
            "</tbody></table></div></details>\n"
        )

    def picture(self, kind: Picture = "png", *, dark: bool = False) -> bytes:
        """The picture as the content of a file: SVG as it is in the page, the others by matplotlib.

        The same drawing gives the same bytes. Raises InputError when matplotlib is not installed.
        """
        if kind == "svg":
            return self.svg_file.encode()
        from tritier.report.scene_picture import scene_picture  # matplotlib takes long to import

        return scene_picture(self.scene, kind, dark=dark)


@cache
def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return (files("tritier.report") / "assets" / name).read_text(encoding="utf-8")
