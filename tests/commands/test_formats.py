"""Int8 formats: on which layers they are tried, which kernels run, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.models import load, save
from tests.helpers.timing import optimised
from tritier.calibration import calibrate
from tritier.cli import main
from tritier.cli.formats import show_formats, verdict
from tritier.divider import Arrays
from tritier.documents import Duration, Figure, InputFile, Quantization, Server
from tritier.errors import InputError
from tritier.files import sha256_file
from tritier.graph import Quantizable, build_layer_graph, profile_model
from tritier.workflow import Runs
from tritier.workflow.formats import FORMATS, FormatsRequest
from tritier.workflow.formats_layers import (
    averages_of,
    int8_layers,
    layers_before_the_end,
    layers_of_all_types,
    with_layers,
)
from tritier.workflow.formats_report import (
    FormatNoise,
    FormatRow,
    FormatsReport,
    ratio,
    settings_text,
)
from tritier.workflow.timing_pieces import PieceMaker

CONSTANTS = "<float[2,2,1,1] w = {1, -2, 3, 0.5}, float[2] b = {0.5, -1}>"
# Ends as detectors do: a distribution is averaged, and boxes and scores are joined.
DETECTOR = f"""
    g (float[1,2,8,8] x) => (float[1,4,8,8] y) {CONSTANTS} {{
      [c1] h = Conv(x, w, b) [s] i = Sigmoid(h) [m] j = Mul(h, i) [c2] k = Conv(j, w, b)
      [soft] p = Softmax<axis = 1>(k) [t] q = Transpose<perm = [0, 1, 3, 2]>(p)
      [dfl] r = Conv(q, w) [score] u = Sigmoid(k) [join] y = Concat<axis = 1>(r, u)
    }}
