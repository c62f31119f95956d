"""What holds of any pipeline: bounds, order, energy; ways of tensors as the generator makes them;
the search never loses, and the bound is one."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.plans import make_plan
from tests.helpers.problems import random_problem
from tritier.documents import Batching, Plan
from tritier.planner.components import group_layers
from tritier.planner.evaluate import evaluate, violations
from tritier.planner.makespan import improve, makespan_bound, simulated_latency
from tritier.planner.makespan_groups import contract
from tritier.planner.problem import MIB, Placement, Problem
from tritier.planner.simulate import bound_per_s, latency_ms, simulate, throughput, work_of
from tritier.planner.simulation_build import PipelineBuilder, pipeline_of
from tritier.planner.simulation_graph import (
    Conditions,
    LinkModel,
    Moment,
    Pipeline,
    ServingCost,
    SimComponent,
    SimMessage,
    least_transfers,
)
from tritier.planner.simulation_groups import Overlapping, best_groups
from tritier.repository import GenerateOptions
from tritier.repository.dataplane import build_data_plane
from tritier.repository.routes import Routes

SEEDS = st.integers(0, 2**32 - 1)
SLACK = 1 + 1e-9


def drawn_placement(problem: Problem, rng: np.random.Generator) -> Placement:
    """Labels that are offered, whatever the limits."""
    assume(all(problem.labels))
    return Placement.of(problem, [x[int(rng.integers(len(x)))] for x in problem.labels])


def drawn_conditions(problem: Problem, rng: np.random.Generator) -> Conditions:
    k, m = len(problem.servers), len(problem.flows)

    def link() -> LinkModel | None:
        if rng.random() < 0.1:
            return None
        return LinkModel(*(float(rng.uniform(low, high)) for low, high in
                           ((1, 50), (0, 40), (0, 5), (0, 3))))  # fmt: skip

    sizes = rng.uniform(0, 4, m) * MIB
    return Conditions(
        links=[[None if a == b else link() for b in range(k)] for a in range(k)],
        float_bytes=sizes,
        coded_bytes=np.where([bool(flow.coded_by) for flow in problem.flows], sizes / 4, sizes),
        serving=[ServingCost(*rng.uniform(0, 1, 3)) for _ in range(k)],
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Problem, Placement, Conditions, np.random.Generator]:
    rng = np.random.default_rng(draw(SEEDS))
    problem = random_problem(rng, layers=int(rng.integers(4, 14)))
    placement = drawn_placement(problem, rng)
    assume(math.isfinite(evaluate(problem, placement).latency_ms))
    return problem, placement, drawn_conditions(problem, rng), rng


def all_times(pipeline: Pipeline) -> float:
    return sum(c.compute_ms for c in pipeline.components) + sum(
        m.link_ms + m.delay_ms + m.ack_ms for m in pipeline.messages
    )


@settings(max_examples=examples(40), deadline=None)
@given(cases())
def test_without_links_no_request_takes_longer_than_the_sum_nor_other_energy(
    case: tuple[Problem, Placement, Conditions, np.random.Generator],
) -> None:
    problem, placement, _, _ = case
    costs = evaluate(problem, placement)
    result = simulate(pipeline_of(problem, placement))
    assert result.latency_ms <= costs.latency_ms * SLACK
    assert result.latency_ms >= max(result.server_busy_ms) / SLACK
    assert result.server_energy_joule == pytest.approx(costs.server_energy_joule)
    assert sum(result.link_busy_ms.values()) == pytest.approx(costs.transfer_ms)


@settings(max_examples=examples(40), deadline=None)
@given(cases())
def test_latency_lies_between_the_longest_path_and_the_sum(
    case: tuple[Problem, Placement, Conditions, np.random.Generator],
) -> None:
    problem, placement, known, _ = case
    pipeline = pipeline_of(problem, placement, known)
    plain, coded = least_transfers(problem, known)
    ended: dict[int, float] = {}
    component = {x: i for i, c in enumerate(pipeline.components) for x in c.layers}
    for index, part in enumerate(pipeline.components):
        begin = 0.0
        for tensor, flow in enumerate(problem.flows):
            source = component.get(flow.source)
            if source != index and any(component.get(x) == index for x in flow.consumers):
                way = min(plain[tensor], coded[tensor], key=lambda a: a.sum())
                way_ms = way[placement.servers[flow.source], part.server]
                begin = max(begin, (0.0 if source is None else ended[source]) + way_ms)
        ended[index] = begin + part.compute_ms
    latency = latency_ms(pipeline)
    assert max(ended.values()) / SLACK <= latency <= all_times(pipeline) * SLACK
    assert makespan_bound(problem, (plain, coded)) <= latency * SLACK or violations(
        problem, placement, evaluate(problem, placement)
    )


@settings(max_examples=examples(30), deadline=None)
@given(cases())
def test_servers_and_links_do_one_thing_at_a_time_and_nothing_starts_too_early(
    case: tuple[Problem, Placement, Conditions, np.random.Generator],
) -> None:
    problem, placement, known, _ = case
    pipeline = pipeline_of(problem, placement, known)
    result = simulate(pipeline)
    by_place: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    for event in result.timeline:
        if event.end_ms > event.start_ms:
            by_place.setdefault(event.place, []).append((event.start_ms, event.end_ms))
    for spans in by_place.values():
        assert all(b[0] >= a[1] for a, b in itertools.pairwise(sorted(spans)))
    computed = {e.index: e for e in result.timeline if e.kind == "compute"}
    sent = {e.index: e for e in result.timeline if e.kind == "send"}
    assert len(computed) == len(pipeline.components)
    assert len(sent) == len(pipeline.messages)
    for index, part in enumerate(pipeline.components):
        assert all(computed[index].start_ms >= computed[x].end_ms for x in part.after)
    for index, message in enumerate(pipeline.messages):
        assert all(sent[index].start_ms >= computed[x].end_ms for x in message.sources)
        assert all(computed[x].start_ms >= sent[index].arrived_ms for x in message.targets)
        for other, moment in message.waits:
            if moment is not Moment.ISSUED:
                assert sent[index].start_ms >= sent[other].arrived_ms
    assert simulate(pipeline_of(problem, placement, known)) == result
    assert latency_ms(pipeline) == result.latency_ms


@settings(max_examples=examples(40), deadline=None)
@given(SEEDS)
def test_components_are_those_of_the_planner(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, layers=int(rng.integers(4, 30)), servers=3)
    n = len(problem.layers)
    servers = [problem.entry, *(int(x) for x in rng.integers(0, 3, n - 2)), problem.entry]
    for layer in range(2, n - 1):  # long runs on one server, too
        if rng.random() < 0.6:
            servers[layer] = servers[layer - 1]
    before: dict[str, list[str]] = {str(layer): [] for layer in range(1, n - 1)}
    for flow in problem.flows:
        for reader in flow.consumers:
            if flow.source and reader < n - 1:
                before[str(reader)].append(str(flow.source))
    server_of = {str(layer): str(server) for layer, server in enumerate(servers)}
    expected = [tuple(map(int, g.layers)) for g in group_layers(list(before), before, server_of)]
    assert list(PipelineBuilder(problem).groups(Placement(tuple(servers)))) == expected


@settings(max_examples=examples(40), deadline=None)
@given(SEEDS)
def test_messages_are_those_of_the_generated_data_plane(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, layers=int(rng.integers(4, 10)), servers=3, quantizable=0)
    last = len(problem.layers) - 1
    assume(not any(flow.source == 0 and last in flow.consumers for flow in problem.flows))
    servers = tuple(int(x) for x in rng.integers(0, 3, last - 1))
    placement = Placement((problem.entry, *servers, problem.entry))
    pipeline = pipeline_of(problem, placement)
    plan, letters = plan_for(problem, pipeline)
    routes = Routes(plan)
    models = build_data_plane(plan, Batching(max_batch_size=0, reason="test"), GenerateOptions())
    orderings = {m.name: json.loads(m.parameters.get("ordering", "[]")) for m in models}

    def tensors(message: SimMessage) -> set[str]:
        return {f"t{tensor}" for tensor in message.tensors}

    puts = {
        (f"c{m.sources[0]}" if m.sources else "in", letters[m.target_server], *sorted(tensors(m)))
        for m in pipeline.messages
        if m.kind == "put"
    }
    assert puts == {
        (p.producer, p.target, *sorted(p.tensors)) for p in routes.puts if p.source != p.target
    }
    for component in plan.components:
        index = int(component.id[1:])
        call = next(
            (m for m in pipeline.messages if m.kind == "call" and m.targets == (index,)), None
        )
        assert (call is None) == (component.server == routes.entry)
        if call is None:
            continue
        assert tensors(call) == set(routes.call_inputs(component))
        tokens = {token_of(pipeline, other) for other, _ in call.waits}
        assert tokens == set(orderings[f"{plan.model.name}__{plan.id}__{component.id}__call"])
        answers = [m for m in pipeline.messages if m.kind == "answer" and m.sources == (index,)]
        back = {*routes.returned(component), *routes.fetched(component)}
        assert {t for m in answers for t in tensors(m)} == back
        waits = {pipeline.messages[x].kind for m in answers for x, _ in m.waits}
        assert ("fetch" in waits) == bool(routes.fetched(component))


def plan_for(problem: Problem, pipeline: Pipeline) -> tuple[Plan, dict[int, str]]:
    """The plan document of a placement, and the letter of each server in it."""
    order = [problem.entry, *(k for k in range(3) if k != problem.entry)]
    letters = {server: "abc"[position] for position, server in enumerate(order)}
    last = len(problem.layers) - 1
    lines = []
    for part in pipeline.components:
        inside = set(part.layers)
        needs = [
            f"t{t}"
            for t, flow in enumerate(problem.flows)
            if flow.source not in inside and inside & set(flow.consumers)
        ]
        makes = [
            f"t{t}"
            for t, flow in enumerate(problem.flows)
            if flow.source in inside and set(flow.consumers) - inside
        ]
        lines.append(f"{letters[part.server]}: {' '.join(needs)} -> {' '.join(makes)}")
    flows = list(enumerate(problem.flows))
    inputs = " ".join(f"t{t}" for t, flow in flows if flow.source == 0)
    outputs = " ".join(f"t{t}" for t, flow in flows if last in flow.consumers)
    return make_plan(lines, inputs=inputs, outputs=outputs), letters


def token_of(pipeline: Pipeline, position: int) -> str:
    message = pipeline.messages[position]
    if message.kind == "call":
        return f"sent_c{message.targets[0]}"
    return f"sent_c{message.sources[0]}" if message.sources else "sent_in"


@settings(max_examples=examples(25), deadline=None)
@given(cases(), st.integers(2, 6))
def test_throughput_of_one_user_and_of_many(
    case: tuple[Problem, Placement, Conditions, np.random.Generator], users: int
) -> None:
    problem, placement, known, _ = case
    pipeline = pipeline_of(problem, placement, known)
    latency = latency_ms(pipeline)
    alone = throughput(pipeline, 1, requests=5)
    assert alone.infer_per_s == pytest.approx(1000 / latency)
    assert alone.p50_ms == pytest.approx(latency)
    # From the beginning, no more requests end than the busiest part can have served.
    crowd = throughput(pipeline, users, requests=20, warmup=0)
    assert 1000 / latency / SLACK <= crowd.bound_per_s
    assert crowd.infer_per_s <= bound_per_s(pipeline)
    share = [*crowd.server_share, *crowd.link_share.values()]
    assert max(share) <= SLACK
    # All work of those that ended was done since the beginning.
    servers, links = work_of(pipeline)
    done = [*servers, *links.values()]
    for used, work in zip(share, done, strict=True):
        assert crowd.infer_per_s * work <= 1000 * used * SLACK


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(st.tuples(st.floats(1, 50), st.floats(0, 50)), min_size=1, max_size=5))
def test_many_users_keep_the_busiest_part_of_a_chain_busy(
    stages: list[tuple[float, float]],
) -> None:
    parts = tuple(SimComponent(i, compute) for i, (compute, _) in enumerate(stages))
    messages = tuple(
        SimMessage("put", i, i + 1, (i,), (i + 1,), link_ms=link, delay_ms=5.0)
        for i, (_, link) in enumerate(stages[:-1])
    )
    pipeline = Pipeline(len(stages), 0, parts, messages)
    latency = latency_ms(pipeline)
    assert latency == pytest.approx(all_times(pipeline))
    users = math.ceil(latency * bound_per_s(pipeline) / 1000) + 1
    # Unlike the rate, the share of time in use is not cut at a bound.
    crowd = throughput(pipeline, users, requests=30, warmup=10 * users)
    assert max(*crowd.server_share, *crowd.link_share.values(), 0.0) == pytest.approx(1.0, abs=0.02)
    assert crowd.infer_per_s == pytest.approx(crowd.bound_per_s, rel=0.02)
    faster = replace(pipeline, messages=tuple(replace(m, link_ms=m.link_ms / 2) for m in messages))
    assert latency_ms(faster) <= latency


@settings(max_examples=examples(12), deadline=None)
@given(SEEDS)
def test_the_search_keeps_limits_never_loses_and_repeats_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, with_rows=True)
    drawn = [drawn_placement(problem, rng) for _ in range(6)]
    starts = [x for x in drawn if not violations(problem, x, evaluate(problem, x))]
    assume(starts)
    known = drawn_conditions(problem, rng)
    latency = simulated_latency(problem, known)
    result = improve(problem, drawn, latency, max_evaluations=25, seed=1)
    assert result.makespan_ms == latency(result.placement)
    assert result.makespan_ms <= min(latency(x) for x in starts)
    assert not violations(problem, result.placement, evaluate(problem, result.placement))
    assert result.makespan_ms * SLACK >= makespan_bound(problem, least_transfers(problem, known))
    assert result == improve(problem, drawn, latency, max_evaluations=25, seed=1)
    assert [ms for _, ms in result.history] == sorted({ms for _, ms in result.history})[::-1]


@settings(max_examples=examples(25), deadline=None)
@given(cases())
def test_components_that_overlap_hold_every_layer_once_and_are_never_slower(
    case: tuple[Problem, Placement, Conditions, np.random.Generator],
) -> None:
    problem, placement, known, _ = case
    small = Overlapping(problem).groups(placement.servers)
    groups, latency = best_groups(problem, placement, known)
    for found in (small, groups):
        assert sorted(itertools.chain(*found)) == list(range(1, len(problem.layers) - 1))
        position = {layer: index for index, group in enumerate(found) for layer in group}
        for flow in problem.flows:
            for reader in flow.consumers:
                if flow.source in position and reader in position:
                    assert position[flow.source] <= position[reader]
        assert all(len({placement.servers[layer] for layer in group}) == 1 for group in found)
    assert latency == latency_ms(pipeline_of(problem, placement, known, groups))
    assert latency <= simulated_latency(problem, known, overlap=True)(placement) * SLACK
    if not violations(problem, placement, evaluate(problem, placement)):
        assert makespan_bound(problem, least_transfers(problem, known)) <= latency * SLACK


@settings(max_examples=examples(25), deadline=None)
@given(SEEDS)
def test_groups_hold_every_layer_once_and_never_hide_a_start(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, layers=int(rng.integers(5, 25)))
    starts = [drawn_placement(problem, rng) for _ in range(int(rng.integers(0, 2)))]
    groups = contract(problem, starts)
    assert sorted(itertools.chain(*groups)) == list(range(len(problem.layers)))
    assert {(0,), (len(problem.layers) - 1,)} <= set(groups)
    for group in groups:
        assert len({problem.allowed[layer].tobytes() for layer in group}) == 1
        assert all(len({start.servers[layer] for layer in group}) == 1 for start in starts)
