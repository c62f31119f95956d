"""The memoising executor: the bits of whole quantized models, each piece of work done once."""

from __future__ import annotations

import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.helpers.models import assert_same_bits, load
from tests.helpers.noise import numbers
from tritier.calibration import Arrays, calibratable
from tritier.documents import Quantization, Ranges
from tritier.errors import InputError
from tritier.graph import build_layer_graph
from tritier.noise import Executor, in_prefix_order
from tritier.noise.pieces import ConstantKeys

_UNSIGNED = Quantization(activation_type="uint8", per_channel=True, reduce_range=True)
_FORMATS = [Quantization(), _UNSIGNED]
_CONSTANTS = ", ".join(
    [
        *(numbers(f"w{i}", (4, 4, 1, 1), i) for i in range(5)),
        *(numbers(f"b{i}", (4,), 10 + i) for i in range(2)),
        numbers("v", (1, 4, 1, 1), 20),
        f"float[4,4,1,1] ones = {{{', '.join('1' * 16)}}}",  # saturates where int8 can
        "float one = {1}, float half = {0.5}, float root = {1.41421356}, float two = {2}",
        "float small = {0.00001}, int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}",
    ]
)
_CHAIN = "[c0] a = Conv(x, w0) [c1] b = Conv(a, w1) [c2] c = Conv(b, w2) [c3] y = Conv(c, w3)"


def _executor(
    folder: Path,
    nodes: str,
    layers: str,
    settings: Quantization = _UNSIGNED,
    outputs: str = "y",
    **options: Any,
) -> Executor:
    """For a network of x (N, 4, 4, 4)."""
    made = ", ".join(f"float[N,4,4,4] {name}" for name in outputs.split())
    model = load(folder, f"g (float[N,4,4,4] x) => ({made}) <{_CONSTANTS}> {{ {nodes} }}")
    graph = build_layer_graph(model.proto)
    ranges = Ranges(
        model_sha256=model.sha256, method="minmax", samples=1,
        ranges=dict.fromkeys(calibratable(model), (-3.0, 4.0)),
    )  # fmt: skip
    return Executor(model, graph, tuple(layers.split()), ranges, settings, **options)


def _inputs(seed: int) -> Arrays:
    draw = np.random.default_rng(seed)
    return {"x": draw.normal(size=(1, 4, 4, 4)).astype(np.float32)}


def _copied(_: int, made: Arrays) -> Arrays:
    return {name: array.copy() for name, array in made.items()}


def _compare(executor: Executor, subsets: list[int] | None = None) -> None:
    inputs = _inputs(0)
    program = executor.compile(subsets or list(range(1 << len(executor.layers))))
    for subset, made in executor.run(program, inputs, _copied).items():
        assert_same_bits(executor.run_whole(subset, inputs), made)


def _runs(executor: Executor, subsets: list[int]) -> int:
    """How often sessions run for these subsets."""
    return len(executor.compile(subsets).steps) - len(subsets)


# What ONNX Runtime makes one node of, while no layer in it is quantized.
_FUSED = {
    "conv, affine, activation": (
        "[c0] a = Conv(x, w0) [mul] b = Mul(a, v) [add] c = Add(b, v) [act] y = Relu(c)",
        "add act",
    ),
    "gelu": (
        "[c0] a = Conv(x, w0) [div] b = Div(a, root) [erf] c = Erf(b) [add] d = Add(c, one) "
        "[mul] e = Mul(a, d) [last] y = Mul(e, half)",
        "c0 mul last",
    ),
    "layer normalisation": (
        "[m] m = ReduceMean<axes = [-1]>(x) [sub] d = Sub(x, m) [pow] p = Pow(d, two) "
        "[v] v2 = ReduceMean<axes = [-1]>(p) [e] e = Add(v2, small) [s] s = Sqrt(e) "
        "[div] q = Div(d, s) [mul] n = Mul(q, b0) [add] y = Add(n, b1)",
        "div add",
    ),
    "scaled product": ("[mul] a = Mul(x, half) [mm] y = MatMul(a, x)", "mm"),
}


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("name", _FUSED)
def test_what_is_fused_stays_in_one_piece(tmp_path: Path, name: str, kernels: bool) -> None:
    nodes, layers = _FUSED[name]
    _compare(_executor(tmp_path, nodes, layers, kernels=kernels))


