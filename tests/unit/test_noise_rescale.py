"""Statistics rescaling of random weights, and `tritier rescale` as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks import photographs
from tests.helpers.models import load, parse, save
from tritier.cli import main
from tritier.divider import Array, Arrays, WholeModel
from tritier.errors import InputError
from tritier.graph import LoadedModel, build_layer_graph
from tritier.noise.random_layers import find_random_layers, looks_fixed
from tritier.noise.rescale import (
    WEIGHTS_KEY,
    Step,
    Targets,
    output_variation,
    rescale_statistics,
)

EXACT = Targets(mean_varies=0, spread_varies=0)


def random_model(nodes: str, weights: Mapping[str, Array], *shown: str) -> onnx.ModelProto:
    """A model x -> y with these constants, `shown` tensors being outputs too."""
    model = parse(f"g (float[1,3,12,12] x) => (float[D] y) {{ {nodes} }}")
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ("y", *shown))
    return onnx.shape_inference.infer_shapes(model)


def normal(*shape: int, seed: int = 0, size: float = 0.01) -> Array:
    """Random weights."""
    return (size * np.random.default_rng((seed, *shape)).normal(size=shape)).astype(np.float32)


def pictures(count: int = 3, size: int = 12) -> list[Arrays]:
    """Inputs of 3 channels."""
    generator = np.random.default_rng(7)
    return [{"x": generator.random((1, 3, size, size), np.float32)} for _ in range(count)]


def outputs_of(model: onnx.ModelProto, inputs: list[Arrays]) -> Arrays:
    """Outputs over all inputs, together."""
    whole = WholeModel(model.SerializeToString(), "disabled")
    runs = [whole.run(arrays) for arrays in inputs]
    return {name: np.concatenate([run[name] for run in runs]) for name in whole.outputs}


def constants_of(model: onnx.ModelProto) -> Arrays:
    """Initializers by name."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def assert_statistics(array: Array, mean: float, spread: float, axis: int = 1) -> None:
    """Fail unless each channel has this mean and standard deviation."""
    others = tuple(i for i in range(array.ndim) if i != axis % array.ndim)
    np.testing.assert_allclose(array.mean(axis=others), mean, atol=1e-4)
    np.testing.assert_allclose(array.std(axis=others), spread, rtol=1e-3)


def test_a_dead_model_comes_to_life(tmp_path: Path) -> None:
    nodes, weights, last = "", {}, "x"
    for index in range(8):
        weights[f"w{index}"] = normal(6, 3 if index == 0 else 6, 3, 3, seed=index)
        nodes += f"[c{index}] c{index} = Conv<pads = [1,1,1,1]>({last}, w{index}) "
        nodes += f"[r{index}] r{index} = Relu(c{index}) "
        last = f"r{index}"
    weights |= {"w": normal(2, 6, 1, 1), "b": normal(2, size=1)}
    model = load(tmp_path, random_model(f"{nodes} [y] y = Conv({last}, w, b)", weights))
    inputs, others = pictures(), pictures(5)[3:]
    assert (output_variation(model.proto, inputs)["y"] or 0) < 1e-6
    steps: list[Step] = []
    before = model.proto.SerializeToString(deterministic=True)
    rescaled = rescale_statistics(model, inputs, 1, report=steps.append)
    assert model.proto.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(rescaled, full_check=True)
    assert (output_variation(rescaled, others)["y"] or 0) > 0.1
    assert [step.layer for step in steps] == [*(f"c{i}" for i in range(8)), "y"]
    assert all((step.still, step.of) == (0, 9) for step in steps)
    assert [n.name for n in rescaled.graph.node] == [n.name for n in model.proto.graph.node]
    entry = {item.key: item.value for item in rescaled.metadata_props}[WEIGHTS_KEY]
    assert entry == "random, statistics rescaled on 3 inputs, seed 1"
    assert rescaled.producer_name == "tritier"
    assert entry in rescaled.doc_string
    again, other = (rescale_statistics(model, inputs, seed) for seed in (1, 2))
    assert again.SerializeToString(deterministic=True) == rescaled.SerializeToString(
        deterministic=True
    )
    assert not np.array_equal(constants_of(other)["w"], constants_of(again)["w"])


