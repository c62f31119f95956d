"""The quick look at a link: what it finds of links whose figures are known, and what it sends."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tritier.errors import ServerError
from tritier.network.agent import Agent
from tritier.network.quick import FASTEST_MIB_S, LIMIT_S, quick_bandwidth_mib_s

MIB = 1 << 20


class Link:
    """Stands in for an agent behind a link: `trip_ms` and bandwidth, and nothing else."""

    def __init__(self, mib_s: float, trip_ms: float) -> None:
        self._mib_s, self._trip_ms = mib_s, trip_ms
        self.sent: list[int] = []

    def ask(self, order: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        rows, now_ms = [], 0.0
        for size in order["bytes"]:
            takes_ms = self._trip_ms + size / MIB / self._mib_s * 1e3
            if takes_ms > order["limit_s"] * 1e3:
                raise ServerError("the time limit of the order is over")
            self.sent.append(size)
            rows.append([size, int(now_ms * 1e6), int((now_ms + takes_ms) * 1e6)])
            now_ms += takes_ms
        return {"messages": rows}, b""

    @property
    def busy_ms(self) -> float:
        """For how long the link carried something."""
        return sum(self.sent) / MIB / self._mib_s * 1e3

    def found_mib_s(self, known_mib_s: float | None) -> float:
        return quick_bandwidth_mib_s(cast("Agent", self), "edge", known_mib_s)


@pytest.mark.parametrize("known_mib_s", [None, 0.2, 1.0, 20.0, 100.0])
@pytest.mark.parametrize("trip_ms", [0.5, 10.0, 110.0, 300.0])
@pytest.mark.parametrize("mib_s", [0.2, 4.77, 20.0, 95.0])
def test_a_link_is_found_at_once_whatever_was_known_of_it(
    mib_s: float, trip_ms: float, known_mib_s: float | None
) -> None:
    assert Link(mib_s, trip_ms).found_mib_s(known_mib_s) == pytest.approx(mib_s, rel=0.05)


def test_a_link_that_nothing_is_known_of_is_not_flooded() -> None:
    for mib_s in (0.2, 1.0, 4.77, 20.0, 95.0):
        link = Link(mib_s, 5.0)
        link.found_mib_s(None)
        assert link.busy_ms < 350.0, f"{mib_s} MiB/s"


def test_a_link_that_is_as_known_gets_few_messages() -> None:
    for mib_s in (1.0, 20.0, 80.0):
        link = Link(mib_s, 5.0)
        link.found_mib_s(mib_s)
        assert len(link.sent) == 6
        assert link.busy_ms == pytest.approx(100.0, rel=0.05)


def test_fast_links_are_not_told_apart() -> None:
    for mib_s in (101.0, 1e3, 1e9):
        assert Link(mib_s, 1.0).found_mib_s(None) == FASTEST_MIB_S


def test_a_link_on_which_only_small_messages_arrive_in_time_is_not_dead() -> None:
    link = Link(0.2, 110.0)
    assert link.found_mib_s(95.0) == pytest.approx(0.2, rel=0.05)


def test_a_link_that_carries_nothing_in_time() -> None:
    assert Link(1e-3 / LIMIT_S, 1.0).found_mib_s(10.0) == 0.0
    assert Link(1.0, 1e3 * LIMIT_S).found_mib_s(10.0) == 0.0


def test_what_else_goes_wrong_is_raised() -> None:
    class Broken(Link):
        def ask(self, order: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
            raise ServerError(f"server 'edge' refused {order['op']}: it is not there")

    with pytest.raises(ServerError, match="not there"):
        Broken(1.0, 1.0).found_mib_s(None)
