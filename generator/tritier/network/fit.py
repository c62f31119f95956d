"""What samples of a link say: pings and messages -> figures with intervals. Pure.

A message of B MiB that is sent alone takes

    T(B) = round_trip_ms + 1000 B / bandwidth_mib_s + call_ms + copy_ms_per_mib B

Each term has samples of its own, so that a disturbance of one does not spoil the others:

* `round_trip_ms` is the least time of an empty call to the other server, less the least time of one
  to the own server at a like pace: what the processors, and whoever else uses them, add to a call
  is never negative.
* `bandwidth_mib_s` comes from a stream of messages of which so many are under way that the link is
  never idle. Over each window of half as many messages as are under way, the rate is the bytes
  that ended in it over the time between its ends; the figure is the median of these rates. A
  stall spoils the windows that contain it, and what piled up behind it the next few; as long as
  these are fewer than half, they change nothing.
* `call_ms` and `copy_ms_per_mib` are what remains of messages that were sent alone: the slope over
  B (Theil-Sen: the median of the slopes between all pairs), and the median of the rest.

Intervals are of 95 %: windows are drawn again in blocks (neighbours share messages), pings in
halves (a least value can't be drawn with repetition), messages that were alone per size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tritier.documents import Figure
from tritier.errors import InputError
from tritier.network.agent import Message

Array = npt.NDArray[np.float64]
MIB = 1024.0 * 1024.0
_DRAWS = 300
_MIN_WINDOW = 4


@dataclass(frozen=True)
class LinkSamples:
    """What was measured of one link. `own_pings_ms` is empty where the source can't call itself;
    messages of `after_idle` have the size of the largest of `alone`."""

    pings_ms: Sequence[float]
    own_pings_ms: Sequence[float]
    stream: Sequence[Message]
    in_flight: int
    alone: Sequence[Message]
    after_idle: Sequence[Message] = ()


@dataclass(frozen=True)
class LinkFigures:
    """The figures of a LinkState."""

    bandwidth_mib_s: Figure
    round_trip_ms: Figure
    call_ms: Figure
    copy_ms_per_mib: Figure
    after_idle_ms: Figure | None
    after_idle_message_bytes: int | None


def fit_link(samples: LinkSamples, seed: int = 0) -> LinkFigures:
    """All figures of a link. Raises InputError where a kind of sample is missing."""
    if not samples.alone:
        raise InputError("no messages that were sent alone: one at least is needed")
    draw = np.random.default_rng(seed)
    rate, rates = _bandwidth(samples.stream, samples.in_flight, draw)
    trip, trips = _round_trip(samples.pings_ms, samples.own_pings_ms, draw)
    call, copy = _software(samples.alone, (rate, rates), (trip, trips), draw)
    idle, size = _after_idle(samples, draw)
    counted = len(samples.stream) - _skipped(len(samples.stream), samples.in_flight)
    return LinkFigures(
        bandwidth_mib_s=_figure(rate, rates, counted),
        round_trip_ms=_figure(trip, trips, len(samples.pings_ms)),
        call_ms=call,
        copy_ms_per_mib=copy,
        after_idle_ms=idle,
        after_idle_message_bytes=size,
    )


def bandwidth_mib_s(stream: Sequence[Message], in_flight: int) -> float:
    """The rate of a stream alone, to plan the next one with. Raises InputError below 3 messages."""
    return float(np.median(_window_rates(stream, in_flight)[0]))


def round_trip_ms(pings_ms: Sequence[float], own_pings_ms: Sequence[float]) -> float:
    """The round trip alone, to plan messages with. Raises InputError without pings."""
    if not pings_ms:
        raise InputError("no pings: one at least is needed")
    return max(0.0, min(pings_ms) - min(own_pings_ms, default=0.0))


def message_ms(message: Message) -> float:
    """How long a message took."""
    return (message.end_ns - message.start_ns) / 1e6


def _bandwidth(
    stream: Sequence[Message], in_flight: int, draw: np.random.Generator
) -> tuple[float, Array]:
    """(MiB/s, draws of it)."""
    rates, window = _window_rates(stream, in_flight)
    starts = draw.integers(0, len(rates), (_DRAWS, -(-len(rates) // window)))
    index = (starts[:, :, None] + np.arange(window)) % len(rates)
    drawn = rates[index.reshape(_DRAWS, -1)[:, : len(rates)]]
    return float(np.median(rates)), np.median(drawn, axis=1)


def _window_rates(stream: Sequence[Message], in_flight: int) -> tuple[Array, int]:
    """(rates in MiB/s of all windows, messages in a window)."""
    if len(stream) < 3:
        raise InputError(f"a stream of {len(stream)} messages: 3 at least are needed")
    by_end = sorted(stream, key=lambda message: message.end_ns)
    by_end = by_end[_skipped(len(by_end), in_flight) :]
    ends_s = np.array([message.end_ns for message in by_end], np.float64) / 1e9
    sent_mib = np.cumsum([message.bytes for message in by_end]) / MIB
    window = min(max(in_flight // 2, _MIN_WINDOW), max(1, (len(by_end) - 1) // 2))
    spans_s = np.maximum(ends_s[window:] - ends_s[:-window], 1e-9)
    return (sent_mib[window:] - sent_mib[:-window]) / spans_s, window


def _skipped(count: int, in_flight: int) -> int:
    """Messages at the start that do not count: the connection has yet to fill the link."""
    return min(in_flight, count // 3)


def _round_trip(
    pings_ms: Sequence[float], own_pings_ms: Sequence[float], draw: np.random.Generator
) -> tuple[float, Array]:
    """(ms, draws of it)."""
    value = round_trip_ms(pings_ms, own_pings_ms)
    drawn = _least_of_halves(pings_ms, draw)
    if own_pings_ms:
        drawn = drawn - _least_of_halves(own_pings_ms, draw)
    return value, np.maximum(drawn, 0.0)


def _least_of_halves(values: Sequence[float], draw: np.random.Generator) -> Array:
    each = np.tile(np.asarray(values, np.float64), (_DRAWS, 1))
    half: Array = draw.permuted(each, axis=1)[:, : max(1, len(values) // 2)].min(axis=1)
    return half


def _software(
    alone: Sequence[Message],
    rate: tuple[float, Array],
    trip: tuple[float, Array],
    draw: np.random.Generator,
) -> tuple[Figure, Figure]:
    """(call_ms, copy_ms_per_mib). Their draws contain those of the network's terms."""
    alone = sorted(alone, key=lambda message: message.bytes)
    mib = np.array([message.bytes for message in alone]) / MIB
    took_ms = np.array([message_ms(message) for message in alone])
    call, copy = _lines(mib, (took_ms - trip[0] - 1e3 * mib / rate[0])[None])
    groups = [np.flatnonzero(mib == size) for size in np.unique(mib)]
    index = np.hstack([draw.choice(group, (_DRAWS, len(group))) for group in groups])
    network_ms = trip[1][:, None] + 1e3 * mib / rate[1][:, None]
    calls, copies = _lines(mib, took_ms[index] - network_ms)
    n = len(alone)
    return _figure(float(call[0]), calls, n), _figure(float(copy[0]), copies, n)


