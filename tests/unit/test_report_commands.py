"""Commands in a report: `tritier` takes every option of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.helpers.report import Example, bench, load, planned, write_example
from tritier.cli import app
from tritier.documents import CapacityReport, CostReport, PlanReport
from tritier.documents.planning import LimitUse
from tritier.documents.sharing import SharingReport
from tritier.report import Paths, build_report, collect
from tritier.report.parts import Commands

BUILT: Any = typer.main.get_command(app)


@pytest.fixture(scope="module")
def example() -> Example:
    return planned()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, example: Example) -> Paths:
    return write_example(tmp_path_factory.mktemp("documents") / "all", example)


def commands(paths: Paths) -> list[str]:
    """All that a report of these files prints, perf_analyzer's left out."""
    report = build_report(collect(paths))
    shown = [
        line
        for section in report.sections
        for block in section.blocks
        if isinstance(block, Commands)
        for line in block.lines
    ]
    shown += [item.command for item in report.missing]
    return [line for line in shown if not line.startswith("perf_analyzer")]


def parsed(line: str) -> dict[str, Any]:
    """The options as the command gets them; raises what its parser raises."""
    program, name, *words = shlex.split(line)
    assert program == "tritier"
    with BUILT.commands[name].make_context(name, words) as context:
        return dict(context.params)


def named(lines: Sequence[str], name: str) -> list[str]:
    return [line for line in lines if line.startswith(f"tritier {name} ")]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("tritier cost plan.json --nothing", "No such option"),
        ("tritier compare plan.json", "Missing parameter: servers"),
        ("tritier load m -o x", "Missing parameter: repos"),
        ("tritier plan m.onnx --servers s.yaml --pareto N", "valid integer"),
    ],
)
def test_the_parser_refuses_what_a_command_does_not_take(bad: str, why: str) -> None:
    with pytest.raises(Exception, match=why):
        parsed(bad)


def test_all_printed_commands_are_taken(paths: Paths) -> None:
    lines = [*commands(paths), *commands(Paths(paths.plan))]
    for name in ("plan", "bench", "load", "compare", "noise", "cost", "monitor", "profile",
                 "generate", "deploy", "report"):  # fmt: skip
        assert named(lines, name), name
    for line in lines:
        parsed(line)


def test_a_plan_is_priced_with_its_planning_report(paths: Paths) -> None:
    (line,) = named(commands(Paths(paths.plan)), "cost")
    given = parsed(line)
    assert given["workload"] is None
    assert given["plan"] == paths.plan
    assert given["planning"] or given["comparison"]


def test_profiles_are_written_where_they_were_read(paths: Paths) -> None:
    # profiles/SERVER.json is made by `-o FOLDER-OF-profiles` for a model called 'profiles'.
    (line,) = named(commands(paths), "profile")
    folder = paths.timing[0]
    assert parsed(line)["output"] == folder.parent
    each = replace(paths, timing=tuple(sorted(folder.glob("*.json"))))
    assert named(commands(each), "profile") == [line]


def test_limits_of_the_plan_are_in_its_command(
    tmp_path: Path, paths: Paths, example: Example
) -> None:
    given = parsed(named(commands(paths), "plan")[0])
    (limit,) = given["max_noise"]
    assert limit.startswith("upscaled=")
    assert float(limit.partition("=")[2]) == pytest.approx(0.004, rel=0.01)
    assert given["ranges"] is not None
    assert given["objective"] == "weighted"
    assert given["pareto"] == sum(not item.supported for item in example.report.front)
    limits = (
        LimitUse(what="latency", unit="ms", used=1, limit=250.0, binding=False),
        LimitUse(what="energy", unit="J", used=1, limit=4.5, binding=False),
        LimitUse(what="energy of edge", unit="J", used=1, limit=2.5, binding=False),
        LimitUse(what="memory of device", unit="MiB", used=1, limit=64.0, binding=False),
    )
    figures = example.report.figures.model_copy(update={"cost_usd": 1e-6})
    report = example.report.model_copy(update={"limits": limits, "figures": figures})
    (tmp_path / "planning.json").write_text(report.to_json())
    PlanReport.load(tmp_path / "planning.json")
    lines = commands(replace(paths, planning=tmp_path / "planning.json"))
    given = parsed(named(lines, "plan")[0])
    assert (given["max_latency"], given["energy"]) == (250.0, 4.5)
    assert (given["server_energy"], given["memory"]) == (["edge=2.5"], ["device=64"])
    assert given["prices"] is not None
    assert given["unlimited_noise"]


