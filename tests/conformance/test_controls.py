"""What this suite can notice: it fails when a cut, a value or an outcome is wrong (for weights
see `test_drawn`)."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from tests.conformance.cases import assert_near, shipped_case
from tests.conformance.cuts import Result, Split, drawn_placements, split
from tests.conformance.drawn import drawn_case
from tests.conformance.expected import EQUAL, SEQUENCES, Expectation, expectation, surprises

_SEEDS = range(20)
# Those of densenet121 join tensors of different shapes only.
_WITH_CONCAT = ("inception_v1", "inception_v2", "shufflenet", "squeezenet")


def _splits(architecture: str) -> Iterator[Split]:
    case = drawn_case(architecture)
    for seed in _SEEDS:
        for placement in drawn_placements(case.layers, 3, seed):
            yield split(case, placement)


def _swap_two_inputs(made: Split) -> bool:
    """Make a Concat read its inputs in another order, if two of the same shape come from other
    components."""
    for component in made.plan.components:
        sub = onnx.load_model_from_string(made.models[component.id])
        for node in (n for n in sub.graph.node if n.op_type == "Concat"):
            given = [tensor for tensor in node.input if tensor in component.inputs]
            for one, other in itertools.combinations(given, 2):
                if made.plan.tensor(one).shape == made.plan.tensor(other).shape:
                    swapped = {one: other, other: one}
                    names = [swapped.get(name, name) for name in node.input]
                    del node.input[:]
                    node.input.extend(names)
                    made.models[component.id] = sub.SerializeToString()
                    return True
    return False


@pytest.mark.parametrize("architecture", _WITH_CONCAT)
def test_two_swapped_tensors_are_noticed(architecture: str) -> None:
    made = next(made for made in _splits(architecture) if _swap_two_inputs(made))
    with pytest.raises(AssertionError):
        made.check(0)


def test_other_values_than_onnx_expects_are_noticed() -> None:
    case = shipped_case("pytorch-converted/test_Softmin")
    expected = case.samples[0].expected
    assert expected is not None
    near = {name: array.astype(np.float32) * np.float32(1.0005) for name, array in expected.items()}
    far = {name: array.astype(np.float32) * np.float32(1.002) for name, array in expected.items()}
    assert_near(expected, near)
    with pytest.raises(AssertionError):
        assert_near(expected, far)
    with pytest.raises(AssertionError):
        case.check(0, near)


@pytest.mark.parametrize(
    ("result", "surprise"),
    [
        (Result(EQUAL[0], 24, equal=1, refused=1, reasons=Counter(["no"])), "equal and refused"),
        (Result(EQUAL[0], 24, refused=2, reasons=Counter(["no"])), "another reason: no"),
        (Result(EQUAL[0], 24), "not tried"),
        (Result(EQUAL[0], 1, moved=3), "not multi-node, expected equal"),
        (Result("simple/test_sequence_model4", 2, equal=6, moved=3), "no longer refused"),
        (
            Result(
                "simple/test_sequence_model4",
                2,
                refused=6,
                stuck=3,
                reasons=Counter([SEQUENCES["simple/test_sequence_model4"][0]]),
            ),
            "stuck 3",
        ),
    ],
)
def test_another_outcome_is_noticed(result: Result, surprise: str) -> None:
    assert surprise in "\n".join(surprises(result, expectation(result.name)))


def test_an_expected_outcome_is_no_surprise() -> None:
    assert surprises(Result("m", 2, equal=6, moved=3), Expectation("equal", movable=True)) == []
