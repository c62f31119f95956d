"""The timeline of one request: what runs where and what crosses which link, predicted above
measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tritier.documents import Plan
from tritier.report.amounts import ms_text
from tritier.report.drawing import Drawing, Table
from tritier.report.palette import server_roles
from tritier.report.scene import Anchor, Box, Group, Line, Scene, Shape, Text
from tritier.report.text_size import fitted, text_width

COLUMNS = ("What", "Where", "Predicted start", "Predicted end", "Measured start", "Measured end")
_WIDTH, _RIGHT, _TOP, _BOTTOM = 1080.0, 140.0, 36.0, 34.0
_BAR, _BAR_GAP, _PLACE_GAP = 20.0, 3.0, 14.0
_LABEL_SIZE = 10.5
_TICKS = 8

Place = tuple[str, ...]


class Entry(Protocol):
    """A stretch of a request. `place` is (server,) of a computation, (from, to) of a sending; times
    are from the start of the request."""

    @property
    def kind(self) -> Literal["compute", "send"]: ...
    @property
    def name(self) -> str: ...
    @property
    def place(self) -> tuple[str, ...]: ...
    @property
    def start_ms(self) -> float: ...
    @property
    def end_ms(self) -> float: ...


@dataclass(frozen=True)
class _Bar:
    """An entry in one of the rows of its place: what overlaps in time has rows of its own."""

    entry: Entry
    measured: bool
    row: int


def timeline(
    plan: Plan,
    predicted: Sequence[Entry],
    measured: Sequence[Entry] = (),
    name: str = "timeline",
) -> Drawing:
    """Bars over time, a band for each server and link that has any; in each band the predicted
    bars (dashed) stand above the measured ones (solid)."""
    roles = server_roles(server.name for server in plan.servers)
    both = (*predicted, *measured)
    places = _places(plan, both)
    left = 28 + max((text_width(_place_text(p), 12, bold=True) for p in places), default=0.0)
    scale = _Scale.of(both, min(max(left, 120.0), 260.0))
    grounds: list[Group] = []
    bars: list[Group] = []
    y = _TOP
    for index, place in enumerate(places):
        rows = [*_rows(predicted, place, measured=False), *_rows(measured, place, measured=True)]
        grounds.append(_ground(place, y, _band_height(rows), scale.left, roles, index))
        bars += _bars(rows, y, scale, roles.get(place[0], "s0"), index)
        y += _band_height(rows)
    behind = (*grounds, _axis(scale, y), *_ends(predicted, measured, scale, y))
    return Drawing(
        id=name,
        title="One request over time",
        caption=_caption(predicted, measured),
        scene=Scene(_WIDTH, y + _BOTTOM, (*behind, *bars), _legend(bool(measured))),
        table=Table(COLUMNS, tuple(_table_rows(predicted, measured))),
        minimum_width=1000,
    )


@dataclass(frozen=True)
class _Scale:
    """Where times stand: `left` is the place of the first."""

    left: float
    first_ms: float
    last_ms: float

    @classmethod
    def of(cls, entries: Sequence[Entry], left: float) -> _Scale:
        """From the start of the request, or of an entry that is before it by another clock."""
        first = min((entry.start_ms for entry in entries), default=0.0)
        last = max((entry.end_ms for entry in entries), default=0.0)
        return cls(left, min(first, 0.0), last if last > min(first, 0.0) else first + 1.0)

    def x(self, ms: float) -> float:
        share = (ms - self.first_ms) / (self.last_ms - self.first_ms)
        return self.left + share * (_WIDTH - self.left - _RIGHT)


def _places(plan: Plan, entries: Sequence[Entry]) -> list[Place]:
    """Servers in the plan's order, each followed by the links that start there."""
    used = {tuple(entry.place) for entry in entries}
    order = {server.name: index for index, server in enumerate(plan.servers)}

    def key(place: Place) -> tuple[int, int, int, Place]:
        known = [order.get(name, len(order)) for name in place]
        return known[0], len(place), known[-1], place

    return sorted(used, key=key)


