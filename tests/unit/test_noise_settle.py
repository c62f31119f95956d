"""Measured choices: what is tried, what is refused, and how it ends."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import partial

import numpy as np
import pytest

from tritier.errors import InputError
from tritier.noise.design import design
from tritier.noise.figures import predict
from tritier.noise.fit import fit_squared
from tritier.noise.settle import Candidate, Outcome, Settled, settle

Table = dict[int, float]


def settle_table(
    told: Mapping[int, float],
    real: Mapping[int, float],
    limit: float = 1.0,
    runs: int = 6,
    slack: float = 0.05,
    samples: Mapping[int, float] | None = None,
) -> Settled[Table]:
    """The mask is the value; a model is the table of predictions with what is known put in."""

    def pick(model: Table, within: float, refused: Collection[int]) -> Candidate | None:
        masks = [m for m, noise in model.items() if noise <= within and m not in refused]
        return Candidate(max(masks), float(max(masks))) if masks else None

    return settle(
        pick, real.__getitem__, lambda s: {**told, **s}, samples or {}, limit, runs, slack
    )


def test_a_good_pick_is_measured_once() -> None:
    found = settle_table({1: 0.5, 2: 0.9, 3: 1.5}, {2: 0.95})
    assert (found.outcome, found.pick, found.noise) == (Outcome.SETTLED, Candidate(2, 2.0), 0.95)
    assert (found.runs, found.measured, found.refused) == (1, {2: 0.95}, ())
    assert found.model[2] == 0.95


def test_a_pick_above_the_limit_is_refused_and_the_next_is_taken() -> None:
    found = settle_table({1: 0.5, 2: 0.8, 3: 0.9}, {3: 1.2, 2: 0.9})
    assert (found.pick, found.runs, found.refused) == (Candidate(2, 2.0), 2, (3,))
    assert found.model[3] == 1.2


def test_better_ones_slightly_above_the_limit_are_tried() -> None:
    told = {1: 0.5, 2: 1.03, 3: 1.04, 4: 1.2}
    found = settle_table(told, {1: 0.5, 2: 1.0, 3: 1.1})
    assert found.measured == {1: 0.5, 3: 1.1, 2: 1.0}
    assert (found.outcome, found.pick) == (Outcome.SETTLED, Candidate(2, 2.0))
    assert settle_table(told, {1: 0.5}, slack=0.0).pick == Candidate(1, 1.0)


def test_a_confirmed_pick_outlives_worse_candidates() -> None:
    """After the measurement of 2, all that the model still believes in is worth less."""
    told = {1: 0.5, 2: 0.9}
    found = settle(
        lambda model, _, __: Candidate(2, 2.0) if model == 0 else Candidate(1, 1.0),
        lambda mask: told[mask],
        len,
        {},
        limit=1.0,
    )
    assert (found.pick, found.runs, found.outcome) == (Candidate(2, 2.0), 1, Outcome.SETTLED)


def test_what_is_above_the_limit_is_tried_when_nothing_is_below() -> None:
    found = settle_table({1: 1.01, 2: 1.2}, {1: 0.99})
    assert (found.pick, found.runs) == (Candidate(1, 1.0), 1)


def test_what_was_measured_before_is_not_measured_again() -> None:
    """2 is known to be within, 3 to be above, whatever is predicted."""
    found = settle_table({1: 0.1, 2: 0.5, 3: 0.5}, {}, samples={2: 0.7, 3: 1.1})
    assert (found.pick, found.noise, found.runs) == (Candidate(2, 2.0), 0.7, 0)
    assert found.refused == (3,)


def test_no_quantized_layer_needs_no_measurement() -> None:
    found = settle_table({0: 0.0, 1: 2.0}, {}, limit=0.0)
    assert (found.pick, found.noise, found.runs) == (Candidate(0, 0.0), 0.0, 0)


def test_nothing_is_feasible() -> None:
    found = settle_table({1: 2.0}, {})
    assert (found.outcome, found.pick, found.noise, found.runs) == (
        Outcome.INFEASIBLE, None, None, 0,
    )  # fmt: skip
    assert settle_table({1: 0.5}, {1: 2.0}).outcome is Outcome.INFEASIBLE


def test_runs_are_used_up() -> None:
    told = dict.fromkeys((1, 2, 3, 4), 0.9)
    found = settle_table(told, {4: 2.0, 3: 2.0}, runs=2)
    assert (found.outcome, found.pick, found.runs) == (Outcome.NOT_FOUND, None, 2)
    told = {1: 0.9, 2: 1.01, 3: 1.02, 4: 1.03}
    found = settle_table(told, {1: 0.9, 4: 2.0, 3: 2.0}, runs=2)
    assert (found.outcome, found.pick, found.runs) == (Outcome.CUT_SHORT, Candidate(1, 1.0), 2)


def test_a_planner_that_returns_what_is_refused() -> None:
    with pytest.raises(AssertionError, match="subset 0x5 was refused"):
        settle(lambda *_: Candidate(5, 1.0), lambda _: 2.0, len, {}, 1.0)


@pytest.mark.parametrize(
    ("limit", "runs", "slack", "message"),
    [
        (-1.0, 1, 0.0, "a noise limit of -1.0"),
        (math.nan, 1, 0.0, "a noise limit of nan"),
        (1.0, 0, 0.0, "0 runs to verify a choice: 1 at least"),
        (1.0, 1, -0.1, "a slack of -0.1"),
    ],
)
def test_bad_settings(limit: float, runs: int, slack: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settle_table({}, {}, limit, runs, slack)


def test_the_optimum_of_a_synthetic_network_is_found() -> None:
    """8 layers whose errors are correlated and meet a bend, all 256 subsets known, 19 limits."""
    draw = np.random.default_rng(4)
    errors = draw.normal(size=(8, 400)) * np.exp(draw.normal(0, 0.6, 8))[:, None]
    gains = draw.uniform(0.1, 1, 8)
    chosen = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(float)
    moved = chosen @ errors
    real = np.abs(moved - 0.01 * moved * np.abs(moved)).mean(axis=1)
    values = chosen @ gains

    def fit(samples: Mapping[int, float]) -> list[float]:
        return [*map(partial(predict, fit_squared(samples, 8), 0.0, 2), range(256))]

    def pick(model: list[float], limit: float, refused: Collection[int]) -> Candidate | None:
        masks = [m for m in range(256) if model[m] <= limit and m not in refused]
        best = max(masks, key=values.__getitem__)
        return Candidate(best, values[best])

    samples = {mask: float(real[mask]) for mask in design(8)}
    hits, runs = 0, 0
    for limit in np.linspace(0.05, 0.95, 19) * real[255]:
        found = settle(pick, lambda m: float(real[m]), fit, samples, limit)
        assert found.pick is not None
        assert real[found.pick.mask] == found.noise
        assert real[found.pick.mask] <= limit
        hits += math.isclose(found.pick.value, values[real <= limit].max())
        runs += found.runs
    assert hits >= 17
    assert runs <= 2 * 19
