"""Promise 4: a server that was restarted gets its models back and its plan is used, unattended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checks import check_right_and_in_time, note
from tests.faults.plane import DEADLINE_MS, EDGE, Plane, Watched, deployed_plane
from tests.helpers.faults import kill
from tests.helpers.load import between, closed_loop, summary
from tritier.documents import NetworkState, WatchRecord
from tritier.errors import InfeasibleError
from tritier.workflow.watch import Watcher, WatchSettings
from tritier.workflow.watch_act import Actor
from tritier.workflow.watch_look import Looker
from tritier.workflow.watch_loop import WatchLoop
from tritier.workflow.watch_plan import Replanner

pytestmark = pytest.mark.integration
_USED_AGAIN_S = 10.0
_WITHOUT_S = 5.0
_INTERVAL_S = 0.5


class _NoPlans(Replanner):
    """No other plan is found: what serves stays, and only what a server lacks is loaded."""

    def __init__(self) -> None:
        """Without profiles, as nothing is planned."""

    def find(self, *_: Any) -> Any:
        raise InfeasibleError("nothing is planned in this test")


@contextmanager
def _watching(plane: Plane) -> Iterator[list[WatchRecord]]:
    """`tritier watch`, without a command line and without probes of links."""
    told: list[WatchRecord] = []
    folder = plane.folder / "watch"
    folder.mkdir(exist_ok=True)
    actor = Actor(
        plane.repositories,
        plane.folder / "servers.yaml",
        plane.spec,
        plane.state,
        plane.model,
        folder,
        "always",
        plane.server("device").metrics_url,
    )
    loop = WatchLoop(
        Watcher(WatchSettings()),
        Looker(plane.addresses.urls),
        _NoPlans(),
        actor,
        NetworkState(),
        told.append,
    )
    stop = threading.Event()
    loop.begin()
    thread = threading.Thread(target=loop.run, args=(_INTERVAL_S, stop.is_set))
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join(timeout=30)


def test_a_restarted_edge_is_used_again(tmp_path: Path) -> None:
    """The control is a second restart without the watch: the plan stays out."""
    with (
        deployed_plane(tmp_path, {"edge": EDGE}) as plane,
        plane.watched() as watched,
        closed_loop(plane.asker(deadline_ms=DEADLINE_MS), 2, 0.02) as load,
    ):
        edge = plane.id_of("edge")
        with _watching(plane) as told:
            live_s = _restarted(plane, watched, edge)
            again_s = _used_again_s(watched, edge, live_s, _USED_AGAIN_S)
        events = [record.event for record in told]
        second_s = _restarted(plane, watched, edge)
        time.sleep(_WITHOUT_S)
        assert _answers_of(watched, edge, second_s) == 0, watched.now()
        end_s = time.monotonic()
    note("4", used_again_s=again_s, answers=len(load.answers), events=events)
    assert "reconciled" in events, told
    check_right_and_in_time(load.answers, DEADLINE_MS)
    _only_the_killed_failed(between(load.answers, 0, end_s))


def _restarted(plane: Plane, watched: Watched, edge: str) -> float:
    """Kill the edge, wait until its plan is out, start it again; when it was live."""
    kill(plane.server("edge"))
    watched.wait_for("ejected", 1, 10, plan=edge)
    plane.lab.restart("edge")
    return time.monotonic()


def _used_again_s(watched: Watched, edge: str, live_s: float, patience_s: float) -> float:
    while not _answers_of(watched, edge, live_s):
        assert time.monotonic() < live_s + patience_s, watched.now()
        time.sleep(0.05)
    return time.monotonic() - live_s


def _answers_of(watched: Watched, edge: str, since_s: float) -> float:
    """Answers that the plan has given since then, as far as the router has told."""
    labels = {"plan": edge, "status": "OK"}
    counts = [watched.sum(values, "requests_total", **labels)
              for seen_s, values in list(watched.seen) if seen_s >= since_s]  # fmt: skip
    return counts[-1] - counts[0] if counts else 0.0


def _only_the_killed_failed(answers: Sequence[Any]) -> None:
    failed = [a for a in answers if not a.ok]
    # Two workers, two deaths.
    assert len(failed) <= 4, summary(failed)
