"""Settings of all tests: property tests draw the same examples in every run."""

from __future__ import annotations

import gc

from hypothesis import Phase, settings

# Same examples everywhere, so that a red test stays red until its cause is gone.
settings.register_profile(
    "tritier",
    derandomize=True,
    deadline=None,
    print_blob=True,
    # Explaining a failure takes minutes where examples take milliseconds.
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
settings.load_profile("tritier")


def pytest_collection_finish() -> None:
    """Take what is imported by now out of the garbage collector's sight.

    Models are folded thousands of times, with a collection after each, and a collection of all
    that the libraries hold takes longer than most tests.
    """
    gc.collect()
    gc.freeze()