# What int8 kernels hang on, beyond the layer itself.
_REPLACED = {
    "a float layer between quantized ones": (
        "[c0] a = Conv(x, w0) [c1] b = Conv(a, w1, b0) [r] r = Relu(b) [c2] y = Conv(r, w2)",
        "c0 c2",
    ),
    "folded and padded": (
        "[c0] a = Conv(x, w0) [p] p = Pad(a, pads) [c1] b = Conv(p, w1) [mul] m = Mul(b, v) "
        "[c2] c = Conv(m, w2) [pool] y = AveragePool<kernel_shape = [3, 3]>(c)",
        "c0 c2",
    ),
    "moved": (
        "[c0] a = Conv(x, w0) [s] s = Sigmoid(a) [t] t = Transpose<perm = [0, 1, 3, 2]>(s) "
        "[c1] b = Conv(t, w1) [c2] y = Conv(b, w2)",
        "c0 c1 c2",
    ),
    "moved to the next piece": (
        "[c0] a = Conv(x, w0) [p] p = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a) "
        "[c1] b = Conv(a, w1) [c2] c = Conv(b, w2) [mm] y = MatMul(p, c)",
        "c0 c1 c2",
    ),
    "several readers": (
        "[c0] a = Conv(x, ones) [c1] b = Conv(a, ones) [add] c = Add(a, b) "
        "[c2] d = Conv(a, ones) [mul] y = Mul(c, d)",
        "c0 c1 c2",
    ),
    "constants shared, an input twice": (
        "[c0] a = Conv(x, w0, b0) [c1] b = Conv(a, w0, b0) [add] c = Add(b, b) [c2] y = "
        "Conv(c, w0, b0)",
        "c0 c1 add",
    ),
}


@pytest.mark.parametrize("settings", _FORMATS, ids=["s8", "u8 per channel"])
@pytest.mark.parametrize("name", _REPLACED)
def test_int8_kernels_are_those_of_the_whole(
    tmp_path: Path, name: str, settings: Quantization
) -> None:
    nodes, layers = _REPLACED[name]
    _compare(_executor(tmp_path, nodes, layers, settings, kernels=True))


@pytest.mark.parametrize("kernels", [False, True])
def test_outputs_that_are_quantized_and_read_again(tmp_path: Path, kernels: bool) -> None:
    nodes = "[c0] a = Conv(x, w0) [c1] b = Conv(a, w1) [c2] y = Conv(b, w2)"
    _compare(_executor(tmp_path, nodes, "c0 c1 c2", Quantization(), "a b y", kernels=kernels))


@pytest.mark.parametrize("kernels", [False, True])
def test_sub_graphs_read_what_is_quantized(tmp_path: Path, kernels: bool) -> None:
    nodes = """
        [c0] a = Conv(x, w0) [sum] s = ReduceSum<keepdims = 0>(a) [is] c = Greater(s, half)
        [if] b = If(c) <
          then_branch = t () => (float[N,4,4,4] p) { p = Neg(a) },
          else_branch = e () => (float[N,4,4,4] q) { q = Mul(a, a) }>
        [c1] y = Conv(b, w1)
    """
    _compare(_executor(tmp_path, nodes, "c0 sum c1", kernels=kernels))