def test_targets_are_met_before_activations_and_without(tmp_path: Path) -> None:
    nodes = "[a] a = Conv<pads = [1,1,1,1]>(x, wa) [s] s = Sigmoid(a) [m] m = Mul(a, s) "
    nodes += "[b] b = Conv<group = 2>(m, wb, bb) [h] h = Mul(b, half) [e] e = Erf(h) "
    nodes += "[u] u = Add(b, e) [y] y = Conv(u, wy, by)"
    weights: dict[str, Array] = {
        "wa": normal(4, 3, 3, 3), "wb": normal(6, 2, 1, 1), "bb": normal(6),
        "wy": normal(5, 6, 1, 1), "by": normal(5), "half": np.array(0.5, np.float32),
    }  # fmt: skip
    model = load(tmp_path, random_model(nodes, weights, "a", "b"))
    inputs = pictures()
    rescaled = rescale_statistics(model, inputs, 0, EXACT)
    found = outputs_of(rescaled, inputs)
    assert_statistics(found["a"], EXACT.activated_mean, EXACT.activated_spread)
    assert_statistics(found["b"], EXACT.activated_mean, EXACT.activated_spread)
    assert_statistics(found["y"], 0, 1)
    assert list(rescaled.graph.node[0].input)[:2] == ["x", "wa"]
    assert len(rescaled.graph.node[0].input) == 3  # it has a bias now
    drawn = outputs_of(rescale_statistics(model, inputs, 0), inputs)["y"]
    assert 0.01 < drawn.mean(axis=(0, 2, 3)).std() < 1
    assert 0.01 < drawn.std(axis=(0, 2, 3)).std() < 1


@pytest.mark.parametrize(
    ("node", "weights", "axis"),
    [
        ("[y] y = Conv(x, w, b)", {"w": normal(5, 3, 1, 1), "b": normal(5)}, 1),
        ("[y] y = Conv(x, w)", {"w": normal(1, 3, 3, 3)}, 1),
        # The name that a new bias would have is taken.
        ("[n] n = Neg(x) [y] y = Conv(n, y_bias)", {"y_bias": normal(4, 3, 1, 1)}, 1),
        (
            "[a] a = Add(x, y_bias) [y] y = Conv(a, w)",
            {"w": normal(4, 3, 1, 1), "y_bias": normal(1)},
            1,
        ),
        ("[y] y = ConvTranspose<group = 3>(x, w)", {"w": normal(3, 4, 2, 2)}, 1),
        ("[y] y = ConvTranspose(x, w, b)", {"w": normal(3, 4, 2, 2), "b": normal(4)}, 1),
        (
            "[f] f = Flatten<axis = 3>(x) [y] y = Gemm<transB = 1, beta = 0.5, alpha = 3.0>"
            "(f, w, b)",
            {"w": normal(7, 12), "b": normal(1, 7)},
            1,
        ),
        ("[f] f = Flatten<axis = 3>(x) [y] y = Gemm(f, w)", {"w": normal(12, 7)}, 1),
        (
            "[m] m = MatMul(x, w) [y] y = Add(b, m)",
            {"w": normal(12, 7), "b": normal(1, 1, 7)},
            -1,
        ),
    ],
)
def test_every_kind_of_layer(
    tmp_path: Path, node: str, weights: dict[str, Array], axis: int
) -> None:
    model = load(tmp_path, random_model(node, weights))
    inputs = pictures()
    rescaled = rescale_statistics(model, inputs, 0, EXACT)
    onnx.checker.check_model(rescaled)
    assert_statistics(outputs_of(rescaled, inputs)["y"], 0, 1, axis)
    shapes = {name: array.shape for name, array in constants_of(rescaled).items()}
    assert {name: shapes[name] for name in weights} == {n: a.shape for n, a in weights.items()}


