"""What a report is made of: sections with charts, tables, facts and commands.

A chart is data, not a picture: the page (plotly), the pictures (matplotlib), the table beside it
and the Markdown summary are all made of the same one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tritier.report.amounts import bytes_text
from tritier.report.drawing import Drawing

SeriesKind = Literal["line", "points", "bars"]
AxisKind = Literal["linear", "log", "category"]
Number = float | int
Value = Number | str


@dataclass(frozen=True)
class Evidence:
    """Where figures come from (rule R9): unit, source and, if measured, n and spread.

    Raises ValueError for measured figures that don't say how many they are and how they spread.
    """

    unit: str
    source: str
    n: str = ""
    spread: str = ""

    def __post_init__(self) -> None:
        if "measured" in self.source and not (self.n and self.spread):
            raise ValueError(f"figures in {self.unit} are measured: say n and spread (rule R9)")

    @property
    def items(self) -> tuple[tuple[str, str], ...]:
        """Names and values, without those that have nothing to say."""
        rows = (("Unit", self.unit), ("Source", self.source), ("n", self.n),
                ("Spread", self.spread))  # fmt: skip
        return tuple((name, value) for name, value in rows if value)

    @property
    def line(self) -> str:
        """In one sentence, for pictures and Markdown."""
        return "; ".join(f"{name.lower()}: {value}" for name, value in self.items)


@dataclass(frozen=True)
class Table:
    """Cells are texts; '' is an empty cell. `folded` tables open on demand."""

    id: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    evidence: Evidence | None = None
    note: str = ""
    folded: bool = False

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"table '{self.id}': {wrong[0]} has not {len(self.columns)} cells")

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column whether it has numbers only; they stand to the right."""
        return tuple(
            bool(self.rows) and all(_is_number(row[k]) for row in self.rows)
            for k in range(len(self.columns))
        )


@dataclass(frozen=True)
class Axis:
    """What one direction of a chart shows; the label ends with the unit."""

    label: str
    kind: AxisKind = "linear"
    from_zero: bool = False


@dataclass(frozen=True)
class Series:
    """Points of a chart. `low` and `high` are the ends of intervals; `notes` are shown at points;
    `hollow` points are to be doubted (unstable, not optimal), and the chart says why. `steps`: each
    value holds until the next point."""

    name: str
    x: tuple[Value, ...]
    y: tuple[Number, ...]
    kind: SeriesKind = "line"
    low: tuple[Number, ...] = ()
    high: tuple[Number, ...] = ()
    notes: tuple[str, ...] = ()
    hollow: tuple[bool, ...] = ()
    colour: int = 0
    dashed: bool = False
    symbol: Literal["circle", "diamond", "square", "star", "cross"] = "circle"
    steps: bool = False

    def __post_init__(self) -> None:
        count = len(self.x)
        for what in ("y", "low", "high", "notes", "hollow"):
            found = len(getattr(self, what))
            if found not in ((count,) if what == "y" else (0, count)):
                raise ValueError(f"series '{self.name}': {found} of {what} for {count} points")
        if not all(math.isfinite(value) for value in (*self.y, *self.low, *self.high)):
            raise ValueError(f"series '{self.name}' has a value that is no number")


