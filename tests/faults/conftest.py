"""Servers that tests harm: never those that other tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.target import Target, deployed_target


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A plan with every kind of model, which survives what the tests do to it."""
    with deployed_target(tmp_path_factory.mktemp("hostile")) as found:
        yield found
