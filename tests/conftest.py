"""Settings of all tests: property tests draw the same examples in every run."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests.helpers.examples import examples

# Same examples everywhere, so that a red test stays red until its cause is gone.
settings.register_profile(
    "tritier",
    max_examples=examples(100),  # hypothesis' own number; tests may say another
    derandomize=True,
    deadline=None,
    print_blob=True,
    # Explaining a failure takes minutes where examples take milliseconds.
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
settings.load_profile("tritier")


# Folders of tests that start real servers and processes (decision 023).
TRIED_TWICE = {"commands", "faults", "integration"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests with real servers a second try; what failed once is in the run's last lines."""
    for item in items:
        if TRIED_TWICE & set(item.path.relative_to(Path(__file__).parent).parts):
            item.add_marker(pytest.mark.flaky(max_runs=2, min_passes=1))


def pytest_collection_finish() -> None:
    """Take what is imported by now out of the garbage collector's sight.

    Models are folded thousands of times, with a collection after each, and a collection of all
    that the libraries hold takes longer than most tests.
    """
    gc.collect()
    gc.freeze()
