"""`tritier prepare`: what changes in a model, what stays, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.models import parse, save
from tritier.cli import main
from tritier.documents import Preprocessing
from tritier.errors import InputError
from tritier.graph import (
    Prepared,
    PrepareOptions,
    build_layer_graph,
    load_model,
    prepare,
    prepare_choose,
    prepare_model,
    prepare_write,
)
from tritier.graph.image_input import normalised
from tritier.graph.prepare_steps import computation

DYNAMIC = """
    g (float[N,3,H,W] x) => (float[N,K] y) <float[4,3,1,1] w = {1,2,3,4,5,6,7,8,9,10,11,12}> {
      [conv] h = Conv(x, w)
      zero = Constant<value_ints = [0]>()
      minus = Constant<value = int64[1] {-1}>()
      s = Shape(h)
      [batch] b = Gather(s, zero)
      [shape] t = Concat<axis = 0>(b, minus)
      [flat] y = Reshape(h, t)
    }
"""
BATCH_NORM = """
    g (float[N,2,4,4] x) => (float[N,2,4,4] y) <float[2,2,1,1] w = {1, 2, 3, 4},
      float[2] s = {1.5, 0.7}, float[2] b = {0.1, -3}, float[2] m = {0.3, 1}, float[2] v = {2, 3}> {
      [conv] h = Conv(x, w)
      [norm] n = BatchNormalization(h, s, b, m, v)
      [relu] y = Relu(n)
    }
