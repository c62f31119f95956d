"""Real architectures with drawn weights, cut at random: the parts equal the whole, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.conformance.cases import Case
from tests.conformance.cuts import Split, drawn_placements, split, try_model
from tests.conformance.drawn import ARCHITECTURES, drawn_case

_CUTS = 4
_SEED = 1


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request: pytest.FixtureRequest) -> Case:
    return drawn_case(request.param)


def test_cuts_at_random_are_equal(case: Case) -> None:
    result = try_model(case, _CUTS, _SEED)
    assert (result.equal, result.refused) == (_CUTS, 0)


def test_outputs_depend_on_the_input(case: Case) -> None:
    (one,), (other,) = case.whole(0).values(), case.whole(1).values()
    assert np.isfinite(one.astype(np.float32)).all()
    assert np.mean(one != other) > 0.5


def test_another_weight_is_noticed(case: Case) -> None:
    made = split(case, next(drawn_placements(case.layers, 1, _SEED)))
    _change_last_weights(made)
    with pytest.raises(AssertionError):
        made.check(0)


def _change_last_weights(made: Split) -> None:
    """Add to the weights, of the last layer that has any, for its first channel."""
    for component in reversed(made.plan.components):
        sub = onnx.load_model_from_string(made.models[component.id])
        floats = {t.name: t for t in sub.graph.initializer if t.data_type == t.FLOAT}
        read = [floats[name] for node in sub.graph.node for name in node.input if name in floats]
        if read:
            weights = numpy_helper.to_array(read[-1]).copy()
            weights[0] += 0.01
            read[-1].CopyFrom(numpy_helper.from_array(weights, read[-1].name))
            made.models[component.id] = sub.SerializeToString()
            return
