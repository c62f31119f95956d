"""Calibration ranges, and `tritier ranges` as a user calls it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

from tests.helpers.models import load, save
from tritier.calibration import Arrays, Method, calibratable, calibrate, choose_tensors, collect
from tritier.cli import main
from tritier.documents import Ranges
from tritier.errors import InputError
from tritier.graph import build_layer_graph, load_model
from tritier.resources import example_dir

HISTOGRAMS: tuple[Method, ...] = ("entropy", "percentile")
MIXED = """
    g (float[N,2] x, int64[K] i)
      => (float[N,2] y, float[P] e, double[N,2] d, float[K] b, int64[2,M] z, float s,
          float16[N,2] h)
      <float[2] w = {2, -1}, int64[1] flat = {-1}> {
      [mul] y = Mul(x, w)
      [less] c = Less(x, x)
      [reshape] f = Reshape(c, flat)
      [none] e = Compress(x, f)
      [double] d = Cast<to = 11>(y)
      [nonzero] z = NonZero(x)
      [max] s = ReduceMax<keepdims = 0>(x)
      [half] h = Cast<to = 10>(y)
      [shape] n = Shape(i)
      [size] k = Neg(n)
      [use] m = Add(i, k)
      [cast] a = Cast<to = 1>(m)
      [keep] b = Identity(a)
    }
