"""What this suite has found in the planner and the divider, kept small."""

from __future__ import annotations

from tests.helpers.models import parse
from tritier.divider.run import open_session


def test_sessions_that_wait_leave_the_processor_alone() -> None:
    # A chain opens a session per component; 154 of them, spinning, took 15 s instead of 0.3 s.
    proto = parse("g (float[4] x) => (float[4] y) { y = Relu(x) }")
    session = open_session(proto.SerializeToString(), "disabled")
    options = session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
