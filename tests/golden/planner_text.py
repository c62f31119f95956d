"""What `tritier plan` prints for a small model on two servers: its tables, and why there is no plan
where limits conflict."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import typer

from tests.helpers.models import save
from tests.helpers.planning import CHAIN, link, network, noise, servers, timing
from tritier import cli
from tritier.documents import Ranges
from tritier.graph import LoadedModel, load_model

# Typer builds all commands whenever one is called; here it does so once.
_BUILT = typer.main.get_command(cli.app)
# Layer -> ms on a and on b, float and int8. The last one gains most.
TIMES = {
    "c1": ((90.0, 60.0), (4.0, 3.0)),
    "r1": ((3.0, None), (1.0, None)),
    "c2": ((2.0, 1.5), (80.0, 50.0)),
    "add": ((1.0, None), (80.0, None)),
    "c3": ((90.0, 50.0), (10.0, 2.0)),
}
NOISE = "--noise noise.json --ranges ranges.json --max-noise"
TABLES = (
    f"{NOISE} 2 --allow-wire a:b=fp16 --device-energy 1 --memory b=24 --max-latency 60 --pareto 1"
)
# What there is no plan for, by what is asked.
INFEASIBLE = (
    "--max-latency 10",
    "--energy 0.01",
    "--device-energy 0.01",
    "--memory a=12 --memory b=12",
    "--max-latency 60 --server-energy b=0.5",
    f"{NOISE} 1 --max-latency 45",
    "--max-latency 5 --energy 0.001",
    "--pin c1=b --pin c2=b --max-latency 90",
    "--pin c1=b --keep-local x",
    "--pin c1=b --pin c2=a --close-link b:a",
    "--pin c1=b --pin c2=a --pin c3=b --max-components 2",
)


def tables() -> str:
    """The command, what it says and its tables."""
    with _folder():
        return f"tritier plan {TABLES}\n\n{_said(TABLES, 0)}"


def errors() -> str:
    """All commands without a plan, and their errors."""
    with _folder():
        blocks = []
        for options in INFEASIBLE:
            said = _said(options, 5)
            blocks.append(f"tritier plan {options}\n{said[said.index('error: ') :]}")
    return "\n".join(blocks)


@contextlib.contextmanager
def _folder() -> Iterator[None]:
    """A scratch folder to be in, with a model and all documents."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        model = load_model(save(Path(), CHAIN))
        Path("profiles").mkdir()
        documents: dict[str, Any] = {
            "servers": servers("ab", b={"compute_power_watt": 60.0}),
            "network": network(link("a", "b", 250, 4), link("b", "a", 500, 4)),
            "noise": noise(model),
            "ranges": _ranges(model),
        }
        for index, name in enumerate("ab"):
            times = {layer: both[index] for layer, both in TIMES.items()}
            documents[f"profiles/{name}"] = timing(model, name, times)
        for name, document in documents.items():
            Path(f"{name}.json").write_text(document.to_json(), encoding="utf-8")
        yield


def _ranges(model: LoadedModel) -> Ranges:
    found = dict.fromkeys("xabcdy", (-4.0, 4.0))
    return Ranges(model_sha256=model.sha256, method="minmax", samples=1, ranges=found)


def _said(options: str, code: int) -> str:
    """Messages, then tables, without what depends on the machine."""
    out, err = io.StringIO(), io.StringIO()
    documents = ["--servers=servers.json", "--timing=profiles", "--network=network.json"]
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(cli, "app", _BUILT),
        pytest.raises(SystemExit) as caught,
    ):
        cli.main(["plan", "m.onnx", *documents, "--dry-run", *options.split()])
    assert caught.value.code == code, f"{options}: {err.getvalue()}"
    text = re.sub(r"solved in [0-9.]+ s", "solved in ... s", err.getvalue() + out.getvalue())
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
