"""Bounds of integers that follow from a graph: what is claimed holds, and what can't be known is
not claimed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.examples import examples
from tests.helpers.models import parse
from tritier.divider import WholeModel
from tritier.graph import holds, integer_bounds

SIZE = (0, 2**31 - 1)
Bounds = tuple[int, int]


def bounds_of(node: str, inputs: str = "float[N,300,8] x", constants: str = "") -> Bounds | None:
    """Bounds of `y`, which a node makes of `x`, `s` (its shape), `i` (from -3 to 5), `j` (from 2 to
    4) and a scalar `k` (7)."""
    own = "int64[3] i = {-3, 0, 5}, int64[3] j = {2, 4, 3}, int64 k = {7}, int64[1] one = {1}"
    model = parse(
        f"""
        g ({inputs}) => (int64[M] y) <{own}{constants}> {{
          s = Shape(x) {node}
        }}
        """
    )
    return integer_bounds(model, ["y"]).get("y")


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        # what is known of itself
        ("y = Shape(x)", SIZE),
        ("y = NonZero(x)", SIZE),
        ("y = Constant<value = int64[2] {-4, 9}>()", (-4, 9)),
        ("y = ArgMax<axis = 1>(x)", (0, 299)),
        ("y = ArgMin<axis = -1>(x)", (0, 7)),
        ("y = ArgMax(x)", SIZE),  # over the batch
        ("v, y = TopK(x, k)", (0, 7)),
        ("v, y = TopK<axis = 1>(x, k)", (0, 299)),
        # what only moves
        ("y = Identity(i)", (-3, 5)),
        ("y = Unsqueeze(i, k)", (-3, 5)),
        ("y = Slice(i, k, k)", (-3, 5)),
        ("y, z = Split<axis = 0>(i, j)", (-3, 5)),
        ("z, y = Split<axis = 0>(i, j)", (-3, 5)),
        ("y = Expand(i, s)", (-3, 5)),
        ("y = Tile(i, j)", (-3, 5)),
        ("y = Gather(i, j)", (-3, 5)),  # of the data, not of the indices
        ("y = Gather(j, i)", (2, 4)),
        ("y = GatherElements(j, i)", (2, 4)),
        ("y = Reshape(i, j)", (-3, 5)),
        # what joins
        ("y = Concat<axis = 0>(i, j, one)", (-3, 5)),
        ("y = Concat<axis = 0>(j, s)", SIZE),
        ("y = Max(i, j, k)", (-3, 7)),
        ("y = Min(j, k)", (2, 7)),
        # what computes
        ("y = Add(i, j)", (-1, 9)),
        ("y = Sub(i, j)", (-7, 3)),
        ("y = Mul(i, j)", (-12, 20)),
        ("y = Mul(i, i)", (-15, 25)),
        ("y = Cast<to = 6>(i)", (-3, 5)),
        ("z = Cast<to = 6>(s) y = Cast<to = 7>(z)", SIZE),
        # what may wrap, overflow or become anything
        ("y = Add(s, one)", None),
        ("y = Mul(s, j)", None),
        ("y = Sub(s, i)", None),
        ("y = Cast<to = 3>(i)", None),
        ("y = Cast<to = 2>(i)", None),
        ("y = Cast<to = 7>(x)", None),
        ("y = Div(i, j)", None),
        ("y = Mod(i, j)", None),
        ("y = Neg(i)", None),
        ("y = Pow(i, j)", None),
        ("y = ReduceSum(i)", None),
        ("y = ReduceProd(i)", None),
        ("y = CumSum(i, k)", None),
        ("y = Size(x)", None),
        ("y = ScatterElements(i, j, s)", None),
        ("y = Where(x, i, j)", None),
        ("y = Range(k, k, k)", None),
        # what is called like these and is something else
        ("y = com.microsoft.Identity(i)", None),
        ("y = com.microsoft.Shape(x)", None),
    ],
)
def test_bounds_of_a_node(node: str, expected: Bounds | None) -> None:
    assert bounds_of(node) == expected


def test_what_is_not_known_spoils_what_is_made_of_it() -> None:
    inputs = "float[N,300,8] x, int64[3] u"
    for node in ("Identity(u)", "Concat<axis = 0>(i, u)", "Max(i, u)", "Add(u, i)", "Gather(u, i)"):
        assert bounds_of(f"y = {node}", inputs) is None
    assert bounds_of("y = Gather(i, u)", inputs) == (-3, 5)


def test_outputs_of_bodies_are_not_known() -> None:
    node = """
        c = Cast<to = 9>(k)
        y = If(c) <then_branch = g1 () => (int64[3] a) { a = Identity(i) },
                   else_branch = g2 () => (int64[3] b) { b = Mul(i, s) }>
    """
    assert bounds_of(node) is None


def test_names_of_bodies_do_not_count_outside() -> None:
    # The body makes its own `z`; the outer one stays unknown.
    node = """
        c = Cast<to = 9>(k)
        q = If(c) <then_branch = g1 () => (int64[3] a) { z = Identity(i) a = Add(z, z) },
                   else_branch = g2 () => (int64[3] b) { b = Identity(i) }>
        y = Identity(z)
    """
    assert bounds_of(node, "float[N,300,8] x, int64[3] z") is None


@pytest.mark.parametrize("shape", ["float[]", "float[?,300]", "bfloat16[2]"])
def test_an_index_over_a_size_that_nobody_knows(shape: str) -> None:
    model = parse(f"g ({shape} x) => (int64[1] y) {{ y = ArgMax<axis = 0>(x) }}")
    assert integer_bounds(model, ["y"]) == {"y": SIZE}


def test_constants_that_tell_nothing() -> None:
    assert bounds_of("y = Identity(e)", constants=", int64[0] e = {}") is None
    assert bounds_of("y = Identity(e)", constants=", float[1] e = {1}") is None
    model = parse("g (float[2] x) => (int64[1] y) { y = Identity(big) }")
    big = np.zeros((1 << 20) + 1, np.int64)
    model.graph.initializer.append(numpy_helper.from_array(big, "big"))
    assert integer_bounds(model, ["y"]) == {}


def test_only_what_is_asked_for_is_told() -> None:
    model = parse("g (float[2] x) => (int64[1] y) { y = Shape(x) }")
    assert integer_bounds(model, []) == {}
    assert integer_bounds(model, ["x", "none"]) == {}


@pytest.mark.parametrize(
    ("dtype", "bounds", "expected"),
    [
        ("int8", (-128, 127), True),
        ("int8", (-129, 0), False),
        ("uint8", (0, 255), True),
        ("uint8", (-1, 3), False),
        ("uint8", (0.0, 256.0), False),
        ("int16", (0, 2**15), False),
        ("int32", SIZE, True),
    ],
)
def test_holds(dtype: str, bounds: tuple[float, float], expected: bool) -> None:
    assert holds(dtype, bounds) is expected


# -- soundness ------------------------------------------------------------------------------------

_BINARY = ["Add", "Sub", "Mul", "Max", "Min", "Div", "Mod", "Gather", "Concat", "Pow"]
_UNARY = ["Neg", "Abs", "Identity", "CumSum", "ReduceSum", "ReduceMax", "Slice", "Tile", "ArgMax",
          "Cast32", "Cast8", "Unsqueezed", "Split", "TopK", "Shape", "NonZero", "Sign"]  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """Vectors of integers from constants and shapes, and random layers on them."""
    limits = st.sampled_from([-(2**31), -40000, -129, -1, 0, 1, 3, 7, 255, 70000, 2**31 - 1, 2**40])
    constants = {
        f"c{i}": np.array(draw(st.lists(limits, min_size=2, max_size=2)), np.int64)
        for i in range(3)
    }
    fixed = {
        "zero": np.array([0]), "zero_scalar": np.array(0), "two": np.array([2]),
        "index": np.array([0, -1]), "nonzero": np.array([3, 3]),
    }  # fmt: skip
    nodes = [helper.make_node("Shape", ["x"], ["shape"])]
    pool = [*constants, "shape", "index"]

    def add(op: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> list[str]:
        names = [f"n{len(nodes)}_{i}" for i in range(outputs)]
        nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names

    def pair(name: str) -> str:
        """Two elements of a vector of any length above 0."""
        return add("Gather", [name, "index"])[0]

    for _ in range(draw(st.integers(1, 7))):
        op = draw(st.sampled_from(_BINARY + _UNARY))
        first, second = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
        if op == "Concat":
            made = add("Concat", [first, second], axis=0)
        elif op == "Gather":
            made = add("Gather", [first, "index"], axis=0)
        elif op in ("Div", "Mod"):
            made = add(op, [pair(first), "nonzero"])
        elif op == "Pow":
            made = add("Pow", [pair(first), "two"])
        elif op in _BINARY:
            made = add(op, [pair(first), pair(second)])
        elif op == "CumSum":
            made = add("CumSum", [first, "zero_scalar"])
        elif op == "Slice":
            made = add("Slice", [first, "zero", "two"])
        elif op == "Tile":
            made = add("Tile", [first, "two"])
        elif op == "ArgMax":
            made = add("ArgMax", [first], axis=0)
        elif op == "Cast32":
            made = add("Cast", add("Cast", [first], to=TensorProto.INT32), to=TensorProto.INT64)
        elif op == "Cast8":
            made = add("Cast", add("Cast", [first], to=TensorProto.INT8), to=TensorProto.INT64)
        elif op == "Unsqueezed":
            made = add("Squeeze", [add("Unsqueeze", [first, "zero"])[0], "zero"])
        elif op == "Split":
            made = add("Split", [pair(first)], 2, axis=0)
        elif op == "TopK":
            made = add("TopK", [pair(first), "two"], 2)
        elif op == "NonZero":
            # Joined with a 0, for it may be empty.
            flat = add("Squeeze", [add("NonZero", [first])[0], "zero"])
            made = add("Concat", [*flat, "zero"], axis=0)
        else:
            made = add(op, [first])
        pool += made
    return helper.make_model(
        helper.make_graph(
            nodes,
            "random",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5])],
            [helper.make_tensor_value_info("shape", TensorProto.INT64, [2])],
            [
                numpy_helper.from_array(a.astype(np.int64), n)
                for n, a in (constants | fixed).items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


@settings(max_examples=examples(150))
@given(graphs(), st.integers(0, 300))
def test_every_value_lies_within_its_bounds(model: onnx.ModelProto, rows: int) -> None:
    names = [name for node in model.graph.node for name in node.output]
    bounds = integer_bounds(model, names)
    assert "shape" in bounds
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = WholeModel(model.SerializeToString(), "disabled")
    values = session.run({"x": np.zeros((rows, 5), np.float32)})
    for name, (least, greatest) in bounds.items():
        array = values[name].astype(np.int64)
        assert not array.size or (least <= array.min() and array.max() <= greatest), name