def _place_text(place: Place) -> str:
    return " → ".join(place)


def _rows(entries: Sequence[Entry], place: Place, *, measured: bool) -> list[_Bar]:
    """Each entry in the first row that is free at its start."""
    free: list[float] = []
    bars = []
    mine = [entry for entry in entries if tuple(entry.place) == place]
    for entry in sorted(mine, key=lambda entry: (entry.start_ms, entry.end_ms, entry.name)):
        row = next((i for i, end in enumerate(free) if end <= entry.start_ms), len(free))
        if row == len(free):
            free.append(0.0)
        free[row] = entry.end_ms
        bars.append(_Bar(entry, measured, row))
    return bars


def _heights(bars: Sequence[_Bar]) -> tuple[int, int]:
    """Rows of predicted and of measured bars."""
    counts = [max((bar.row + 1 for bar in bars if bar.measured is kind), default=0)
              for kind in (False, True)]  # fmt: skip
    return counts[0], counts[1]


def _band_height(bars: Sequence[_Bar]) -> float:
    return sum(_heights(bars)) * (_BAR + _BAR_GAP) + _PLACE_GAP


def _ground(
    place: Place, y: float, height: float, left: float, roles: dict[str, str], index: int
) -> Group:
    shapes: list[Shape] = [Box(0, y, _WIDTH, height, "panel")] if index % 2 == 0 else []
    label = fitted(_place_text(place), left - 26, 12, bold=True)
    shapes += [
        Box(8, y + 7, 5, height - 14, roles.get(place[0], "s0"), radius=2),
        Text(20, y + height / 2 + 4, label, size=12, bold=True),
    ]
    return Group(tuple(shapes), _place_text(place))


def _bars(bars: Sequence[_Bar], y: float, scale: _Scale, role: str, index: int) -> list[Group]:
    before, ground = _heights(bars)[0], "bg" if index % 2 else "panel"
    found = []
    for bar in bars:
        row = bar.row + (before if bar.measured else 0)
        top = y + _PLACE_GAP / 2 + row * (_BAR + _BAR_GAP)
        following = [
            other.entry.start_ms
            for other in bars
            if (other.measured, other.row) == (bar.measured, bar.row)
            and other is not bar
            and other.entry.start_ms >= bar.entry.end_ms
        ]
        limit = scale.x(min(following)) if following else _WIDTH - 4
        found.append(_bar(bar, top, scale, role, limit, ground))
    return found


def _bar(bar: _Bar, y: float, scale: _Scale, role: str, limit: float, ground: str) -> Group:
    entry = bar.entry
    x = scale.x(entry.start_ms)
    width = max(scale.x(entry.end_ms) - x, 2.0)
    corner = min(_BAR / 2 if entry.kind == "send" else 3.0, width / 3)
    fill = f"{role}-soft" if bar.measured else "bg"
    dashed = not bar.measured and width > 10
    shapes: list[Shape] = [Box(x, y, width, _BAR, fill, role, 1.6, corner, dashed=dashed)]
    text = f"{entry.name} {ms_text(entry.end_ms - entry.start_ms)}"
    inside = fitted(text, width - 10, _LABEL_SIZE)
    if inside == text:
        shapes.append(Text(x + width / 2, y + 14, inside, size=_LABEL_SIZE, anchor="middle"))
    elif text_width(text, _LABEL_SIZE) + 8 <= limit - (x + width):
        shapes.append(Text(x + width + 5, y + 14, text, size=_LABEL_SIZE, halo=ground))
    elif width >= 60:
        shapes.append(Text(x + width / 2, y + 14, inside, size=_LABEL_SIZE, anchor="middle"))
    kind = "measured" if bar.measured else "predicted"
    title = (
        f"{entry.name} ({_place_text(tuple(entry.place))}), {kind}\n"
        f"{ms_text(entry.start_ms)} to {ms_text(entry.end_ms)}"
    )
    return Group(tuple(shapes), title)


