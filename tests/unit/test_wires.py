"""Codecs of wires that count against limits of noise: the best choice, by brute force."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.helpers.examples import examples
from tests.helpers.problems import placements, random_problem
from tritier.planner.evaluate import Costs, violations
from tritier.planner.noise_sets import NoiseLimit, NoiseRow
from tritier.planner.problem import Floats, Flow, Placement, Problem, Weights
from tritier.planner.pulp_model import solve_pulp
from tritier.planner.search import solve
from tritier.planner.solution import Solution, Status, without
from tritier.planner.wires import Codings, Losses, Trial, Weighed, weigh

LATENCY = Weights(1.0, 0.0)
MIXED = Weights(1.0, 5.0)


@dataclass(frozen=True)
class Wired:
    """A problem whose tensors have codecs: `times` [codecs, m, k, k], the first as they are."""

    problem: Problem
    times: Floats
    losses: Losses

    def changed(self, codings: Codings) -> tuple[Problem, Floats]:
        """With what is decided, and the codec that is quickest then; [m, k, k]."""
        times = self.times.copy()
        for number in range(times.shape[1]):
            most = codings.most.get(number, 2 if codings.rest else 0)
            times[most + 1 :, number] = np.inf
        plain = times.min(axis=0)
        coded = self.problem.coded_ms.copy()
        for index, flow in enumerate(self.problem.flows):
            if not flow.coded_by:
                coded[index] = plain[index]
        noise = replace(self.problem.noise, rows=self.losses.counting(codings.counted))
        changed = replace(self.problem, transfer_ms=plain, coded_ms=coded, noise=noise)
        return changed, times.argmin(axis=0)

    def coded(self, costs: Costs, codecs: Floats) -> dict[int, int]:
        """What crosses in a codec that loses, in the one that loses most."""
        found: dict[int, int] = {}
        for flow, source, target, coded, _ in costs.crossings:
            if not coded and codecs[flow, source, target]:
                found[flow] = max(found.get(flow, 0), int(codecs[flow, source, target]))
        return found

    def weighed(
        self,
        weights: Weights,
        solver: Callable[[Problem, Weights], Solution] = solve,
        time_s: float = 60,
    ) -> Weighed:
        """By branch and bound."""

        def attempt(codings: Codings) -> Trial:
            problem, codecs = self.changed(codings)
            found = solver(problem, weights)
            coded = self.coded(found.costs, codecs) if found.costs else {}
            return Trial(found, coded, dict(enumerate(codecs.max(axis=(1, 2)).tolist())))

        return weigh(attempt, self.losses, time.monotonic() + time_s)

    def best(self, weights: Weights) -> float:
        """By looking at every placement with every choice of codecs."""
        least = math.inf
        flows = range(len(self.problem.flows))
        for levels in itertools.product(range(3), repeat=len(flows)):
            problem, codecs = self.changed(Codings(dict(zip(flows, levels, strict=True))))
            for placement, costs in placements(problem):
                if costs.value(weights) < least and self._keeps(problem, codecs, placement, costs):
                    least = costs.value(weights)
        return least

    def _keeps(self, problem: Problem, codecs: Floats, placement: Placement, costs: Costs) -> bool:
        coded = self.coded(costs, codecs)
        counted = replace(
            problem, noise=replace(problem.noise, rows=self.losses.counting(coded))
        )  # fmt: skip
        return self.losses.allow(placement.quantized, coded) and not violations(
            counted, placement, costs
        )


def wired(seed: int, *, with_rows: bool = False) -> Wired:
    """A few layers, two servers; some codecs lose nothing, some links don't allow all."""
    rng = np.random.default_rng(seed)
    while True:
        quantizable = int(rng.integers(0, 3))
        problem = random_problem(
            rng, layers=4, servers=2, quantizable=quantizable, with_rows=with_rows
        )
        if len(problem.flows) <= 4:
            break
    if not problem.noise.rows:
        row = NoiseRow("output0", 0.0, {1 << b: 0.5 for b in range(quantizable)}, 0.6)
        problem = replace(problem, noise=NoiseLimit(quantizable, (row,)))
    plain = problem.transfer_ms
    shape = plain.shape
    half = plain * rng.uniform(0.4, 1.05, shape)
    quarter = plain * rng.uniform(0.2, 1.05, shape)
    for times in (half, quarter):
        times[(rng.random(shape) < 0.15) & (plain > 0)] = np.inf
    loads = [
        {
            (flow, codec): round(float(rng.uniform(0, 0.9) * codec * row.budget), 4)
            for flow in range(shape[0])
            for codec in (1, 2)
            if rng.random() < 0.9
        }
        for row in problem.noise.rows
    ]
    times = np.stack([plain, half, quarter])
    return Wired(problem, times, Losses(problem.noise.rows, loads))


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("with_rows", [False, True])
def test_nothing_is_better_by_brute_force(part: int, with_rows: bool) -> None:
    count = examples(40)
    binding = 0
    for seed in range(part * count, (part + 1) * count):
        asked = wired(seed, with_rows=with_rows)
        for weights in (LATENCY, MIXED):
            found, best = asked.weighed(weights), asked.best(weights)
            assert found.solution.value == pytest.approx(best, rel=1e-6), seed
            if math.isfinite(best):
                assert found.solution.status is Status.OPTIMAL, seed
                check_settled(asked, found, weights)
            else:
                assert found.solution.status is Status.INFEASIBLE, seed
            binding += found.trials > 1
    assert binding > count / 5 or count < 40, "limits never bind: the test shows nothing"


