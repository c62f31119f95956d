"""`tritier cost` and `tritier capacity`: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.report import comparison, planned
from tritier.cli import main
from tritier.documents import CapacityReport, CostReport, Plan

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "costs"
PLAN = ROOT / "tests" / "golden" / "expected" / "two_servers" / "plan.json"
TRY_ON = str(EXAMPLES / "try_on.yaml")
BATCHES = str(EXAMPLES / "batches.yaml")
CAMERAS = str(EXAMPLES / "cameras.yaml")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: Capture, *arguments: str, code: int = 0) -> tuple[str, str]:
    """What a command prints on stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert ended.value.code == code, err
    return out, err


def bench_file(stable: bool = True) -> str:
    """One level of a sweep: 4 at once, batch 2."""
    level: dict[str, Any] = {
        "batch": 2, "offered": 4.0, "stable": stable, "runs": 1, "window_requests": 50,
        "windows": 3, "requests": 150, "duration_s": 3.0, "infer_per_s": 100.0, "mean_ms": 80.0,
        "std_ms": 4.0, "p50_ms": 79.0, "p90_ms": 90.0, "p95_ms": 95.0, "p99_ms": 99.0,
        "low_ms": 79.0, "high_ms": 81.0, "command": "perf_analyzer",
    }  # fmt: skip
    if not stable:
        level["unstable_because"] = "noise"
    data = {
        "model": "net", "url": "127.0.0.1:1", "mode": "concurrency", "levels": [level],
        "settings": {
            "window_requests": 50, "max_window_requests": 50, "max_windows": 3, "input": "zero",
            "stability_percent": 10.0, "arrivals": "closed", "shapes": {"x": [1]},
            "batching": "max_batch_size",
        },
        "environment": {
            "measured_at": "2026-01-01T00:00:00Z", "tritier": "0", "python": "3", "platform": "p",
            "processor": "p", "cores": 1, "memory_bytes": 0,
        },
    }  # fmt: skip
    Path("bench.json").write_text(json.dumps(data))
    return "bench.json"


def planning_file(plan_id: str) -> str:
    """10 ms on each server of the plan, 1 MB over one link."""
    plan = Plan.load(PLAN)
    server = {"layers": 1, "components": 1, "memory_bytes": 1, "compute_ms": 10, "energy_joule": 36}
    names = [item.name for item in plan.servers]
    data = {
        "plan_id": plan_id, "objective": "latency", "status": "s", "method": "m", "value": 1,
        "bound": 1, "gap": 0, "solve_s": 0, "servers": [server | {"server": x} for x in names],
        "figures": {
            "latency_ms": 20, "sum_ms": 20, "energy_joule": 72, "bottleneck_ms": 10,
            "quantized_layers": 0, "components": 2,
        },
        "links": [
            {"from": names[1], "to": names[0], "tensors": 1, "bytes": 1_000_000, "transfer_ms": 1}
        ],
    }  # fmt: skip
    Path("planning.json").write_text(json.dumps(data))
    return "planning.json"


def test_costs_of_a_workload(capsys: Capture) -> None:
    out, err = run(capsys, "cost", TRY_ON, "--rate", "100", "-o", "cost.json", "--plot", "cost.svg")
    assert "0.01199" in out
    assert "inferences/h" in out
    assert "at 100 inferences per hour" in out
    assert "355.30" in out
    assert "0.0048092" in out
    assert "never" not in out
    assert "the date of the price of 'try-on-a100' is not known" in err
    report = CostReport.load(Path("cost.json"))
    assert len(report.machines) == 3
    assert [rate.machines for rate in report.rates] == [1, 1, 1, None]
    assert Path("cost.svg").read_text().lstrip().startswith("<?xml")
    _, err = run(capsys, "cost", TRY_ON, "-o", "cost.json", code=3)
    assert "cost.json exists" in err


def test_json_is_the_document(capsys: Capture) -> None:
    out, _ = run(capsys, "cost", "--streams", str(EXAMPLES / "cameras.yaml"), "--json")
    report = CostReport.from_data(json.loads(out))
    assert [f"{row.usd_per_stream:.2f}" for row in report.streams] == ["353.03", "27.81"]
    assert report.assumptions


def test_costs_of_a_bench_result(capsys: Capture) -> None:
    out, _ = run(capsys, "cost", "--bench", f"aws-g5.xlarge={bench_file()}", "--json")
    (machine,) = CostReport.from_data(json.loads(out)).machines
    assert machine.usd_per_inference == pytest.approx(1.006 / 360_000)
    assert (machine.mean_s, machine.p95_s, machine.n) == (0.08, 0.095, 150)
    _, err = run(capsys, "cost", "--bench", f"aws-g5.xlarge={bench_file(False)}", code=3)
    assert "has no stable level" in err