def test_a_product_to_which_nothing_is_added_gets_its_spread(tmp_path: Path) -> None:
    model = load(tmp_path, random_model("[y] y = MatMul(x, w)", {"w": normal(12, 7)}))
    inputs = pictures()
    found = outputs_of(rescale_statistics(model, inputs, 0, EXACT), inputs)["y"]
    np.testing.assert_allclose(found.std(axis=(0, 1, 2)), 1, rtol=1e-3)
    assert np.abs(found.mean(axis=(0, 1, 2))).max() > 0.05


def test_layers_that_share_constants_get_their_own(tmp_path: Path) -> None:
    nodes = "[a] a = Conv(x, w, b) [n] n = Neg(a) [c] c = Conv(n, w, b) [d] d = Sub(c, one) "
    nodes += "[y] y = Conv(d, w, k)"
    weights: dict[str, Array] = {
        "w": normal(3, 3, 1, 1), "b": np.zeros(3, np.float32), "k": np.zeros(3, np.float32),
        "one": np.array(1, np.float32),
    }  # fmt: skip
    proto = random_model(nodes, weights, "a", "c")
    model = load(tmp_path, proto)
    inputs = pictures()
    rescaled = rescale_statistics(model, inputs, 0, EXACT)
    onnx.checker.check_model(rescaled, full_check=True)
    found = outputs_of(rescaled, inputs)
    for name in ("a", "c", "y"):
        assert_statistics(found[name], 0, 1)
    read = [name for node in rescaled.graph.node for name in node.input]
    assert set(constants_of(rescaled)) <= set(read)
    weights_read = [node.input[1] for node in rescaled.graph.node if node.op_type == "Conv"]
    assert len(set(weights_read)) == 3
    assert "k" in read  # its only reader keeps the name


def test_a_bias_for_all_channels_becomes_one_for_each(tmp_path: Path) -> None:
    nodes = "[f] f = Flatten<axis = 3>(x) [y] y = Gemm(f, w, b)"
    proto = random_model(nodes, {"w": normal(12, 7), "b": np.ones(1, np.float32)})
    # As old models have it, constants are declared as inputs too.
    for name, shape in (("w", [12, 7]), ("b", [1])):
        proto.graph.input.append(onnx.helper.make_tensor_value_info(name, 1, shape))
    inputs = pictures()
    rescaled = rescale_statistics(load(tmp_path, proto), inputs, 0, EXACT)
    onnx.checker.check_model(rescaled, full_check=True)
    assert_statistics(outputs_of(rescaled, inputs)["y"], 0, 1)
    assert [value.name for value in rescaled.graph.input] == ["x", "w"]
    assert {n: a.shape for n, a in constants_of(rescaled).items()} == {"w": (12, 7), "b_": (7,)}


def test_fixed_projections_stay(tmp_path: Path) -> None:
    nodes = "[a] a = Conv(x, w) [s] s = Softmax<axis = 1>(a) [dfl] d = Conv(s, bins) "
    nodes += "[mm] p = MatMul(d, d) [y] y = Conv(p, w2)"
    bins = np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1)
    weights: dict[str, Array] = {
        "w": normal(16, 3, 1, 1), "bins": bins, "w2": normal(8, 1, 1, 1)
    }  # fmt: skip
    model = load(tmp_path, random_model(nodes, weights, "d"))
    found, left = find_random_layers(model.proto, build_layer_graph(model.proto))
    assert [layer.name for layer in found] == ["a", "y"]
    assert [layer.name for layer in left] == ["dfl", "mm"]
    assert "multiples of 1" in left[0].reason
    assert "depends on an input" in left[1].reason
    rescaled = rescale_statistics(model, pictures(), 0)
    assert np.array_equal(constants_of(rescaled)["bins"], bins)
    assert len(rescaled.graph.node[2].input) == 2


