"""Promise 7 in short: what servers hold does not grow while they are asked.

`python -m benchmarks.soak` does it for ten minutes, and then sends 10,000 requests by Locust.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.checks import check_right_and_in_time, note
from tests.faults.plane import EDGE, Plane, deployed_plane
from tests.faults.soak import DEADLINE_MS, FDS_SLACK, Soak, soak
from tests.helpers.faults import resources_of

pytestmark = pytest.mark.integration
_SECONDS, _RATE_PER_S = 10.0, 40.0


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder: Path = tmp_path_factory.mktemp("soak")
    with deployed_plane(folder, {"edge": EDGE}, deadline_ms=DEADLINE_MS) as found:
        yield found


def test_nothing_grows_under_load(plane: Plane) -> None:
    asker = plane.asker(deadline_ms=DEADLINE_MS)
    found = soak(plane, asker, _RATE_PER_S, _SECONDS, 0.25)
    asker.close()
    note("7", soak=found.text())
    check_right_and_in_time(found.answers, DEADLINE_MS)
    assert not found.failed, found.text()
    assert not found.faults(), found.text()
    assert len(found.answers) >= 0.9 * _RATE_PER_S * _SECONDS


def test_what_grows_is_seen(plane: Plane) -> None:
    """The control: connections that nobody closes, to a real server."""
    device = plane.server("device")
    host, _, port = device.grpc_url.rpartition(":")
    rows = []
    with ExitStack() as stack:
        for number in range(20):
            for _ in range(FDS_SLACK):
                stack.enter_context(socket.create_connection((host, int(port)), 5))
            rows.append((float(number), resources_of(device)))
    leaking = Soak({"device": rows})
    assert any("fds" in text for text in leaking.faults()), leaking.text()