"""
NAN = "g (float[N] x) => (float[N] y) { [log] l = Log(x) [neg] n = Neg(l) [y] y = Relu(n) }"
SQUARES = "g (float[N] x) => (float[N] y) { [neg] n = Neg(x) [y] y = Mul(n, x) }"
PICTURES = "g (float[N,3,H,W] x) => (float[N,3,H,W] y) { [a] t = Neg(x) [y] y = Neg(t) }"


def floats(*values: float) -> Arrays:
    """An input of a model whose one input is a list of floats."""
    return {"x": np.array(values, np.float32)}


def test_ranges_are_those_of_all_inputs_together(tmp_path: Path) -> None:
    model = load(tmp_path, MIXED)
    inputs: list[Arrays] = [
        {"x": np.array([[1, 2]], np.float32), "i": np.array([-7, 3, 4])},
        {"x": np.array([[-3, 0], [0.5, 5], [1, 1]], np.float32), "i": np.array([5])},
    ]
    ranges = calibrate(model, inputs, source="two by hand")
    assert ranges.ranges == {
        "x": (-3, 5),
        "i": (-7, 5),
        "y": (-6, 2),
        # e has no element in any input, c and f are truth values
        "d": (-6, 2),
        "z": (0, 2),
        "s": (2, 5),
        "h": (-6, 2),
        "n": (1, 3),
        "k": (-3, -1),
        "m": (-10, 4),
        "a": (-10, 4),
        "b": (-10, 4),
    }
    assert list(ranges.ranges) == [name for name in calibratable(model) if name != "e"]
    assert (ranges.samples, ranges.method, ranges.source) == (2, "minmax", "two by hand")
    assert ranges.model_sha256 == model.sha256
    for method in HISTOGRAMS:
        cut = calibrate(model, inputs, method, "idznhe").ranges
        assert list(cut) == ["i", "d", "z", "h", "n"]
        assert {n: cut[n] for n in "idzn"} == {n: ranges.ranges[n] for n in "idzn"}


def test_all_tensors_of_a_trained_model_as_its_own_run_shows_them() -> None:
    model = load_model(example_dir("super_resolution") / "espcn_x3.onnx")
    generator = np.random.default_rng(0)
    name = model.proto.graph.input[0].name
    inputs: list[Arrays] = [
        {name: generator.random((1, 1, 224, 224), np.float32)} for _ in range(2)
    ]
    shown = onnx.ModelProto()
    shown.CopyFrom(model.proto)
    del shown.graph.output[:]
    tensors = list(build_layer_graph(model.proto).source)
    shown.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(shown.SerializeToString(), options)
    runs = [session.run(tensors, arrays) for arrays in inputs]
    found = calibrate(model, inputs).ranges
    for index, tensor in enumerate(tensors):
        expected = (min(r[index].min() for r in runs), max(r[index].max() for r in runs))
        assert found[tensor] == pytest.approx(expected, rel=1e-5)
    assert len(found) == len(tensors) + 1


@pytest.mark.parametrize("method", HISTOGRAMS)
def test_histograms_cut_what_is_rare(tmp_path: Path, method: Method) -> None:
    model = load(tmp_path, SQUARES)
    values = np.random.default_rng(0).normal(size=400_000).astype(np.float32)
    inputs: list[Arrays] = [{"x": values}, floats(*values[:50_000], 90), floats(-0.25)]
    low, high = calibrate(model, inputs, method, ["x"]).ranges["x"]
    assert values.min() - 0.1 <= low < -2
    assert 2 < high < 60
    # The order of the inputs changes nothing: bins are those of all inputs together.
    again = calibrate(model, inputs[::-1], method, ["x"]).ranges["x"]
    assert again == (low, high)


@pytest.mark.parametrize("method", HISTOGRAMS)
def test_a_tensor_of_one_value_keeps_its_range(tmp_path: Path, method: Method) -> None:
    model = load(tmp_path, SQUARES)
    found = calibrate(model, [floats(5, 5, 5)], method, ["x", "n"]).ranges
    assert found == {"x": (5, 5), "n": (-5, -5)}
    empty = calibrate(model, [floats(), floats(0), floats()], method, ["y"]).ranges
    assert empty == {"y": (0, 0)}


@pytest.mark.parametrize("method", ["minmax", *HISTOGRAMS])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, method: Method) -> None:
    # ONNX Runtime's own minimum misses this NaN, which stands between other values.
    many = [*range(1, 30), -1.0, *range(1, 30)]
    model = load(tmp_path, NAN)
    with pytest.raises(InputError, match="input 2: tensor 'l' has values that are not finite"):
        calibrate(model, [floats(1), floats(*many)], method)
    with pytest.raises(InputError, match="input 1: tensor 'l'"):
        calibrate(model, [floats(0, 1)], method)
    with pytest.raises(InputError, match="input 1: tensor 'x'"):
        calibrate(model, [floats(1, np.inf)], method)
    assert calibrate(model, [floats(*many)], method, ["x"]).ranges.keys() == {"x"}


def test_only_the_tensors_that_are_asked_for(tmp_path: Path) -> None:
    model = load(tmp_path, MIXED)
    assert choose_tensors(model, ["[xy]", "i", "z"]) == ["x", "i", "y", "z"]
    with pytest.raises(InputError, match=r"2 faults(.|\n)*'zz' is no tensor"):
        choose_tensors(model, ["zz", "x", "w*"])
    inputs: list[Arrays] = [{"x": np.ones((1, 2), np.float32), "i": np.array([1])}]
    assert list(calibrate(model, inputs, "entropy", ["z", "y"]).ranges) == ["y", "z"]
    assert calibrate(model, inputs, "minmax", ["i"]).ranges == {"i": (1, 1)}
    with pytest.raises(InputError, match="'c' is no tensor of floats or integers"):
        calibrate(model, inputs, "minmax", ["c"])


def test_bad_inputs_are_refused(tmp_path: Path) -> None:
    model = load(tmp_path, SQUARES)
    with pytest.raises(InputError, match="no inputs"):
        calibrate(model, [])
    with pytest.raises(InputError, match="can't run the model"):
        calibrate(model, [{"q": np.ones(1, np.float32)}])
    with pytest.raises(TypeError, match="give a list"):
        calibrate(model, iter([floats(1)]), "percentile")


@pytest.mark.parametrize("limit", [0, 10**9])
def test_nothing_stays_behind_and_weights_may_lie_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], limit: int
) -> None:
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    text = "g (float[N,600] x) => (float[N,600] y) <float[600] w = {%s}> { [m] y = Mul(x, w) }"
    proto = load(tmp_path, text % ", ".join(str(n) for n in range(600))).proto
    path = work / "outside.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, location="w.data", size_threshold=1)
    before = sorted(work.iterdir())
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(collect, "_ONE_FILE_BYTES", limit)  # 0: as if the model were above 2 GiB
    model = load_model(path)
    inputs: list[Arrays] = [{"x": np.ones((2, 600), np.float32)}]
    for method in ("minmax", "percentile"):
        first = calibrate(model, inputs, method)
        assert first.ranges["x"] == (1, 1)
        assert first.ranges["y"] == pytest.approx((0, 599), rel=0.01)
        assert calibrate(load_model(path), inputs, method).to_json() == first.to_json()
    assert sorted(work.iterdir()) == before
    assert list(temporary.iterdir()) == []
    assert tuple(capfd.readouterr()) == ("", "")


def run(*arguments: object) -> int:
    """Exit code of `tritier ranges`."""
    with pytest.raises(SystemExit) as caught:
        main(["ranges", *map(str, arguments)])
    return int(str(caught.value.code))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of one grey each, of different sizes, and what is no picture."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, name in enumerate(["b.png", "a.PNG", "c.jpg", ".hidden.png"]):
        Image.new("RGB", (32 + index, 40), (51 * (index + 1),) * 3).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


NO_RESIZE = ("--preprocessing", "ppocr-det")


def test_the_command_writes_what_it_prints(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = save(tmp_path, PICTURES), tmp_path / "ranges.json"
    command = (model, "--images", photos, *NO_RESIZE, "-o", output)
    assert run(*command, "--dry-run") == 0
    assert not output.exists()
    assert "3 inputs are as m needs them" in capsys.readouterr().err
    assert run(*command, "--json", "--tensor", "[xt]") == 0
    shown = capsys.readouterr()
    ranges = Ranges.load(output)
    assert json.loads(shown.out) == json.loads(output.read_text())
    assert ranges.ranges["x"] == pytest.approx((51 / 127.5 - 1, 153 / 127.5 - 1))
    assert ranges.ranges.keys() == {"x", "t"}
    assert ranges.source == "3 images, preprocessing ppocr-det"
    assert "written to" in shown.err
    before = output.read_bytes()
    assert run(*command) == 3
    assert "pass --force" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert run(*command, "--force") == 0
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    assert ["samples", "3"] in rows
    assert ["t", "-0.2", "0.6"] in rows


def ranges_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """What the command prints as JSON."""
    assert run(*arguments, "--json") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_limit_takes_those_that_the_seed_chooses(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(tmp_path, PICTURES)
    command = (model, "--images", photos, *NO_RESIZE, "--limit", 1)
    chosen = [ranges_of(capsys, *command, "--seed", seed) for seed in range(4)]
    assert len({document["ranges"]["x"][0] for document in chosen}) > 1
    assert ranges_of(capsys, *command, "--seed", 3) == chosen[3]
    assert chosen[3]["source"] == "1 images of 3, seed 3, preprocessing ppocr-det"
    names = [photos / "c.jpg", "--images", photos / "b.png", "--images", photos]
    every = ranges_of(capsys, model, "--images", *names, *NO_RESIZE)
    assert every["samples"] == 3  # each image once


def test_arrays_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save(tmp_path, SQUARES)
    np.save(tmp_path / "one.npy", np.array([1, 3], np.float32))
    np.savez(tmp_path / "two.npz", x=np.array([-2], np.float32))
    files = ("--data", tmp_path / "one.npy", "--data", tmp_path / "two.npz")
    document = ranges_of(capsys, model, *files)
    assert document["ranges"]["x"] == [-2, 3]
    assert (document["samples"], document["source"]) == (2, "2 input files")
    np.save(tmp_path / "one.npy", np.array([1, 3]))
    assert run(model, *files) == 3
    assert "'x' is int64 of shape [2]; the model needs float32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "problem"),
    [
        ([], 2, "either --images with --preprocessing, or --data"),
        (["--images", "photos"], 2, "--images needs --preprocessing"),
        (["--data", "a.npy", "--preprocessing", "yolo"], 2, "--preprocessing is for --images"),
        (["--images", "empty", *NO_RESIZE], 3, "empty: has no images"),
        (["--images", "nowhere", *NO_RESIZE], 3, "nowhere: no such file or folder"),
        (["--images", "photos", "--preprocessing", "yolo"], 3, "give `size`"),
        (["--images", "photos/notes.txt", *NO_RESIZE], 3, "notes.txt: can't be read as an image"),
        (["--images", "tiny.png", *NO_RESIZE], 3, "tiny.png: the image is 8 x 8"),
        (["--data", "nowhere.npy"], 3, "nowhere.npy: can't be read"),
        (["--images", "photos", *NO_RESIZE, "--tensor", "q"], 3, "'q' is no tensor"),
    ],
)
def test_bad_options_are_errors(
    tmp_path: Path,
    photos: Path,  # noqa: ARG001 - the options name it
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: Sequence[str],
    code: int,
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Image.new("RGB", (8, 8)).save("tiny.png")
    assert run(save(tmp_path, PICTURES), *options, "-o", "ranges.json") == code
    shown = capsys.readouterr()
    assert problem in shown.err
    assert shown.out == ""
    assert not Path("ranges.json").exists()