@dataclass(frozen=True)
class Mark:
    """A horizontal line, such as a limit."""

    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A picture of series over two axes. `id` is also the name of its files."""

    id: str
    title: str
    caption: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    evidence: Evidence
    marks: tuple[Mark, ...] = ()
    hollow_means: str = ""

    @property
    def table(self) -> Table:
        """The same figures as text: one row per point."""
        with_interval = any(s.low for s in self.series)
        with_notes = any(any(s.notes) for s in self.series)
        with_hollow = bool(self.hollow_means)
        columns = ["series", self.x.label, self.y.label]
        columns += ["low", "high"] if with_interval else []
        columns += ["note"] if with_notes or with_hollow else []
        rows = []
        for one in self.series:
            for k in range(len(one.x)):
                row = [one.name, _cell(one.x[k]), number(one.y[k])]
                if with_interval:
                    row += [number(one.low[k]), number(one.high[k])] if one.low else ["", ""]
                if with_notes or with_hollow:
                    row.append(_note(one, k, self.hollow_means))
                rows.append(tuple(row))
        return Table(f"{self.id}-table", self.title, tuple(columns), tuple(rows))


@dataclass(frozen=True)
class Facts:
    """Names and values, as a list."""

    id: str
    title: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Commands:
    """Lines for a shell, as they were or are to be run."""

    id: str
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Notice:
    """A sentence that is not to be missed. `win` and `loss` judge the plan, `warn` doubts."""

    text: str
    kind: Literal["info", "win", "loss", "warn"] = "info"


# Evidence by itself stands below a drawing.
Block = Drawing | Evidence | Chart | Table | Facts | Commands | Notice


@dataclass(frozen=True)
class Missing:
    """What could stand here, and the command that makes it."""

    what: str
    command: str


@dataclass(frozen=True)
class Tile:
    """A figure at the head of the page."""

    label: str
    value: str
    unit: str
    detail: str


@dataclass(frozen=True)
class Section:
    """One chapter of the page."""

    id: str
    title: str
    blocks: tuple[Block, ...] = ()
    lead: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    tiles: tuple[Tile, ...] = ()

    @property
    def figures(self) -> tuple[Drawing | Chart, ...]:
        """Charts and drawings."""
        return tuple(item for item in self.blocks if isinstance(item, Drawing | Chart))


@dataclass(frozen=True)
class Report:
    """All that is written, in order."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    version: str

    @property
    def figures(self) -> tuple[Drawing | Chart, ...]:
        """Of all sections."""
        return tuple(figure for section in self.sections for figure in section.figures)

    @property
    def missing(self) -> tuple[Missing, ...]:
        """Of all sections, each once."""
        return tuple(dict.fromkeys(item for part in self.sections for item in part.missing))


def number(value: Number | None, digits: int = 4) -> str:
    """A number for people: so many significant digits, never in powers of ten below a million;
    '' if there is none."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    size = math.floor(math.log10(abs(value)))
    if not -4 <= size <= 6:
        return f"{value:.{digits - 1}g}"
    text = f"{value:,.{max(digits - 1 - size, 0)}f}" if size >= 4 else f"{value:.{digits}g}"
    return text if "e" not in text else f"{value:.{max(digits - 1 - size, 0)}f}"


def percent(share: float | None, signed: bool = False) -> str:
    """A share in per cent, '' if there is none."""
    if share is None:
        return ""
    value = round(share * 100, 1) or 0.0  # no "-0.0"
    return f"{value:{'+' if signed and value else ''}.1f} %"


def size(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return ""
    return bytes_text(count)


def spanned(counts: Sequence[int], what: str) -> str:
    """'180 to 196 requests', or '180 requests' if all are the same."""
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{low} {what}" if low == high else f"{low} to {high} {what}"


def table(
    table_id: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    evidence: Evidence | None = None,
    note: str = "",
    folded: bool = False,
) -> Table:
    """A table of any sequences."""
    cells = tuple(tuple(row) for row in rows)
    return Table(table_id, title, tuple(columns), cells, evidence, note, folded)


def _cell(value: Value) -> str:
    return value if isinstance(value, str) else number(value)


def _note(series: Series, index: int, hollow_means: str) -> str:
    parts = [series.notes[index]] if series.notes else []
    if series.hollow and series.hollow[index]:
        parts.append(hollow_means)
    return "; ".join(dict.fromkeys(filter(None, parts)))


def _is_number(text: str) -> bool:
    try:
        float(text.split(" ")[0].replace(",", ""))
    except ValueError:
        return text == ""
    return True
