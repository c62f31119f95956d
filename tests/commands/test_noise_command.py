"""`tritier noise` as a user calls it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.models import save
from tests.helpers.noise import CONVS, NETWORK, arrays, write_inputs
from tritier.calibration import FileInputs
from tritier.cli import main
from tritier.cli.inputs import divided
from tritier.documents import NoiseModel, Ranges
from tritier.files import sha256_file
from tritier.graph import load_model
from tritier.workflow.noise_measure import Measurer

FEW = ("--quantize-layer", "c1", "--quantize-layer", "c2")


class Shell:
    """A folder with a model, six inputs for it, and what a command says there."""

    def __init__(self, folder: Path, output: Callable[[], tuple[str, str]]) -> None:
        self.folder = folder
        self._output = output
        save(folder, NETWORK)
        self.inputs = [path.relative_to(folder) for path in write_inputs(folder / "in", 6)]

    def run(
        self, *arguments: str, code: int = 0, inputs: list[Path] | None = None
    ) -> tuple[str, str]:
        """What `tritier noise m.onnx` with these inputs prints on stdout and stderr."""
        given = self.inputs if inputs is None else inputs
        data = [text for path in given for text in ("--data", str(path))]
        with pytest.raises(SystemExit) as caught:
            main(["noise", "m.onnx", *data, *arguments])
        out, err = self._output()
        assert caught.value.code == code, err
        return out, err

    def refused(self, *arguments: str, code: int = 3, inputs: list[Path] | None = None) -> str:
        """The error, from which nothing was written."""
        before = self.files()
        out, err = self.run(*arguments, code=code, inputs=inputs)
        assert (out, self.files()) == ("", before)
        assert "Traceback" not in err
        return err[err.index("error: ") :].strip()

    def files(self) -> list[str]:
        """All but the workspace."""
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*"))
        return sorted(str(path) for path in found if path.parts[0] != ".tritier")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, lambda: tuple(capsys.readouterr()))


def test_noise_model_ranges_and_picture(shell: Shell) -> None:
    before = shell.files()
    out, err = shell.run(
        "-o", "noise.json", "--plot", "new/ranking.PNG", "--verification", "3", "--seed", "4"
    )
    written = set(shell.files()) - set(before)
    assert written == {"noise.json", "noise_ranges.json", "new", "new/ranking.PNG"}
    model, ranges = NoiseModel.load(Path("noise.json")), Ranges.load(Path("noise_ranges.json"))
    assert (model.layers, model.settings.seed) == (CONVS, 4)
    hashes = {sha256_file(path) for path in shell.inputs}
    calibrated = {item.sha256 for item in ranges.inputs}
    noisy = {item.sha256 for item in model.inputs}
    assert (len(calibrated), calibrated | noisy, calibrated & noisy) == (3, hashes, set())
    assert model.calibration == ranges.inputs
    assert "4 layers, 3 inputs, 12 subsets measured" in out
    assert "c3" in out
    assert "the margin covers 75% of all subsets, as only 3 verification subsets" in err
    assert "--verification" in err
    assert Path("new/ranking.PNG").read_bytes().startswith(b"\x89PNG")


def test_inputs_are_divided_by_the_seed(shell: Shell) -> None:
    files = FileInputs.of(load_model(Path("m.onnx")), shell.inputs)

    def parts(count: int, calibration: int, seed: int) -> tuple[set[Path], set[Path]]:
        noise, others = divided(files, count, calibration, seed, None)
        return set(noise.paths), set(others.paths)

    every = set(shell.inputs)
    for seed in range(3):
        noise, others = parts(20, 100, seed)
        assert (len(noise), noise | others, noise & others) == (3, every, set())
        assert parts(20, 100, seed) == (noise, others)
    assert len({frozenset(parts(20, 100, seed)[0]) for seed in range(5)}) > 1
    noise, others = parts(2, 3, 0)
    assert (len(noise), len(others), noise & others) == (2, 3, set())


def test_written_ranges_serve_again(shell: Shell) -> None:
    """The inputs behind them are left out, so that the same others are measured."""
    shell.run(*FEW, "-o", "noise.json")
    out, err = shell.run(*FEW, "--json", "--ranges", "noise_ranges.json", "-o", "again.json")
    assert "3 inputs, on which the ranges were calibrated, are left out" in err
    assert "fitted subsets" not in err  # they are stored
    assert "ranges written" not in err
    assert "all subsets of the layers were measured: the margin covers each of them" in err
    first, again = NoiseModel.load(Path("noise.json")), NoiseModel.load(Path("again.json"))
    times: dict[str, Any] = {"measured_at": "", "elapsed_s": 0.0}
    assert first.model_copy(update=times) == again.model_copy(update=times)
    assert json.loads(out) == json.loads(Path("again.json").read_text())
    assert not Path("again_ranges.json").exists()
    used = [Path("in") / item.name for item in first.calibration]
    error = shell.refused("--ranges", "noise_ranges.json", inputs=used)
    assert "the ranges were calibrated on all 3 inputs" in error


def test_the_same_file_under_two_names_counts_once(shell: Shell) -> None:
    copies = [Path(f"in/copy{number}.npz") for number in range(6)]
    for path in copies:
        shutil.copy(shell.inputs[0], path)
    _, err = shell.run(*FEW, "-o", "noise.json", inputs=[*shell.inputs[:4], *copies])
    assert "6 inputs are copies of others and left out" in err
    assert len(NoiseModel.load(Path("noise.json")).inputs) == 2
    error = shell.refused(*FEW, inputs=copies)
    assert "1 inputs are too few: noise is measured on at least 2, and ranges are" in error


def test_a_dry_run_writes_nothing_and_checks_all(shell: Shell) -> None:
    before = shell.files()
    _, err = shell.run("-o", "noise.json", "--dry-run")
    assert err.strip() == (
        "would measure the noise of 4 layers on 3 inputs, with ranges calibrated on 3 others; "
        "nothing was written"
    )
    assert shell.files() == before
    assert not Path(".tritier").exists()
    assert "none.json: cannot be read" in shell.refused("--dry-run", "--ranges", "none.json")
    np.savez("in/x4.npz", x=np.zeros((1, 3, 6, 6)))
    assert "in/x4.npz: 'x' is float64" in shell.refused("--dry-run")


def test_what_exists_is_kept(shell: Shell) -> None:
    for name in ("noise.json", "noise_ranges.json", "p.png"):
        Path(name).write_text("mine")
    error = shell.refused("-o", "noise.json", "--plot", "p.png")
    assert [line.split()[1] for line in error.splitlines()[1:]] == [
        "noise.json", "noise_ranges.json", "p.png",
    ]  # fmt: skip
    assert "pass --force to replace it" in error
    bad = ("--metric", "own.py:bad", "--force", "-o", "noise.json", "--plot", "p.png", *FEW)
    Path("own.py").write_text("def bad(a, b, n):\n    return None\n")
    shell.refused(*bad)
    assert {Path(name).read_text() for name in ("noise.json", "noise_ranges.json", "p.png")} == {
        "mine"
    }
    shell.run(*FEW, "-o", "noise.json", "--force")
    assert NoiseModel.load(Path("noise.json")).layers == ("c1", "c2")
    assert Path("p.png").read_text() == "mine"


def test_a_run_that_was_cut_off_goes_on(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same command: neither calibration nor noise is measured twice."""
    whole, _ = shell.run(*FEW, "--json", "--jobs", "1")
    shutil.rmtree(".tritier")
    measure = Measurer.scores
    monkeypatch.setattr(Measurer, "scores", _interrupted)
    _, err = shell.run(*FEW, "-o", "noise.json", code=130)
    assert not Path("noise.json").exists()
    assert "ranges over 3 inputs" in err
    monkeypatch.setattr(Measurer, "scores", measure)
    again, err = shell.run(*FEW, "-o", "noise.json", "--json")
    assert "ranges over" not in err
    assert _without_times(again) == _without_times(whole)


