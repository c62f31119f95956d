"""Dead models, and layers that destroy an output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.models import load
from tests.helpers.noise import CONVS, NETWORK, WEIGHTS, arrays
from tritier.calibration import Arrays, calibrate
from tritier.calibration.images import Array
from tritier.documents import ExcludedLayer
from tritier.errors import InputError
from tritier.graph import build_layer_graph
from tritier.noise import Executor, SignalMeter, check_alive, excluded_layers, screen_input

HEAD = "g (float[N,3,H,W] x) => "
# Coordinates from about -640 to 640 beside scores from 0 to 1, as detectors end.
DETECTOR = f"""
    {HEAD} (float[N,6,H,W] y) <{WEIGHTS}, float big = {{640}}> {{
      [c1] a = Conv(x, w1) [score] s = Sigmoid(a) [c2] c = Conv(a, w2) [box] b = Mul(c, big)
      [join] y = Concat<axis = 1>(b, s)
    }}
"""
# Sure of the same class for every input.
CLASSIFIER = f"""
    {HEAD} (float[N,3] y) <{WEIGHTS}, float[1,3] bias = {{9, 0, 0}}, float tenth = {{0.1}}> {{
      [c1] a = Conv(x, w1) [m] m = Mul(a, tenth) [p] p = GlobalAveragePool(m)
      [f] f = Flatten(p) [b] b = Add(f, bias) [soft] y = Softmax<axis = 1>(b)
    }}
"""
LOGARITHM = f"""
    {HEAD} (float[N,3,H,W] y, float[N,3,H,W] z) <{WEIGHTS}, float one = {{1}}> {{
      [c1] y = Conv(x, w1) [abs] e = Abs(x) [same] f = Mul(e, one) [log] z = Log(f)
    }}
"""
# As many columns as there are positions whose value is large, in one input none.
COLUMNS = f"""
    {HEAD} (float[N,3,H,W] y, float[K,M] z)
      <{WEIGHTS}, int64[2] flat = {{3, -1}}, float least = {{LEAST}}> {{
      [c1] y = Conv(x, w1) [f] v = Reshape(y, flat) [m] u = ReduceMax<axes = [0], keepdims = 0>(v)
      [g] p = Greater(u, least) [k] z = Compress<axis = 1>(v, p)
    }}
