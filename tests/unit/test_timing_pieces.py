"""Models that are made to be measured: what they hold, and what they are fed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from tests.helpers.models import load
from tests.helpers.timing import maker_of
from tritier.graph import Quantizable, build_layer_graph, profile_model
from tritier.timing import Border
from tritier.workflow import without_unquantizable
from tritier.workflow.timing_pieces import Piece, copying_piece
from tritier.workflow.timing_profile import Task, random_components, stated_weight_bytes
from tritier.workflow.timing_store import Store

CHAIN = """
    g (float[1,4,8,8] x) => (float[1,4,8,8] y) <float[4,4,1,1] w = {W}> {
      [a] a = Relu(x)
      [b] b = Conv(a, w)
      [c] c = Neg(b)
      [d] d = Abs(c)
      [e] e = Relu(d)
      [f] y = Neg(e)
    }
""".replace("{W}", "{" + ", ".join(["0.5"] * 16) + "}")
# The number of rows goes through a tensor, and the reshape fails unless it is right.
SHAPED = """
    g (float[N,6] x) => (float[A,B] y) <int64[1] two = {2}> {
      [neg] h = Neg(x)
      [shape] s = Shape(h)
      [mul] t = Mul(s, two)
      [flat] f = Flatten<axis = 0>(h)
      [size] r = ReduceProd<keepdims = 0>(s)
      [abs] g1 = Abs(f)
      [shape2] u = Shape(g1)
      [back] y = Reshape(g1, u)
    }
