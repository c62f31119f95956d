"""Quantized layers: what becomes 8-bit, what must stay as it is, and where wires are cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.helpers.coded import measured_ranges, realised_proto, run_realised
from tests.helpers.models import Split, assert_same_bits, load, parse, spec
from tritier.divider import Array, Arrays, WholeModel
from tritier.documents import Assignment, Codec, Quantization, Range
from tritier.errors import InputError
from tritier.repository import GenerateOptions
from tritier.workflow import generate, plan_from_assignment

X = np.random.default_rng(7).standard_normal((1, 2, 4, 4)).astype(np.float32)
CONSTANTS = "<float[2,2,1,1] w = {1, -2, 3, 0.5}, float[2] b = {0.5, -1}>"
CONV = f"""
    g (float[1,2,4,4] x) => (float[1,2,4,4] y) {CONSTANTS} {{
      [a] h = Relu(x) [conv] m = Conv(h, w, b) [n] y = Neg(m)
    }}
"""
ABA = {"conv": "b", "*": "a"}
Q, DQ = "QuantizeLinear", "DequantizeLinear"


def quantized(
    folder: Path,
    model: str | onnx.ModelProto,
    where: Mapping[str, str],
    layers: Sequence[str],
    default: Codec | None = None,
    settings: Mapping[str, Quantization] | None = None,
    ranges: Mapping[str, Range] | None = None,
    x: Array = X,
) -> Split:
    """Everything from a model to its files; ranges over one input unless they are given."""
    loaded = load(folder, model)
    servers = spec("abc")
    servers = servers.model_copy(
        update={
            "servers": tuple(
                s.model_copy(update={"quantization": (settings or {}).get(s.name, s.quantization)})
                for s in servers.servers
            )
        }
    )
    found = measured_ranges(loaded, [{"x": x}])
    found = found.model_copy(update={"ranges": {**found.ranges, **(ranges or {})}})
    assignment = Assignment(layers=dict(where), quantized_layers=tuple(layers), wire_codec=default)
    plan = plan_from_assignment(loaded, assignment, servers, ranges=found)
    return Split(loaded, plan, *generate(plan, loaded, GenerateOptions(max_batch_size=0)))


def check(item: Split, x: Array = X) -> tuple[Arrays, float]:
    """The outputs, and how far they are from those of the model as it was; fails unless the uncut
    quantized model gives the same bits."""
    found = item.run_chain({"x": x})
    assert_same_bits(run_realised(item, {"x": x}), found)
    exact = item.run_whole({"x": x})
    gaps = [np.abs(found[n].astype(float) - exact[n].astype(float)).max() for n in exact]
    return found, float(max(gaps))


def types(item: Split, component: str) -> list[str]:
    """Types of the nodes of a sub-model."""
    return [node.op_type for node in item.sub_model(component).graph.node]


def readers_of(model: onnx.ModelProto, layer: str) -> list[str]:
    """What makes each input of a layer: a type of node, or the type of a constant."""
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    made |= {t.name: numpy_helper.to_array(t).dtype.name for t in model.graph.initializer}
    node = next(node for node in model.graph.node if node.name == layer)
    return [made.get(name, "input") for name in node.input]


# -- where the cut lies ---------------------------------------------------------------------------


def test_an_8_bit_wire_is_cut_between_quantize_and_dequantize(tmp_path: Path) -> None:
    item = quantized(tmp_path, CONV, ABA, ["conv"])
    assert [w.codec for w in item.plan.wires] == ["int8", "int8"]
    assert types(item, "c0") == ["Relu", Q]
    # Its own pair for weights and bias, which are stored in 8 and 32 bits.
    assert types(item, "c1") == [DQ, DQ, DQ, "Conv", Q]
    assert types(item, "c2") == [DQ, "Neg"]
    stored = {numpy_helper.to_array(t).dtype.name for t in item.sub_model("c1").graph.initializer}
    assert stored == {"int8", "int32", "float32"}
    _, noise = check(item)
    assert 0 < noise < 0.2


@pytest.mark.parametrize("default", ["as_is", "fp16", "uint8", None])
@pytest.mark.parametrize("where", [ABA, {"*": "b"}])
@pytest.mark.parametrize("layers", [["conv"], ["conv", "n"]])
def test_any_wire_gives_the_bits_of_the_uncut_model(
    tmp_path: Path, default: Codec | None, where: Mapping[str, str], layers: list[str]
) -> None:
    _, noise = check(quantized(tmp_path, CONV, where, layers, default))
    assert 0 < noise < 0.3


@pytest.mark.parametrize("default", ["as_is", "fp16", "uint8"])
@pytest.mark.parametrize("layers", [["conv"], ["conv", "n"], ["n"]])
def test_outputs_made_and_inputs_read_by_quantized_layers(
    tmp_path: Path, default: Codec, layers: list[str]
) -> None:
    text = f"""
        g (float[1,2,4,4] x) => (float[1,2,4,4] m, float[1,2,4,4] y) {CONSTANTS} {{
          [conv] m = Conv(x, w, b) [n] y = Neg(m)
        }}
    """
    for place in ({"conv": "b", "n": "c"}, {"conv": "a", "n": "b"}, {"conv": "b", "n": "a"}):
        item = quantized(tmp_path, text, place, layers, default)
        outputs = realised_proto(item.model, item.plan).graph.output
        assert [v.name for v in outputs] == ["m", "y"]
        _, noise = check(item)
        assert 0 < noise < 0.3


def test_what_is_quantized_is_as_far_off_as_its_scales_say(tmp_path: Path) -> None:
    item = quantized(tmp_path, CONV, {"*": "a"}, ["conv"])
    proto = realised_proto(item.model, item.plan)
    assert readers_of(proto, "conv") == [DQ, DQ, DQ]
    scale = {
        t.name: float(numpy_helper.to_array(t).max())
        for t in proto.graph.initializer
        if t.name.endswith("_scale")
    }
    weights, bias = np.array([[1, -2], [3, 0.5]]), np.array([0.5, -1])
    kept = np.maximum(X, 0)[0].reshape(2, -1)
    # Half a step of each: input, weights, bias and what comes out.
    allowed = (
        np.abs(weights).sum(1, keepdims=True) * scale["h_scale"] / 2
        + (kept.sum(0) + scale["h_scale"]) * scale["w_scale"] / 2
        + np.abs(bias)[:, None] * 1e-3
        + scale["m_scale"] / 2
    )
    found = check(item)[0]["y"].reshape(2, -1)
    exact = item.run_whole({"x": X})["y"].reshape(2, -1)
    gap = np.abs(found.astype(float) - exact.astype(float))
    assert (gap <= allowed + 1e-5).all()
    assert gap.max() > 1e-4


# -- settings -------------------------------------------------------------------------------------


def test_per_channel_weights_have_a_scale_for_each(tmp_path: Path) -> None:
    settings = {"b": Quantization(per_channel=True)}
    item = quantized(tmp_path, CONV, ABA, ["conv"], settings=settings)
    arrays = {t.name: numpy_helper.to_array(t) for t in item.sub_model("c1").graph.initializer}
    assert arrays["w_scale"].shape == (2,)
    check(item)


def test_reduced_weights_have_7_bits(tmp_path: Path) -> None:
    settings = {"b": Quantization(reduce_range=True)}
    item = quantized(tmp_path, CONV, ABA, ["conv"], settings=settings)
    arrays = {t.name: numpy_helper.to_array(t) for t in item.sub_model("c1").graph.initializer}
    assert np.abs(arrays["w_quantized"]).max() <= 64
    check(item)


def test_unsigned_activations_cross_as_uint8(tmp_path: Path) -> None:
    settings = {"b": Quantization(activation_type="uint8")}
    item = quantized(tmp_path, CONV, ABA, ["conv"], settings=settings)
    assert [w.codec for w in item.plan.wires] == ["uint8", "uint8"]
    assert types(item, "c0") == ["Relu", Q]
    _, noise = check(item)
    assert 0 < noise < 0.2


def test_unsigned_weights_have_a_zero_point(tmp_path: Path) -> None:
    settings = {"b": Quantization(activation_type="uint8", weight_type="uint8")}
    item = quantized(tmp_path, CONV, ABA, ["conv"], settings=settings)
    arrays = {t.name: numpy_helper.to_array(t) for t in item.sub_model("c1").graph.initializer}
    assert arrays["w_quantized"].dtype == np.uint8
    assert arrays["w_zero_point"] == 102  # of -2 to 3
    assert arrays["w_scale"] == pytest.approx(5 / 255)
    _, noise = check(item)
    assert 0 < noise < 0.2


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_bias_far_above_its_weights_keeps_its_value(
    tmp_path: Path, kind: str, per_channel: bool
) -> None:
    # At the scale of such weights it has no room in 32 bits: the weights' scale must grow.
    text = """
        g (float[1,2,4,4] x) => (float[1,2,4,4] y)
        <float[2,2,1,1] w = {1e-9, -2e-9, 3e-9, 5e-10}, float[2] b = {5, -3}> {
          [a] h = Relu(x) [conv] y = Conv(h, w, b)
        }
    """
    data = {"activation_type": "uint8", "weight_type": kind, "per_channel": per_channel}
    settings = {"b": Quantization.model_validate(data)}
    item = quantized(tmp_path, text, {"a": "a", "conv": "b"}, ["conv"], settings=settings)
    _, noise = check(item)
    assert noise < 0.05


TWINS = f"""
    g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z) {CONSTANTS} {{
      [h] h = Sigmoid(x) [c1] y = Conv(h, w, b) [c2] z = Conv(h, w, b)
    }}