def check_settled(asked: Wired, found: Weighed, weights: Weights) -> None:
    """With its codecs settled, the problem has the same optimum, and all it allows is quiet."""
    problem, codecs = asked.changed(found.codings)
    again = solve(problem, weights)
    assert again.value == pytest.approx(found.solution.value, rel=1e-6)
    assert again.placement is not None
    assert again.costs is not None
    coded = asked.coded(again.costs, codecs)
    assert asked.losses.allow(again.placement.quantized, coded)


def test_the_integer_program_weighs_the_same() -> None:
    for seed in range(500, 500 + examples(20)):
        asked = wired(seed)
        by_program = asked.weighed(LATENCY, solve_pulp)
        assert by_program.solution.value == pytest.approx(
            asked.weighed(LATENCY).solution.value, rel=1e-5
        )


def test_without_time_no_codec_is_taken_that_might_be_too_noisy() -> None:
    """The bound still holds for all codecs."""
    seen = 0
    for seed in range(200):
        asked = wired(seed)
        whole = asked.weighed(LATENCY)
        if whole.trials < 4 or whole.solution.placement is None:
            continue
        seen += 1
        soon = asked.weighed(LATENCY, time_s=0)
        assert soon.trials < whole.trials
        assert soon.solution.bound <= whole.solution.value * (1 + 1e-9)
        if soon.solution.placement is not None:
            check_settled(asked, soon, LATENCY)
            assert soon.solution.value >= whole.solution.value * (1 - 1e-9)
    assert seen > 5


def test_a_solver_that_finds_nothing_in_time_proves_nothing() -> None:
    found = wired(0).weighed(LATENCY, lambda *_: without(1.5, "clock", Status.UNKNOWN))
    assert found.solution.status is Status.UNKNOWN
    assert found.solution.bound == 1.5


def test_what_is_not_known_to_lose_is_taken_freely() -> None:
    asked = wired(3)
    free = replace(asked, losses=Losses(asked.losses.rows, [{} for _ in asked.losses.rows]))
    assert not free.losses.count
    assert free.weighed(LATENCY).trials == 1


def test_a_codec_that_is_quickest_on_another_link_is_not_lost() -> None:
    """Layer 1 on b is quickest, with both tensors in fp16, which is too noisy. On c it takes 10 ms,
    and what it makes is quickest in int8, which may be: with 11 ms nothing is better."""
    k = 4
    allowed = np.zeros((4, k), dtype=bool)
    allowed[[0, 3], 0] = allowed[1, 1:3] = allowed[2, 3] = True
    float_ms = np.zeros((4, k))
    float_ms[1, 2] = 10
    times = np.zeros((3, 3, k, k))  # codec, tensor, from, to
    times[:, 0, 0, 1] = 10, 0, np.inf
    times[:, 1, 1, 3] = 50, 10, np.inf
    times[:, 1, 2, 3] = 50, 30, 1
    row = NoiseRow("out", 0.0, {}, 1.0)
    bare = random_problem(np.random.default_rng(0), layers=4, servers=k, quantizable=0)
    problem = replace(
        bare,
        entry=0,
        float_ms=float_ms,
        int8_ms=np.full((4, k), np.inf),
        allowed=allowed,
        flows=tuple(Flow(f"t{i}", i, (i + 1,)) for i in range(3)),
        transfer_ms=times[0],
        coded_ms=times[0],
        noise=NoiseLimit(0, (row,)),
    )
    losses = Losses((row,), [{(0, 1): 0.5, (1, 1): 0.6, (1, 2): 0.9}])
    asked = Wired(problem, times, losses)
    assert asked.best(LATENCY) == 11
    found = asked.weighed(LATENCY)
    assert found.solution.value == pytest.approx(11)
    assert found.codings.most == {1: 2}
