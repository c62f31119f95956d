"""The noise model as a document: read back, predictions and budgets by hand, all faults at once."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tritier.documents import NoiseModel, OutputNoise, Ranges
from tritier.errors import InputError

HASHES = {name: name * 64 for name in "0123456789abcdef"}
FIGURES = {
    "subsets": 20, "r2": 0.99, "mape": 0.01, "spearman": 1.0, "worst_under": 0.02,
    "worst_over": -0.01,
}  # fmt: skip
DATA: dict[str, Any] = {
    "format": "tritier/noise/1",
    "model": {"name": "net", "sha256": HASHES["a"]},
    "settings": {
        "metric": "mean_abs",
        "quantization": {"activation_type": "uint8", "per_channel": True, "reduce_range": True},
        "kernels": "simulated",
        "seed": 3,
        "onnxruntime": "1.31",
        "processor": "",
    },
    "layers": ["c1", "c2", "c3"],
    "excluded": [{"name": "join", "reason": "alone it makes 'y' constant"}],
    "outputs": [
        {
            "output": "y",
            "power": 2,
            "constant": 0.0,
            "terms": [
                {"layers": ["c1"], "value": 9.0},
                {"layers": ["c2"], "value": 16.0},
                {"layers": ["c3"], "value": 1.0},
                {"layers": ["c1", "c2"], "value": -5.0},
                {"layers": ["c2", "c3"], "value": -30.0},
            ],
            "margin": 1.25,
            "signal": {"mean_abs": 1.0, "spread": 2.0, "variation": 0.5},
            "fitted": FIGURES,
            "held_out": FIGURES,
        }
    ],
    "measured": [{"layers": ["c1"], "use": "design", "noise": {"y": 3.0}, "inputs": 8}],
    "wires": [{"tensor": "x", "codec": "fp16", "noise": {"y": 0.1}, "inputs": 8}],
    "ranges_sha256": HASHES["b"],
    "calibration": [{"name": "a.png", "sha256": HASHES["c"]}],
    "inputs": [{"name": "b.png", "sha256": HASHES["d"]}],
    "self_check": {"subsets": 4, "max_abs_diff": 0.0},
    "measured_at": "2026-11-22T06:37:13Z",
    "elapsed_s": 1.5,
}


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The data with other values at paths such as `outputs.0.power`."""
    data = copy.deepcopy(DATA)
    for path, value in changes:
        *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
        place: Any = data
        for part in way:
            place = place[part]
        place[last] = value
    return data


def faults(*changes: tuple[str, Any]) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        NoiseModel.from_data(changed(*changes))
    return caught.value.faults


def noise_of(**changes: Any) -> OutputNoise:
    return OutputNoise.from_data({**copy.deepcopy(DATA["outputs"][0]), **changes})


def test_a_document_is_read_back_as_it_was(tmp_path: Path) -> None:
    model = NoiseModel.from_data(DATA)
    path = tmp_path / "noise.json"
    path.write_text(model.to_json(), encoding="utf-8")
    assert NoiseModel.load(path) == model
    data = json.loads(path.read_text())
    assert [item.pop("scaled") for item in data["measured"]] == [False] * len(data["measured"])
    assert data == DATA


def test_predictions_by_hand() -> None:
    output = NoiseModel.from_data(DATA).output("y")
    assert output.predict([]) == 0.0
    assert output.predict(["c1"]) == 3.0
    assert output.predict({"c3", "c1"}) == pytest.approx(math.sqrt(10))
    assert output.predict(["c2", "c1"]) == pytest.approx(math.sqrt(20))
    assert output.predict(["c2", "c3"]) == 0.0  # never the root of what is negative
    linear = noise_of(power=1, constant=0.5)
    assert linear.predict(["c1", "c2"]) == 20.5
    assert linear.predict([]) == 0.0


def test_an_unknown_layer_is_no_layer_without_noise() -> None:
    with pytest.raises(InputError) as caught:
        noise_of().predict(["c1", "c9", "join"])
    assert [fault.split("'")[1] for fault in caught.value.faults] == ["c9", "join"]
    assert caught.value.faults[0] == (
        "layer 'c9' is not in the noise model of 'y': learn it again with that layer"
    )


