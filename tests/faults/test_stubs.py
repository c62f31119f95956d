"""Promise 3: a Python process dies while Triton says that its model is ready.

The plan is ejected after three failures, whether the process is that of a proxy on the entry or
that of a component on the edge, and no request fails for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.faults.checks import check_right_and_in_time, note
from tests.faults.plane import EDGE, Plane, deployed_plane
from tests.helpers.faults import kill_stubs
from tests.helpers.load import summary
from tritier.deployment.client import TritonServer

pytestmark = pytest.mark.integration
_DEADLINE_MS = 8000
_EJECT_AFTER = 3


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """Two plans, so that each test can spoil one for good."""
    placements = {"one": EDGE, "two": {**EDGE, "conv2": "edge", "relu2": "edge"}}
    classes = {"first": ["one", "whole"], "second": ["two", "whole"]}
    with deployed_plane(
        tmp_path_factory.mktemp("stubs"), placements, deadline_ms=_DEADLINE_MS, classes=classes
    ) as found:
        yield found


@pytest.mark.parametrize(
    ("plan", "server", "what"), [("one", "device", "__c1__call"), ("two", "edge", "__c1")]
)
def test_a_killed_stub_ejects_the_plan_after_three_failures(
    plane: Plane, plan: str, server: str, what: str
) -> None:
    """The control is the same plan past the router: it goes on failing, and Triton says ready."""
    plan_id = plane.id_of(plan)
    request_class = {"one": "first", "two": "second"}[plan]
    asker = plane.asker(deadline_ms=_DEADLINE_MS, parameters={"class": request_class})
    control = plane.asker(plan, deadline_ms=_DEADLINE_MS)
    model = plane.model_name(plan) + what
    with plane.watched() as watched:
        assert all(asker.ask(n).ok for n in range(3))
        time.sleep(0.5)
        assert watched.value("ejected", plan=plan_id) == 0
        kill_stubs(plane.server(server), model)
        answers = [asker.ask(n) for n in range(8)]
        time.sleep(0.5)
        failures = watched.value("failures_total", plan=plan_id)
        assert watched.value("ejected", plan=plan_id) == 1, (summary(answers), watched.now())
        check_right_and_in_time(answers, _DEADLINE_MS)
        assert all(a.ok for a in answers), summary(answers)
        # A probe may be among the failures that were counted, and on its way when it was ejected.
        assert 1 <= failures <= _EJECT_AFTER + 1, watched.now()
        note(
            f"3 {what}",
            failures=failures,
            failed=sum(not a.ok for a in answers),
            longest_ms=max(a.ms for a in answers),
        )
        still = [control.ask(n) for n in range(2)]
        assert not any(a.ok for a in still), summary(still)
        with TritonServer(server, plane.addresses.urls[server]) as client:
            client.config(model)  # raises for a model that is not ready
    asker.close()
    control.close()
