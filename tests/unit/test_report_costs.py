"""What a report says of costs, capacity and sharing, and of costs in the planning report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.report import Example, bench, level, planned, write_example
from tritier.costs import Prices, machine_cost, serverless_cost, starter_book, stream_costs
from tritier.costs.sharing import share
from tritier.documents import (
    CapacityReport,
    CostReport,
    MachineRun,
    PlanReport,
    ServerlessRun,
    StreamScenario,
)
from tritier.documents.planning import LimitUse
from tritier.documents.sharing import SharingScenario
from tritier.errors import InputError
from tritier.report import Paths, build_report, collect, render_markdown, render_pictures
from tritier.report.parts import Block, Chart, Notice, Report, Table

EXAMPLES = Path(__file__).parents[2] / "examples" / "costs"


@pytest.fixture(scope="module")
def example() -> Example:
    return planned()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, example: Example) -> Paths:
    return write_example(tmp_path_factory.mktemp("documents") / "all", example)


def report_of(paths: Paths, **changes: Any) -> Report:
    return build_report(collect(replace(paths, **changes)))


def blocks(report: Report, section: str) -> dict[str, Block]:
    (found,) = [item for item in report.sections if item.id == section]
    return {item.id: item for item in found.blocks if isinstance(item, Chart | Table)}


def cost_report() -> CostReport:
    prices = Prices(starter_book())
    runs = [MachineRun(machine="aws-g5.xlarge", mean_s=0.1, n=9, std_s=0.01),
            MachineRun(machine="mine", price_per_hour_usd=0.5, mean_s=0.3, n=20)]  # fmt: skip
    machines = tuple(machine_cost(run, prices) for run in runs)
    lambda_run = ServerlessRun(machine="s", price_per_second_usd=0.001, cold_start_s=5.0,
                               cold_run_s=1.0, warm_run_s=0.5, keep_warm_s=60.0)  # fmt: skip
    streams = stream_costs(StreamScenario.load(EXAMPLES / "cameras.yaml"), prices)
    return CostReport(
        name="both", hours_per_month=730.0, machines=machines,
        serverless=(serverless_cost(lambda_run, prices, machines),), streams=streams,
        prices=prices.used,
    )  # fmt: skip


def capacity_report() -> CapacityReport:
    rows = [{"name": name, "machines": n, "infer_per_hour": n * 10.0, "usd_per_hour": 1.0 * n}
            for name in "ab" for n in (1, 2, 3)]  # fmt: skip
    price = {"name": "dear", "usd": 7.25, "unit": "hour", "source": "a leaflet"}
    return CapacityReport.from_data(
        {"name": "fleet", "rows": rows, "per_hour_wanted": 25.0, "prices": [price]}
    )


def written(folder: Path, *documents: Any) -> tuple[Path, ...]:
    found = tuple(folder / f"money{index}.json" for index in range(len(documents)))
    for path, document in zip(found, documents, strict=True):
        path.write_text(document.to_json())
    return found


def test_costs_have_charts_break_even_and_prices(tmp_path: Path, paths: Paths) -> None:
    scenario = SharingScenario.from_data({
        "name": "cameras", "discipline": "fifo", "latency_limit_ms": 35.0,
        "models": [{"name": "a", "per_s": 10.0}],
        "machines": [{"machine": "m", "price_per_hour_usd": 1.0,
                      "service": {"a": {"median_ms": 10.0}}}],
    })  # fmt: skip
    sharing = share(scenario, Prices(starter_book()))
    cost = (*written(tmp_path, cost_report(), capacity_report(), sharing), *paths.cost)
    report = report_of(paths, cost=cost)
    found = blocks(report, "cost")
    charts = {name for name, block in found.items() if isinstance(block, Chart)}
    assert charts == {"cost-0-per-inference", "cost-0-per-stream", "cost-1-parts",
                      "capacity-0-throughput", "sharing-0-latency"}  # fmt: skip
    even = found["cost-0-break-even"]
    assert isinstance(even, Table)
    assert [row[:2] for row in even.rows] == [("s", "aws-g5.xlarge"), ("s", "mine")]
    prices = found["capacity-0-prices"]
    assert isinstance(prices, Table)
    assert prices.rows[0][:4] == ("dear", "7.25", "hour", "a leaflet")
    levels = found["sharing-0-machine-0"]
    assert isinstance(levels, Table)
    assert "8 may share" in levels.title
    drawn = found["sharing-0-latency"]
    assert isinstance(drawn, Chart)
    assert [mark.y for mark in drawn.marks] == [35.0]
    assert any(drawn.series[0].hollow)
    parts = found["cost-1-parts"]
    assert isinstance(parts, Chart)
    assert sum(sum(series.y) for series in parts.series) == pytest.approx(2.483, abs=0.01)
    only = replace(report, sections=tuple(x for x in report.sections if x.id == "cost"))
    pictures = render_pictures(only)
    assert set(pictures) == {f"{name}.{kind}" for name in charts for kind in ("png", "svg")}


def test_a_broken_document_of_sharing_is_told_as_such(tmp_path: Path, paths: Paths) -> None:
    path = tmp_path / "sharing.json"
    path.write_text('{"format": "tritier/sharing/1", "name": "x"}')
    with pytest.raises(InputError, match="latency_limit_ms"):
        report_of(paths, cost=(path,))


def test_costs_of_a_planning_report_are_shown(
    tmp_path: Path, paths: Paths, example: Example
) -> None:
    def heads(report: Report) -> Iterable[str]:
        for name in ("baselines-table", "gains"):
            found = blocks(report, "baselines").get(name)
            if isinstance(found, Table):
                yield from found.columns

    assert "USD per million" not in list(heads(report_of(paths)))
    figures = example.report.figures.model_copy(update={"cost_usd": 2.5e-6})
    report = example.report.model_copy(update={"figures": figures})
    path = tmp_path / "planning.json"
    path.write_text(report.to_json())
    PlanReport.load(path)
    shown = report_of(paths, planning=path)
    assert "USD per million" in list(heads(shown))
    found = blocks(shown, "baselines")["baselines-table"]
    assert isinstance(found, Table)
    assert found.rows[0][-2] == "2.5"


def test_predictions_have_the_colour_of_the_plan(
    tmp_path: Path, paths: Paths, example: Example
) -> None:
    """Also where the whole model's sweep is given first."""
    report = report_of(paths, bench=tuple(reversed(paths.bench)))
    chart = blocks(report, "bench")["throughput-concurrency"]
    assert isinstance(chart, Chart)
    colours = {series.name: series.colour for series in chart.series}
    assert colours["plan, predicted"] == colours["plan, batch 1, measured"] != 0
    assert "client's timestamps" in chart.evidence.source
    levels = [level(1, 1.0, times_from="perf_analyzer", stable_by="mean")]
    own = bench(example.plan, levels=levels)
    path = tmp_path / "own.json"
    path.write_text(own.to_json())
    table = blocks(report_of(paths, bench=(path,)), "bench")["bench-0"]
    assert isinstance(table, Table)
    assert table.evidence is not None
    assert "timestamps" not in table.evidence.source
    assert "perf_analyzer's own figures" in table.evidence.source


