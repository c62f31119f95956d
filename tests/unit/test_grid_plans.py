"""What the grid compares: the best cut of a family is the best once codecs are settled."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from benchmarks import baseline_grid
from benchmarks.grid_cells import Cell
from benchmarks.grid_plans import Planning, Variant, baseline_groups
from benchmarks.prediction_plans import Maker, signature
from benchmarks.tiers import Subject
from tests.helpers.models import load
from tests.helpers.planned import asked, ranges
from tests.helpers.planning import CHAIN, link, network
from tritier.planner.baselines import best_cuts
from tritier.planner.objective import Aim
from tritier.workflow.problem import build_problem

# 40 ms per MiB. Behind r1 one tensor crosses, behind c2 two, but c2 is slow on b: with float
# tensors the cut behind r1 is better, with half as many bytes the one behind c2.
_FAR = network(link("a", "b", 25, 1), link("b", "a", 250, 1))
_ON_A = {"c1": (2.0, None), "r1": (2.0, None), "c2": (2.0, None), "add": (900.0, None),
         "c3": (900.0, None)}  # fmt: skip
_ON_B = {"c1": (900.0, None), "r1": (900.0, None), "c2": (32.0, None), "add": (2.0, None),
         "c3": (2.0, None)}  # fmt: skip


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    """Of the small chain on two servers."""
    model = load(tmp_path, CHAIN)
    request = asked(model, _ON_A, _ON_B, network=_FAR)
    nothing: Any = None
    item = Subject("small chain", model, {}, {}, nothing, nothing)
    assert request.network is not None
    return Maker(
        item, request.servers, request.timings, request.network, ranges(model), None, "small"
    )


def test_the_best_cut_of_each_family_is_settled_with_its_codecs(maker: Maker) -> None:
    found = Planning(maker, 1.0).variants(maker.timings, maker.network)
    assert set(found) >= {"all on a, raw", "all on b, raw", "best cut to b, raw", "plan"}
    parts = {
        name: [list(part.layers) for part in found[name].plan.components]
        for name in ("best cut to b, raw", "best cut to b, coded")
    }
    assert parts["best cut to b, raw"] == [["c1", "r1"], ["c2", "add", "c3"]]
    assert parts["best cut to b, coded"] == [["c1", "r1", "c2"], ["add", "c3"]]
    assert found["plan"].predicted_ms == min(item.predicted_ms for item in found.values())
    assert len({signature(item.plan) for item in found.values()}) >= 4


def test_all_cuts_are_planned_each_once(maker: Maker) -> None:
    request = maker.request(("a", "b"), 1.0, ("as_is", "fp16"))
    groups = dict(baseline_groups(build_problem(request).problem))
    assert [item.cut_after for item in groups["best cut to b"]] != [1, 2, 3, 4]
    assert sorted(item.cut_after or 0 for item in groups["best cut to b"]) == [1, 2, 3, 4]
    assert [len(groups[name]) for name in ("all on a", "all on b")] == [1, 1]
    costs = [item.costs.latency_ms for item in groups["best cut to b"]]
    assert costs == sorted(costs)
    (best,) = best_cuts(build_problem(request).problem, Aim.LATENCY.value, 1, 1)
    assert best.cut_after == groups["best cut to b"][0].cut_after


class Asked:
    """A request that takes what it is told, the first times longer; its answer is off by that."""

    def __init__(self, ms: float, first_ms: float = 0.0, off: float = 0.0) -> None:
        self.ms, self.first_ms, self.count = ms, first_ms, 0
        self.answer = {"y": np.full(4, off, np.float32)}

    def __call__(self) -> float:
        self.count += 1
        return self.first_ms if self.count == 1 and self.first_ms else self.ms


def grid(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = baseline_grid.Grid.__new__(baseline_grid.Grid)
    monkeypatch.setattr(baseline_grid, "_set_uplink", lambda *_: None)
    vars(found).update(
        _item=SimpleNamespace(name="super-resolution"),
        _amount=baseline_grid.QUICK,
        _reference=np.zeros(4, np.float32),
    )
    return found


def of(name: str, family: str, predicted_ms: float) -> Any:
    plan = SimpleNamespace(id=name, components=(), quantized_layers=(), wires=())
    return Variant(name, family, cast("Any", plan), predicted_ms)


def test_a_cold_request_drops_no_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = {"plan": of("p", "planner", 9), "r": of("r", "raw", 30), "s": of("s", "raw", 31),
                "t": of("t", "raw", 10), "c": of("c", "coded", 12)}  # fmt: skip
    requests = {"p": Asked(10), "r": Asked(11, 900), "s": Asked(99), "t": Asked(98),
                "c": Asked(12, off=0.003)}  # fmt: skip
    found = grid(monkeypatch)._cell(None, Cell(1.0, 4.0), variants, requests)
    rounds = {name: len(values) for name, values in found["times"].items()}
    assert found["times"]["r"] == [11.0] * rounds["r"]
    assert rounds["r"] == rounds["p"] == rounds["c"] > 4
    assert rounds["s"] == 2  # clearly slower
    assert rounds["t"] == rounds["p"]  # slow as well, but predicted to be the best of its family
    assert found["variants"]["c"]["noise"] == pytest.approx(0.003)


def test_a_raw_baseline_with_a_wrong_answer_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = {"plan": of("p", "planner", 9), "r": of("r", "raw", 30), "c": of("c", "coded", 1)}
    requests = {"p": Asked(10), "r": Asked(11, off=0.01), "c": Asked(9)}
    with pytest.raises(SystemExit, match="'r' does not answer as the float model"):
        grid(monkeypatch)._cell(None, Cell(1.0, 4.0), variants, requests)
