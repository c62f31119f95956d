"""What codecs of single tensors lose, measured alone, and `tritier noise --wire`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.helpers.models import load, save
from tests.helpers.noise import NETWORK, arrays, request_for, write_inputs
from tests.helpers.planning import noise
from tritier.cli import main
from tritier.divider import WholeModel, coded_model
from tritier.documents import NoiseModel, Ranges
from tritier.errors import InputError
from tritier.graph import LoadedModel
from tritier.noise import built_in
from tritier.workflow.noise_wires import coded_tensors, wire_noise


@pytest.fixture
def network(tmp_path: Path) -> LoadedModel:
    return load(tmp_path, NETWORK)


def rounded(values: Any) -> Any:
    return np.asarray(values).astype(np.float16).astype(np.float32)


def outputs(model: onnx.ModelProto, inputs: dict[str, Any], extra: str = "") -> Any:
    """Of a model; of an inner tensor, if one is named."""
    proto = onnx.ModelProto.FromString(model.SerializeToString())
    if extra:
        proto.graph.output.append(onnx.ValueInfoProto(name=extra))
    found = WholeModel(proto.SerializeToString(), "disabled").run(inputs)
    return found[extra or "y"]


def test_all_that_read_a_tensor_read_it_coded(network: LoadedModel) -> None:
    """`b` is read by a Conv and by the shortcut: both get what fp16 leaves of it."""
    x = arrays(1)
    b = outputs(network.proto, x, "b")
    proto = coded_model(network.proto, "b", "fp16", "float32", None)
    assert np.array_equal(outputs(proto, x, "b/tritier_coded/out"), rounded(b))
    readers = {n.name for n in proto.graph.node if "b/tritier_coded/out" in n.input}
    assert readers == {"c2", "add"}


def test_inputs_and_outputs_of_the_model_are_coded_too(network: LoadedModel) -> None:
    x = arrays(2)
    coded_input = coded_model(network.proto, "x", "fp16", "float32", None)
    expected = outputs(network.proto, {"x": rounded(x["x"])})
    assert np.array_equal(outputs(coded_input, x), expected)
    coded_output = coded_model(network.proto, "y", "fp16", "float32", None)
    assert np.array_equal(outputs(coded_output, x), rounded(outputs(network.proto, x)))


def test_noise_is_the_metric_over_all_inputs(tmp_path: Path) -> None:
    request = request_for(tmp_path)
    wanted = [("x", "fp16"), ("b", "int8")]
    tensors = coded_tensors(request.model, wanted, request.ranges)  # type: ignore[arg-type]
    found = wire_noise(request.model, tensors, request.inputs, request.ranges, request.metric)
    assert [(item.tensor, item.codec, item.inputs) for item in found] == [
        ("x", "fp16", 2), ("b", "int8", 2),
    ]  # fmt: skip
    metric, whole = built_in("mean_abs"), WholeModel(request.model.path, "all")
    pairs = [(whole.run(a), whole.run({"x": rounded(a["x"])})) for a in request.inputs]
    scores = [metric.of_input(a, b, i)["y"] for i, (a, b) in enumerate(pairs)]
    assert found[0].noise["y"] == pytest.approx(np.mean(scores), rel=1e-3)
    assert found[1].noise["y"] > 10 * found[0].noise["y"] > 0


@pytest.mark.parametrize(
    ("name", "codec", "text"),
    [
        ("bb", "fp16", r"'bb' is no tensor.*did you mean 'b'"),
        ("b", "int8", r"'b' has no range, which int8 needs.*tritier ranges"),
        ("w1", "fp16", "'w1' is no tensor"),
    ],
)
def test_what_cannot_be_measured(network: LoadedModel, name: str, codec: Any, text: str) -> None:
    bare = Ranges(model_sha256=network.sha256, method="minmax", samples=1, ranges={"x": (0, 1)})
    with pytest.raises(InputError, match=text):
        coded_tensors(network, [(name, codec)], bare)


def test_patterns_and_ranges_that_are_still_to_come(network: LoadedModel) -> None:
    found = coded_tensors(network, [("[a-d]", "fp16"), ("b", "int8"), ("b", "fp16")], None)
    assert [(item.name, item.codec) for item in found] == [
        ("a", "fp16"), ("b", "fp16"), ("c", "fp16"), ("d", "fp16"), ("b", "int8"),
    ]  # fmt: skip


def test_the_command_puts_them_into_the_noise_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path, NETWORK)
    data = [x for path in write_inputs(tmp_path / "in", 6) for x in ("--data", str(path))]
    asked = [
        "noise",
        "m.onnx",
        *data,
        "--quantize-layer",
        "c1",
        "--quantize-layer",
        "c2",
        "-j",
        "1",
    ]
    with pytest.raises(SystemExit) as caught:
        main([*asked, "--wire", "x", "--wire", "b=int8", "-o", "noise.json"])
    assert caught.value.code == 0
    assert "fewer bits" in capsys.readouterr().out
    noise = NoiseModel.load(tmp_path / "noise.json")
    assert [(item.tensor, item.codec) for item in noise.wires] == [("x", "fp16"), ("b", "int8")]
    assert all(item.noise["y"] > 0 for item in noise.wires)
    for arguments, code, text in (
        (["--wire", "b=int4"], 2, "--wire b=int4: give a tensor, or TENSOR=CODEC"),
        (["--wire", "nothing"], 3, "'nothing' is no tensor"),
    ):
        with pytest.raises(SystemExit) as caught:
            main([*asked, *arguments])
        assert caught.value.code == code
        assert text in capsys.readouterr().err


def test_a_noise_model_with_faulty_wires_is_refused(tmp_path: Path) -> None:
    data = {"tensor": "x", "codec": "fp16", "noise": {"z": 1.0}, "inputs": 1}
    request = request_for(tmp_path)
    with pytest.raises(InputError, match="wires: 'z' is none of the outputs"):
        noise(request.model, ["c1", "c2", "c3"], wires=[data])
    twice = [{**data, "noise": {"y": 1.0}}] * 2
    with pytest.raises(InputError, match="wires: 'x' in fp16 stands 2 times"):
        noise(request.model, ["c1", "c2", "c3"], wires=twice)
