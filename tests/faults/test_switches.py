"""Promise 6 in short: plans are switched under load, and no request fails.

`python -m benchmarks.switches` switches 20 times.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.checks import check_right_and_in_time, note
from tests.faults.switches import DEADLINE_MS, replaced, switches, two_families
from tritier.deployment.client import TritonServer

pytestmark = pytest.mark.integration
_COUNT = 2


def test_plans_are_switched_under_load(tmp_path: Path) -> None:
    """The control takes away the old plan first: then requests fail."""
    with two_families(tmp_path) as (plane, families):
        found = switches(plane, families, _COUNT)
        device = plane.addresses.urls["device"]
        with TritonServer("device", device) as server:
            # The last switch went back to the first family: nothing of the other is left.
            other = families[0].manifest.plans
            assert other
            assert not server.serves(f"small__{other[0].id}")
            assert server.serves(plane.model_name("edge"))
        control = replaced(plane, families)
    note("6", switches=found.text(), control=control.text())
    check_right_and_in_time(found.answers, DEADLINE_MS)
    assert len(found.switched) == _COUNT
    assert all(s.is_new_router and s.unloaded and not s.warnings for s in found.switched), found
    assert not found.failed, found.text()
    assert control.failed, control.text()
