"""FLOPs by operator, against formulas worked out by hand."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

from tests.helpers.models import layers_of, parse
from tritier.graph import LoadedModel, has_formula, load_model, node_flops, profile_model
from tritier.graph.flops import Shape
from tritier.resources import example_dir

IMAGE = (1, 8, 10, 12)
COLUMNS = (2, 3, 4)


def flops_of(
    op: str, *shapes: Shape | None, out: Shape | None, domain: str = "", **attributes: Any
) -> int | None:
    """FLOPs of one node with inputs of these shapes; () is a scalar, None an input left out."""
    names = ["" if shape is None else f"i{index}" for index, shape in enumerate(shapes)]
    node = onnx.helper.make_node(op, names, ["y"], domain=domain, **attributes)
    known = {name: shape for name, shape in zip(names, shapes, strict=True) if shape is not None}
    return node_flops(node, known if out is None else {**known, "y": out})


@pytest.mark.parametrize(
    ("op", "shapes", "out", "attributes", "expected"),
    [
        # 2 multiply-adds x 8 channels x 3 x 3, for each of 1 x 16 x 10 x 12 outputs
        ("Conv", [IMAGE, (16, 8, 3, 3)], (1, 16, 10, 12), {}, 1920 * 2 * 72),
        ("Conv", [IMAGE, (16, 8, 3, 3), (16,)], (1, 16, 10, 12), {}, 1920 * (2 * 72 + 1)),
        # depthwise: one channel per group, so 9 multiply-adds
        ("Conv", [IMAGE, (8, 1, 3, 3)], IMAGE, {"group": 8}, 960 * 2 * 9),
        ("Conv", [(2, 4, 9), (6, 4, 5)], (2, 6, 5), {}, 60 * 2 * 20),
        ("Conv", [(1, 2, 4, 4, 4), (3, 2, 2, 2, 2)], (1, 3, 3, 3, 3), {}, 81 * 2 * 16),
        ("ConvInteger", [IMAGE, (16, 8, 1, 1), (), ()], (1, 16, 10, 12), {}, 1920 * 2 * 8),
        (
            "QLinearConv",
            [IMAGE, (), (), (16, 8, 1, 1), (), (), (), (), (16,)],
            (1, 16, 10, 12),
            {},
            1920 * (2 * 8 + 1),
        ),
        (
            "QLinearConv",
            [IMAGE, (), (), (16, 8, 1, 1), (), (), (), ()],
            (1, 16, 10, 12),
            {},
            1920 * 2 * 8,
        ),
        # every input element meets 4 channels x 2 x 2
        ("ConvTranspose", [IMAGE, (8, 4, 2, 2)], (1, 4, 20, 24), {}, 960 * 2 * 16),
        (
            "ConvTranspose",
            [IMAGE, (8, 4, 2, 2), (4,)],
            (1, 4, 20, 24),
            {},
            960 * 2 * 16 + 1920,
        ),
        ("MatMul", [(5, 7), (7, 3)], (5, 3), {}, 2 * 5 * 7 * 3),
        ("MatMul", [(4, 1, 5, 7), (6, 7, 3)], (4, 6, 5, 3), {}, 2 * 4 * 6 * 5 * 7 * 3),
        ("MatMul", [(7,), (7,)], (), {}, 2 * 7),
        ("MatMulInteger", [(5, 7), (7, 3)], (5, 3), {}, 210),
        ("QLinearMatMul", [(5, 7), (), (), (7, 3), (), (), (), ()], (5, 3), {}, 210),
        ("Gemm", [(5, 7), (7, 3)], (5, 3), {}, 210),
        ("Gemm", [(5, 7), (3, 7), (3,)], (5, 3), {"transB": 1}, 225),
        ("Gemm", [(7, 5), (7, 3)], (5, 3), {"transA": 1}, 210),
        # 4 gates of 6, 2 directions, 10 steps, batch 3, input 5
        ("LSTM", [(10, 3, 5), (2, 24, 5), (2, 24, 6)], None, {}, 2 * 10 * 3 * 2 * 24 * 11),
        ("MaxPool", [IMAGE], (1, 8, 5, 6), {"kernel_shape": [3, 3]}, 240 * 9),
        ("AveragePool", [IMAGE], (1, 8, 5, 6), {"kernel_shape": [2, 2]}, 240 * 4),
        ("LpPool", [IMAGE], (1, 8, 5, 6), {"kernel_shape": [2, 2]}, 240 * 8),
        ("GlobalAveragePool", [IMAGE], (1, 8, 1, 1), {}, 960),
        ("Resize", [IMAGE], (1, 8, 20, 24), {"mode": "nearest"}, 0),
        ("Resize", [IMAGE], (1, 8, 20, 24), {"mode": "linear"}, 3840 * 2 * 4),
        ("Resize", [IMAGE], (1, 8, 20, 12), {"mode": "linear"}, 1920 * 2 * 2),
        ("Resize", [IMAGE], (1, 8, 20, 24), {"mode": "cubic"}, 3840 * 2 * 16),
        ("Resize", [IMAGE], IMAGE, {"mode": "cubic"}, 0),
        ("Upsample", [IMAGE, (4,)], (1, 8, 20, 24), {}, 0),
        ("Softmax", [COLUMNS], COLUMNS, {}, 5 * 24),
        ("LayerNormalization", [COLUMNS, (4,), (4,)], COLUMNS, {}, 8 * 24),
        ("BatchNormalization", [IMAGE, *[(8,)] * 4], IMAGE, {}, 2 * 960),
        ("LRN", [IMAGE], IMAGE, {"size": 5}, 960 * 14),
        ("ReduceMean", [COLUMNS], (2, 3, 1), {}, 24),
        ("ReduceL2", [COLUMNS], (2, 3, 1), {}, 48),
        ("Add", [COLUMNS, (4,)], COLUMNS, {}, 24),
        ("Mul", [(2, 1), (1, 3)], (2, 3), {}, 6),
        ("Sum", [COLUMNS] * 3, COLUMNS, {}, 48),
        ("Mean", [COLUMNS] * 3, COLUMNS, {}, 72),
        ("Clip", [COLUMNS, (), ()], COLUMNS, {}, 48),
        ("Clip", [COLUMNS, None, ()], COLUMNS, {}, 24),
        ("Clip", [COLUMNS], COLUMNS, {"min": 0.0, "max": 6.0}, 48),
        ("Relu", [COLUMNS], COLUMNS, {}, 24),
        ("Sigmoid", [COLUMNS], COLUMNS, {}, 96),
        ("QuantizeLinear", [COLUMNS, ()], COLUMNS, {}, 96),
        ("DequantizeLinear", [COLUMNS, ()], COLUMNS, {}, 48),
        ("ScatterND", [COLUMNS, (1, 1), (1, 3, 4)], COLUMNS, {}, 0),
        ("ScatterND", [COLUMNS, (1, 1), (1, 3, 4)], COLUMNS, {"reduction": "add"}, 12),
        ("Reshape", [COLUMNS, (1,)], (24,), {}, 0),
        ("Relu", [(0, 4)], (0, 4), {}, 0),
    ],
)
def test_formulas(
    op: str,
    shapes: list[Shape | None],
    out: Shape | None,
    attributes: dict[str, Any],
    expected: int,
) -> None:
    assert flops_of(op, *shapes, out=out, **attributes) == expected


@pytest.mark.parametrize(
    ("op", "domain"),
    [("Einsum", ""), ("If", ""), ("Loop", ""), ("Relu", "my.own"), ("Attention", "com.microsoft")],
)
def test_what_has_no_formula_is_unknown_and_not_zero(op: str, domain: str) -> None:
    assert flops_of(op, COLUMNS, out=COLUMNS, domain=domain) is None
    assert not has_formula(onnx.helper.make_node(op, ["x"], ["y"], domain=domain))


def test_the_standard_domain_has_two_names() -> None:
    assert flops_of("Relu", COLUMNS, out=COLUMNS, domain="ai.onnx") == 24


@pytest.mark.parametrize(
    ("op", "shapes", "out", "attributes"),
    [
        ("Conv", [IMAGE, (16, 8, 3, 3)], None, {}),
        ("Conv", [IMAGE], (1, 16, 10, 12), {}),
        ("Gemm", [(5,), (7, 3)], (5, 3), {}),
        ("Softmax", [], COLUMNS, {}),
        ("LSTM", [(10, 5), (2, 24, 5), (2, 24, 6)], None, {}),
        ("Resize", [IMAGE], (1, 8), {"mode": "linear"}),
        ("Resize", [IMAGE], (1, 8, 5, 6), {"mode": "linear", "antialias": 1}),
        ("Resize", [IMAGE], (1, 8, 5, 6), {"mode": "other"}),
    ],
)
def test_a_missing_or_odd_shape_gives_no_number(
    op: str, shapes: list[Shape], out: Shape | None, attributes: dict[str, Any]
) -> None:
    assert flops_of(op, *shapes, out=out, **attributes) is None


def test_only_the_shapes_that_a_formula_needs_must_be_known() -> None:
    (layer,) = layers_of("g (float[2] x) => (float[2] y) { [relu] y = Relu(x) }").layers
    node = parse("g (float[2] x) => (float[2] y) { [relu] y = Relu(x) }").graph.node[layer.index]
    assert node_flops(node, {"y": (2,)}) == 2
    assert node_flops(node, {"x": (2,)}) is None


@pytest.fixture(scope="module")
def espcn() -> LoadedModel:
    return load_model(example_dir("super_resolution") / "espcn_x3.onnx")


def test_the_super_resolution_network_by_hand(espcn: LoadedModel) -> None:
    """224 x 224; 3 x 3 kernels 1-32-32-16-16-9 with bias, ReLUs, residual, shuffle, clip."""
    pixels = 224 * 224
    conv = [(1, 32), (32, 32), (32, 16), (16, 16), (16, 9)]
    expected = {
        f"conv{number}": pixels * made * (2 * 9 * read + 1)
        for number, (read, made) in enumerate(conv, 1)
    }
    expected |= {f"relu{number}": pixels * conv[number - 1][1] for number in range(1, 5)}
    expected |= {"residual": pixels * 9, "shuffle": 0, "clip": 2 * pixels * 9}
    profile = profile_model(espcn)
    assert {layer.name: layer.flops for layer in profile.layers} == expected
    assert profile.totals.flops == sum(expected.values())


@pytest.mark.parametrize(
    ("weight", "side", "thesis"),
    [
        # Layers of YOLO11m at 640 x 640 as recorded by the thesis that the design implements
        # (University of Rome Tor Vergata, 2024-25, model_profile_yolo11m.json). It counts a bias
        # as a multiply-add, that is, 1 FLOP per output more than here.
        ((64, 3, 3, 3), 320, 367_001_600),  # /model.0/conv/Conv
        ((128, 64, 3, 3), 160, 3_781_427_200),  # /model.1/conv/Conv
        ((128, 128, 1, 1), 160, 845_414_400),  # /model.2/cv1/conv/Conv
    ],
)
def test_convolutions_of_the_thesis(weight: Shape, side: int, thesis: int) -> None:
    made, read = weight[:2]
    out = (1, made, side, side)
    image = (1, read, 640, 640)  # its size does not matter, only that of the output does
    assert flops_of("Conv", image, weight, (made,), out=out) == thesis - made * side * side


def test_a_product_of_the_thesis() -> None:
    """/model.10/m/m.0/attn/MatMul of YOLO11m: 4 heads, keys of 32, 20 x 20 positions."""
    shapes = (1, 4, 400, 32), (1, 4, 32, 400)
    assert flops_of("MatMul", *shapes, out=(1, 4, 400, 400)) == 40_960_000