@pytest.mark.parametrize("power", [1, 2])
def test_the_budget_is_where_the_prediction_with_its_margin_meets_the_limit(power: int) -> None:
    output = noise_of(power=power)
    limit = 1.25 * output.predict(["c1", "c3"])
    assert output.budget(limit) == pytest.approx(10.0)
    assert output.budget(0.0) == 0.0
    for bad in (-1.0, math.nan):
        with pytest.raises(InputError, match=r"limit of (-1.0|nan) for 'y': allowed is 0 or more"):
            output.budget(bad)


def test_unknown_output_and_other_model() -> None:
    model = NoiseModel.from_data(DATA)
    with pytest.raises(InputError, match="'z' is no output of the noise model; it has y"):
        model.output("z")
    model.check_model(HASHES["a"])
    with pytest.raises(InputError, match=r"is for 'net' \(aaaaaaaaaaaa.*learn it again with `trit"):
        model.check_model(HASHES["b"])


def test_all_faults_between_fields_are_told_together() -> None:
    output = DATA["outputs"][0]
    found = faults(
        ("layers", ["c1", "c2", "c2"]),
        ("excluded", [{"name": "c1", "reason": "why"}]),
        ("measured.0.layers", ["c7"]),
        ("measured.0.noise", {"z": 1.0}),
        ("outputs", [output, output]),
    )
    assert found == (
        "layers: 'c2' stands 2 times",
        "outputs: 'y' stands 2 times",
        "outputs.y: 'c3' is none of the layers",
        "measured: 'c7' is none of the layers",
        "excluded: 'c1' is among the layers too",
        "measured: 'z' is none of the outputs",
    )


def test_noise_measured_on_what_was_calibrated_on_is_refused() -> None:
    (found,) = faults(("inputs", [{"name": "copy.png", "sha256": HASHES["c"]}]))
    assert found == (
        "inputs: 'copy.png' is the same as 'a.png', on which the ranges were calibrated: measure "
        "noise on other inputs"
    )


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("outputs.0.power", 3, "outputs[0].power: 3: input should be 1 or 2"),
        ("outputs.0.margin", 0.9, "outputs[0].margin: 0.9: input should be greater than or equal"),
        ("outputs.0.terms", [], "outputs[0].terms: is empty; give at least one"),
        ("outputs.0.fitted.r2", 1.1, "outputs[0].fitted.r2: 1.1: input should be less than"),
        ("outputs.0.terms.0.value", math.nan, "outputs[0].terms[0].value: NaN"),
        ("measured.0.noise", {"y": -1}, "measured[0].noise.y: -1: input should be greater than"),
        ("measured.0.use", "fit", "measured[0].use: \"fit\": input should be 'design', 'verific"),
        ("inputs", [], "inputs: is empty; give at least one"),
        ("layers", "c1", 'layers: "c1": input should be a valid'),
        ("settings.metrics", "snr", "settings.metrics: unknown key (did you mean 'metric'?)"),
    ],
)
def test_faults_inside_fields(path: str, value: Any, text: str) -> None:
    found = faults((path, value))
    assert any(fault.startswith(text) for fault in found), found


def test_ranges_know_their_inputs(tmp_path: Path) -> None:
    data = {"model_sha256": HASHES["a"], "method": "minmax", "samples": 1, "ranges": {"x": [0, 1]}}
    assert Ranges.from_data(data).inputs == ()  # files from before
    ranges = Ranges.from_data({**data, "inputs": DATA["calibration"]})
    path = tmp_path / "ranges.json"
    path.write_text(ranges.to_json(), encoding="utf-8")
    assert Ranges.load(path) == ranges
    with pytest.raises(InputError, match=r"inputs\[0\].sha256: \"ab\""):
        Ranges.from_data({**data, "inputs": [{"name": "a.png", "sha256": "ab"}]})
