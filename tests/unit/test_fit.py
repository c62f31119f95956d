"""Figures of links from samples of simulated ones, whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tritier.errors import InputError
from tritier.network.agent import Message
from tritier.network.fit import Array, LinkFigures, LinkSamples, fit_link
from tritier.network.monitor import alone_sizes, plan_stream

MIB = 1 << 20


@dataclass(frozen=True)
class SimulatedLink:
    """A link that sends one message after the other, with noise that only ever delays."""

    bandwidth_mib_s: float
    round_trip_ms: float
    call_ms: float = 2.0
    copy_ms_per_mib: float = 1.5
    own_ms: float = 0.8
    noise_ms: float = 0.0
    stalls: int = 0  # of 200 ms, in the stream
    seed: int = 0

    def samples(self, pings: int = 40, own: bool = True) -> LinkSamples:
        draw = np.random.default_rng(self.seed)
        rate = self.bandwidth_mib_s * MIB
        stream = plan_stream(rate, self.round_trip_ms / 1e3, 2.5)
        sizes = alone_sizes(rate) * 8
        delays = self._delays(draw, pings)
        return LinkSamples(
            pings_ms=[float(self.round_trip_ms + self.own_ms + x) for x in delays],
            own_pings_ms=[float(self.own_ms + x) for x in self._delays(draw, pings) if own],
            stream=self._stream(stream.message_bytes, stream.count, stream.in_flight, draw),
            in_flight=stream.in_flight,
            alone=[self._alone(size, draw) for size in sizes],
            after_idle=[self._alone(sizes[-1], draw, 12.0) for _ in range(3)],
        )

    def _delays(self, draw: np.random.Generator, count: int) -> Array:
        return draw.exponential(self.noise_ms, count) if self.noise_ms else np.zeros(count)

    def _alone(self, size: int, draw: np.random.Generator, more_ms: float = 0.0) -> Message:
        took_ms = self.round_trip_ms + self.call_ms + more_ms + self._delays(draw, 1)[0]
        took_ms += size / MIB * (1e3 / self.bandwidth_mib_s + self.copy_ms_per_mib)
        return Message(size, 0, round(took_ms * 1e6))

    def _stream(
        self, size: int, count: int, in_flight: int, draw: np.random.Generator
    ) -> list[Message]:
        stalled = set(draw.choice(np.arange(count // 3, count), self.stalls, replace=False))
        free_ms, messages = 0.0, list[Message]()
        for index in range(count):
            started_ms = 0.0
            if index >= in_flight:
                started_ms = messages[index - in_flight].end_ns / 1e6
            free_ms = max(free_ms, started_ms + self.round_trip_ms / 2)
            free_ms += size / MIB / self.bandwidth_mib_s * 1e3 + 200.0 * (index in stalled)
            ended_ms = free_ms + self.round_trip_ms / 2 + self._delays(draw, 1)[0]
            messages.append(Message(size, round(started_ms * 1e6), round(ended_ms * 1e6)))
        return messages


LINKS = [
    SimulatedLink(4.768, 10.0),
    SimulatedLink(19.07, 100.0, noise_ms=3.0),
    SimulatedLink(95.37, 110.0, noise_ms=3.0, stalls=2),
    SimulatedLink(4.768, 110.0, stalls=3),
    SimulatedLink(1200.0, 0.2),
    SimulatedLink(0.05, 600.0, noise_ms=30.0),
]


def near(found: LinkFigures, link: SimulatedLink, share: float = 0.03) -> None:
    assert found.bandwidth_mib_s.value == pytest.approx(link.bandwidth_mib_s, rel=share)
    assert found.round_trip_ms.value == pytest.approx(link.round_trip_ms, rel=share, abs=0.2)


@pytest.mark.parametrize("link", LINKS, ids=lambda x: f"{x.bandwidth_mib_s}-{x.round_trip_ms}")
@pytest.mark.parametrize("seed", [1, 2])
def test_the_truth_is_found(link: SimulatedLink, seed: int) -> None:
    near(fit_link(replace(link, seed=seed).samples()), link)


def test_without_noise_every_term_is_found() -> None:
    link = SimulatedLink(20.0, 30.0, call_ms=2.5, copy_ms_per_mib=3.0)
    found = fit_link(link.samples())
    near(found, link, 1e-4)
    assert found.call_ms.value == pytest.approx(2.5, abs=0.01)
    assert found.copy_ms_per_mib.value == pytest.approx(3.0, abs=0.02)
    assert found.after_idle_ms is not None
    assert found.after_idle_ms.value == pytest.approx(12.0, abs=0.01)
    assert found.after_idle_message_bytes == alone_sizes(20.0 * MIB)[-1]


def test_intervals_hold_the_figure_and_widen_with_noise() -> None:
    calm = fit_link(SimulatedLink(20.0, 30.0, noise_ms=0.2).samples())
    rough = fit_link(SimulatedLink(20.0, 30.0, noise_ms=20.0).samples())
    for figures in (calm, rough):
        for figure in (figures.bandwidth_mib_s, figures.round_trip_ms, figures.call_ms):
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low <= figure.value <= figure.high

    def width(figures: LinkFigures) -> float:
        figure = figures.bandwidth_mib_s
        assert figure.low is not None
        assert figure.high is not None
        return figure.high - figure.low

    assert width(rough) > 3 * width(calm)


def test_a_long_stall_changes_little() -> None:
    """The mean rate would be far too low."""
    link = SimulatedLink(20.0, 10.0, stalls=1)
    samples = link.samples()
    stalled = [
        m if k < 50 else Message(m.bytes, m.start_ns, m.end_ns + 1_200_000_000)
        for k, m in enumerate(samples.stream)
    ]
    near(fit_link(replace(samples, stream=stalled)), link)


def test_a_source_that_does_not_reach_itself_keeps_its_own_share() -> None:
    link = SimulatedLink(20.0, 10.0, own_ms=0.8)
    assert fit_link(link.samples(own=False)).round_trip_ms.value == pytest.approx(10.8)


def test_nothing_is_below_zero() -> None:
    link = SimulatedLink(20.0, 0.1, call_ms=-5.0, copy_ms_per_mib=-2.0)
    found = fit_link(replace(link.samples(), own_pings_ms=[3.0], after_idle=[]))
    assert found.round_trip_ms.value == 0
    assert found.call_ms.value == 0
    assert found.copy_ms_per_mib.value == 0
    assert found.after_idle_ms is None


def test_few_samples_give_figures() -> None:
    messages = [Message(MIB, 0, k * 50_000_000) for k in range(1, 4)]
    found = fit_link(LinkSamples([12.0], [], messages, 16, messages[:1]))
    assert found.bandwidth_mib_s.value == pytest.approx(20.0)
    assert found.round_trip_ms.value == 12.0
    assert found.round_trip_ms.n == 1


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"pings_ms": []}, "no pings"),
        ({"stream": []}, "a stream of 0 messages"),
        ({"alone": []}, "sent alone"),
        ({"after_idle": [Message(7, 0, 1)]}, "no message of 7 bytes"),
    ],
)
def test_missing_samples_are_named(update: dict[str, object], message: str) -> None:
    samples = replace(SimulatedLink(20.0, 10.0).samples(), **update)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        fit_link(samples)


def test_the_same_samples_give_the_same_figures() -> None:
    samples = SimulatedLink(20.0, 10.0, noise_ms=1.0).samples()
    assert fit_link(samples) == fit_link(samples)


@pytest.mark.parametrize("mib_s", [0.01, 4.768, 95.37, 3000.0])
@pytest.mark.parametrize("trip_s", [0.0002, 0.01, 0.11, 0.6])
def test_a_stream_fills_its_link_and_ends(mib_s: float, trip_s: float) -> None:
    stream = plan_stream(mib_s * MIB, trip_s, 2.5)
    under_way = stream.message_bytes * stream.in_flight
    assert under_way <= 64 * MIB
    assert under_way > min(1.3 * mib_s * MIB * trip_s, 63 * MIB)
    assert stream.count >= 2 * stream.in_flight
    if mib_s > 1:
        assert stream.count * stream.message_bytes <= mib_s * MIB * max(2.6, 5.5 * trip_s)