GAUSSIAN = np.outer(*[np.exp(-(np.arange(-2, 3) ** 2) / 3.0)] * 2)


@pytest.mark.parametrize(
    ("weights", "fixed"),
    [
        (np.arange(16), "multiples of 1"),
        (np.zeros((2, 2)), "all 0"),
        (np.full((3, 1, 3, 3), 1 / 9), "multiples"),
        (np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]) / 8, "multiples"),
        (np.stack([GAUSSIAN] * 3), "different values"),
        (normal(4, 4), ""),
        (normal(2, 1), ""),
        (normal(64, 64, 3, 3, size=1).astype(np.float16), ""),
    ],
)
def test_what_somebody_wrote_down_does_not_look_random(weights: Array, fixed: str) -> None:
    assert looks_fixed(weights.astype(np.result_type(weights, np.float16))).count(fixed)
    assert bool(looks_fixed(weights)) == bool(fixed)


def test_a_channel_that_nothing_moves_stays(tmp_path: Path) -> None:
    weights = normal(4, 3, 1, 1)
    weights[2] = 0
    bias = np.array([1, 2, 3, 4], np.float32)
    model = load(tmp_path, random_model("[y] y = Conv(x, w, b)", {"w": weights, "b": bias}))
    steps: list[Step] = []
    rescaled = rescale_statistics(model, pictures(), 0, EXACT, steps.append)
    assert [(step.channels, step.still) for step in steps] == [(4, 1)]
    assert constants_of(rescaled)["b"][2] == 3
    found = outputs_of(rescaled, pictures())["y"]
    assert np.all(found[:, 2] == 3)
    assert_statistics(found[:, [0, 1, 3]], 0, 1)


def test_few_values_give_one_spread_for_all_channels(tmp_path: Path) -> None:
    nodes = "[g] g = GlobalAveragePool(x) [y] y = Conv(g, w)"
    model = load(tmp_path, random_model(nodes, {"w": normal(6, 3, 1, 1)}))
    inputs = pictures()
    before = outputs_of(model.proto, inputs)["y"].std(axis=0)
    after = outputs_of(rescale_statistics(model, inputs, 0, EXACT), inputs)["y"]
    np.testing.assert_allclose(after.std(axis=0) / before, 1 / np.sqrt((before**2).mean()), 1e-3)
    np.testing.assert_allclose(after.mean(axis=0), 0, atol=1e-5)


NORM = "[c] c = Conv(x, w) [norm] y = BatchNormalization(c, k, k, k, k)"


@pytest.mark.parametrize(
    ("nodes", "weights", "count", "fault"),
    [
        ("[y] y = Conv(x, w)", normal(3, 3, 1, 1), 1, "at least 2 inputs"),
        (NORM, normal(3, 3, 1, 1), 2, "BatchNormalization layers \\('norm'\\).*tritier prepare"),
        ("[y] y = Conv(x, w)", np.ones((3, 3, 1, 1), np.float32), 2, "'y': its weights are mult"),
        ("[y] y = Relu(x)", normal(3, 3, 1, 1), 2, "the model has no Conv"),
        (
            "[z] z = Sub(x, x) [l] l = Log(z) [y] y = Conv(l, w)",
            normal(3, 3, 1, 1),
            2,
            "'y' makes values that are not finite",
        ),
    ],
)
def test_what_can_not_be_rescaled(
    tmp_path: Path, nodes: str, weights: Array, count: int, fault: str
) -> None:
    constants = {"w": weights, "k": np.ones(3, np.float32)}
    model = load(tmp_path, random_model(nodes, constants))
    with pytest.raises(InputError, match=fault):
        rescale_statistics(model, pictures(count), 0)


