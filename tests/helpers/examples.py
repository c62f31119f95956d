"""How many examples property tests draw: all in the whole suite, a few in `make unit`."""

from __future__ import annotations

import os

QUICK = os.environ.get("TRITIER_QUICK_TESTS") == "1"


def examples(count: int) -> int:
    """So many, or a tenth in a quick run."""
    return max(count // 10, 4) if QUICK else count