def test_nothing_is_run_twice(tmp_path: Path) -> None:
    """In a chain each Conv is a piece, and what changes in a layer changes all behind it."""
    executor = _executor(tmp_path, _CHAIN, "c0 c1 c2 c3")
    assert _runs(executor, [0]) == 4
    program = executor.compile_singles()
    assert len(program.steps) - 5 == 4 + (1 + 2 + 3 + 4)
    every = in_prefix_order(list(range(16)), 4)
    assert _runs(executor, every) == 2 + 4 + 8 + 16
    assert executor.compile(every).work < 0.6
    # c1 and c2 read the same: what one of them changes is not computed again for the other.
    branches = "[c0] a = Conv(x, w0) [c1] b = Conv(a, w1) [c2] c = Conv(a, w2) [o] y = Sub(b, c)"
    found = _executor(tmp_path, branches, "c0 c1 c2")
    assert found.compile(list(range(8))).work < 1


def test_without_memory_each_subset_is_one_session(tmp_path: Path) -> None:
    executor = _executor(tmp_path, _CHAIN, "c0 c1 c2 c3", memoise=False)
    program = executor.compile([0, 1, 3, 15])
    assert (len(program.steps) - 4, program.work) == (4, 1.0)
    _compare(executor, [0, 5, 15])


class _Watched(Executor):
    """Notes which values are held."""

    held: dict[bytes, Any]
    most = 0

    def _run_piece(self, step: Any, values: Any) -> None:
        super()._run_piece(step, values)
        self.held, self.most = values, max(self.most, len(values))


def test_values_go_when_they_are_used(tmp_path: Path) -> None:
    plain = _executor(tmp_path, _CHAIN, "c0 c1 c2 c3")
    watched = _Watched(plain.model, plain.graph, plain.layers, plain.ranges, plain.settings)
    subsets = in_prefix_order(list(range(16)), 4)
    watched.run(watched.compile(subsets), _inputs(0), _copied)
    assert len(watched.held) == 1  # the input
    assert watched.most <= 1 + 2 * 4  # along one chain, where it changes once more


def test_copies_in_other_processes_give_the_same(tmp_path: Path) -> None:
    executor = _executor(tmp_path, _CHAIN, "c0 c2")
    program = executor.compile([0, 1, 3])
    before = executor.run(program, _inputs(0), _copied)
    again, same = pickle.loads(pickle.dumps((executor, program)))
    after = again.run(same, _inputs(0), _copied)
    for subset in before:
        assert_same_bits(before[subset], after[subset])
    _compare(again, [0, 1, 2, 3])


def test_threads_share_an_executor(tmp_path: Path) -> None:
    executor = _executor(tmp_path, _CHAIN, "c0 c1 c2 c3")
    program = executor.compile(in_prefix_order(list(range(16)), 4))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda i: executor.run(program, _inputs(i), _copied), range(4)))
    for seed in range(4):
        alone = executor.run(program, _inputs(seed), _copied)
        for subset in alone:
            assert_same_bits(alone[subset], found[seed][subset])


def test_constants_are_told_apart_by_content() -> None:
    model = onnx.ModelProto()
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    keys = ConstantKeys(model)
    own = keys.of(model.graph.initializer[0])
    others = [numpy_helper.from_array(np.full(2, i, np.float32), "w") for i in range(2)]
    assert len({own, *map(keys.of, others)}) == 3
    again = numpy_helper.from_array(np.zeros(2, np.float32), "w")
    assert keys.of(again) == keys.of(others[0])


def test_layers_that_cannot_be_quantized_are_named(tmp_path: Path) -> None:
    nodes = "[c0] a = Conv(x, w0) [is] b = Greater(a, half) [not] n = Not(b) [w] y = Where(n, x, a)"
    executor = _executor(tmp_path, nodes, "c0 not")
    executor.compile([0, 1])
    with pytest.raises(InputError, match=r"layer 'not' \(Not\) can't be quantized"):
        executor.compile([2])


def test_inputs_of_a_wrong_shape_are_refused(tmp_path: Path) -> None:
    executor = _executor(tmp_path, _CHAIN, "c0")
    wrong: Arrays = {"x": np.zeros((1, 3, 4, 4), np.float32)}
    with pytest.raises(InputError, match=re.compile("can't run the model.*dimensions", re.S)):
        executor.run(executor.compile([0]), wrong, _copied)
