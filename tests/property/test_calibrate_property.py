"""Corrections find what is true, whatever it is, of what a plan runs."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.compared import changed, compared, known_of, placed, with_bandwidth
from tests.helpers.examples import examples
from tests.helpers.models import load
from tests.helpers.planned import mixed
from tests.helpers.planning import CHAIN, LAYERS
from tritier.graph import LoadedModel
from tritier.planner.problem import Placement
from tritier.workflow.calibrate import corrected, with_documents
from tritier.workflow.compare import PlanPredictor, predict_plan
from tritier.workflow.planning_figures import Predictor

FACTORS = st.dictionaries(st.sampled_from(LAYERS), st.floats(0.4, 2.5))
PLACES = st.text("ab", min_size=len(LAYERS), max_size=len(LAYERS))


@cache
def chain() -> LoadedModel:
    with tempfile.TemporaryDirectory() as folder:
        return load(Path(folder), CHAIN)


@settings(max_examples=examples(25), deadline=None)
@given(PLACES, FACTORS, FACTORS, st.floats(60, 900), st.floats(60, 900))
def test_one_correction_is_enough_for_a_plan(
    places: str, on_a: dict[str, float], on_b: dict[str, float], there: float, back: float
) -> None:
    request = mixed(chain())
    known, plan = known_of(request), placed(request, places)
    assert known.network is not None
    links = with_bandwidth(with_bandwidth(known.network, "a", "b", there), "b", "a", back)
    truth = replace(changed(known, a=on_a, b=on_b), network=links)
    better = with_documents(known, corrected(known, compared(plan, known, truth)))
    wanted, found = predict_plan(plan, truth), predict_plan(plan, better)
    # A part that is mostly serving, or a call, corrects what all parts, or messages, share.
    before = predict_plan(plan, known).latency_ms
    off, was = abs(found.latency_ms - wanted.latency_ms), abs(before - wanted.latency_ms)
    assert off <= max(0.1 * was, 0.02 * wanted.latency_ms)


@settings(max_examples=examples(25), deadline=None)
@given(PLACES)
def test_any_placement_is_predicted_as_by_the_planner(places: str) -> None:
    request = mixed(chain())
    found = PlanPredictor(placed(request, places), known_of(request))
    at = found.built.server_at
    servers = (found.built.problem.entry, *(at[name] for name in places))
    placement = Placement((*servers, found.built.problem.entry))
    assert found.placement == placement
    planner = Predictor(found.built)
    assert planner.predict(placement).simulated_ms == pytest.approx(found.figures().latency_ms)