def _interrupted(*_arguments: object) -> None:
    raise KeyboardInterrupt


def _without_times(text: str) -> dict[str, Any]:
    return {k: v for k, v in json.loads(text).items() if k not in ("measured_at", "elapsed_s")}


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--model", "cubic"], 2, "--model cubic: allowed are squared, polynomial"),
        (["--metric", "mean_ab"], 3, "metric 'mean_ab' is not known (did you mean 'mean_abs'?)"),
        (["--metric", "own.py:f"], 3, "own.py: is no Python file: give a metric as FILE.py:NAME"),
        (["--model-output", "z"], 3, "'z' is no output of the model; it has y"),
        (["--plot", "p.pdf"], 3, "--plot p.pdf: allowed are files that end in .png or .svg"),
        (["-o", "in"], 3, "in is a folder: give a file"),
        (["--all-convs", "--quantize-type", "Relu"], 2, "--quantize-type says nothing beside"),
        (["--quantize-layer", "c9"], 3, "'c9' is the name of no layer and matches none"),
        (["--quantize-type", "Con"], 3, "no layer is of type 'Con' (did you mean 'Conv'?)"),
        (["--quantizable", "0"], 3, "no layer can be quantized: of type Conv, none is float32"),
        (["--activation-type", "int9"], 3, "activation_type: \"int9\": input should be 'int8'"),
        (["--weight-type", "uint8"], 3, "weight_type uint8 needs activation_type uint8"),
        (["--server", "edge"], 2, "--servers FILE and --server NAME go together"),
        (["--servers", "s.yaml", "--per-channel"], 2, "by --server or by options, not both"),
        (["--inputs", "1"], 2, "--inputs"),
        (["--images", "in"], 2, "give either --images with --preprocessing, or --data"),
        (["--dim", "Q=3"], 3, "'Q' is no symbolic size of the model; it has H, N, W"),
        (["--ranges", "none.json"], 3, "none.json: cannot be read: No such file"),
    ],
)
def test_errors(shell: Shell, arguments: list[str], code: int, text: str) -> None:
    assert text in shell.refused(*arguments, code=code)