def _lines(x: Array, rows: Array) -> tuple[Array, Array]:
    """(heights, slopes) of the line through most points of each row, none below 0."""
    i, j = np.triu_indices(len(x), 1)
    differ = x[i] != x[j]
    i, j = i[differ], j[differ]
    slopes = np.zeros(len(rows))
    if len(i):
        slopes = np.median((rows[:, j] - rows[:, i]) / (x[j] - x[i]), axis=1)
    slopes = np.maximum(slopes, 0.0)
    return np.maximum(np.median(rows - slopes[:, None] * x, axis=1), 0.0), slopes


def _after_idle(
    samples: LinkSamples, draw: np.random.Generator
) -> tuple[Figure, int] | tuple[None, None]:
    if not samples.after_idle:
        return None, None
    size = samples.after_idle[0].bytes
    warm = np.array([message_ms(m) for m in samples.alone if m.bytes == size])
    if not len(warm):
        raise InputError(f"no message of {size} bytes that was sent alone on a warm connection")
    idle = np.array([message_ms(m) for m in samples.after_idle])
    value = max(0.0, float(np.median(idle) - np.median(warm)))
    drawn = _median_draws(idle, draw) - _median_draws(warm, draw)
    return _figure(value, np.maximum(drawn, 0.0), len(idle)), size


def _median_draws(values: Array, draw: np.random.Generator) -> Array:
    found: Any = np.median(draw.choice(values, (_DRAWS, len(values))), axis=1)
    return np.asarray(found, np.float64)


def _figure(value: float, drawn: Array, n: int) -> Figure:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Figure(value=value, low=min(value, float(low)), high=max(value, float(high)), n=n)
