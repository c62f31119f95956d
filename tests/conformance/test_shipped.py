"""Every model that onnx ships: cut and equal, or refused for a known reason, or of one layer."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conformance.cases import converted_case, shipped_case, shipped_names
from tests.conformance.cuts import try_model
from tests.conformance.drawn import ARCHITECTURES
from tests.conformance.expected import (
    COUNTS,
    EQUAL,
    OLD_OPSET,
    REFUSED,
    STUCK,
    Expectation,
    expectation,
    surprises,
)

_LIGHT_CUTS = 3


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_models_end_as_expected(name: str) -> None:
    result = try_model(shipped_case(name), _LIGHT_CUTS)
    assert surprises(result, expectation(name)) == []
    assert result.cuts + result.moved + result.stuck > 0


@pytest.mark.parametrize("name", OLD_OPSET)
def test_models_of_old_opsets_are_equal_in_a_newer_one(name: str) -> None:
    result = try_model(converted_case(name), _LIGHT_CUTS)
    assert surprises(result, Expectation("equal", movable=True)) == []


def test_every_shipped_model_is_accounted_for() -> None:
    names = shipped_names()
    assert Counter(expectation(name).outcome for name in names) == COUNTS
    assert len(names) == sum(COUNTS.values()) == 149
    assert {*EQUAL, *REFUSED, *STUCK} <= set(names)
    assert {f"light/{name}" for name in ARCHITECTURES} <= set(EQUAL)
