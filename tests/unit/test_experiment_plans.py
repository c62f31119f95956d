"""Plans of experiments, what they are predicted from, and the tables of their results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from benchmarks import grid_report, prediction_report, serving_report
from benchmarks.grid_cells import Cell
from benchmarks.prediction_plans import Made, Maker, endless, select, signature
from benchmarks.tiers import Subject, scaled
from tests.helpers.models import load
from tests.helpers.planned import mixed, ranges
from tests.helpers.planning import CHAIN, timing
from tritier.errors import InputError


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    """Of the small chain on two servers."""
    model = load(tmp_path, CHAIN)
    request = mixed(model)
    nothing: Any = None
    item = Subject("small chain", model, {}, {}, nothing, nothing)
    assert request.network is not None
    return Maker(
        item, request.servers, request.timings, request.network, ranges(model), None, "small"
    )


def test_drawn_plans_use_so_many_servers_and_are_drawn_again_the_same(maker: Maker) -> None:
    for tiers in (1, 2):
        made = [maker.drawn(tiers, seed) for seed in range(6)]
        assert {x.tiers for x in made} == {tiers}
        again = [signature(maker.drawn(tiers, seed).plan) for seed in range(6)]
        assert [signature(x.plan) for x in made] == again
        assert tiers == 1 or len(set(again)) > 1


def test_names_say_what_a_plan_does(maker: Maker) -> None:
    one, other = maker.drawn(2, 0).plan, maker.drawn(2, 3).plan
    assert one.model.name == f"small-{signature(one)}"
    assert one.id != other.id
    assert one.model.name != other.model.name


def test_plans_that_can_not_be_made_are_left_out(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Maker.drawn

    def drawn(self: Maker, tiers: int, seed: int) -> Made:
        if seed % 2:
            raise InputError("no time for a layer")
        return real(self, tiers, seed)

    monkeypatch.setattr(Maker, "drawn", drawn)
    assert len(list(endless(maker, (2,), 0, most=6))) == 3


def test_optimal_plans_leave_room_for_drawn_ones(maker: Maker) -> None:
    drawn = [maker.drawn(2, seed) for seed in range(40)]
    optimal = [Made(x.plan, "optimal", "latency") for x in drawn[:20]]

    def rest() -> Iterator[Made]:
        yield from drawn[20:]

    found = select(optimal, rest(), 8)
    assert len(found) == len({signature(x.plan) for x in found}) == 8
    assert [x.kind for x in found].count("optimal") == 2  # a quarter, of each number of servers


def test_a_slower_server_has_slower_layers_and_serves_as_before(maker: Maker) -> None:
    before = timing(maker.subject.model, "a")
    after = scaled(before, 4.0)
    assert [x.float_ms for x in after.layers] == [4 * x.float_ms for x in before.layers]
    assert after.serving == before.serving


def variant(plan: str, family: str, noise: float) -> dict[str, Any]:
    return {"plan": plan, "family": family, "where": "a > b", "predicted_ms": 9.0, "noise": noise}


def test_the_table_of_the_grid_leads_with_all_baselines() -> None:
    cell = {
        "variants": {
            "plan": variant("p", "planner", 0.002), "all on a, raw": variant("r", "raw", 0.0),
            "all on a, coded": variant("c", "coded", 0.009),
        },
        "times": {"p": [10.0] * 9, "r": [20.0] * 9, "c": [15.0] * 9},
        "noise_limit": 0.004,
    }  # fmt: skip
    text = grid_report.summary({Cell(1.0, 4.0): cell})
    first = next(line for line in text.splitlines() if line.startswith("| all |"))
    assert "the best of all baselines" in first
    assert "undecided: 1 of 40 cells" in first
    assert "| 1.50 |" in first
    assert "1 of 2 plans and coded baselines keep the limit of 0.0040; at most 0.0090" in text


def test_the_title_of_a_heat_map_is_not_cut_off(tmp_path: Path) -> None:
    cell = {
        "variants": {
            "plan": variant("p", "planner", 0.0), "all on a, raw": variant("r", "raw", 0.0),
            "all on a, coded": variant("c", "coded", 0.0),
        },
        "times": {"p": [10.0] * 9, "r": [20.0] * 9, "c": [15.0] * 9},
    }  # fmt: skip
    for family, found in grid_report.verdicts_of({Cell(1.0, 4.0): cell}).items():
        title = f"super-resolution: plan against {grid_report.describe(family)}"
        picture = tmp_path / f"{family}.png"
        grid_report.write_heat_map(found, [1.0], [4.0], title, picture)
        pixels = imread(picture)[..., :3]
        for edge in (pixels[:, :3], pixels[:, -3:], pixels[:3]):
            assert edge.min() == 1.0, f"{family}: something lies on the edge of the picture"


def test_the_table_of_predictions_has_what_is_simulated_alone() -> None:
    rows = [
        {
            "model": "m", "plan_id": "p", "kind": "random", "aim": "x", "tiers": 2,
            "components": 2, "int8_layers": 0, "predicted_ms": 100.0, "simulated_ms": 90.0,
            "checked_ms": 103.0, "without_drift_ms": 101.0, "drift": {"a": 1.0},
            "measured": {"n": 5, "median_ms": 100.0, "low_ms": 99.0, "high_ms": 101.0},
        }
    ]  # fmt: skip
    text = prediction_report.summary(rows)
    assert "| all plans | simulated only | 1 | 10.00 |" in text
    assert "| all plans | speed checked | 1 | 3.00 |" in text
    assert "undecided (of 1 plans, 30 are needed)" in text
    assert "99.0 to 101.0, least to greatest" in text


def test_the_table_of_serving_leaves_open_what_intervals_leave_open() -> None:
    row = {
        "n": 9, "median_ms": 10.0, "low_ms": 9.0, "high_ms": 11.0, "p90_ms": 12.0,
        "components_ms": None, "cut": None, "added_ms": 1.0, "added_low": 0.0, "added_high": 9.0,
        "paired_ratio": 1.05, "ratio_low": 1.0, "ratio_high": 1.1,
    }  # fmt: skip
    level = {
        "n": 5, "infer_per_s": 50.0, "least_per_s": 40.0, "most_per_s": 60.0, "speedup": 1.7,
        "speedup_from_to": [1.5, 1.8], "beside_whole": 1.4, "stage_ms": [1.0, None],
    }  # fmt: skip
    parts: dict[str, Any] = {
        "split": {"in process": row, serving_report.FLOOR: row, "whole": row, "two servers": row},
        "pipeline": {"cut": {"crossing_bytes": 1 << 20}, "levels": {"batched": {"4": level}}},
    }
    text = serving_report.summary({"m": parts})
    assert text.count("undecided") == 3  # whole, two servers, pipeline
    assert "1.70 (1.50 to 1.80)" in text
    assert "1.0 + ?" in text
    few = {**level, "n": 2, "speedup_from_to": [1.7, 1.8]}
    parts["pipeline"]["levels"] = {"batched": {"4": few}}
    assert "undecided (of 2 windows)" in serving_report.summary({"m": parts})
