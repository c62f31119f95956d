"""Real architectures with drawn weights, layers quantized, wires coded: the parts equal the uncut
model that is quantized and coded in the same way, bit for bit."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest

from tests.conformance.cases import Case, case_of
from tests.conformance.cuts import SERVERS, drawn_placements
from tests.conformance.drawn import ARCHITECTURES, drawn_case
from tests.helpers.coded import measured_ranges, realised_proto
from tests.helpers.models import assert_same_bits, spec
from tritier.divider import Chain, WholeModel, cut_model, realise
from tritier.documents import Codec, Plan, Quantization, Ranges
from tritier.graph import profile_model
from tritier.workflow import code_plan, plan_from_placement

# Of the three servers, in turn.
SETTINGS = (
    Quantization(),
    Quantization(activation_type="uint8", per_channel=True, reduce_range=True),
    Quantization(activation_type="uint8"),
)
CODECS: tuple[Codec, ...] = ("as_is", "fp16", "int8", "uint8")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request: pytest.FixtureRequest) -> Case:
    """The drawn net at an opset that can be quantized."""
    drawn = drawn_case(request.param)
    newer = onnx.version_converter.convert_version(drawn.model.proto, 17)
    return case_of(f"{drawn.name}/17", newer, drawn.samples)


@pytest.fixture(scope="module")
def ranges(case: Case) -> Ranges:
    return measured_ranges(case.model, [case.samples[0].inputs])


def _plan(case: Case, ranges: Ranges, seed: int) -> Plan:
    """Layers at random, half of the quantizable ones quantized, a codec drawn per tensor."""
    draw = random.Random(seed)
    found = spec(SERVERS)
    servers = tuple(
        server.model_copy(update={"quantization": SETTINGS[index % 3]})
        for index, server in enumerate(found.servers)
    )
    placement = next(drawn_placements(case.layers, 1, seed))
    plain = plan_from_placement(
        case.model, case.graph, placement, found.model_copy(update={"servers": servers}), "m"
    )
    candidates = profile_model(case.model).quantizable_layers
    layers = draw.sample(candidates, len(candidates) // 2)
    codecs = {
        name: draw.choice(CODECS)
        for name in sorted({plain.tensor(wire.tensor).name for wire in plain.wires})
        if draw.random() < 0.7
    }
    return code_plan(plain, case.model, case.graph, layers, ranges, None, codecs)


@pytest.mark.parametrize("seed", range(3))
def test_parts_equal_the_uncut_model_with_the_same_coding(
    case: Case, ranges: Ranges, seed: int
) -> None:
    plan = _plan(case, ranges, seed)
    assert plan.quantized_layers
    assert len(plan.components) > 1
    subs = {s.component: s.data for s in cut_model(realise(case.model.proto, case.graph, plan))}
    chain = Chain(plan, subs, "disabled")
    whole = WholeModel(realised_proto(case.model, plan).SerializeToString(), "disabled")
    for index, sample in enumerate(case.samples):
        expected = whole.run(sample.inputs)
        assert_same_bits(expected, chain.run(sample.inputs))
        # The control: it is not the float model.
        original = case.whole(index)
        assert any(not np.array_equal(original[name], expected[name]) for name in original)