def test_a_sweep_is_repeated_as_it_was(tmp_path: Path, paths: Paths, example: Example) -> None:
    given = parsed(named(commands(paths), "bench")[0])
    assert given["concurrency"] == "1,3,5,7,9,11,16"
    assert given["batch"] == "1,8"
    assert given["shape"] == ["luminance:1,1,224,224"]
    assert (given["max_windows"], given["check_s"]) == (10, 0)
    levels = [x.model_copy(update={"command": "perf_analyzer"}) for x in
              bench(example.plan).levels[:2]]  # fmt: skip
    settings = bench(example.plan).settings.model_copy(
        update={"arrivals": "poisson", "percentile": 99, "latency_limit_ms": 300.0}
    )
    rates = bench(example.plan).model_copy(
        update={"mode": "request_rate", "levels": tuple(levels), "settings": settings}
    )
    (tmp_path / "rates.json").write_text(rates.to_json())
    lines = commands(replace(paths, bench=(tmp_path / "rates.json",)))
    given = parsed(named(lines, "bench")[0])
    assert given["request_rate"] == "1,3"
    assert given["concurrency"] is None
    assert (given["arrivals"].value, given["percentile"].value) == ("poisson", "99")
    assert given["latency_limit_ms"] == 300.0


def test_a_load_test_is_repeated_as_it_was(tmp_path: Path, paths: Paths, example: Example) -> None:
    given = parsed(named(commands(paths), "load")[0])
    assert (given["users"], given["duration"]) == ("1,2,4,8,16,8,4,1", "160s")
    assert (given["timeout_ms"], given["shape"]) == (1000, "steps")
    random = load(example.plan).settings.model_copy(update={"inputs": "7 random inputs, seed 1"})
    changed = load(example.plan).model_copy(update={"settings": random})
    (tmp_path / "load.json").write_text(changed.to_json())
    given = parsed(named(commands(replace(paths, load=(tmp_path / "load.json",))), "load")[0])
    assert (given["count"], len(given["images"] or ())) == (7, 0)


def test_costs_are_made_again(tmp_path: Path, paths: Paths) -> None:
    (line,) = named(commands(paths), "cost")
    given = parsed(line)
    assert given["planning"] == paths.planning
    assert given["egress"] == [f"cloud={1.6e-7 * 1e9 / 1806336:.6g}"]
    capacity = {
        "name": "c", "prices": [], "latency_limit_ms": 90.0, "per_hour_wanted": 100.0,
        "rows": [{"name": "a", "machines": 3, "infer_per_hour": 5.0, "usd_per_hour": 1.0}],
    }  # fmt: skip
    sharing = {"name": "s", "discipline": "turns", "percentile": 95.0, "latency_limit_ms": 70.0,
               "seed": 4, "machines": []}  # fmt: skip
    (tmp_path / "capacity.json").write_text(CapacityReport.from_data(capacity).to_json())
    (tmp_path / "sharing.json").write_text(SharingReport.from_data(sharing).to_json())
    more = (*paths.cost, tmp_path / "capacity.json", tmp_path / "sharing.json")
    lines = commands(replace(paths, cost=more))
    given = parsed(named(lines, "capacity")[0])
    assert (given["machines"], given["latency_ms"], given["rate"]) == (3, 90.0, 100.0)
    given = parsed(named(lines, "share")[0])
    assert (given["discipline"], given["latency_ms"], given["seed"]) == ("turns", 70.0, 4)
    (again,) = [line for line in lines if line.startswith("tritier report") and "sharing" in line]
    assert parsed(again)["cost"] == list(more)


def test_words_in_capitals_are_of_no_file(paths: Paths) -> None:
    words = {word for line in commands(paths) for word in re.findall(r"\b[A-Z]{4,}\b", line)}
    assert words <= {"SERVERS", "RANGES", "PRICES", "FOLDER", "NAME"}
    assert CostReport.load(paths.cost[0]).prices