def test_costs_of_a_plan(capsys: Capture) -> None:
    plan = Plan.load(PLAN)
    first, second = (item.name for item in plan.servers[:2])
    arguments = [
        "cost", "--plan", str(PLAN), "--planning", planning_file(plan.id), "--machine",
        f"{second}=aws-g5.xlarge", "--egress", f"{second}=aws-internet", "--energy", "0.5",
    ]  # fmt: skip
    out, _ = run(capsys, *arguments, "--json")
    found = CostReport.from_data(json.loads(out)).plan
    assert found is not None
    assert found.machine_usd == pytest.approx(0.01 * 1.006 / 3600)
    assert found.energy_usd == pytest.approx(36 / 3.6e6 * 0.5)
    assert found.egress_usd == pytest.approx(0.001 * 0.09)
    out, err = run(capsys, *arguments)
    assert "one inference (predicted)" in out
    assert f"machine time of {first} is free" in err


def test_prices_of_servers_come_from_the_servers_file(capsys: Capture) -> None:
    plan = Plan.load(PLAN)
    rows = [
        {"name": x.name, "tier": "edge", "entry": x.entry, "price_per_hour_usd": 3.6}
        for x in plan.servers
    ]
    Path("servers.yaml").write_text(json.dumps({"servers": rows}))
    out, _ = run(
        capsys, "cost", "--plan", str(PLAN), "--planning", planning_file(plan.id), "--servers",
        "servers.yaml", "--json",
    )  # fmt: skip
    found = CostReport.from_data(json.loads(out)).plan
    assert found is not None
    assert found.machine_usd == pytest.approx(len(plan.servers) * 1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["cost"], 2, "nothing to price"),
        (["cost", TRY_ON, "--machine", "a=b"], 2, "belong to --plan"),
        (["cost", TRY_ON, "--rate", "0"], 2, "allowed are numbers above 0"),
        (["cost", TRY_ON, "--plot", "x.pdf"], 3, "allowed are files that end in"),
        (["cost", "--bench", "file"], 2, "allowed is MACHINE=FILE"),
        (["cost", "--plan", str(PLAN)], 2, "--plan needs its times"),
        (["capacity"], 2, "nothing to compute"),
        (["capacity", TRY_ON, "--images", "3"], 2, "belong to --batches"),
        (["capacity", TRY_ON, "--latency-ms", "100"], 5, "the fastest, 'try-on-rtx-4090'"),
        (["cost", "--bench", "A100=bench.json"], 2, "'A100' is no name in a price book"),
        (["cost", "--timing", "A100=t.json"], 2, "'A100' is no name in a price book"),
        (["cost", "--show-prices", "-o", "x.json"], 2, "--show-prices goes with --prices"),
        (["cost", "--streams", CAMERAS, "--rate", "5"], 2, "not for --streams"),
        (["cost", TRY_ON, "-o", "x.svg", "--plot", "x.svg"], 2, "give two names"),
        (["capacity", TRY_ON, "--solver", "HiGHS"], 2, "belong to --batches"),
        (["capacity", TRY_ON, "--time-limit", "9"], 2, "belong to --batches"),
        (["capacity", "--batches", BATCHES, "--latency-ms", "9"], 2, "not for --batches"),
        (["capacity", "--batches", BATCHES, "--rate", "9"], 2, "not for --batches"),
        (["capacity", "--batches", BATCHES, "--machines", "9"], 2, "not for --batches"),
        (["capacity", "--batches", BATCHES, "--deadline-ms", "0"], 2, "--deadline-ms"),
    ],
)
def test_wrong_usage_is_told(capsys: Capture, arguments: list[str], code: int, said: str) -> None:
    out, err = run(capsys, *arguments, code=code)
    assert said in err
    assert not out


def test_a_report_of_another_plan_is_refused(capsys: Capture) -> None:
    _, err = run(
        capsys, "cost", "--plan", str(PLAN), "--planning", planning_file("00000000"), code=3
    )
    assert "is of plan 00000000" in err


def test_servers_that_are_not_there_are_named(capsys: Capture) -> None:
    plan = Plan.load(PLAN)
    name = plan.servers[0].name
    _, err = run(
        capsys, "cost", "--plan", str(PLAN), "--planning", planning_file(plan.id), "--machine",
        f"{name}x=aws-g5.xlarge", code=3,
    )  # fmt: skip
    assert f"did you mean '{name}'" in err