"""
TYPES = {"FP32": np.float32, "INT8": np.int8, "UINT8": np.uint8, "INT64": np.int64}


def run(piece: Piece) -> list[Any]:
    """The outputs of a piece for inputs like those that the agent makes."""
    session = ort.InferenceSession(piece.data, providers=["CPUExecutionProvider"])
    feed = {}
    for name, item in piece.inputs.items():
        values = item.get("values", np.ones(int(np.prod(item["shape"]))))
        feed[name] = np.array(values, TYPES[item["datatype"]]).reshape(item["shape"])
    return list(session.run(list(piece.outputs), feed))


def test_pieces_are_the_runs_between_the_cuts(tmp_path: Path) -> None:
    first, second, third = maker_of(load(tmp_path, CHAIN)).pieces([2, 4], False, "p")
    assert [piece.layers for piece in (first, second, third)] == [
        ("a", "b"), ("c", "d"), ("e", "f")
    ]  # fmt: skip
    assert (second.reads, second.makes) == (("b",), ("d",))
    assert second.border == Border(2, 2 * 4 * 4 * 8 * 8)
    assert all(run(piece) for piece in (first, second, third))


def test_tensors_of_quantized_layers_cross_in_8_bits(tmp_path: Path) -> None:
    """As they do between servers: a quantized layer whose input came as float would not run in 8
    bits at all."""
    maker = maker_of(load(tmp_path, CHAIN), ["b"])
    before, conv, after = maker.pieces([1, 2], True, "p")
    for piece, name in ((before, "a"), (conv, "b")):
        made = [tensor for tensor in piece.tensors if tensor.id in piece.outputs]
        assert [tensor.dtype for tensor in made] == ["int8"], name
        assert piece.makes == (), "a coded tensor has no layout to change"
    assert conv.border == Border(2, 2 * 4 * 8 * 8)
    kinds = [node.op_type for node in onnx.load_model_from_string(conv.data).graph.node]
    assert kinds.count("Conv") == 1
    assert "DequantizeLinear" in kinds
    assert all(run(piece) for piece in (before, conv, after))


def test_integers_are_fed_with_their_real_values(tmp_path: Path) -> None:
    model = load(tmp_path, SHAPED)
    graph = build_layer_graph(model.proto)
    maker = maker_of(model, dims={"N": 5})
    count = len(graph.layers)
    pieces = maker.pieces([count - 1], False, "p")
    (shape,) = [x for x in pieces[-1].inputs.values() if x["datatype"] == "INT64"]
    assert shape["values"] == [1, 30]
    assert run(pieces[-1])[0].shape == (1, 30)


def test_models_that_do_nothing_hand_on_what_they_get() -> None:
    piece = copying_piece(3, 16)
    assert piece.border == Border(6, 6 * 64)
    assert [array.shape for array in run(piece)] == [(16,)] * 3


def test_components_to_check_are_of_two_layers_at_least(tmp_path: Path) -> None:
    model = load(tmp_path, CHAIN)
    graph, profile = build_layer_graph(model.proto), profile_model(model)
    anyone: Any = None
    task = Task(anyone, maker_of(model, ["b"]), profile, graph, components=4, seed=1)
    found = random_components(task)
    assert [piece.quantized for piece in found] == [False] * 3 + [True] * 3 + [False, True]
    assert all(len(piece.layers) >= 2 for piece in found)
    assert len({piece.name for piece in found}) == len(found)


def test_a_model_too_small_to_cut_in_three_has_none(tmp_path: Path) -> None:
    model = load(tmp_path, "g (float[4] x) => (float[4] y) { [a] h = Relu(x) [b] y = Neg(h) }")
    graph, profile = build_layer_graph(model.proto), profile_model(model)
    anyone: Any = None
    assert random_components(Task(anyone, maker_of(model), profile, graph, components=4)) == []


def test_results_of_other_inputs_are_not_taken(tmp_path: Path) -> None:
    """The same model at another size is the same bytes."""
    model = load(tmp_path, "g (float[N,4] x) => (float[N,4] y) { [a] h = Relu(x) [b] y = Neg(h) }")
    small, large = (maker_of(model, dims={"N": n}).whole(False) for n in (1, 8))
    assert small.data == large.data
    assert small.identity != large.identity


def test_a_store_keeps_what_was_measured(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.get_or_measure({"a": 1}, lambda: [1.5]).result == [1.5]
    assert store.get_or_measure({"a": 1}, lambda: [2.5]).result == [1.5]
    assert store.get_or_measure({"a": 2}, lambda: [2.5]).result == [2.5]


def test_fresh_results_count_once_they_are_there(tmp_path: Path) -> None:
    Store(tmp_path).get_or_measure({"a": 1}, lambda: 1)
    fresh = Store(tmp_path, fresh=True)
    assert fresh.get_or_measure({"a": 1}, lambda: 2).result == 2
    assert fresh.get_or_measure({"a": 1}, lambda: 3).result == 2


def test_layers_that_can_not_be_quantized_are_left_out(tmp_path: Path) -> None:
    profile = profile_model(load(tmp_path, CHAIN), None, Quantizable())
    assert profile.quantizable_layers == ("b",)
    kept, reasons = without_unquantizable(load(tmp_path, CHAIN), profile)
    assert (kept.quantizable_layers, reasons) == (("b",), ())
    text = CHAIN.replace("float[1", "float16[1").replace("float[4,4,1,1] w", "float[4,4,1,1] v")
    half = load(tmp_path, text.replace("[b]", "[w] w = Cast<to = 10>(v) [b]"), "half")
    kept, reasons = without_unquantizable(half, profile_model(half))
    assert kept.quantizable_layers == ()
    assert reasons == ("layer 'b' is of float16, quantized are float32",)
    old = onnx.ModelProto()
    old.CopyFrom(load(tmp_path, CHAIN).proto)
    old.opset_import[0].version = 11
    loaded = load(tmp_path, old, "old")
    kept, reasons = without_unquantizable(loaded, profile_model(loaded))
    assert kept.quantizable_layers == ()
    assert "opset 11" in reasons[0]


def test_weights_that_layers_share_count_once(tmp_path: Path) -> None:
    shared = CHAIN.replace("[e] e = Relu(d)", "[e] e = Conv(d, w)")
    model = load(tmp_path, shared)
    profile = profile_model(model, None, Quantizable(layers=("b", "e")))
    layers = [layer.name for layer in profile.layers]
    assert stated_weight_bytes(profile, layers, ()) == 64
    # Quantized, each has 16 bytes of its own.
    assert stated_weight_bytes(profile, layers, ("b", "e")) == 32
    assert stated_weight_bytes(profile, layers, ("b",)) == 64 + 16
