"""`tritier plan --objective cost`, and that `tritier cost --plan` says the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.helpers.models import save
from tests.helpers.planning import CHAIN, TIMES, link, network, servers, timing
from tritier import cli
from tritier.cli import main
from tritier.documents import CostReport, PlanReport
from tritier.graph import load_model

# Typer builds all commands whenever one is called; here it does so once.
BUILT = typer.main.get_command(cli.app)
PLAN = ("plan", "m.onnx", "--servers", "servers.json", "--timing", "profiles", "--network",
        "network.json")  # fmt: skip
COST = (*PLAN, "--objective", "cost")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two servers; b is ten times as fast as a, and has a price of 3 USD per hour."""
    folder = tmp_path_factory.mktemp("documents")
    model = load_model(save(folder, CHAIN))
    (folder / "profiles").mkdir()
    for name, factor in (("a", 1.0), ("b", 0.1)):
        times = {layer: (slow * factor, None) for layer, (slow, _) in TIMES.items()}
        (folder / "profiles" / f"{name}.json").write_text(timing(model, name, times).to_json())
    found = network(link("a", "b", 5000, 1), link("b", "a", 5000, 1))
    (folder / "network.json").write_text(found.to_json())
    spec = servers("ab", b={"price_per_hour_usd": 3.0})
    (folder / "servers.json").write_text(spec.to_json())
    return folder


@pytest.fixture(autouse=True)
def here(documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(documents, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "app", BUILT)


def run(capsys: Any, *arguments: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert caught.value.code == code, err
    return out, err


@pytest.mark.parametrize(
    "prices",
    [
        ["--machine", "a=aws-g5.xlarge", "--egress", "a=aws-internet", "--egress", "b=0.05"],
        ["--energy", "us-commercial"],
        ["--energy", "5", "--machine", "b=aws-g5.xlarge", "--egress", "a=0.001"],
    ],
)
def test_the_plan_costs_what_the_planner_said(capsys: Any, prices: list[str]) -> None:
    own = [text.replace("--energy", "--energy-price") for text in prices]
    pin = ("--pin", "c3=b")  # so that both are servers of the plan
    out, err = run(capsys, *COST, *own, *pin, "--report", "report.json")
    report = PlanReport.load(Path("report.json"))
    assert "USD per inference" in err
    assert "USD" in out[out.index("compared with") :]
    out, _ = run(capsys, "cost", "--plan", "plan.json", "--planning", "report.json", "--servers",
                 "servers.json", *prices, "--json")  # fmt: skip
    said = CostReport.from_data(json.loads(out)).plan
    assert said is not None
    assert said.usd_per_inference > 0
    assert report.figures.cost_usd == pytest.approx(said.usd_per_inference)
    assert report.value == pytest.approx(said.usd_per_inference, rel=1e-6)


def test_a_server_without_a_price(capsys: Any) -> None:
    _, err = run(capsys, *COST, code=3)
    assert "the price of 'a' is unknown" in err
    assert "--machine a=MACHINE" in err
    assert not Path("plan.json").exists()
    _, err = run(capsys, *COST, "--machine", "a=aws-g5.xlage", code=3)
    assert "did you mean 'aws-g5.xlarge'" in err
    _, err = run(capsys, *COST, "--egress", "c=1", code=3)
    assert "--egress c: is none of the servers with a timing profile" in err


def test_prices_show_what_other_objectives_cost(capsys: Any) -> None:
    out, _ = run(capsys, *PLAN, "--machine", "a=aws-g5.xlarge", "--dry-run", "--json")
    assert json.loads(out)["report"]["figures"]["cost_usd"] > 0
    out, _ = run(capsys, *PLAN, "--dry-run", "--json")
    assert "cost_usd" not in out


def test_a_class_that_is_for_cost(capsys: Any) -> None:
    classes = ["--alternatives", "--class", "cheap:objective=cost,default", "--class", "quick"]
    _, err = run(capsys, *PLAN, *classes, code=3)
    assert "the price of 'a' is unknown" in err
    run(capsys, *PLAN, *classes, "--energy-price", "0.3", "-o", "family")
    assert Path("family/family.json").exists()