def test_the_price_book_is_shown(capsys: Capture) -> None:
    out, _ = run(capsys, "cost", "--show-prices")
    assert "aws-g5.xlarge" in out
    assert "us-commercial" in out


def test_capacity_of_a_workload(capsys: Capture) -> None:
    out, _ = run(capsys, "capacity", TRY_ON, "--latency-ms", "12000", "--rate", "1000", "--json",
                 "--plot", "capacity.png")  # fmt: skip
    report = CapacityReport.from_data(json.loads(out))
    (best,) = [row for row in report.choices if row.best]
    assert (best.name, best.machines) == ("try-on-rtx-4090", 3)
    assert len(report.rows) == 30
    assert Path("capacity.png").read_bytes().startswith(b"\x89PNG")


def test_batches(capsys: Capture) -> None:
    scenario = str(EXAMPLES / "batches.yaml")
    out, _ = run(capsys, "capacity", "--batches", scenario, "--plot", "b.svg")
    assert "mini-batch" in out
    out, _ = run(capsys, "capacity", "--batches", scenario, "--most-images", "--json")
    found = CapacityReport.from_data(json.loads(out)).batches
    assert found is not None
    assert found.objective == "most images"
    assert found.accelerators == found.available
    _, err = run(capsys, "capacity", "--batches", scenario, "--deadline-ms", "1", code=5)
    assert "What would do: a deadline of" in err
    _, err = run(capsys, "capacity", "--batches", scenario, "--most-images", "--deadline-ms", "1",
                 code=5)  # fmt: skip
    assert "What would do: a deadline of" in err


@pytest.mark.parametrize("command", [["cost", TRY_ON], ["capacity", TRY_ON]])
def test_pictures_are_not_replaced_unasked(capsys: Capture, command: list[str]) -> None:
    picture = Path("mine.svg")
    picture.write_text("mine")
    _, err = run(capsys, *command, "-o", "out.json", "--plot", "mine.svg", code=3)
    assert "mine.svg exists" in err
    assert picture.read_text() == "mine"
    assert not Path("out.json").exists()
    run(capsys, *command, "--plot", "mine.svg", "--force")
    assert picture.read_text() != "mine"


def test_nothing_is_written_if_there_is_nothing_to_draw(capsys: Capture) -> None:
    runs = {"name": "w", "runs": [], "serverless": [{
        "machine": "s", "price_per_second_usd": 1.0, "cold_start_s": 1.0, "cold_run_s": 1.0,
        "warm_run_s": 1.0,
    }]}  # fmt: skip
    Path("w.json").write_text(json.dumps(runs))
    _, err = run(capsys, "cost", "w.json", "-o", "out.json", "--plot", "x.svg", code=2)
    assert "nothing to draw" in err
    assert not Path("out.json").exists()


def test_names_in_pictures_are_no_formulas(capsys: Capture) -> None:
    """A dollar in a name starts no formula, and a picture is the same twice."""
    name = "a$\\foo$b \u3042"
    Path("w.json").write_text(json.dumps({
        "name": name, "runs": [{"machine": "m", "name": name, "price_per_hour_usd": 1.0,
                                "phases": {name: 1.0}}],
    }))  # fmt: skip
    for command in ("cost", "capacity"):
        for picture in ("1.svg", "2.svg", "3.png"):
            run(capsys, command, "w.json", "--plot", command + picture)
        assert Path(f"{command}1.svg").read_bytes() == Path(f"{command}2.svg").read_bytes()
        assert "<dc:date>" not in Path(f"{command}1.svg").read_text()


def test_what_a_comparison_only_predicted_is_named(capsys: Capture) -> None:
    example = planned()
    whole = comparison(example)
    assert whole.measured is not None
    parts = whole.measured.model_copy(update={"components": whole.measured.components[1:]})
    Path("plan.json").write_text(example.plan.to_json())
    arguments = ["cost", "--plan", "plan.json", "--comparison", "comparison.json"]
    for measured, named in ((whole.measured, False), (parts, True)):
        document = whole.model_copy(update={"measured": measured})
        Path("comparison.json").write_text(document.to_json())
        _, err = run(capsys, *arguments)
        assert ("not measured, but predicted: component" in err) == named


def test_a_profile_without_a_time_is_refused(capsys: Capture) -> None:
    profile = planned().known.timings["edge"]
    nothing = profile.whole.model_copy(update={"mean_ms": 0.0})
    Path("t.json").write_text(profile.model_copy(update={"whole": nothing}).to_json())
    _, err = run(capsys, "cost", "--timing", "aws-g5.xlarge=t.json", code=3)
    assert "has a mean of 0 ms" in err
