"""The integer program of a tiny placement problem, as PuLP writes it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.helpers.problems import tiny_problem
from tritier.planner.problem import Weights
from tritier.planner.pulp_model import build


def text() -> str:
    """In the LP format."""
    model = build(tiny_problem(), Weights(per_ms=1.0, per_joule=100.0))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "tiny.lp"
        model.rows.program.writeLP(str(path))
        return path.read_text(encoding="utf-8")
