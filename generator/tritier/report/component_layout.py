"""Where components and wires of a plan stand: a lane for each server, a row for each component.

Components stand in the plan's order, so wires go down. A wire leaves the lower side of its
component, goes to the lane of its target between two rows, and down beside the boxes there: no
wire crosses a box, and no two labels share a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tritier.documents import Plan
from tritier.report.component_flows import INPUTS, OUTPUTS, Flow

BOX_WIDTH, BOX_HEIGHT, END_HEIGHT = 200.0, 62.0, 30.0
HEADER = 58.0
_TRACK, _CHANNEL, _QUIET_CHANNEL = 14.0, 26.0, 14.0
_SIDE = 22.0  # between a box and the first track, and between the last track and the lane's side
_GAP, _MARGIN, _ROW_GAP = 14.0, 10.0, 16.0

Point = tuple[float, float]
Stop = str  # the id of a component, or INPUTS or OUTPUTS


@dataclass(frozen=True)
class Lane:
    """The ground of a server."""

    x: float
    width: float


class ComponentLayout:
    """Lanes, boxes and wires; flows go by their place in the list."""

    def __init__(self, plan: Plan, flows: Sequence[Flow]) -> None:
        """Place everything; sizes follow from how many wires run beside and between boxes."""
        self.homes = {INPUTS: plan.entry.name}
        self.homes |= {part.id: part.server for part in plan.components}
        self.homes[OUTPUTS] = plan.entry.name
        used = set(self.homes.values())
        self.servers = [server.name for server in plan.servers if server.name in used]
        self.flows = flows
        self._row = {stop: index for index, stop in enumerate(self.homes)}
        self._straight = [self._is_straight(flow) for flow in flows]
        self._choose_tracks()
        self._place_lanes()
        self._place_rows()
        self._place_ports()

    def box(self, stop: Stop) -> tuple[float, float, float, float]:
        """x, y, width and height of a component or an end."""
        height = END_HEIGHT if stop in (INPUTS, OUTPUTS) else BOX_HEIGHT
        return self._left[self.homes[stop]], self._top[stop], BOX_WIDTH, height

    def lines(self, index: int) -> list[tuple[Point, ...]]:
        """A line to each target of a flow; those after the first start where they part from it."""
        flow, port = self.flows[index], self._port[index]
        _, y, _, height = self.box(flow.source)
        if self._straight[index]:
            return [((port, y + height), (port, self._top[flow.targets[0]]))]
        x, channel = self._track_x(index), self._channel[index]
        start: tuple[Point, ...] = ((port, y + height), (port, channel), (x, channel))
        found = []
        for target in sorted(flow.targets, key=self._row.__getitem__):
            end = self._arrival(index, target)
            found.append((*start, (x, end[1]), end))
            start = ((x, end[1]),)
        return found

    def label(self, index: int) -> Point:
        """The middle of the line's piece between two rows."""
        return (self._port[index] + self._track_x(index)) / 2, self._channel[index]

    def _is_straight(self, flow: Flow) -> bool:
        """Whether it goes to the next box in its lane only."""
        if flow.crosses or len(flow.targets) > 1:
            return False
        here, there = self._row[flow.source], self._row[flow.targets[0]]
        between = list(self.homes)[here + 1 : there]
        return all(self.homes[stop] != flow.source_server for stop in between)

    def _goes_right(self, flow: Flow) -> bool:
        place = self.servers.index
        return place(flow.source_server) <= place(flow.target_server)

    def _choose_tracks(self) -> None:
        """The side and track of each flow beside the boxes of its target: those that run beside
        the same row have different tracks."""
        taken: dict[tuple[str, str], list[list[tuple[int, int]]]] = {}
        self._track: list[tuple[str, int]] = []
        for flow, straight in zip(self.flows, self._straight, strict=True):
            side = "left" if flow.crosses and self._goes_right(flow) else "right"
            if straight:
                self._track.append((side, 0))
                continue
            span = self._row[flow.source], max(self._row[stop] for stop in flow.targets)
            tracks = taken.setdefault((flow.target_server, side), [])
            free = (i for i, spans in enumerate(tracks) if all(_apart(span, x) for x in spans))
            index = next(free, len(tracks))
            if index == len(tracks):
                tracks.append([])
            tracks[index].append(span)
            self._track.append((side, index))
        self._tracks = {key: len(tracks) for key, tracks in taken.items()}

    def _place_lanes(self) -> None:
        x = _MARGIN
        self.lanes: dict[str, Lane] = {}
        self._left: dict[str, float] = {}
        for server in self.servers:
            before, after = (self._tracks.get((server, side), 0) for side in ("left", "right"))
            self._left[server] = x + _SIDE + before * _TRACK
            width = 2 * _SIDE + (before + after) * _TRACK + BOX_WIDTH
            self.lanes[server] = Lane(x, width)
            x += width + _GAP
        self.width = x - _GAP + _MARGIN

    def _place_rows(self) -> None:
        y = _MARGIN + HEADER
        self._top: dict[Stop, float] = {}
        self._channel: dict[int, float] = {}
        for stop in self.homes:
            self._top[stop] = y
            y += (END_HEIGHT if stop in (INPUTS, OUTPUTS) else BOX_HEIGHT) + _ROW_GAP / 2
            for index in self._turning(stop):
                y += _CHANNEL if self.flows[index].crosses else _QUIET_CHANNEL
                self._channel[index] = y
            y += _ROW_GAP
        self.height = y - _ROW_GAP / 2 + _MARGIN

    def _turning(self, stop: Stop) -> list[int]:
        """Flows of a box that go sideways. Those that go farthest turn off first: those that turn
        off below them end before they come down."""

        def distance(index: int) -> int:
            flow = self.flows[index]
            ends = flow.source_server, flow.target_server
            return abs(self.servers.index(ends[0]) - self.servers.index(ends[1]))

        own = [i for i, flow in enumerate(self.flows) if flow.source == stop]
        return sorted((i for i in own if not self._straight[i]), key=lambda i: -distance(i))

    def _place_ports(self) -> None:
        """Where each flow leaves its box: what turns off first leaves nearest to where it goes, so
        that flows of a box do not cross."""
        self._port: dict[int, float] = {}
        for stop in self.homes:
            own = [index for index, flow in enumerate(self.flows) if flow.source == stop]
            turning = self._turning(stop)
            left = [index for index in turning if not self._goes_right(self.flows[index])]
            right = [index for index in turning if self._goes_right(self.flows[index])]
            order = [*left, *(i for i in own if self._straight[i]), *reversed(right)]
            step = min(30.0, (BOX_WIDTH - 30) / max(len(order), 1))
            middle = self._left[self.homes[stop]] + BOX_WIDTH / 2
            for place, index in enumerate(order):
                self._port[index] = middle + (place - (len(order) - 1) / 2) * step

    def _track_x(self, index: int) -> float:
        side, track = self._track[index]
        left = self._left[self.flows[index].target_server]
        away = _SIDE - 4 + track * _TRACK
        return left - away if side == "left" else left + BOX_WIDTH + away

    def _arrival(self, index: int, target: Stop) -> Point:
        """Where a flow reaches a box: those that come from the same side share it evenly."""
        side, _ = self._track[index]
        x, y, width, height = self.box(target)
        same = [
            other
            for other, flow in enumerate(self.flows)
            if target in flow.targets
            and not self._straight[other]
            and self._track[other][0] == side
        ]
        # The outermost track arrives first, so that none crosses another on its way in.
        same.sort(key=lambda other: (-self._track[other][1], other))
        share = height * (same.index(index) + 1) / (len(same) + 1)
        return (x if side == "left" else x + width), y + share


def _apart(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[1] <= b[0] or b[1] <= a[0]