def test_how_much_of_an_output_hangs_on_the_input(tmp_path: Path) -> None:
    text = """
        g (float[N,2] x) => (float[N,2] y, float[N,2] z, int64[2] n, float[N,2] k)
          <float[2] w = {0, 100}, float[1] nil = {0}> {
          [y] y = Identity(x) [z] z = Add(x, w) [n] n = Shape(x) [k] k = Mul(x, nil)
        }
    """
    model = load(tmp_path, text)
    inputs: list[Arrays] = [
        {"x": np.array([[1, 3]], np.float32)},
        {"x": np.array([[3, 5], [9, 9]], np.float32)},  # what others lack is not compared
    ]
    assert output_variation(model.proto, inputs) == {
        "y": pytest.approx(1 / np.sqrt(2)),
        "z": pytest.approx(1 / np.std([1, 103, 3, 105])),
        "n": None,
        "k": 0,
    }


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `tritier rescale`."""
    with pytest.raises(SystemExit) as caught:
        main(["rescale", *map(str, arguments)])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


def dead(folder: Path) -> tuple[LoadedModel, list[str]]:
    """A model whose output hardly depends on its input, and options with inputs for it."""
    weights = {"w": normal(4, 3, 3, 3, size=1e-5), "b": normal(4, size=1)}
    options = []
    for index, arrays in enumerate(pictures()):
        np.save(folder / f"{index}.npy", arrays["x"])
        options += ["--data", str(folder / f"{index}.npy")]
    return load(folder, random_model("[y] y = Conv(x, w, b)", weights)), options


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, options = dead(tmp_path)
    target = tmp_path / "m.rescaled.onnx"
    code, out, err = run(capsys, model.path, *options, "--dry-run", "--json")
    assert (code, target.exists()) == (0, False)
    assert json.loads(out)["variation"]["y"]["after"] is None
    assert "1 layers can be rescaled on 3 input files; nothing was written" in err
    code, out, err = run(capsys, model.path, *options, "--json")
    assert code == 0, err
    shown: dict[str, Any] = json.loads(out)
    assert shown["rescaled"] == [{"layer": "y", "channels": 4, "still": 0}]
    assert shown["variation"]["y"]["before"] < 1e-3
    assert shown["variation"]["y"]["after"] > 0.5
    assert "for benchmarks only" in err
    assert rescale_statistics(model, pictures(), 0) == onnx.load(target)
    code, _, err = run(capsys, model.path, *options)
    assert (code, "exists" in err) == (3, True)
    code, out, err = run(capsys, target, *options, "-o", tmp_path / "b.onnx")
    assert code == 3
    assert "output 'y' depends on the inputs already" in err
    code, out, err = run(capsys, target, *options, "-o", target, "--live", "--force")
    assert (code, "hangs on the input" in out) == (0, True)


def test_the_command_refuses_what_it_can_not_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = random_model("[c] c = Conv(x, w) [y] y = ArgMax(c)", {"w": normal(4, 3, 1, 1)})
    _, options = dead(tmp_path)
    path = save(tmp_path, proto, "whole_numbers")
    code, _, err = run(capsys, path, *options, "--dry-run")
    assert (code, "no output is made of floats" in err) == (3, True)
    assert run(capsys, path, *options, "--dry-run", "--live")[0] == 0


def test_the_two_sets_of_photographs(tmp_path: Path) -> None:
    first, second = photographs.write_photographs(tmp_path / "a", 2, 1, seed=3)
    assert [path.name for path in sorted(first.iterdir())] == ["000_brick.png", "001_chelsea.png"]
    assert [path.name for path in second.iterdir()] == ["000_astronaut.png"]
    assert not set(photographs.CALIBRATION) & set(photographs.NOISE)
    assert all(path.is_file() for path in (*photographs.CALIBRATION, *photographs.NOISE))
    _, again = photographs.write_photographs(tmp_path / "b", 0, 1, seed=3)
    name = "000_astronaut.png"
    assert (again / name).read_bytes() == (second / name).read_bytes()
    with pytest.raises(InputError, match="not empty"):
        photographs.write_photographs(tmp_path / "a", 1, 1)
