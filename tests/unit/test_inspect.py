"""`tritier inspect` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.models import save
from tritier.cli import main
from tritier.documents import ModelProfile
from tritier.graph import Quantizable, load_model, profile_model
from tritier.resources import example_dir

CONVS = """
    g (float[N,2,H,W] x) => (float[N,2,H,W] y) <float[2,2,1,1] w = {1, 2, 3, 4}> {
      [a] h = Conv(x, w)
      [b] i = Relu(h)
      [c] j = Conv(i, w)
      [d] y = Conv(j, w)
    }
"""


def run(*arguments: object) -> int:
    """Exit code of `tritier inspect`."""
    with pytest.raises(SystemExit) as caught:
        main(["inspect", *map(str, arguments)])
    return int(str(caught.value.code))


def test_the_command_writes_what_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = example_dir("super_resolution") / "espcn_x3.onnx"
    output = tmp_path / "profile.json"
    assert run(model, "--json", "--dim", "batch=2", "-o", output, "--quantizable", 1) == 0
    shown = capsys.readouterr()
    profile = ModelProfile.load(output)
    assert json.loads(shown.out) == json.loads(output.read_text())
    assert profile == profile_model(load_model(model), {"batch": 2}, Quantizable(1))
    assert profile.quantizable_layers == ("conv2",)
    assert "written to" in shown.err
    before = output.read_bytes()
    assert run(model, "-o", output) == 3
    assert "pass --force" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert run(model, "-o", output, "--force") == 0
    assert output.read_bytes() != before


def test_the_tables_show_layers_ends_and_totals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path, CONVS)
    assert run(path, "--dim", "H=300", "--dim", "W=500", "--quantize-layer", "[ac]") == 0
    shown = capsys.readouterr()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.out.splitlines()]
    assert ["a", "Conv", "1.20 M", "16 B", "1,172 KiB", "yes"] in rows
    assert ["b", "Relu", "300.00 k", "0 B", "1,172 KiB", ""] in rows
    assert ["input", "x", "float32", "1x2x300x500", "1,172 KiB"] in rows
    assert ["FLOPs", "3.90 M"] in rows
    assert ["quantizable layers", "2"] in rows
    assert shown.err == ""


def test_missing_figures_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(save(tmp_path, CONVS)) == 0
    assert "give --dim H=N --dim W=N" in capsys.readouterr().err
    text = """
        g (float[2,2] x) => (int64[2,K] z, float[2,2] y) {
          [z] z = NonZero(x) [e] y = Einsum<equation = "ij,jk->ik">(x, x)
        }
    """
    assert run(save(tmp_path, text)) == 0
    message = capsys.readouterr().err
    assert "1 tensors have sizes that depend on the data" in message
    assert "FLOPs are unknown for layers of type Einsum" in message


@pytest.mark.parametrize(
    ("options", "code", "problem"),
    [
        (["--dim", "H"], 2, "allowed is NAME=N"),
        (["--dim", "Q=1"], 3, "'Q' is no symbolic size"),
        (["--quantizable", "-1"], 2, "--quantizable"),
        (["--quantize-type", "Cnov"], 3, "no layer is of type 'Cnov'"),
        (["--quantize-layer", "zz"], 3, "'zz' is the name of no layer"),
    ],
)
def test_bad_options_are_errors(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    problem: str,
) -> None:
    output = tmp_path / "profile.json"
    assert run(save(tmp_path, CONVS), *options, "-o", output) == code
    shown = capsys.readouterr()
    assert problem in shown.err
    assert shown.out == ""
    assert not output.exists()