"""
MIXED = {
    "b": Quantization(activation_type="uint8"),
    "c": Quantization(per_channel=True, reduce_range=True),
}
UNSIGNED = Quantization(activation_type="uint8", weight_type="uint8", per_channel=True)


@pytest.mark.parametrize("default", [None, "as_is", "fp16"])
@pytest.mark.parametrize("layers", [["c1", "c2"], ["h", "c1", "c2"], ["h", "c2"]])
@pytest.mark.parametrize("h", ["a", "c"])
def test_servers_with_different_settings_share_a_tensor(
    tmp_path: Path, default: Codec | None, layers: list[str], h: str
) -> None:
    where = {"h": h, "c1": "b", "c2": "c"}
    found, noise = check(quantized(tmp_path, TWINS, where, layers, default, MIXED))
    assert found.keys() == {"y", "z"}
    assert 0 < noise < 0.1


@pytest.mark.parametrize(
    "layer", ["MaxPool<kernel_shape=[1,1]>(h)", "Transpose(h)", "Reshape(h, s)", "Relu(h)"]
)
def test_a_layer_that_passes_scales_on_behind_another_server_s_pair(
    tmp_path: Path, layer: str
) -> None:
    # The quantizer never ends if it meets a pair of an earlier call before such a layer.
    text = f"""
        g (float[1,2,4,4] x) => (float[1,2,4,4] y, float z) {
        CONSTANTS.replace("<", "<int64[4] s = {1, 2, 4, 4}, ", 1)
    } {{
          [h] h = Sigmoid(x) [c1] y = Conv(h, w, b) [t] k = {
        layer
    } [sum] z = ReduceMax<keepdims=0>(k)
        }}
    """
    where = {"h": "a", "c1": "b", "t": "c", "sum": "a"}
    for settings in (MIXED, {"b": MIXED["c"], "c": MIXED["b"]}):
        _, noise = check(quantized(tmp_path, text, where, ["c1", "t"], None, settings))
        assert 0 < noise < 0.1


# -- what other layers share with a quantized one -------------------------------------------------


@pytest.mark.parametrize("both", [False, True])
def test_shared_weights_stay_float_for_who_is_not_quantized(tmp_path: Path, both: bool) -> None:
    layers = ["c1", "c2"] if both else ["c1"]
    item = quantized(tmp_path, TWINS, {"h": "a", "c1": "b", "c2": "c"}, layers)
    proto = realised_proto(item.model, item.plan)
    assert readers_of(proto, "c1") == [DQ, DQ, DQ]
    assert readers_of(proto, "c2") == ([DQ] * 3 if both else [DQ, "float32", "float32"])
    found, _ = check(item)
    # The same weights and bias, quantized for one layer or for both, are the same.
    assert np.abs(found["y"] - found["z"]).max() < 0.05  # type: ignore[operator]


def test_a_bias_shared_by_layers_of_different_scales(tmp_path: Path) -> None:
    text = f"""
        g (float[1,2,4,4] x) => (float[1,2,4,4] y) {CONSTANTS} {{
          [c1] h = Conv(x, w, b) [c2] y = Conv(h, w, b)
        }}
    """
    for layers in (["c1"], ["c2"], ["c1", "c2"]):
        _, noise = check(quantized(tmp_path, text, {"c1": "a", "c2": "b"}, layers))
        assert 0 < noise < 0.6


def test_weights_that_are_a_constant_node(tmp_path: Path) -> None:
    text = """
        g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[1,2,4,4] z) {
          [k] w = Constant<value = float[2,2,1,1] {1, -2, 3, 0.5}>()
          [c1] y = Conv(x, w) [c2] z = Conv(x, w)
        }
    """
    item = quantized(tmp_path, text, {"c1": "b", "c2": "c"}, ["c1"])
    proto = realised_proto(item.model, item.plan)
    assert readers_of(proto, "c1") == [DQ, DQ]
    assert readers_of(proto, "c2") == [DQ, "float32"]
    check(item)


def test_weights_that_a_body_captures_stay_float_there(tmp_path: Path) -> None:
    text = f"""
        g (float[1,2,4,4] x) => (float[1,2,4,4] y) {CONSTANTS} {{
          [conv] h = Conv(x, w, b)
          [s] s = ReduceMax<keepdims = 0>(x)
          [c] c = Cast<to = 9>(s)
          [if] y = If(c) <
            then_branch = g1 () => (float[1,2,4,4] z) {{ z = Conv(h, w, b) }},
            else_branch = g2 () => (float[1,2,4,4] z2) {{ z2 = Exp(h) }}
          >
        }}
    """
    item = quantized(tmp_path, text, {"conv": "b", "*": "a"}, ["conv"])
    _, noise = check(item)
    assert 0 < noise < 0.6


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_an_output_keeps_its_range_though_a_quantized_relu_reads_it(
    tmp_path: Path, kind: str
) -> None:
    # The quantizer gives what only a Relu reads the range of what the Relu makes.
    text = f"""
        g (float[1,2,4,4] x) => (float[1,2,4,4] m, float[1,2,4,4] y) {CONSTANTS} {{
          [conv] m = Conv(x, w, b) [r] y = Relu(m)
        }}
    """
    settings = {"b": Quantization.model_validate({"activation_type": kind})}
    item = quantized(tmp_path, text, {"*": "b"}, ["conv", "r"], None, settings)
    found, noise = check(item)
    assert noise < 0.2
    assert found["m"].min() < -1


# -- names ----------------------------------------------------------------------------------------


def test_unnamed_layers(tmp_path: Path) -> None:
    text = f"""
        g (float[1,2,4,4] x) => (float[1,2,4,4] y) {CONSTANTS} {{
          h = Conv(x, w, b) k = Relu(h) y = Conv(k, w, b)
        }}
    """
    item = quantized(tmp_path, text, {"Conv_2": "b", "*": "a"}, ["*"])
    assert item.plan.quantized_layers == ("Conv_0", "Relu_1", "Conv_2")
    _, noise = check(item)
    assert 0 < noise < 0.6


def test_names_that_the_quantizer_makes_up_may_be_taken(tmp_path: Path) -> None:
    # As in models that were normalised, or quantized by the same tool before.
    model = parse(
        """
        g (float[1,2,4,4] x) => (float[1,2,4,4] y)
        <float[2,2,1,1] w = {1, -2, 3, 0.5}, float[2] h_scale = {2, 3},
         float[2] w_quantized = {1, 2}> {
          [a] h = Sigmoid(x)
          [b] h_zero_point = Conv(h, w, h_scale)
          [c] h_QuantizeLinear_Output = Abs(h)
          [d] m_scale = Add(h_zero_point, h_QuantizeLinear_Output)
          [conv] m = Conv(h, w, w_quantized)
          [e] y = Add(m, m_scale)
        }
        """
    )
    model.graph.node[0].name = "h_QuantizeLinear"
    model.graph.node[2].name = "w_DequantizeLinear"
    for layers in (["conv"], ["h_QuantizeLinear", "b", "conv"], ["*"]):
        for where in ({"conv": "b", "*": "a"}, {"[bde]": "b", "*": "c"}):
            item = quantized(tmp_path, model, where, layers, settings=MIXED)
            assert len(item.plan.quantized_layers) >= len(layers)
            _, noise = check(item)
            assert 0 < noise < 0.3


# -- models that are quantized already ------------------------------------------------------------

QUANTIZED = """
    g (float[1,2,4,4] x) => (float[1,2,4,4] y)
    <int8[2,2,1,1] w_quantized = {40, -80, 120, 20}, float w_scale = {0.025}, int8 zero = {0},
     float[2] b = {0.5, -1}, float h_scale = {0.03}> {
      [a] h = Relu(x)
      [h_QuantizeLinear] h_QuantizeLinear_Output = QuantizeLinear(h, h_scale, zero)
      [h_DequantizeLinear] h_DequantizeLinear_Output =
        DequantizeLinear(h_QuantizeLinear_Output, h_scale, zero)
      [w] w_DequantizeLinear_Output = DequantizeLinear(w_quantized, w_scale, zero)
      [conv] m = Conv(h_DequantizeLinear_Output, w_DequantizeLinear_Output, b)
      [n] y = Sigmoid(m)
    }
