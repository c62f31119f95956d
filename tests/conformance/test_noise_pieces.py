"""Random networks with any layers quantized: cut into pieces that run once, they give the bits of
the whole quantized model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.models import assert_same_bits, parse
from tests.helpers.noise import numbers
from tritier.calibration import Arrays, calibratable
from tritier.documents import Quantization, Ranges
from tritier.errors import InputError
from tritier.graph import LoadedModel, build_layer_graph
from tritier.noise import Executor

_WEIGHTS = ", ".join(
    [
        *(numbers(f"w{i}", (4, 4, 1, 1), i) for i in range(3)),
        *(numbers(f"b{i}", (4,), 10 + i) for i in range(3)),
        *(numbers(f"v{i}", (1, 4, 1, 1), 20 + i) for i in range(3)),
        *(numbers(f"m{i}", (4, 4), 30 + i) for i in range(3)),
        "float zero = {0}, float six = {6}, float one = {1}, float half = {0.5}",
        "float root = {1.41421356}, float two = {2}, float small = {0.00001}",
        "int64[4] border = {0, 0, 0, 1}, int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}",
        "int64[2] flat = {16, 4}, int64[4] square = {1, 4, 4, 4}, int64[2] halves = {2, 2}",
    ]
)
# What ONNX Runtime fuses, moves or replaces by integers; $y is made of $x and perhaps $z, all of
# shape (1, 4, 4, 4), i is 0 to 2 and % starts the names of what is inside.
_BLOCKS = [
    "$y = Conv($x, wi, bi)",
    "%a = Conv($x, wi) $y = Relu(%a)",
    "%a = Conv($x, wi, bi) %b = Mul(%a, vi) %c = Add(%b, vi) $y = Clip(%c, zero, six)",
    "%a = Conv($x, wi) %b = Sigmoid(%a) $y = Mul(%a, %b)",
    "%a = Conv($x, wi, bi) %b = Add(%a, $z) $y = Relu(%b)",
    "%a = Conv($x, wi) %b = Relu(%a) "
    "%c = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(%b) $y = Conv(%c, wi, bi)",
    "%a = Pad($x, pads) %b = Conv(%a, wi) "
    "$y = AveragePool<kernel_shape = [3, 3]>(%b)",
    "%a = Div($x, root) %b = Erf(%a) %c = Add(%b, one) %d = Mul($x, %c) $y = Mul(%d, half)",
    "%m = ReduceMean<axes = [-1]>($x) %d = Sub($x, %m) %p = Pow(%d, two) "
    "%v = ReduceMean<axes = [-1]>(%p) %e = Add(%v, small) %s = Sqrt(%e) %q = Div(%d, %s) "
    "%w = Mul(%q, bi) $y = Add(%w, bi)",
    "%a = Reshape($x, flat) %b = MatMul(%a, mi) %c = Add(%b, bi) $y = Reshape(%c, square)",
    "%a = Reshape($x, flat) %b = Gemm(%a, mi, bi) %c = Tanh(%b) $y = Reshape(%c, square)",
    "%a = Transpose<perm = [0, 1, 3, 2]>($x) $y = MatMul(%a, $z)",
    "%a = Mul($x, half) %b = Softmax($z) $y = MatMul(%a, %b)",
    "%a, %b = Split<axis = 1>($x, halves) %c = Relu(%b) $y = Concat<axis = 1>(%c, %a)",
    "%a = GlobalAveragePool($x) %b = Conv(%a, wi) %c = HardSigmoid(%b) $y = Mul($z, %c)",
    "%a = BatchNormalization($x, bi, bi, bi, one4) $y = Sigmoid(%a)",
    "$y = Add($x, $x)",
    "%a = LeakyRelu<alpha = 0.1>($x) $y = Identity(%a)",
]  # fmt: skip
_FORMATS = [
    Quantization(),
    Quantization(activation_type="uint8"),
    Quantization(activation_type="uint8", per_channel=True, reduce_range=True),
    Quantization(activation_type="uint8", weight_type="uint8"),
]


@st.composite
def networks(draw: st.DrawFn) -> LoadedModel:
    """Blocks, each behind the last or one of the others; outputs are the last two of them."""
    nodes, made = [], ["x"]
    for index in range(draw(st.integers(2, 5))):
        last, other = made[-1], draw(st.sampled_from(made))
        block = draw(st.sampled_from(_BLOCKS))
        for sign, name in (("$x", last), ("$z", other), ("$y", f"y{index}"), ("%", f"t{index}")):
            block = block.replace(sign, name)
        chosen = str(draw(st.integers(0, 2)))
        for letter in "wbvm":
            block = block.replace(f" {letter}i", f" {letter}{chosen}")
        nodes.append(block)
        made.append(f"y{index}")
    shape = "float[1,4,4,4]"
    text = (
        f"g ({shape} x) => ({shape} {made[-2]}, {shape} {made[-1]}) <{_WEIGHTS}, "
        f"float[4] one4 = {{1, 2, 3, 4}}> {{ {' '.join(nodes)} }}"
    )
    return LoadedModel(Path("m.onnx"), "0" * 64, parse(text))


@given(networks(), st.data())
@settings(max_examples=10, deadline=None)
def test_pieces_give_the_bits_of_the_whole(model: LoadedModel, data: st.DataObject) -> None:
    graph = build_layer_graph(model.proto)
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    inputs: Arrays = {"x": draw.normal(size=(1, 4, 4, 4)).astype(np.float32)}
    low, high = data.draw(st.sampled_from([(-3.0, 4.0), (-1.0, 1.0), (0.0, 6.0)]))
    ranges = Ranges(
        model_sha256=model.sha256, method="minmax", samples=1,
        ranges=dict.fromkeys(calibratable(model), (low, high)),
    )  # fmt: skip
    form = data.draw(st.sampled_from(_FORMATS))
    kernels = data.draw(st.booleans())

    every = tuple(layer.name for layer in graph.layers)
    alone = Executor(model, graph, every, ranges, form, memoise=False)
    layers = tuple(n for i, n in enumerate(every) if _can_be_quantized(alone, 1 << i))
    tried = Executor(model, graph, layers, ranges, form, kernels)
    last = (1 << len(layers)) - 1
    drawn = data.draw(st.lists(st.integers(0, last), min_size=2, max_size=4))
    found = tried.run(
        tried.compile([0, *drawn, last]),
        inputs,
        lambda _, made: {name: array.copy() for name, array in made.items()},
    )
    for subset, made in found.items():
        assert_same_bits(tried.run_whole(subset, inputs), made)


def _can_be_quantized(executor: Executor, subset: int) -> bool:
    try:
        executor.quantized_model(subset)
    except InputError:
        return False
    return True
