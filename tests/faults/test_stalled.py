"""Promise 2: a stopped edge, a black hole, a link at 1 % of its bandwidth are detected in time.

Detected: apps are answered by another plan, and the plan is out. In time: within two probe
intervals and one deadline. Afterwards the plan comes back by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.faults.checks import check_right_and_in_time, failures_sent_after, note
from tests.faults.plane import EDGE, PROBE_INTERVAL_S, SLACK_MS, Plane, Watched, deployed_plane
from tests.helpers.faults import stopped
from tests.helpers.load import between, closed_loop, summary
from tritier.deployment.lab_links import restore_link, set_link

pytestmark = pytest.mark.integration
_DEADLINE_MS = 1500
_DETECTED_S = 2 * PROBE_INTERVAL_S + _DEADLINE_MS / 1000
_BANDWIDTH_MIB_S = 4.0
_WORKERS = 16
# Probes of a plan that is out are up to 10 s apart, and a busy machine is slow to answer them.
_BACK_S = 45.0

Fault = Callable[[Plane], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    links = [
        {"from": a, "to": b, "bandwidth_mib_s": _BANDWIDTH_MIB_S}
        for a, b in (("device", "edge"), ("edge", "device"))
    ]
    folder = tmp_path_factory.mktemp("stalled")
    with deployed_plane(folder, {"edge": EDGE}, links=links, deadline_ms=_DEADLINE_MS) as found:
        yield found


@contextmanager
def _stopped_edge(plane: Plane) -> Iterator[None]:
    with stopped(plane.server("edge")):
        yield


@contextmanager
def _black_hole(plane: Plane) -> Iterator[None]:
    set_link(plane.state, "device", "edge", state="black_hole")
    try:
        yield
    finally:
        restore_link(plane.state, "device", "edge")


@contextmanager
def _one_percent(plane: Plane) -> Iterator[None]:
    for pair in (("device", "edge"), ("edge", "device")):
        set_link(plane.state, *pair, bandwidth_mib_s=_BANDWIDTH_MIB_S / 100)
    try:
        yield
    finally:
        restore_link(plane.state, "device", "edge")


@pytest.mark.parametrize("fault", [_stopped_edge, _black_hole, _one_percent])
def test_a_stall_is_detected_and_the_plan_returns(plane: Plane, fault: Fault) -> None:
    """The control is a load on the same plan past the router, at the same time."""
    asker = plane.asker(deadline_ms=_DEADLINE_MS)
    control = plane.asker("edge", deadline_ms=_DEADLINE_MS)
    edge = plane.id_of("edge")
    with plane.watched() as watched:
        watched.wait_for("ejected", 0, 5, plan=edge)
        with closed_loop(asker, _WORKERS, 0.01) as load, closed_loop(control, 1, 0.05) as past:
            time.sleep(1)
            with fault(plane):
                fault_s = time.monotonic()
                time.sleep(_DETECTED_S + 2)
                ejected_s = watched.when("ejected", 1, fault_s, plan=edge)
                end_s = time.monotonic()
        during = between(load.answers, fault_s + _DETECTED_S, end_s)
        check_right_and_in_time(load.answers, _DEADLINE_MS)
        assert ejected_s is not None, watched.now()
        assert ejected_s <= _DETECTED_S + SLACK_MS / 1000
        assert during
        assert all(a.ok for a in during), summary(during)
        assert failures_sent_after(past.answers, fault_s) >= 1, summary(past.answers)
        returned_s = _await_return(plane, watched, edge)
        note(
            f"2 {fault.__name__}",
            answers=len(load.answers),
            failed=sum(not a.ok for a in load.answers),
            ejected_s=ejected_s,
            longest_ms=max(a.ms for a in load.answers),
            returned_s=returned_s,
            control=summary(between(past.answers, fault_s, end_s))[:90],
        )
    asker.close()
    control.close()


def _await_return(plane: Plane, watched: Watched, edge: str) -> float:
    """Nobody tells the router that the edge is well again; the seconds that it takes."""
    started_s = time.monotonic()
    asker = plane.asker(deadline_ms=_DEADLINE_MS)
    while watched.value("ejected", plan=edge):
        assert asker.ask().ok
        assert time.monotonic() < started_s + _BACK_S
        time.sleep(0.1)
    asker.close()
    return time.monotonic() - started_s
