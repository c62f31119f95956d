"""Why there is no plan: the limits that conflict, and what would be enough."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from tests.helpers.models import load
from tests.helpers.planned import (
    asked,
    noisy,
)
from tests.helpers.planning import (
    CHAIN,
)
from tritier.errors import InfeasibleError
from tritier.graph import LoadedModel
from tritier.planner.problem import Weights
from tritier.planner.solution import Status, without
from tritier.workflow import planning_search
from tritier.workflow.planning import make_plan
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem_request import PlanningRequest


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(tmp_path_factory.mktemp("chain"), CHAIN)


def refused(asking: PlanningRequest, goals: Goals | None = None) -> str:
    with pytest.raises(InfeasibleError) as caught:
        make_plan(asking, goals or Goals())
    assert caught.value.exit_code == 5
    return str(caught.value)


INFEASIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "latency, at most": ({"latency_ms": 7.0}, "latency_ms"),
    "energy, at most": ({"energy_joule": 0.001}, "energy_joule"),
    "energy of 'a', at most": ({"server_energy_joule": {"a": 0.0001}}, "server_energy_joule"),
    "memory of 'a', at most": ({"memory_mib": {"a": 12.0, "b": 12.0}}, "memory_mib"),
    "noise of 'y', at most": ({"noise_limits": {"y": 1.0}, "latency_ms": 13.8}, "noise_limits"),
}


@pytest.mark.parametrize("name", INFEASIBLE)
def test_what_is_said_to_be_enough_is(chain: LoadedModel, name: str) -> None:
    """The named value, typed in as it is printed, makes a plan; a bit less does not."""
    changes, key = INFEASIBLE[name]
    goals = Goals(explain=False)
    asking = noisy(chain, **changes)
    text = refused(asking, goals)
    (line,) = [line for line in text.splitlines() if name in line]
    printed = re.search(r": ([0-9.e+-]+)( \w+)? is enough$", line)
    assert printed is not None, text
    enough = float(printed[1])
    given = changes[key]

    def changed(value: float) -> dict[str, Any]:
        return {key: {**given, next(iter(given)): value} if isinstance(given, dict) else value}

    make_plan(replace(asking, **changed(enough)), goals)
    assert name in refused(replace(asking, **changed(enough * 0.9999)), goals)


def test_limits_that_conflict_are_named_together(chain: LoadedModel) -> None:
    text = refused(asked(chain, latency_ms=30.0, memory_mib={"b": 10.5}))
    assert text.splitlines()[0].startswith("no plan keeps all limits")
    assert [line.split(",")[0] for line in text.splitlines()[1:-1]] == [
        "  - latency", "    with memory of 'b'",
    ]  # fmt: skip
    assert text.splitlines()[-1] == "loosen one of them, or add a server"
    # A limit that has nothing to do with it is not named.
    assert "energy" not in refused(asked(chain, latency_ms=0.1, energy_joule=99.0))


def test_conflicts_that_are_apart_are_all_named(chain: LoadedModel) -> None:
    text = refused(asked(chain, latency_ms=2.0, energy_joule=0.0001))
    assert all(line.startswith("  - ") for line in text.splitlines()[1:-1])
    assert len(text.splitlines()) == 4
    assert text.endswith("loosen one of each group (-), or add a server")


def test_pins_against_tensors_that_must_stay(chain: LoadedModel) -> None:
    text = refused(asked(chain, pins={"c1": "b", "r1": "b"}, closed_links=[("a", "b")]))
    assert "pins and forbidden servers: enough if 2 layers may stand elsewhere" in text
    assert "with tensors that stay local, or closed links" in text
    text = refused(asked(chain, pins={"c3": "b"}, local_tensors=("y",)))
    assert "enough if 1 layer may stand elsewhere" in text
    text = refused(asked(chain, pins={"c3": "b"}, latency_ms=0.5))
    assert "local" not in text


def test_a_search_that_ended_too_early_says_so(
    chain: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: Any) -> Any:
        return without(0.0, "none", Status.UNKNOWN), Weights(), None

    monkeypatch.setattr(planning_search, "_solved", nothing)
    assert "--time-limit" in refused(asked(chain))