"""
FLOATS = "g (float[1,4] x) => (float[1,4] y) { [s] h = Sigmoid(x) [m] y = Mul(h, x) }"


def feeds(count: int = 2) -> list[Arrays]:
    """Inputs of the detector."""
    draw = np.random.default_rng(1)
    return [{"x": draw.standard_normal((1, 2, 8, 8)).astype(np.float32)} for _ in range(count)]


def request_for(folder: Path, layers: tuple[str, ...]) -> FormatsRequest:
    loaded = load(folder, DETECTOR)
    profile = profile_model(loaded, None, Quantizable(layers=layers))
    ranges = calibrate(loaded, feeds())
    return FormatsRequest(loaded, profile, ranges, feeds(3), folder, Runs(1, 4, 1))


# -- layers ---------------------------------------------------------------------------------------


def test_what_comes_after_the_last_convolutions_stays_float(tmp_path: Path) -> None:
    loaded = load(tmp_path, DETECTOR)
    graph = build_layer_graph(loaded.proto)
    assert averages_of(graph) == {"dfl"}
    assert layers_before_the_end(graph) == {"c1", "s", "m", "c2"}
    assert layers_of_all_types(loaded, graph, profile_model(loaded)) == ("c1", "s", "m", "c2")


def test_a_model_without_convolutions_has_no_end(tmp_path: Path) -> None:
    loaded = load(tmp_path, FLOATS)
    graph = build_layer_graph(loaded.proto)
    assert layers_of_all_types(loaded, graph, profile_model(loaded)) == ("s", "m")


@pytest.mark.parametrize("chosen", [("c1", "c2"), ("c1", "s", "m", "c2"), ("s",)])
def test_kernels_on_8_bit_values_are_counted(tmp_path: Path, chosen: tuple[str, ...]) -> None:
    loaded = load(tmp_path, DETECTOR)
    graph = build_layer_graph(loaded.proto)
    server = Server(name="s", tier="edge", entry=True, quantization=FORMATS["U8S8"])
    profile = with_layers(profile_model(loaded), chosen)
    maker = PieceMaker(loaded, graph, profile, server)
    model = maker.profiled(quantized=True)
    kernels = optimised(model.data, tmp_path)
    assert int8_layers(model.nodes, kernels, graph.by_name) == chosen
    for node in kernels.node:  # as where ONNX Runtime has no kernels for a format
        if node.op_type == "QuantizeLinear":
            node.op_type = "Identity"
    assert int8_layers(model.nodes, kernels, graph.by_name) == ()


def test_what_a_kernel_does_on_the_way_is_counted_too(tmp_path: Path) -> None:
    text = f"""
        g (float[1,2,8,8] x) => (float[1,2,8,8] y) {CONSTANTS} {{
          [c1] h = Conv(x, w, b) [r] i = Relu(h) [e] y = Exp(i)
        }}
    """
    loaded = load(tmp_path, text)
    server = Server(name="s", tier="edge", entry=True, quantization=FORMATS["U8S8"])
    profile = with_layers(profile_model(loaded), ("c1", "r"))
    ranges = calibrate(loaded, feeds())
    graph = build_layer_graph(loaded.proto)
    model = PieceMaker(loaded, graph, profile, server, ranges).profiled(quantized=True)
    kernels = optimised(model.data, tmp_path)
    assert "Relu" not in {node.op_type for node in kernels.node}
    assert int8_layers(model.nodes, kernels, ("c1", "r", "e")) == ("c1", "r")


# -- measuring ------------------------------------------------------------------------------------


def test_layers_and_inputs_are_needed(tmp_path: Path) -> None:
    good = request_for(tmp_path, ("c1",))
    with pytest.raises(InputError, match="no inputs to measure noise on"):
        FormatsRequest(good.model, good.profile, good.ranges, [], tmp_path)
    none = with_layers(good.profile, ())
    with pytest.raises(InputError, match="no layer can be quantized"):
        FormatsRequest(good.model, none, good.ranges, good.inputs, tmp_path)


def test_a_ratio_has_the_interval_of_its_turns() -> None:
    found = ratio([20.0, 20.0, 20.0, 20.0], [10.0, 10.0, 10.0, 10.0])
    assert (found.value, found.low, found.high, found.n) == (2, 2, 2, 4)
    found = ratio([20.0, 22.0, 24.0, 60.0], [11.0, 10.0, 13.0, 12.0])
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value == 2 < found.high


# -- what is said ---------------------------------------------------------------------------------


def row(
    name: str, speedup: float, real: float, simulated: float | None = None, width: float = 0.1
) -> FormatRow:
    """A format with a signal of 1."""
    figures = [Figure(value=x, n=1) for x in (real, real if simulated is None else simulated, 1.0)]
    return FormatRow(
        name,
        FORMATS.get(name),
        ("a",),
        ("a",),
        Duration(median_ms=1, mean_ms=1, std_ms=0, n=3),
        Figure(value=speedup, low=speedup - width, high=speedup + width),
        (FormatNoise("y", *figures),),
    )


def report_of(*rows: FormatRow) -> FormatsReport:
    floats = row("float", 1.0, 0.0, width=0)
    return FormatsReport("m", "here", "cpu", "1.31", 1, 4, (floats, *rows))


def test_the_fastest_is_advised_unless_one_as_fast_has_less_noise() -> None:
    report = report_of(row("S8S8", 0.7, 0.01), row("U8S8", 1.6, 0.05), row("U8U8", 1.55, 0.03))
    assert (report.fastest.name, report.least_noise.name) == ("U8S8", "S8S8")
    assert verdict(report) == [
        "least noise: S8S8 (1 % of the signal, 0.70 times as fast as float)",
        "fastest: U8S8 (1.60 times as fast as float)",
        "for servers.yaml: quantization: {activation_type: uint8, weight_type: uint8}"
        "  # U8U8, as fast with less noise",
    ]


def test_none_gains_where_the_interval_reaches_float() -> None:
    report = report_of(row("U8S8", 1.05, 0.05))
    assert report.advised is None
    assert verdict(report)[-1] == "none gains: float is fastest"
    assert report.to_data()["settings"] is None


def test_saturation_is_told() -> None:
    told = verdict(report_of(row("U8S8 per_channel", 1.5, 0.3, 0.1)))[0]
    assert told == (
        "U8S8 per_channel: real noise is 3.0 times what floats simulate, its integers overflow: "
        "reduce_range, or weight_type uint8, prevents that"
    )


def test_settings_are_text_for_the_servers_file() -> None:
    texts = [settings_text(settings) for settings in FORMATS.values()]
    assert texts[0] == "quantization: {}"
    assert texts[3] == (
        "quantization: {activation_type: uint8, per_channel: true, reduce_range: true}"
    )


# -- the command ----------------------------------------------------------------------------------


def run(folder: Path, *arguments: object) -> int:
    """Exit code of `tritier formats` on the detector and two inputs."""
    paths = [folder / f"{index}.npy" for index in range(2)]
    for path, feed in zip(paths, feeds(), strict=True):
        np.save(path, feed["x"])
    model = save(folder, DETECTOR)
    data = [x for path in paths for x in ("--data", path)]
    with pytest.raises(SystemExit) as caught:
        main(["formats", str(model), *map(str, (*data, *arguments))])
    return int(str(caught.value.code))


def test_every_format_is_measured_beside_float(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "formats.json"
    assert run(tmp_path, "--all-convs", "--runs", 3, "--warmup", 0, "--json", "-o", output) == 0
    shown = capsys.readouterr()
    (found,) = json.loads(shown.out)
    assert [found] == json.loads(output.read_text())
    assert found["inputs"] == 1
    rows = found["rows"]
    assert [x["name"] for x in rows[:7]] == ["float", *FORMATS]
    assert [x["layers"] for x in rows[1:7]] == [["c1", "c2"]] * 6
    assert all(x["name"].endswith(", all ops") for x in rows[7:])
    assert [x["layers"] for x in rows[7:]] == [["c1", "s", "m", "c2"]] * 2
    assert rows[2]["int8_layers"] == ["c1", "c2"]
    assert rows[5]["quantization"]["weight_type"] == "uint8"
    assert {(x["time"]["n"], x["time"]["source"]) for x in rows} == {(3, "measured")}
    noise = [{k: v["value"] for k, v in x["noise"][0].items() if k != "output"} for x in rows]
    assert noise[0]["real"] == noise[0]["simulated"] == 0
    for item in noise[1:]:
        assert 0 < item["simulated"] < 0.1 * item["signal"]
        assert item["real"] > 0
    assert noise[4]["real"] == pytest.approx(noise[4]["simulated"], rel=0.2)  # reduce_range
    assert "layer 'dfl' averages a distribution" in shown.err
    assert "timing 9 models" in shown.err
    assert run(tmp_path, "-o", output) == 3
    assert "pass --force" in capsys.readouterr().err


def test_formats_are_shown_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    show_formats(report_of(row("U8S8", 1.6, 0.05), row("S8S8", 0.7, 0.01)))
    shown = capsys.readouterr()
    assert "m: int8 formats on here, cpu, ONNX Runtime 1.31, 1 thread" in shown.out
    assert "1.60 (1.50..1.70)" in shown.out
    assert "for servers.yaml: quantization: {activation_type: uint8}  # U8S8" in shown.err


def test_noise_is_not_measured_on_what_ranges_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load(tmp_path, DETECTOR)
    assert run(tmp_path, "--dry-run") == 0
    assert "noise on 1 input\n" in capsys.readouterr().err
    ranges = calibrate(loaded, feeds())
    files = [InputFile(name=f"{i}.npy", sha256=sha256_file(tmp_path / f"{i}.npy")) for i in (0, 1)]
    path = tmp_path / "ranges.json"
    path.write_text(ranges.model_copy(update={"inputs": (files[0],)}).to_json())
    assert run(tmp_path, "--ranges", path, "--dry-run") == 0
    assert "1 inputs, on which the ranges were calibrated, are left out" in capsys.readouterr().err
    path.write_text(ranges.model_copy(update={"inputs": tuple(files)}).to_json())
    assert run(tmp_path, "--ranges", path, "--dry-run") == 3
    assert "noise would look smaller than it is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--server", "edge"], 2, "--server needs --servers"),
        (["--all-convs", "--quantize-layer", "c1"], 2, "--all-convs chooses the layers"),
        (["--quantize-layer", "zzz"], 3, "zzz"),
    ],
)
def test_wrong_options(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    assert run(tmp_path, *arguments) == code
    assert message in capsys.readouterr().err


def test_every_format_is_a_setting_that_servers_may_have() -> None:
    for settings in FORMATS.values():
        assert Quantization.from_data(settings.model_dump(mode="json")) == settings