def test_best_loads_are_compared_over_the_same_batches(
    tmp_path: Path, paths: Paths, example: Example
) -> None:
    """The plan at batch 8 says nothing beside the whole model at batch 1."""
    whole = bench(example.plan, "__whole", levels=[level(1, 1.0, 50.0), level(1, 3.0, 50.0)])
    path = tmp_path / "whole.json"
    path.write_text(whole.to_json())
    report = report_of(paths, bench=(paths.bench[0], path))
    texts = [x.text for x in report.sections[0].blocks if isinstance(x, Notice)]
    (text,) = [x for x in texts if "throughput" in x and x.startswith("Measured")]
    ours = [x for x in bench(example.plan, "", 1.02 * example.report.figures.latency_ms).levels
            if x.batch == 1]  # fmt: skip
    assert f"({max(x.infer_per_s for x in ours):.4g} against" in text
    assert "of batch 1)" in text


def test_limits_of_noise_are_drawn_for_measurements_and_for_predictions(
    tmp_path: Path, paths: Paths, example: Example
) -> None:
    limit = LimitUse(what="noise of upscaled with its margin", unit="", used=0.001, limit=0.0056,
                     binding=False)  # fmt: skip
    path = tmp_path / "planning.json"
    path.write_text(example.report.model_copy(update={"limits": (limit,)}).to_json())
    chart = blocks(report_of(paths, planning=path), "noise")["noise-speed"]
    assert isinstance(chart, Chart)
    assert [mark.y for mark in chart.marks] == [0.0056, pytest.approx(0.005)]
    assert "margin" in chart.marks[1].text


def test_pictures_in_markdown_have_links_that_work(paths: Paths) -> None:
    text = render_markdown(report_of(paths), "my figures (2)")
    assert "](my%20figures%20%282%29/" in text
    assert "](my figures" not in text