"""


def excluded(
    folder: Path, text: str, layers: tuple[str, ...], feeds: list[Arrays]
) -> tuple[ExcludedLayer, ...]:
    model = load(folder, text)
    ranges = calibrate(model, [arrays(90), arrays(91), *feeds])
    executor = Executor(model, build_layer_graph(model.proto), layers, ranges)
    program = executor.compile_singles()
    outputs = executor.graph.outputs
    return excluded_layers(layers, [screen_input(executor, program, x, outputs) for x in feeds])


def meter(*outputs: Mapping[str, Array]) -> SignalMeter:
    found = SignalMeter()
    for item in outputs:
        found.add(item)
    return found


# Signals.


def test_signals_by_hand() -> None:
    found = meter(
        {"y": np.array([[1.0, -3.0]]), "b": np.array([True])},
        {"y": np.array([[3.0, -3.0]]), "b": np.array([False])},
    ).signals()
    assert found["y"].mean_abs == 2.5
    assert found["y"].spread == pytest.approx(math.sqrt((1 + 9 + 9 + 9) / 4 - 0.25))
    # Of two elements one varies, by a variance of 1.
    assert found["y"].variation == pytest.approx(math.sqrt((1 + 0) / 2) / found["y"].spread)
    assert (found["b"].mean_abs, found["b"].spread) == (0.5, 0.5)


def test_shapes_that_differ_and_what_holds_no_numbers() -> None:
    found = meter(
        {"y": np.ones((1, 2))}, {"y": np.zeros((1, 4))}, {"y": np.zeros((0, 4))}
    ).signals()
    assert found["y"].variation is None  # no two inputs of one shape
    assert found["y"].spread == pytest.approx(math.sqrt(1 / 3 - 1 / 9))
    assert meter({"s": np.array(["a"], object)}).signals() == {}
    check_alive(found)


def test_outputs_that_are_not_finite_are_refused() -> None:
    live = {"y": np.ones(2)}
    for bad in (math.nan, math.inf):
        with pytest.raises(InputError, match=r"'y' of the float model holds .* on input 1: leave"):
            meter(live, {"y": np.array([1.0, bad])})


def test_a_dead_model_is_refused_and_a_live_one_not() -> None:
    fixed = np.random.default_rng(0).normal(size=(1, 50))
    draw = np.random.default_rng(1)

    def outputs(size: float) -> list[Arrays]:
        return [{"y": fixed + size * draw.normal(size=(1, 50))} for _ in range(4)]

    with pytest.raises(InputError, match=r"'y' by \S+e-0\d of its spread.*random weights.*rescale"):
        check_alive(meter(*outputs(1e-5)).signals())
    check_alive(meter(*outputs(1e-2)).signals())
    with pytest.raises(InputError, match=r"'y' by 0\.0e"):
        check_alive(meter(*[{"y": np.ones((1, 3))}] * 3).signals())


def test_one_live_output_is_enough() -> None:
    feeds: list[Arrays] = [{"y": np.ones(3), "z": np.arange(3) * k} for k in range(3)]
    check_alive(meter(*feeds).signals())


# Layers.


def test_a_concat_that_zeroes_the_scores(tmp_path: Path) -> None:
    (found,) = excluded(tmp_path, DETECTOR, ("c1", "c2", "join"), [arrays(1), arrays(2)])
    assert found.name == "join"
    assert found.reason == "alone it makes 3 of 6 slices of 'y' constant, the first is 3"


def test_a_layer_that_makes_infinities(tmp_path: Path) -> None:
    """Small values become 0, and their logarithm infinite."""
    (found,) = excluded(tmp_path, LOGARITHM, ("same",), [arrays(1), arrays(2)])
    assert found.reason == "alone it makes 'z' infinite or not a number"


def test_a_layer_that_moves_an_output_by_most_of_its_spread(tmp_path: Path) -> None:
    """A range 200 times too wide leaves three or four values."""
    model = load(tmp_path, NETWORK)
    feeds = [arrays(1), arrays(2)]
    ranges = calibrate(model, feeds)
    wide = {**ranges.ranges, "y": (-250.0, 250.0)}
    graph = build_layer_graph(model.proto)
    executor = Executor(model, graph, CONVS, ranges.model_copy(update={"ranges": wide}))
    program = executor.compile_singles()
    found = excluded_layers(CONVS, [screen_input(executor, program, x, ["y"]) for x in feeds])
    assert [item.name for item in found] == ["c4"]
    assert "alone it m" in found[0].reason
    assert excluded(tmp_path, NETWORK, CONVS, feeds) == ()


def test_a_sure_classifier_keeps_its_layers(tmp_path: Path) -> None:
    """Its answer hardly changes over a few frames: noise is small beside it all the same."""
    first = arrays(1)
    frames = [first, {"x": first["x"] * np.float32(1.02)}]
    assert excluded(tmp_path, CLASSIFIER, ("c1",), frames) == ()


@pytest.mark.parametrize("least", ["0.5", "100"])
def test_slices_whose_number_hangs_on_the_data(tmp_path: Path, least: str) -> None:
    text = COLUMNS.replace("LEAST", least)
    assert excluded(tmp_path, text, ("c1",), [arrays(1), arrays(2), arrays(3, 8)]) == ()


def test_a_layer_that_changes_the_number_of_slices(tmp_path: Path) -> None:
    """Rounded to steps of 0.47, more values are above 0.4."""
    model = load(tmp_path, COLUMNS.replace("LEAST", "0.4"))
    feeds = [arrays(1), arrays(2)]
    ranges = calibrate(model, feeds)
    coarse = ranges.model_copy(update={"ranges": {**ranges.ranges, "y": (-60.0, 60.0)}})
    executor = Executor(model, build_layer_graph(model.proto), ("c1",), coarse)
    program = executor.compile_singles()
    shapes = executor.run(program, feeds[0], lambda _, outputs: outputs["z"].shape)
    assert shapes[0] != shapes[1]
    assert (
        excluded_layers(("c1",), [screen_input(executor, program, x, ["z"]) for x in feeds]) == ()
    )
