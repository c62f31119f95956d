"""The documents behind a report: what fits together and what does not; what the head says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.report import Example, bench, load, planned, write_example
from tritier.documents import Baseline, PlanReport
from tritier.errors import InputError
from tritier.report import Material, Paths, build_report, collect, contents
from tritier.report.parts import Notice


@pytest.fixture(scope="module")
def example() -> Example:
    return planned()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, example: Example) -> Paths:
    return write_example(tmp_path_factory.mktemp("report") / "all", example)


def verdict(material: Material) -> Notice:
    blocks = build_report(material).sections[0].blocks
    return next(x for x in blocks if isinstance(x, Notice))


def judged(paths: Paths, **changes: Any) -> Notice:
    """The verdict of the planning report with other figures."""
    found = collect(paths)
    assert found.planning is not None
    report = found.planning.document.model_copy(update=changes)
    return verdict(replace(found, planning=replace(found.planning, document=report)))


def test_everything_that_is_given_is_there(paths: Paths) -> None:
    found = contents(build_report(collect(paths)))
    assert found["missing"] == []
    assert {"layer-graph", "component-graph", "request-timeline", "throughput-concurrency",
            "latency-concurrency-1", "throughput-batch", "load-users", "load-latency",
            "pareto-front", "noise-speed", "baselines-latency", "components-times",
            } <= set(found["figures"])  # fmt: skip
    assert len(set(found["figures"])) == len(found["figures"])


def test_a_plan_alone_is_a_report_that_says_what_is_missing(paths: Paths) -> None:
    found = contents(build_report(collect(Paths(paths.plan))))
    assert found["figures"] == ["component-graph"]
    commands = " ".join(item["command"] for item in found["missing"])
    for name in ("plan", "bench", "load", "compare", "noise", "cost", "monitor"):
        assert f"tritier {name}" in commands


def test_documents_of_other_plans_and_models_are_all_told(
    tmp_path: Path, paths: Paths, example: Example
) -> None:
    other = planned_elsewhere(tmp_path, example)
    with pytest.raises(InputError) as caught:
        collect(replace(paths, **other))
    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 5
    for name in ("planning.json", "noise.json", "bench.json", "load.json"):
        assert name in faults
    assert "second timing profile of 'edge'" in faults
    assert "is of plan 00000000" in faults
    assert "of another model (222222222222...)" in faults
    assert "the Triton model 'strange'" in faults


def planned_elsewhere(folder: Path, example: Example) -> dict[str, Any]:
    """Documents that don't fit, as arguments of Paths."""
    model = example.noise.model.model_copy(update={"sha256": "2" * 64})
    texts = {
        "planning": example.report.model_copy(update={"plan_id": "0" * 8}).to_json(),
        "noise": example.noise.model_copy(update={"model": model}).to_json(),
        "bench": bench(example.plan, plan_id="0" * 8).to_json(),
        "load": load(example.plan, model="strange").to_json(),
        "edge": example.known.timings["edge"].to_json(),
        "edge2": example.known.timings["edge"].to_json(),
    }
    for name, text in texts.items():
        (folder / f"{name}.json").write_text(text)
    return {
        "planning": folder / "planning.json", "noise": folder / "noise.json",
        "bench": (folder / "bench.json",), "load": (folder / "load.json",),
        "timing": (folder / "edge.json", folder / "edge2.json"),
    }  # fmt: skip


def test_a_network_without_a_server_of_the_plan_is_refused(
    tmp_path: Path, paths: Paths, example: Example
) -> None:
    network = example.known.network
    assert network is not None
    less = network.model_copy(update={"servers": network.servers[:2], "links": ()})
    (tmp_path / "network.json").write_text(less.to_json())
    with pytest.raises(InputError, match="does not know cloud"):
        collect(replace(paths, network=tmp_path / "network.json"))


def test_a_folder_that_is_no_plan_is_refused(paths: Paths) -> None:
    with pytest.raises(InputError, match=r"plan\.json"):
        collect(Paths(paths.plan.parent))


def test_a_baseline_that_wins_is_told(paths: Paths, example: Example) -> None:
    figures = example.report.figures
    quicker = figures.model_copy(update={"latency_ms": figures.latency_ms * 0.9})
    kept = Baseline(what="all on moon", figures=quicker)
    found = judged(paths, objective="latency", latency_weight=None, baselines=(kept,))
    assert found.kind == "loss"
    assert "'all on moon' wins" in found.text
    broken = kept.model_copy(update={"broken": ("noise",)})
    assert "no baseline keeps" in judged(paths, objective="latency", baselines=(broken,)).text


def test_a_better_plan_says_by_how_much(paths: Paths, example: Example) -> None:
    figures = example.report.figures
    slower = figures.model_copy(update={"latency_ms": figures.latency_ms * 1.25})
    found = judged(paths, objective="latency", baselines=(Baseline(what="x", figures=slower),))
    assert found.kind == "win"
    assert "20.0 % less latency than the best baseline, 'x'" in found.text
    chosen = Baseline(what="x", figures=figures, chosen=True)
    assert "so it is the plan" in judged(paths, objective="latency", baselines=(chosen,)).text


def test_two_aims_are_judged_together(paths: Paths, example: Example) -> None:
    def beside(**changes: float) -> Notice:
        figures = example.report.figures.model_copy(update=changes)
        return judged(paths, baselines=(Baseline(what="x", figures=figures),))

    ours = example.report.figures
    assert beside(latency_ms=ours.latency_ms / 2, energy_joule=ours.energy_joule * 2).kind == "win"
    assert beside(latency_ms=ours.latency_ms / 2).kind == "loss"


def test_an_unproven_plan_is_told(paths: Paths) -> None:
    found = collect(paths)
    assert found.planning is not None
    report = PlanReport.load(found.planning.path).model_copy(update={"gap": 0.07})
    material = replace(found, planning=replace(found.planning, document=report))
    texts = [x.text for x in build_report(material).sections[0].blocks if isinstance(x, Notice)]
    assert any("not proven" in text and "7.0 %" in text for text in texts)