def test_too_few_inputs(shell: Shell) -> None:
    error = shell.refused(inputs=shell.inputs[:3])
    assert "3 inputs are too few: noise is measured on at least 2, and ranges are calibr" in error
    assert "give more with --images or --data" in error


def test_ranges_of_another_model(shell: Shell) -> None:
    data = {"model_sha256": "0" * 64, "method": "minmax", "samples": 1, "ranges": {"x": [0, 1]}}
    Path("other.json").write_text(Ranges.from_data(data).to_json())
    error = shell.refused("--ranges", "other.json")
    assert "other.json: is for another model (000000000000...), not for 'm'" in error


def test_all_convs_and_the_format_of_a_server(shell: Shell) -> None:
    Path("servers.yaml").write_text(
        "servers:\n"
        "  - {name: device, tier: device, entry: true}\n"
        "  - {name: edge, tier: edge, quantization: {activation_type: uint8, per_channel: true}}\n"
    )
    place = ("--servers", "servers.yaml", "--server")
    data = json.loads(shell.run(*FEW, "--json", *place, "edge")[0])
    assert data["settings"]["quantization"] == {
        "activation_type": "uint8", "per_channel": True, "reduce_range": False,
    }  # fmt: skip
    _, err = shell.run("--all-convs", "--dry-run")
    assert "the noise of 4 layers" in err
    error = shell.refused(*place, "egde")
    assert "--server egde: is not in the servers file (did you mean 'edge'?)" in error


def test_without_verification_the_user_is_told(shell: Shell) -> None:
    out, err = shell.run(*FEW, "--quantize-layer", "c4", "--verification", "0", "--json")
    assert json.loads(out)["outputs"][0]["margin"] == 1.0
    assert "no margin: no verification subsets were measured; at least 19" in err


def test_options_from_environment_and_file(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITIER_NOISE_MODEL", "polynomial")
    monkeypatch.setenv("TRITIER_NOISE_INPUTS", "2")
    Path("tritier.yaml").write_text(
        "noise: {degree: 1, samples: 3, quantize-layer: [c1, c2], per-channel: true, inputs: 3}\n"
    )
    data = json.loads(shell.run("--json")[0])
    assert (data["settings"]["degree"], data["layers"]) == (1, ["c1", "c2"])
    assert data["settings"]["quantization"]["per_channel"] is True
    assert len(data["inputs"]) == 2  # the environment goes before the file
    Path("tritier.yaml").write_text("noise: {modle: squared}\n")
    assert "noise.modle: unknown option (did you mean 'model'?)" in shell.refused("--json")


def test_photographs(shell: Shell) -> None:
    Path("photos").mkdir()
    for number in range(4):
        pixels = (arrays(number, 12)["x"][0].transpose(1, 2, 0) * 60 + 128).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(f"photos/{number}.png")
    images = ("--images", "photos", "--preprocessing", "how.yaml", *FEW, "--json")
    Path("how.yaml").write_text("size: [8, 8]\n")
    data = json.loads(shell.run(*images, inputs=[])[0])
    names = {item["name"] for key in ("inputs", "calibration") for item in data[key]}
    assert names == {"0.png", "1.png", "2.png", "3.png"}
    Path("photos/1.png").write_bytes(b"no picture")
    assert "photos/1.png: can't be read as an image" in shell.refused(*images, inputs=[])


def test_help_names_every_choice(shell: Shell) -> None:
    out, _ = shell.run("--help")
    assert "tritier noise yolo11n.onnx --images photos/" in out
    assert "TRITIER_NOISE_MODEL;" in " ".join(out.split())
    assert "TRITIER_NOISE_FIT" not in out