"""


def prepared(folder: Path, model: str | onnx.ModelProto, **options: Any) -> Prepared:
    return prepare_model(save(folder, model), PrepareOptions(**options))


def run(model: onnx.ModelProto | Path, **inputs: np.ndarray[Any, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def names(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node]


def shape_of(values: Any, name: str) -> list[int | str]:
    value = next(v for v in values if v.name == name)
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def fault(folder: Path, model: str | onnx.ModelProto, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        prepared(folder, model, **options)
    return str(caught.value)


# -- sizes ----------------------------------------------------------------------------------------


def test_fixed_sizes_fold_what_hangs_on_them(tmp_path: Path) -> None:
    result = prepared(tmp_path, DYNAMIC, shapes={"x": (1, 3, 4, 5)})
    report = result.report
    assert names(result.model) == ["conv", "flat"]
    assert (report.layers_before, report.layers_after) == (5, 2)
    assert (report.nodes_before, report.nodes_after) == (7, 2)
    assert report.constants_converted == 2
    assert report.dims == {"N": 1, "H": 4, "W": 5}
    assert (report.simplified, report.runs, report.max_difference) == ("yes", 2, 0)
    assert shape_of(result.model.graph.input, "x") == [1, 3, 4, 5]
    assert shape_of(result.model.graph.output, "y") == [1, 80]
    assert shape_of(result.model.graph.value_info, "h") == [1, 4, 4, 5]
    onnx.checker.check_model(result.model, full_check=True)


def test_the_batch_may_stay_symbolic_and_be_renamed(tmp_path: Path) -> None:
    result = prepared(tmp_path, DYNAMIC, shapes={"x": ("batch", 3, 4, 5)})
    assert shape_of(result.model.graph.input, "x") == ["batch", 3, 4, 5]
    assert shape_of(result.model.graph.value_info, "h") == ["batch", 4, 4, 5]
    for count in (1, 3):
        x = np.random.default_rng(count).random((count, 3, 4, 5)).astype(np.float32)
        assert run(result.model, x=x)[0].tobytes() == run(tmp_path / "m.onnx", x=x)[0].tobytes()


def test_an_output_gets_the_symbol_of_the_input_if_it_is_the_same_size(tmp_path: Path) -> None:
    text = """
        g (float[N,2] x) => (float[Y,2] y, int64[2,Z] z) {
          [relu] y = Relu(x)
          [found] z = NonZero(x)
        }
    """
    outputs = prepared(tmp_path, text).model.graph.output
    assert shape_of(outputs, "y") == ["N", 2]
    assert shape_of(outputs, "z") == [2, "Z"]  # which hangs on the data


def test_a_symbol_gets_its_size_everywhere(tmp_path: Path) -> None:
    text = "g (float[N,4] x, float[N,4] z) => (float[N,4] y) { [add] y = Add(x, z) }"
    model = prepared(tmp_path, text, dims={"N": 7}).model
    assert shape_of(model.graph.input, "z") == [7, 4]
    assert shape_of(model.graph.output, "y") == [7, 4]


def test_a_size_without_a_name_is_called_by_its_place(tmp_path: Path) -> None:
    text = "g (float[?,?,4] x) => (float[?,?,4] y) { [neg] y = Neg(x) }"
    proto = parse(text)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "?"
    result = prepared(tmp_path, proto, shapes={"x": ("N", 3, 4)})
    assert shape_of(result.model.graph.output, "y") == ["N", 3, 4]
    assert prepared(tmp_path, proto, dims={"x[1]": 3}).report.dims == {"x[1]": 3}


def test_declared_sizes_that_are_stale_are_replaced(tmp_path: Path) -> None:
    proto = parse("g (float[N,4] x) => (float[N,4] y) { [a] h = Abs(x) [n] y = Neg(h) }")
    proto.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, 4]))
    model = prepared(tmp_path, proto, dims={"N": 2}).model
    assert shape_of(model.graph.value_info, "h") == [2, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shapes": {"X": (1, 3, 4, 5)}}, "the model has no input 'X'; it has x"),
        ({"shapes": {"x": (1, 3, 4)}}, "input 'x' has 4 sizes (N, 3, H, W); 3 were given"),
        ({"shapes": {"x": (1, 4, 4, 5)}}, "x[1] is 3 in the model and can't be 4"),
        ({"shapes": {"x": (1, "C", 4, 5)}}, "x[1] is 3 in the model and can't be C"),
        ({"dims": {"n": 1}}, "'n' is no symbolic size of the inputs"),
        ({"shapes": {"x": (1, 3, 4, 5)}, "dims": {"N": 2}}, "'N' can't be both 2 and 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    assert message in fault(tmp_path, DYNAMIC, **options)


def test_sizes_that_the_layers_refuse_are_errors(tmp_path: Path) -> None:
    text = "g (float[N,4] x) => (float[N,4] y) <float[3,4] w> { [add] y = Add(x, w) }"
    proto = parse(text)
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((3, 4), np.float32), "w"))
    assert "the sizes N=2 don't fit the model" in fault(tmp_path, proto, dims={"N": 2})


# -- names ----------------------------------------------------------------------------------------


def test_nodes_get_names_of_their_own_and_keep_those_they_have(tmp_path: Path) -> None:
    proto = parse("g (float[2] x) => (float[2] y) { a = Neg(x) b = Abs(a) c = Exp(b) y = Sin(c) }")
    for node, name in zip(proto.graph.node, ["one", "", "one", "Abs_1"], strict=True):
        node.name = name
    with pytest.raises(InputError, match="2 nodes are called 'one'"):
        load_model(save(tmp_path, proto))
    result = prepared(tmp_path, proto)
    assert names(result.model) == ["one", "Abs_1_", "one_2", "Abs_1"]
    assert [layer.name for layer in build_layer_graph(proto).layers] == names(result.model)
    assert (result.report.names_given, result.report.runs) == (2, 0)
    assert (result.report.same_computation, result.report.max_difference) == (True, 0)


def test_a_model_with_equal_names_is_compared(tmp_path: Path) -> None:
    proto = parse(BATCH_NORM)
    for node in proto.graph.node:
        node.name = "same"
    result = prepared(tmp_path, proto)
    assert (result.report.simplified, result.report.runs) == ("yes", 2)


def test_equal_names_in_a_branch_become_unique(tmp_path: Path) -> None:
    proto = parse("""
        g (float[2] x, bool c) => (float[2] y) {
          [if] y = If (c) <
            then_branch = yes () => (float[2] a) { [same] i = Abs(x) [same] a = Neg(i) },
            else_branch = no () => (float[2] b) { b = Exp(x) }
          >
        }
    """)
    branch = {a.name: a.g for a in prepared(tmp_path, proto).model.graph.node[0].attribute}
    assert [node.name for node in branch["then_branch"].node] == ["same", "same_1"]
    assert [node.name for node in branch["else_branch"].node] == [""]


def test_merged_layers_keep_the_name_of_the_first(tmp_path: Path) -> None:
    result = prepared(tmp_path, BATCH_NORM)
    assert names(result.model) == ["conv", "relu"]
    assert result.report.simplified == "yes"
    assert result.report.max_relative_difference is not None
    assert result.report.max_relative_difference <= 1e-5
    assert [v.name for v in result.model.graph.input] == ["x"]
    assert [v.name for v in result.model.graph.output] == ["y"]


def test_the_same_input_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    path = save(tmp_path, BATCH_NORM)
    code = (
        "import sys; from pathlib import Path; from tritier.graph import prepare_model;"
        "prepare_model(Path(sys.argv[1])).write(Path(sys.argv[2]))"
    )
    written = []
    for seed in ("1", "2"):
        target = tmp_path / f"{seed}.onnx"
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code, path, target], env=env, capture_output=True, check=True
        )
        assert (done.stdout, done.stderr) == (b"", b"")
        written.append(target.read_bytes())
    assert written[0] == written[1]


def test_metadata_and_functions_stay(tmp_path: Path) -> None:
    proto = parse("g (float[2] x) => (float[2] y) { [a] h = Abs(x) [i] i = Identity(h) "
                  "[t] y = own.Twice(i) }")  # fmt: skip
    proto.opset_import.add(domain="own", version=1)
    proto.functions.append(helper.make_function(
        "own", "Twice", ["p"], ["q"], [helper.make_node("Add", ["p", "p"], ["q"])],
        [helper.make_opsetid("", 17)],
    ))  # fmt: skip
    proto.metadata_props.add(key="stride", value="32")
    proto.producer_name = "someone"
    result = prepared(tmp_path, proto)
    assert [(p.key, p.value) for p in result.model.metadata_props] == [("stride", "32")]
    assert result.model.producer_name == "someone"
    assert names(result.model) == ["a", "t"]
    x = np.array([1, -2], np.float32)
    assert run(result.model, x=x)[0].tolist() == [2, 4]


# -- constants ------------------------------------------------------------------------------------


def test_every_kind_of_constant_node_becomes_a_constant(tmp_path: Path) -> None:
    proto = parse("""
        g (float[2] x) => (float[2] y, int64[2] k) {
          a = Constant<value = float[2] {1, 2}>()
          b = Constant<value_float = 3.0>()
          c = Constant<value_floats = [4.0, 5.0]>()
          d = Constant<value_int = 6>()
          e = Constant<value_ints = [7, 8]>()
          [s] s = Sum(x, a, b, c)
          [y] y = Neg(s)
          [i] i = Cast<to = 7>(x)
          [j] j = Add(i, d)
          [k] k = Mul(j, e)
        }
    """)
    result = prepared(tmp_path, proto, simplify=False)
    assert result.report.constants_converted == 5
    assert names(result.model) == ["s", "y", "i", "j", "k"]
    assert {t.name for t in result.model.graph.initializer} == set("abcde")
    x = np.array([1, 2], np.float32)
    for old, new in zip(run(proto, x=x), run(result.model, x=x), strict=True):
        assert (old.dtype, old.tobytes()) == (new.dtype, new.tobytes())
    assert result.report.simplified == "no"


def test_constants_are_no_inputs_any_more(tmp_path: Path) -> None:
    proto = parse("g (float[2] x, float[2] w) => (float[2] y) { [add] y = Add(x, w) }")
    proto.ir_version = 3
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    model = prepared(tmp_path, proto).model
    assert [v.name for v in model.graph.input] == ["x"]
    onnx.checker.check_model(model, full_check=True)


def test_constants_that_would_swell_the_file_are_not_folded(tmp_path: Path) -> None:
    text = """
        g (float[N,1024] x) => (float[N,1024] y) <int64[2] s = {1024, 1024}> {
          [big] w = ConstantOfShape<value = float[1] {0.5}>(s)
          [mul] y = MatMul(x, w)
        }
    """
    assert names(prepared(tmp_path, text).model) == ["big", "mul"]
    assert names(prepared(tmp_path, text.replace("1024", "8")).model) == ["mul"]


# -- the comparison -------------------------------------------------------------------------------


def test_merging_beyond_the_tolerance_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_choose, "simplified", wrong(merge=1e-3, fold=0))
    result = prepared(tmp_path, BATCH_NORM)
    assert result.report.simplified == "without merging"
    (message,) = result.report.messages
    assert message.startswith("merging of layers is left out: output 'y' differs by")
    assert result.report.max_difference == 0


def test_a_wrong_simplification_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_choose, "simplified", wrong(merge=1, fold=1))
    result = prepared(tmp_path, BATCH_NORM)
    assert result.report.simplified == "no"
    assert len(result.report.messages) == 2
    assert names(result.model) == ["conv", "norm", "relu"]


def test_a_simplifier_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> onnx.ModelProto:
        raise KeyError("lost")

    monkeypatch.setattr(prepare_choose, "simplified", fail)
    result = prepared(tmp_path, BATCH_NORM)
    assert result.report.simplified == "no"
    assert "merging of layers is left out: 'lost'" in result.report.messages


def test_only_the_same_computation_needs_no_run(tmp_path: Path) -> None:
    text = "g (float[N] x) => (float[N] y) <float[1] w = {2}> { [m] h = Mul(x, w) [n] y = Neg(h) }"
    base = computation(parse(text))
    other = parse(text.replace("[m]", "[other]"))
    other.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [4]))
    assert computation(other) == base
    for old, new in (("{2}", "{3}"), ("Neg", "Abs"), ("Mul(x, w)", "Mul(w, x)"), ("y)", "h)")):
        assert computation(parse(text.replace(old, new))) != base
    report = prepared(tmp_path, text, dims={"N": 4}).report
    assert (report.same_computation, report.runs) == (True, 0)
    assert prepared(tmp_path, BATCH_NORM).report.same_computation is False


def wrong(merge: float, fold: float) -> Any:
    """A simplifier that changes a weight."""

    def change(model: onnx.ModelProto, **options: bool) -> onnx.ModelProto:
        tensor = next(t for t in model.graph.initializer if t.name == "w")
        by = merge if options["merge"] else fold
        changed = numpy_helper.to_array(tensor) + np.float32(by)
        tensor.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), "w"))
        return model

    return change


def test_what_cannot_be_run_is_not_simplified(tmp_path: Path) -> None:
    text = """
        g (float[7,3,2] x, int64[2] s) => (float[K,M] y) {
          [id] h = Identity(x) [reshape] y = Reshape(h, s)
        }
    """
    result = prepared(tmp_path, text)
    assert result.report.simplified == "no"
    assert (result.report.runs, result.report.same_computation) == (0, True)
    lifted = (
        text.replace("[id]", "c = Constant<value_float = 2.0>() [id]")
        .replace("y = Resh", "r = Resh")
        .replace(", s)", ", s) y = Mul(r, c)")
    )
    result = prepared(tmp_path, lifted)
    assert (result.report.runs, result.report.max_difference) == (0, None)
    assert "simplification is left out, since nothing can be compared" in result.report.messages[-1]


def test_a_model_that_cannot_be_split_is_refused(tmp_path: Path) -> None:
    text = "g (float[2] x) => (float[2] y) { [r] r = RandomNormalLike(x) [a] y = Add(x, r) }"
    assert "(RandomNormalLike) draws random numbers" in fault(tmp_path, text)


# -- opsets ---------------------------------------------------------------------------------------


def test_an_old_model_is_converted_upwards(tmp_path: Path) -> None:
    proto = parse("g (float[2,3] x) => (float[2,3] y) { [soft] y = Softmax<axis = 0>(x) }")
    proto.opset_import[0].version = 11  # where axis 0 means all of the sizes after it
    result = prepared(tmp_path, proto, opset=17)
    assert (result.report.opset_before, result.report.opset_after) == (11, 17)
    x = np.random.default_rng(0).random((2, 3)).astype(np.float32)
    assert np.allclose(run(result.model, x=x)[0], run(proto, x=x)[0], rtol=1e-6)
    assert all(names(result.model))


def test_a_model_too_old_for_onnx_runtime_is_compared_with_onnx_s_own_results(
    tmp_path: Path,
) -> None:
    proto = parse("g (float[1,1,6] x) => (float[1,1,5] y) "
                  "{ [p] y = AveragePool<kernel_shape = [2]>(x) }")  # fmt: skip
    proto.opset_import[0].version = 1
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        run(proto, x=np.ones((1, 1, 6), np.float32))
    result = prepared(tmp_path, proto, opset=13)
    assert (result.report.opset_after, result.report.runs) == (13, 2)


def test_opsets_that_the_simplifier_does_not_take_are_told(tmp_path: Path) -> None:
    proto = parse("g (float[2] x) => (float[2] y) { [a] h = Identity(x) [n] y = Neg(h) }")
    proto.opset_import[0].version = 6
    report = prepared(tmp_path, proto).report
    assert report.messages == (
        "the model is not simplified: its opset is below 7; --opset converts it",
    )
    assert prepared(tmp_path, proto, opset=7).report.simplified == "yes"


@pytest.mark.parametrize(
    ("opset", "message"),
    [(11, "opset 17 and can't go down to 11"), (999, "opset 999 is not known: allowed are 17")],
)
def test_other_opsets_are_refused(tmp_path: Path, opset: int, message: str) -> None:
    assert message in fault(tmp_path, BATCH_NORM, opset=opset)


# -- images ---------------------------------------------------------------------------------------

IMAGES = {
    "plain": Preprocessing(),
    "bgr": Preprocessing(color="bgr", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)),
    "one value": Preprocessing(scale=1, mean=(127.5,), std=(127.5,)),
    "pixels": Preprocessing(scale=1),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_pixels_give_what_prepared_images_gave(
    tmp_path: Path, name: str, layout: str, dtype: str
) -> None:
    preprocessing = IMAGES[name].model_copy(update={"layout": layout})
    sizes = "N,3,H,W" if layout == "nchw" else "N,H,W,3"
    text = f"g ({dtype}[{sizes}] x) => ({dtype}[{sizes}] y) {{ [a] h = Neg(x) [b] y = Add(h, x) }}"
    result = prepared(tmp_path, text, preprocessing=preprocessing)
    assert shape_of(result.model.graph.input, "x") == ["N", "H", "W", 3]
    assert result.model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    plain = by_hand(pixels, preprocessing).astype("float16" if dtype == "float16" else "float32")
    (found,) = run(result.model, x=pixels)
    (wanted,) = run(tmp_path / "m.onnx", x=plain)
    assert np.allclose(found, wanted, rtol=2e-3 if dtype == "float16" else 2e-6, atol=1e-6)
    assert normalised(pixels, preprocessing, str(plain.dtype)).shape == plain.shape
    assert all(n.startswith("preprocess/") for n in names(result.model)[:-2])


def by_hand(pixels: Any, preprocessing: Preprocessing) -> Any:
    """In float64, pixel by pixel as the document says."""
    order = [2, 1, 0] if preprocessing.color == "bgr" else [0, 1, 2]
    values = pixels.astype(np.float64)[..., order] * preprocessing.scale
    values = (values - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    return values.transpose(0, 3, 1, 2) if preprocessing.layout == "nchw" else values


def test_a_branch_that_captures_the_image_reads_what_was_made_of_it(tmp_path: Path) -> None:
    text = """
        g (float[1,3,2,2] x, bool c) => (float[1,3,2,2] y) {
          [if] y = If (c) <
            then_branch = yes () => (float[1,3,2,2] a) { a = Neg(x) },
            else_branch = no () => (float[1,3,2,2] b) { b = Exp(x) }
          >
        }
    """
    preprocessing = Preprocessing(input="x")
    result = prepared(tmp_path, text, preprocessing=preprocessing)
    pixels = np.full((1, 2, 2, 3), 51, np.uint8)
    (found,) = run(result.model, x=pixels, c=np.array(True))
    assert np.allclose(found, -0.2)


def test_the_size_of_the_images_is_that_of_the_preprocessing(tmp_path: Path) -> None:
    result = prepared(tmp_path, DYNAMIC, preprocessing=Preprocessing(size=(4, 5)))
    assert result.report.dims == {"H": 4, "W": 5}
    assert shape_of(result.model.graph.input, "x") == ["N", 4, 5, 3]


@pytest.mark.parametrize(
    ("text", "preprocessing", "message"),
    [
        (
            "g (float[1,3,4,4] x) => (float[1,3,4,4] y) { y = Neg(x) }",
            Preprocessing(size=(4, 5)),
            "x[3] is 4 in the model, and 5 in the preprocessing",
        ),
        (
            "g (float[1,3,4,4] x) => (float[1,3,4,4] y) { y = Neg(x) }",
            Preprocessing(color="gray"),
            "x[1] is 3 in the model, and 1 in the preprocessing",
        ),
        (
            "g (float[1,3,4,4] x) => (float[1,3,4,4] y) { y = Neg(x) }",
            Preprocessing(input="z"),
            "input: the model has no input 'z'",
        ),
        (
            "g (int64[1,3,4,4] x) => (int64[1,3,4,4] y) { y = Neg(x) }",
            Preprocessing(),
            "input 'x' is of int64 with 4 sizes",
        ),
        (
            "g (float[4] x) => (float[4] y) { y = Neg(x) }",
            Preprocessing(),
            "input 'x' is of float32 with 1 sizes",
        ),
        (
            "g (float[1,3,4,4] x, float[1] z) => (float[1,3,4,4] y) { y = Mul(x, z) }",
            Preprocessing(),
            "the model has the inputs x, z: name one",
        ),
    ],
)
def test_models_that_take_no_such_images_are_refused(
    tmp_path: Path, text: str, preprocessing: Preprocessing, message: str
) -> None:
    assert message in fault(tmp_path, text, preprocessing=preprocessing)


# -- large models ---------------------------------------------------------------------------------


def external(folder: Path) -> tuple[Path, onnx.ModelProto]:
    """A model whose weights, one large and one small, lie in `w.bin`."""
    proto = parse("""
        g (float[N,64] x) => (float[N,64] y) {
          c = Constant<value_float = 0.1>()
          [mul] h = MatMul(x, w)
          k = Add(h, b)
          y = Mul(k, c)
        }
    """)
    random = np.random.default_rng(0)
    for name, shape in (("w", (64, 64)), ("b", (64,))):
        values = random.random(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    folder.mkdir(exist_ok=True)
    path = folder / "m.onnx"
    onnx.save(copy, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path, proto


def test_constants_of_a_large_model_stay_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, proto = external(tmp_path / "in")
    monkeypatch.setattr(prepare, "LARGE_BYTES", 10_000)
    result = prepare_model(path, PrepareOptions(dims={"N": 2}))
    assert (result.large, result.report.simplified, result.report.runs) == (True, "no", 2)
    assert "the model is not simplified: it is above 2 GiB" in result.report.messages
    assert result.model.ByteSize() < 2_000  # without the large weight
    target = tmp_path / "out" / "p.onnx"
    result.write(target)
    assert sorted(f.name for f in target.parent.iterdir()) == ["p.onnx", "p.onnx.data"]
    assert names(load_model(target).proto) == ["mul", "Add_2", "Mul_3"]
    x = np.random.default_rng(1).random((2, 64)).astype(np.float32)
    assert run(target, x=x)[0].tobytes() == run(proto, x=x)[0].tobytes()
    before = [f.read_bytes() for f in sorted(target.parent.iterdir())]
    with pytest.raises(InputError, match="pass --force"):
        result.write(target)
    result.write(target, force=True)
    assert [f.read_bytes() for f in sorted(target.parent.iterdir())] == before


def test_a_large_model_keeps_its_opset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = external(tmp_path)
    monkeypatch.setattr(prepare, "LARGE_BYTES", 10_000)
    with pytest.raises(InputError, match="above 2 GiB can't be converted"):
        prepare_model(path, PrepareOptions(opset=18))


def test_a_failure_leaves_no_half_of_a_large_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = external(tmp_path / "in")
    monkeypatch.setattr(prepare, "LARGE_BYTES", 10_000)
    result = prepare_model(path)
    (path.parent / "w.bin").write_bytes(b"short")
    with pytest.raises(InputError, match=r"w\.bin ends too early"):
        result.write(tmp_path / "out" / "p.onnx")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_small_model_with_external_data_becomes_one_file(tmp_path: Path) -> None:
    path, proto = external(tmp_path / "in")
    target = tmp_path / "out" / "p.onnx"
    prepare_model(path).write(target)
    assert [f.name for f in target.parent.iterdir()] == ["p.onnx"]
    x = np.ones((3, 64), np.float32)
    assert np.allclose(run(target, x=x)[0], run(proto, x=x)[0], rtol=1e-5)


# -- the command ----------------------------------------------------------------------------------


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["prepare", *map(str, arguments)])
    return int(str(caught.value.code))


def test_the_command_writes_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, DYNAMIC)
    assert command(path, "--shape", "x=N,3,4,5") == 0
    shown = capsys.readouterr()
    assert "prepared model written to" in shown.err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.out.splitlines()]
    assert ["input", "x", "float32", "Nx3x4x5"] in rows
    assert ["sizes fixed", "H=4, W=5"] in rows
    assert ["largest difference", "none"] in rows
    target = tmp_path / "m.prepared.onnx"
    before = target.read_bytes()
    assert command(path, "--shape", "x=1,3,4,5") == 3
    assert "pass --force" in capsys.readouterr().err
    assert target.read_bytes() == before
    assert command(path, "--shape", "x=1,3,4,5", "--force", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 3, 4, 5]}]
    assert target.read_bytes() != before


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, BATCH_NORM)
    assert command(path, "--dry-run") == 0
    assert [f.name for f in tmp_path.iterdir()] == ["m.onnx"]
    assert "written" not in capsys.readouterr().err


def test_pixels_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, file = save(tmp_path, DYNAMIC), tmp_path / "p.yaml"
    file.write_text("mean: [0.5]\nsize: [4, 5]\n")
    assert command(path, "--input-codec", "uint8", "--preprocessing", file, "--json") == 0
    (tensor,) = json.loads(capsys.readouterr().out)["inputs"]
    assert tensor == {"name": "x", "dtype": "uint8", "shape": ["N", 4, 5, 3]}


@pytest.mark.parametrize(
    ("options", "code", "problem"),
    [
        (["--shape", "x"], 2, "allowed is NAME=SIZES"),
        (["--shape", "x=1,0,4"], 2, "allowed is NAME=SIZES"),
        (["--shape", "x=1,-3,4"], 2, "allowed is NAME=SIZES"),
        (["--shape", "x=1,3,4,5", "--shape", "x=1,3,4,5"], 2, "given twice"),
        (["--input-codec", "uint8"], 2, "give both or none"),
        (["--dim", "Q=1"], 3, "'Q' is no symbolic size"),
        (["--opset", "7"], 3, "can't go down to 7"),
    ],
)
def test_bad_options_are_errors_and_write_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    problem: str,
) -> None:
    assert command(save(tmp_path, DYNAMIC), *options) == code
    shown = capsys.readouterr()
    assert problem in shown.err
    assert shown.out == ""
    assert [f.name for f in tmp_path.iterdir()] == ["m.onnx"]


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = save(tmp_path, BATCH_NORM), tmp_path / "m.prepared.onnx"
    target.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(prepare_write, "write_file", fail)
    with pytest.raises(OSError, match="disk full"):
        prepare_model(path).write(target, force=True)
    assert target.read_bytes() == b"old"