"""


@pytest.mark.parametrize("layers", [["a"], ["conv"], ["n"], ["a", "conv", "n"], ["*"]])
@pytest.mark.parametrize("default", [None, "fp16"])
def test_a_model_that_is_quantized_already_gets_more(
    tmp_path: Path, layers: list[str], default: Codec | None
) -> None:
    where = {"a": "a", "h_QuantizeLinear": "a", "h_DequantizeLinear": "b", "conv": "b", "n": "c"}
    item = quantized(tmp_path, QUANTIZED, where, layers, default, MIXED)
    proto = realised_proto(item.model, item.plan)
    if default is None:  # else a layer may read what came as fp16
        assert all(DQ in readers_of(proto, layer) for layer in layers if layer != "*")
    _, noise = check(item)
    assert noise < 0.1


def test_a_model_that_is_quantized_already_is_cut_at_its_own_pair(tmp_path: Path) -> None:
    where = {"a": "a", "h_QuantizeLinear": "a", "*": "b"}
    item = quantized(tmp_path, QUANTIZED, where, ["n"], "as_is")
    assert types(item, "c0") == ["Relu", Q]
    assert item.plan.tensor("t1").dtype == "int8"


# -- types of layers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        "Relu(h)",
        "Clip(h, low, high)",
        "Neg(h)",
        "Softmax(h)",
        "Add(h, h)",
        "MatMul(h, square)",
        "Concat<axis = 1>(h, x)",
        "AveragePool<kernel_shape = [2, 2]>(h)",
        "Resize(h, , sizes)",
        "Gather<axis = 3>(h, index)",
        "InstanceNormalization(h, b, b)",
        "ConvTranspose(h, w, b)",
        "Conv(h, h)",
        "ReduceMean<axes = [2]>(h)",
        "Pad(h, pads, low)",
        "ArgMax(h)",
        "Shape(h)",
    ],
)
def test_layers_of_many_types(tmp_path: Path, layer: str) -> None:
    constants = (
        CONSTANTS.replace(">", ", ")
        + """
        float low = {0.25}, float high = {0.75}, int64[1] index = {1},
        float[4] sizes = {1, 1, 2, 2},
        int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1},
        float[4,4] square = {1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 4, 3, 2}>
    """
    )
    text = f"""
        g (float[1,2,4,4] x) => (float z) {constants} {{
          [h] h = Sigmoid(x) [l] k = {layer} [f] f = Cast<to = 1>(k)
          [z] z = ReduceMean<keepdims = 0>(f)
        }}
    """
    for settings in ({}, {"b": MIXED["b"]}, {"b": UNSIGNED}):
        item = quantized(tmp_path, text, {"l": "b", "*": "a"}, ["l"], None, settings)
        proto = realised_proto(item.model, item.plan)
        assert DQ in readers_of(proto, "l")
        _, noise = check(item)
        assert noise < 0.2


@pytest.mark.parametrize("settings", [{}, MIXED])
def test_factors_of_a_gemm_are_kept(tmp_path: Path, settings: Mapping[str, Quantization]) -> None:
    # The quantizer drops the factor of the bias.
    text = """
        g (float[1,4] x) => (float[1,2] y)
        <float[4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[2] c = {100, 200}> {
          [h] h = Sigmoid(x) [l] y = Gemm<alpha = 0.5, beta = 0.25>(h, w, c)
        }
    """
    x = X.reshape(-1)[:4].reshape(1, 4)
    item = quantized(tmp_path, text, {"l": "b", "h": "a"}, ["l"], settings=settings, x=x)
    _, noise = check(item, x)
    assert 0 < noise < 0.5
    proto = realised_proto(item.model, item.plan)
    fused = WholeModel(proto.SerializeToString(), "all").run({"x": x})["y"]
    assert np.abs(fused.astype(float) - item.run_whole({"x": x})["y"].astype(float)).max() < 0.6


@pytest.mark.parametrize(
    ("dtype", "op"), [("int64", "Add(h, h)"), ("double", "Mul(h, h)"), ("int32", "Neg(h)")]
)
def test_a_layer_of_which_nothing_can_be_quantized(tmp_path: Path, dtype: str, op: str) -> None:
    text = f"g ({dtype}[2] x) => ({dtype}[2] y) {{ [a] h = Abs(x) [layer] y = {op} }}"
    x = np.array([1, 2], {"double": "float64"}.get(dtype, dtype))
    with pytest.raises(InputError) as caught:
        quantized(tmp_path, text, {"*": "a"}, ["layer"], x=x)
    assert str(caught.value) == (
        f"layer 'layer' ({op[:3]}) can't be quantized: ONNX Runtime's quantizer finds no float32 "
        "tensor in it; leave it out"
    )


def test_all_layers_of_which_nothing_can_be_quantized_are_named(tmp_path: Path) -> None:
    text = """
        g (float[2] x) => (float[2] y) {
          [a] s = Shape(x) [b] t = Add(s, s) [c] u = Mul(t, s)
          [d] v = Cast<to = 1>(u) [e] y = Mul(x, v)
        }
    """
    with pytest.raises(InputError) as caught:
        quantized(tmp_path, text, {"*": "a"}, ["*"], x=np.ones(2, np.float32))
    assert [fault.split("'")[1] for fault in caught.value.faults] == ["b", "c"]


# -- messages -------------------------------------------------------------------------------------


def test_a_model_that_is_too_old(tmp_path: Path) -> None:
    model = parse(CONV)
    model.opset_import[0].version = 12
    with pytest.raises(InputError) as caught:
        quantized(tmp_path, model, ABA, ["conv"])
    assert str(caught.value) == (
        "the model has opset 12, quantized layers need 13 or more: convert it with "
        "`tritier prepare --opset 17`"
    )


def test_float16_layers_are_refused(tmp_path: Path) -> None:
    text = "g (float16[1,4] x) => (float16[1,4] y) { [a] h = Abs(x) [l] y = Mul(h, h) }"
    with pytest.raises(InputError) as caught:
        quantized(tmp_path, text, {"*": "a"}, ["l"], x=np.array([[1, 2, 3, 4]], np.float16))
    assert str(caught.value) == (
        "layer 'l' (Mul) computes with float16; only layers that compute with float32 can be "
        "quantized: leave it out"
    )


def test_ranges_are_missing(tmp_path: Path) -> None:
    loaded = load(tmp_path, CONV)
    assignment = Assignment(default="a", quantized_layers=("conv",))
    with pytest.raises(InputError) as caught:
        plan_from_assignment(loaded, assignment, spec("a"))
    assert str(caught.value) == (
        "2 tensors of quantized layers have no range, among them 'h', 'm': calibrate them with "
        "`tritier ranges` and pass the file with --ranges"
    )


def test_a_weight_that_is_computed_is_refused_or_stays_float(tmp_path: Path) -> None:
    text = """
        g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w = {1, -2, 3, 0.5}> {
          [k] v = Neg(w) [conv] y = Conv(x, v)
        }
    """
    item = quantized(tmp_path, text, {"conv": "b"}, ["conv"])
    assert readers_of(realised_proto(item.model, item.plan), "conv") == [DQ, "Neg"]
    check(item)


@pytest.mark.parametrize("limits", [(0.0, 0.0), (2.0, 3.0), (-3.0, -2.0)])
def test_odd_ranges(tmp_path: Path, limits: Range) -> None:
    item = quantized(tmp_path, CONV, ABA, ["conv"], ranges={"h": limits, "m": limits})
    found, _ = check(item)
    assert np.isfinite(found["y"]).all()
