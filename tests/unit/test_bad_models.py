"""Models that can't be handled are refused in plain words, and odd but good ones are not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.golden.bad_models import BAD_MODELS, CHAIN, message_of, messages, parse, write
from tests.golden.cases import ROOT
from tests.helpers.models import assert_same_bits, split
from tritier.errors import InputError
from tritier.graph import build_layer_graph, load_model

EXPECTED = ROOT / "tests" / "golden" / "expected" / "bad_models.txt"


def test_messages_are_those_that_were_reviewed() -> None:
    assert messages() == EXPECTED.read_text(encoding="utf-8"), "run `make regen`, review the diff"


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_message_is_short_and_names_no_path_of_this_machine(name: str) -> None:
    text = message_of(name)
    assert len(text) < 2000
    assert max(map(len, text.splitlines())) < 400
    assert "/tmp" not in text
    assert "ONNXRuntimeError" not in text
    assert len(text.splitlines()) == 1 or text.splitlines()[1].startswith("  - ")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_model_with_weights_that_is_cut_off_is_refused(tmp_path: Path, kept: float) -> None:
    model = parse()
    weights = np.random.default_rng(0).random(10_000).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "more"))
    whole = model.SerializeToString()
    path = write(tmp_path, whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match="is not a readable ONNX model") as caught:
        load_model(path)
    assert len(str(caught.value)) < 200 + len(str(path))


def test_external_data_with_hard_links_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    path = BAD_MODELS["external data missing"](_made(folder))
    (path.parent / "real.bin").write_bytes(bytes(8))
    os.link(path.parent / "real.bin", path.parent / "weights.bin")
    with pytest.raises(InputError, match="several hard links"):
        load_model(path)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_names_are_data_and_reach_no_path(tmp_path: Path) -> None:
    model = parse(CHAIN)
    renamed = {"h": "../../h", "i": "/etc/passwd", "w": "..\\w:*?", "y": "out\nput", "x": "../x"}
    for node, name in zip(model.graph.node, ["../first", "a/../b", " : "], strict=True):
        node.name = name
        for names in (node.input, node.output):
            names[:] = [renamed.get(n, n) for n in names]
    for value in (*model.graph.input, *model.graph.output):
        value.name = renamed[value.name]
    model.graph.initializer[0].name = renamed["w"]
    made = split(tmp_path, model, {"../first": "a", "a/../b": "b", " : ": "a"})
    assert not [path for path in made.files if ".." in path or path.startswith("/")]
    inputs = {"../x": np.array([1, -2], np.float32)}
    assert_same_bits(made.run_whole(inputs), made.run_chain(inputs))


def test_names_up_to_the_limit_are_good(tmp_path: Path) -> None:
    name = "h" * 1000
    model = parse(f"g (float[2] x) => (float[2] y) {{ {name} = Neg(x) y = Abs({name}) }}")
    assert list(load_model(write(tmp_path, model)).proto.graph.node[0].output) == [name]


def test_operators_of_functions_in_the_model_are_good(tmp_path: Path) -> None:
    model = parse("g (float[2] x) => (float[2] y) { [twice] y = own.Twice(x) }")
    model.opset_import.add(domain="own", version=1)
    body = [helper.make_node("Add", ["p", "p"], ["q"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Twice", ["p"], ["q"], body, opsets))
    assert len(load_model(write(tmp_path, model)).proto.functions) == 1


@pytest.mark.parametrize("domain", ["ai.onnx.ml", "com.microsoft"])
def test_domains_of_onnx_runtime_are_good(tmp_path: Path, domain: str) -> None:
    op_type = {"ai.onnx.ml": "Scaler", "com.microsoft": "Gelu"}[domain]
    model = parse(f"g (float[2] x) => (float[2] y) {{ y = {domain}.{op_type}(x) }}")
    model.opset_import.add(domain=domain, version=1)
    load_model(write(tmp_path, model))


@pytest.mark.parametrize("dtype", sorted(set(onnx.TensorProto.DataType.values()) - {0, 8}))
def test_constants_of_every_type_are_read(tmp_path: Path, dtype: int) -> None:
    model = parse("g (float[3] x) => (float[3] y) { c = Cast<to = 1>(w) y = Add(x, c) }")
    values = np.array([0, 1, 1]).astype(helper.tensor_dtype_to_np_dtype(dtype))
    for raw in (False, True):
        del model.graph.initializer[:]
        tensor = numpy_helper.from_array(values, "w")
        if not raw:
            tensor = helper.make_tensor("w", dtype, [3], values)
        model.graph.initializer.append(tensor)
        write(tmp_path, model)
        load_model(tmp_path / "model.onnx")


def test_a_branch_may_use_names_of_the_other(tmp_path: Path) -> None:
    model = parse("""
        g (float[2] x, bool c) => (float[2] y) {
          [if] y = If (c) <
            then_branch = yes () => (float[2] a) { [same] a = Neg(x) },
            else_branch = no () => (float[2] a) { [same] a = Exp(x) }
          >
        }
    """)
    assert len(build_layer_graph(load_model(write(tmp_path, model)).proto).layers) == 1


@pytest.mark.parametrize(
    "op", ["RandomNormalLike(x)", "RandomUniformLike(x)", "Bernoulli(x)", "Multinomial(x)"]
)
def test_layers_that_draw_random_numbers_are_refused(op: str) -> None:
    out = "int32" if op.startswith("Multi") else "float"
    model = parse(f"g (float[2,2] x) => ({out}[2,K] y) {{ [draw] y = {op} }}")
    with pytest.raises(InputError, match=r"node 'draw' \(.*\) draws random numbers"):
        build_layer_graph(model)


def test_a_branch_that_draws_random_numbers_is_refused() -> None:
    model = parse("""
        g (float[2] x, bool c) => (float[2] y) {
          [if] y = If (c) <
            then_branch = yes () => (float[2] a) { a = RandomNormalLike(x) },
            else_branch = no () => (float[2] b) { b = Neg(x) }
          >
        }
    """)
    with pytest.raises(InputError, match=r"node 'if' \(RandomNormalLike\) draws random numbers"):
        build_layer_graph(model)