def _axis(scale: _Scale, bottom: float) -> Group:
    step = nice_step((scale.last_ms - scale.first_ms) / _TICKS)
    first, last = (math.floor(ms / step + 1e-9) for ms in (scale.first_ms, scale.last_ms))
    shapes: list[Shape] = []
    for index in range(first if first * step >= scale.first_ms else first + 1, last + 1):
        x = scale.x(index * step)
        shapes.append(Line(((x, _TOP - 6), (x, bottom)), "grid", 1))
        shapes.append(Text(x, bottom + 18, f"{index * step:g}", "muted", 11, "middle"))
    shapes.append(Text(20, bottom + 18, "ms", "muted", 11))
    return Group(tuple(shapes))


def nice_step(rough: float) -> float:
    """The least of 1, 2, 5, 10, 20, 50, ... (and 0.5, 0.2, ...) that is not below `rough` > 0."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _end(entries: Sequence[Entry]) -> float | None:
    return max((entry.end_ms for entry in entries), default=None)


def _ends(
    predicted: Sequence[Entry], measured: Sequence[Entry], scale: _Scale, bottom: float
) -> list[Group]:
    """The end of the request, as predicted and as measured: the earlier says so at its left."""
    ends = [("predicted", _end(predicted)), ("measured", _end(measured))]
    known = sorted(((end, what) for what, end in ends if end is not None), reverse=True)
    found = []
    for place, (end, what) in enumerate(known):
        x, aside = scale.x(end), 5 if place == 0 else -5
        line = Line(((x, 10), (x, bottom)), "accent", 1.5, dashed=what == "predicted")
        anchor: Anchor = "start" if place == 0 else "end"
        text = Text(x + aside, 20, f"{what} {ms_text(end)}", "accent", 11, anchor, bold=True)
        found.append(Group((line, text)))
    return found


def _caption(predicted: Sequence[Entry], measured: Sequence[Entry]) -> str:
    ends = _end(predicted), _end(measured)
    if ends[0] is None and ends[1] is None:
        return "Nothing is known of the times of a request."
    if ends[1] is None:
        return f"Predicted: {ms_text(ends[0])}. Not measured yet."
    if ends[0] is None:
        return f"Measured: {ms_text(ends[1])}."
    return f"Predicted {ms_text(ends[0])}, measured {ms_text(ends[1])}: {_error(ends[0], ends[1])}."


def _error(predicted: float, measured: float) -> str:
    if measured <= 0:
        return "no error can be told"
    if abs(predicted - measured) < 0.0005 * measured:
        return "the prediction is right to 0.1 %"
    percent = f"{100 * abs(predicted - measured) / measured:.1f} %"
    return f"the prediction is {percent} too {'high' if predicted > measured else 'low'}"


def _table_rows(predicted: Sequence[Entry], measured: Sequence[Entry]) -> list[tuple[str, ...]]:
    """One row per stretch; the first predicted one stands beside the first measured, and so on."""
    found: dict[tuple[str, Place, int], list[str]] = {}
    for column, entries in ((0, predicted), (2, measured)):
        count: dict[tuple[str, Place], int] = {}
        for entry in sorted(entries, key=lambda entry: (entry.start_ms, entry.end_ms)):
            what = entry.name, tuple(entry.place)
            count[what] = count.get(what, 0) + 1
            row = found.setdefault((*what, count[what]), [""] * 4)
            row[column : column + 2] = [ms_text(entry.start_ms), ms_text(entry.end_ms)]
    return [(name, _place_text(place), *row) for (name, place, _), row in found.items()]


def _legend(measured: bool) -> tuple[tuple[str, Box | Line], ...]:
    found: list[tuple[str, Box | Line]] = [
        ("predicted", Box(1, 2, 24, 12, "bg", "ink", 1.5, 3, dashed=True))
    ]
    if measured:
        found.append(("measured", Box(1, 2, 24, 12, "panel", "ink", 1.5, 3)))
    found += [("sent over a link", Box(1, 2, 24, 12, "panel", "ink", 1.5, 6))]
    return tuple(found)
