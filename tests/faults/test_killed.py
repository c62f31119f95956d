"""Promise 1: a server is killed under 32 concurrent requests, and apps hardly notice.

No wrong answer, every request ends by its deadline, the fallback is active within 2 s, at most the
requests in flight fail and none after.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.checks import (
    check_only_in_flight_failed,
    check_right_and_in_time,
    failures_sent_after,
    note,
)
from tests.faults.plane import DEADLINE_MS, EDGE, PEER, deployed_plane
from tests.helpers.faults import kill
from tests.helpers.load import between, closed_loop, summary

pytestmark = pytest.mark.integration
_CONCURRENT = 32
_FALLBACK_S = 2.0


@pytest.mark.parametrize(("layers", "victim"), [(EDGE, "edge"), (PEER, "cloud")])
def test_a_killed_server_under_32_requests(
    tmp_path: Path, layers: dict[str, str], victim: str
) -> None:
    """The control is a load on the same plan past the router, at the same time."""
    with (
        deployed_plane(tmp_path, {"edge": layers}, edge={"slowdown": 10}) as plane,
        plane.watched() as watched,
    ):
        asker = plane.asker(deadline_ms=DEADLINE_MS)
        control = plane.asker("edge", deadline_ms=DEADLINE_MS)
        with closed_loop(asker, _CONCURRENT) as load, closed_loop(control, 1, 0.05) as unprotected:
            load.wait_for(lambda a: sum(x.ok for x in a) >= 3 * _CONCURRENT, 20)
            unprotected.wait_for(lambda a: sum(x.ok for x in a) >= 3, 20)
            killed_s = time.monotonic()
            kill(plane.server(victim))
            time.sleep(_FALLBACK_S + 2)
        check_right_and_in_time(load.answers, DEADLINE_MS)
        check_only_in_flight_failed(load.answers, killed_s, _CONCURRENT)
        answered = between([a for a in load.answers if a.ok], killed_s)
        assert len(answered) > _CONCURRENT, summary(load.answers)
        assert min(a.end_s for a in answered) < killed_s + _FALLBACK_S
        labels = {"plan": "whole", "status": "OK"}
        before = watched.value("requests_total", **labels)
        assert before > _CONCURRENT, watched.now()
        ejected_s = watched.when("ejected", 1, killed_s, plan=plane.id_of("edge"))
        assert ejected_s is not None
        assert ejected_s < _FALLBACK_S
        note(
            f"1 {victim}",
            answers=len(load.answers),
            failed=sum(not a.ok for a in load.answers),
            first_answer_s=min(a.end_s for a in answered) - killed_s,
            ejected_s=ejected_s,
            longest_ms=max(a.ms for a in load.answers),
            control=summary(between(unprotected.answers, killed_s))[:90],
        )
        asker.close()
        control.close()
    assert failures_sent_after(unprotected.answers, killed_s) >= 10, summary(unprotected.answers)
