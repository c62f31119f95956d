"""The simulator and the search for a short makespan, on cases that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tritier.errors import InfeasibleError
from tritier.planner.evaluate import evaluate, violations
from tritier.planner.makespan import improve, makespan_bound, simulated_latency
from tritier.planner.makespan_groups import contract
from tritier.planner.noise_sets import NoiseLimit, NoiseRow
from tritier.planner.problem import MIB, Flow, Limits, Placement, Problem
from tritier.planner.simulate import Simulated, simulate, throughput
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
from tritier.planner.simulation_groups import best_groups

# 100 ms a MiB; 10 ms there and 10 back; 1 ms a call and 2 ms a MiB at the ends.
LINK = LinkModel(bandwidth_mib_s=10.0, round_trip_ms=20.0, call_ms=1.0, copy_ms_per_mib=2.0)


def problem_of(
    times: list[list[float]],
    flows: list[Flow],
    transfer_ms: float = 10.0,
    **changes: Any,
) -> Problem:
    """`times` of the layers but generator and receiver; every tensor takes the same time over
    every link, half of it in 8 bits."""
    float_ms = np.array([[0.0] * len(times[0]), *times, [0.0] * len(times[0])])
    n, k = float_ms.shape
    allowed = np.ones((n, k), dtype=bool)
    allowed[[0, -1], 1:] = False
    away = np.broadcast_to(1.0 - np.eye(k), (len(flows), k, k))
    quantizable = changes.get("quantizable", ())
    int8_ms = np.full((n, k), np.inf)
    int8_ms[list(quantizable)] = float_ms[list(quantizable)] / 2
    problem = Problem(
        layers=tuple(f"l{i}" for i in range(n)),
        servers=("device", "edge", "cloud")[:k],
        entry=0,
        float_ms=float_ms,
        int8_ms=int8_ms,
        allowed=allowed,
        flows=tuple(flows),
        transfer_ms=transfer_ms * away,
        coded_ms=transfer_ms / 2 * away,
        compute_watt=np.array([2.0, 4.0, 8.0])[:k],
        send_watt=np.array([1.0, 3.0, 5.0])[:k],
        float_bytes=np.zeros((n, k)),
        int8_bytes=np.zeros((n, k)),
        working_bytes=np.zeros((n, k)),
    )
    return replace(problem, **{"noise": NoiseLimit(len(quantizable))} | changes)


def chain(times: list[list[float]], **options: Any) -> Problem:
    return problem_of(times, [Flow(f"t{i}", i, (i + 1,)) for i in range(len(times) + 1)], **options)


def fork(times: list[list[float]], **options: Any) -> Problem:
    """Layer 1 feeds 2 and 3, both feed 4."""
    readers = [(1,), (2, 3), (4,), (4,), (5,)]
    return problem_of(times, [Flow(f"t{i}", i, to) for i, to in enumerate(readers)], **options)


def conditions(problem: Problem, mib: float = 1.0, **options: Any) -> Conditions:
    sizes = np.full(len(problem.flows), mib * MIB)
    k = len(problem.servers)
    links = [[None if a == b else LINK for b in range(k)] for a in range(k)]
    return Conditions(links, float_bytes=sizes, coded_bytes=sizes / 4, **options)


def shown(result: Simulated) -> list[tuple[str, tuple[int, ...], float, float]]:
    return [(e.kind, e.place, e.start_ms, e.end_ms) for e in result.timeline]


def test_a_model_on_one_server_takes_the_sum_of_its_layers() -> None:
    problem = chain([[3.0, 1.0], [4.0, 1.0]])
    result = simulate(pipeline_of(problem, Placement((0, 0, 0, 0)), conditions(problem)))
    assert result.latency_ms == 7.0
    assert shown(result) == [("compute", (0,), 0.0, 7.0)]
    assert result.server_busy_ms == (7.0, 0.0)
    assert result.link_busy_ms == {}


def test_a_call_and_its_answer_cost_what_the_link_was_measured_to_cost() -> None:
    problem = chain([[30.0, 5.0]])
    result = simulate(pipeline_of(problem, Placement((0, 1, 0)), conditions(problem)))
    # 100 on the link, 10 + 1 + 2 until it is there; 5; 100, and 10 + 2 back: one call, not two.
    assert result.latency_ms == 113.0 + 5.0 + 112.0
    assert [e.arrived_ms for e in result.timeline] == [113.0, 118.0, 230.0]
    # 4 W for 5 ms; 1 W and 3 W for 100 ms of sending.
    assert result.server_energy_joule == pytest.approx((0.1, 0.02 + 0.3))
    assert result.device_energy_joule == pytest.approx(0.1)


def test_without_links_each_tensor_takes_its_time_in_the_problem() -> None:
    problem = chain([[3.0, 1.0], [4.0, 1.0]])
    placement = Placement((0, 0, 1, 0))
    result = simulate(pipeline_of(problem, placement))
    costs = evaluate(problem, placement)
    assert result.latency_ms == costs.latency_ms == 3.0 + 10.0 + 1.0 + 10.0
    assert result.server_energy_joule == pytest.approx(costs.server_energy_joule)


def test_branches_on_two_servers_overlap() -> None:
    problem = fork([[1.0, 1.0], [50.0, 50.0], [30.0, 30.0], [2.0, 2.0]])
    placement = Placement((0, 0, 0, 1, 0, 0))
    apart = simulate(pipeline_of(problem, placement, groups=[(1,), (2,), (3,), (4,)]))
    # Beside the 50 ms on the device: there in 10, 30 on the edge, back in 10.
    assert apart.latency_ms == 1.0 + 50.0 + 2.0
    assert ("compute", (1,), 11.0, 41.0) in shown(apart)


def test_a_tensor_leaves_when_all_of_its_component_is_computed() -> None:
    problem = fork([[1.0, 1.0], [50.0, 50.0], [30.0, 30.0], [2.0, 2.0]])
    # Layers 1 and 2 are one component of the plan.
    result = simulate(pipeline_of(problem, Placement((0, 0, 0, 1, 0, 0))))
    assert result.latency_ms == 51.0 + 10.0 + 30.0 + 10.0 + 2.0


def test_branches_on_one_server_do_not_unless_it_may_compute_both() -> None:
    parts = (SimComponent(0, 5.0), SimComponent(0, 7.0))
    assert simulate(Pipeline(1, 0, parts)).latency_ms == 12.0
    both = simulate(Pipeline(1, 0, parts, parallel=(2,)))
    assert both.latency_ms == 7.0
    assert both.server_busy_ms == (12.0,)


def test_messages_on_one_link_follow_each_other_and_others_do_not_wait() -> None:
    parts = (SimComponent(1, 0.0), SimComponent(1, 0.0), SimComponent(2, 0.0))
    messages = (
        SimMessage("call", 0, 1, targets=(0,), link_ms=10.0, delay_ms=3.0),
        SimMessage("call", 0, 1, targets=(1,), link_ms=10.0, delay_ms=3.0),
        SimMessage("call", 0, 2, targets=(2,), link_ms=10.0, delay_ms=3.0),
    )
    result = simulate(Pipeline(3, 0, parts, messages))
    sent = [e for e in result.timeline if e.kind == "send"]
    assert [(e.index, e.start_ms, e.arrived_ms) for e in sent] == [
        (0, 0.0, 13.0),
        (2, 0.0, 13.0),
        (1, 10.0, 23.0),
    ]
    assert result.link_busy_ms == {(0, 1): 20.0, (0, 2): 10.0}


def test_a_message_without_tensors_does_not_wait_for_the_link() -> None:
    parts = (SimComponent(1, 0.0), SimComponent(1, 0.0))
    messages = (
        SimMessage("call", 0, 1, targets=(0,), link_ms=10.0),
        SimMessage("call", 0, 1, targets=(1,), delay_ms=1.0),
    )
    timeline = simulate(Pipeline(2, 0, parts, messages)).timeline
    assert [e.arrived_ms for e in timeline if e.place == (0, 1)] == [1.0, 10.0]


def test_tensors_between_other_servers_go_to_the_mailbox_and_not_through_the_entry() -> None:
    problem = chain([[1.0] * 3, [5.0] * 3, [7.0] * 3])
    pipeline = pipeline_of(problem, Placement((0, 0, 1, 2, 0)), conditions(problem))
    assert [(m.kind, m.source_server, m.target_server, m.tensors) for m in pipeline.messages] == [
        ("call", 0, 1, (1,)),
        ("put", 1, 2, (2,)),
        ("call", 0, 2, ()),
        ("answer", 2, 0, (3,)),
    ]
    result = simulate(pipeline)
    assert result.latency_ms == 1 + 113 + 5 + 113 + 7 + 112
    # The call of the third component goes with that of the second, from which nothing comes back.
    assert pipeline.messages[2].waits == ((0, Moment.ISSUED),)
    called = [e for e in result.timeline if e.place == (0, 2)]
    assert [(e.start_ms, e.arrived_ms) for e in called] == [(1.0, 12.0)]


def test_an_answer_waits_until_what_its_component_puts_elsewhere_has_arrived() -> None:
    problem = fork([[1.0] * 3, [1.0] * 3, [1.0] * 3, [1.0] * 3])
    # Layer 1 on the edge feeds 2 on the device and 3 in the cloud.
    pipeline = pipeline_of(problem, Placement((0, 1, 0, 2, 0, 0)), conditions(problem))
    timeline = simulate(pipeline).timeline
    put = next(e for e in timeline if e.place == (1, 2))
    answer = next(e for e in timeline if e.place == (1, 0))
    assert put.start_ms == 114.0
    assert put.arrived_ms == 114.0 + 113.0
    assert answer.start_ms == put.arrived_ms + 10.0


def test_of_several_outputs_the_entry_fetches_what_others_wait_for_too() -> None:
    flows = [Flow("in", 0, (1,)), Flow("a", 1, (2, 3)), Flow("b", 2, (3,))]
    problem = problem_of([[1.0] * 3, [1.0] * 3], flows)
    pipeline = pipeline_of(problem, Placement((0, 1, 2, 0)), conditions(problem))
    kinds = [m.kind for m in pipeline.messages]
    assert kinds == ["call", "fetch", "put", "answer", "call", "answer"]
    # Its answer does not wait for the put.
    answer = next(e for e in simulate(pipeline).timeline if e.place == (1, 0))
    assert answer.start_ms == 114.0


def test_a_tensor_crosses_once_however_many_components_read_it() -> None:
    # 1 feeds 2 and 4 on the edge; 3 between them, on the device, keeps those apart.
    flows = [
        Flow("in", 0, (1,)),
        Flow("a", 1, (2, 4)),
        Flow("b", 2, (3,)),
        Flow("c", 3, (4,)),
        Flow("d", 4, (5,)),
    ]
    problem = problem_of([[1.0, 1.0]] * 4, flows)
    pipeline = pipeline_of(problem, Placement((0, 0, 1, 0, 1, 0)))
    sent = [(m.kind, m.tensors) for m in pipeline.messages if m.tensors]
    assert sent == [("put", (1,)), ("answer", (2,)), ("call", (3,)), ("answer", (4,))]


def test_quantized_layers_compute_and_send_in_8_bits() -> None:
    flows = [Flow("in", 0, (1,)), Flow("a", 1, (2,), coded_by=(1,)), Flow("b", 2, (3,))]
    problem = problem_of([[8.0, 8.0], [4.0, 4.0]], flows, quantizable=(1,))
    placement = Placement((0, 0, 1, 0), quantized=1)
    assert simulate(pipeline_of(problem, placement)).latency_ms == 4 + 5 + 4 + 10
    pipeline = pipeline_of(problem, placement, conditions(problem))
    assert [m.bytes for m in pipeline.messages] == [MIB / 4, MIB]
    assert pipeline.messages[0].link_ms == 25.0


def test_serving_costs_of_a_component_by_its_inputs_and_outputs() -> None:
    problem = chain([[3.0, 3.0], [4.0, 4.0]])
    serving = [ServingCost(1.0, 0.5, 0.25), ServingCost(2.0, 0.0, 0.0)]
    known = conditions(problem, mib=2.0, serving=serving)
    pipeline = pipeline_of(problem, Placement((0, 0, 1, 0)), known)
    assert [c.compute_ms for c in pipeline.components] == [
        3.0 + 1.0 + 2 * 0.5 + 4.0 * 0.25,
        4.0 + 2.0,
    ]


def test_a_chain_of_two_servers_comes_near_the_busiest_one() -> None:
    problem = chain([[20.0, 9.0], [9.0, 30.0]], transfer_ms=1.0)
    pipeline = pipeline_of(problem, Placement((0, 0, 1, 0)))
    alone = throughput(pipeline, 1)
    assert alone.infer_per_s == pytest.approx(1000 / 52)
    assert alone.mean_ms == alone.p99_ms == pytest.approx(52.0)
    crowded = throughput(pipeline, 4)
    assert crowded.bound_per_s == pytest.approx(1000 / 30)
    assert crowded.infer_per_s == pytest.approx(1000 / 30, rel=1e-6)
    assert crowded.server_share == pytest.approx((20 / 30, 1.0))
    assert crowded.link_share[0, 1] == pytest.approx(1 / 30)
    # Four users wait in turn for a server that takes 30 ms each.
    assert crowded.mean_ms == pytest.approx(120.0)


def test_instances_and_parallel_components_raise_throughput() -> None:
    def rate(parallel: int, instances: int) -> float:
        part = SimComponent(0, 10.0, instances=instances)
        return throughput(Pipeline(1, 0, (part,), parallel=(parallel,)), 8).infer_per_s

    assert rate(1, 2) == pytest.approx(100.0)
    assert rate(2, 1) == pytest.approx(100.0)
    assert rate(2, 2) == pytest.approx(200.0)


def test_components_are_those_of_the_plan() -> None:
    problem = fork([[1.0, 1.0]] * 4)
    groups = PipelineBuilder(problem).groups(Placement((0, 0, 1, 0, 0, 0)))
    assert groups == ((1, 3), (2,), (4,))


def test_a_circle_is_a_fault_of_the_program() -> None:
    parts = (SimComponent(0, 1.0, after=(1,)), SimComponent(0, 1.0, after=(0,)))
    with pytest.raises(AssertionError, match="circle"):
        simulate(Pipeline(1, 0, parts))


def overlapping() -> Problem:
    """Two branches of 40 ms: by sums it is best to leave both on the device."""
    flows = [Flow("in", 0, (1, 2)), Flow("a", 1, (3,)), Flow("b", 2, (3,)), Flow("out", 3, (4,))]
    return problem_of([[40.0, 40.0], [40.0, 40.0], [1.0, 1.0]], flows, transfer_ms=3.0)


def test_a_branch_is_moved_away_if_that_shortens_the_makespan() -> None:
    problem = overlapping()
    start = Placement((0,) * 5)
    latency = simulated_latency(problem, overlap=True)
    result = improve(problem, [start], latency, max_evaluations=60, seed=3)
    assert result.makespan_ms == 3 + 40 + 3 + 1
    assert evaluate(problem, result.placement).latency_ms == 81 + 6
    assert result.history[0] == (1, 81.0)
    assert result.history[-1][1] == result.makespan_ms
    # A chain of 40 and 1 ms is all that the bound can see.
    assert makespan_bound(problem) == 41.0


def test_usual_components_wait_where_smaller_ones_do_not() -> None:
    problem = overlapping()
    placement = Placement((0, 1, 0, 0, 0))
    # Layer 3 joins the branches and would be in one component with layer 2.
    assert simulated_latency(problem)(placement) == 3 + 40 + 3 + 41
    assert best_groups(problem, placement) == (((1,), (2,), (3,)), 3 + 40 + 3 + 1)


def test_components_that_need_not_be_apart_are_merged() -> None:
    problem = chain([[5.0, 5.0]] * 4)
    groups, latency = best_groups(problem, Placement((0, 0, 0, 1, 1, 0)))
    assert (groups, latency) == (((1, 2), (3, 4)), 40.0)
    fork_apart = fork([[1.0, 1.0], [50.0, 50.0], [30.0, 30.0], [2.0, 2.0]])
    groups, latency = best_groups(fork_apart, Placement((0, 0, 0, 1, 0, 0)))
    assert (groups, latency) == (((1,), (2,), (3,), (4,)), 53.0)


def test_limits_are_kept() -> None:
    start = Placement((0,) * 5)
    problem = replace(overlapping(), limits=Limits(latency_ms=85.0))
    result = improve(problem, [start], simulated_latency(problem), max_evaluations=60, seed=3)
    assert result.placement == start
    assert not violations(problem, start, evaluate(problem, start))


def test_layers_are_quantized_within_the_limit_of_noise() -> None:
    row = NoiseRow("out", 0.0, {1: 1.0, 2: 1.0}, budget=1.0)
    problem = chain(
        [[8.0, 90.0], [20.0, 90.0]], quantizable=(1, 2), noise=NoiseLimit(2, rows=(row,))
    )
    start = Placement((0, 0, 0, 0), quantized=1)
    result = improve(problem, [start], simulated_latency(problem), max_evaluations=200)
    assert result.placement == Placement((0, 0, 0, 0), quantized=2)
    assert result.makespan_ms == 18.0


def test_without_a_feasible_start_there_is_nothing_to_improve() -> None:
    problem = replace(overlapping(), limits=Limits(latency_ms=50.0))
    with pytest.raises(InfeasibleError, match="none of the 1 placements"):
        improve(problem, [Placement((0,) * 5)], simulated_latency(problem), max_evaluations=5)


def test_a_time_limit_ends_the_search_with_the_best_start() -> None:
    problem = overlapping()
    starts = [Placement((0, 1, 1, 1, 0)), Placement((0,) * 5)]
    result = improve(problem, starts, simulated_latency(problem), time_limit_s=0.0)
    assert (result.placement, result.evaluations) == (starts[1], 2)


def test_light_layers_go_with_their_neighbours_unless_a_start_cuts_there() -> None:
    # 1 and 4 are heavy, 2 and 3 are light; every tensor is as large as the next.
    problem = chain([[50.0, 9.0], [0.01, 0.01], [0.01, 0.01], [50.0, 9.0]])
    together = contract(problem, [Placement((0,) * 6)])
    assert len(together) == 4
    cut = contract(problem, [Placement((0, 0, 0, 1, 1, 0))])
    assert not any({2, 3} <= set(group) for group in cut)


def test_layers_that_may_not_stand_together_are_not_grouped() -> None:
    problem = chain([[50.0, 9.0], [0.01, 0.01], [0.01, 0.01], [50.0, 9.0]])
    problem.allowed[2, 1] = False
    assert not any({2, x} <= set(g) for g in contract(problem, []) for x in (1, 3))


def test_the_bound_is_of_the_links_that_are_used() -> None:
    problem = chain([[500.0, 5.0]], transfer_ms=1000.0)
    known = conditions(problem)
    assert makespan_bound(problem) == 500.0
    # 113 + 5 + 112, as the simulator says.
    assert makespan_bound(problem, least_transfers(problem, known)) == 230.0


def test_a_layer_that_noise_never_lets_quantize_does_not_lower_the_bound() -> None:
    row = NoiseRow("out", 0.0, {1: 2.0}, budget=1.0)
    free = chain([[8.0, 90.0], [20.0, 90.0]], quantizable=(1, 2))
    barred = replace(free, noise=NoiseLimit(2, rows=(row,)))
    assert makespan_bound(free) == 14.0
    assert makespan_bound(barred) == 18.0


def test_the_bound_knows_that_one_reader_can_code_a_tensor_for_all() -> None:
    # Layer 3 is light and codes what 1 makes for 2, which must leave the device, as well.
    flows = [Flow("in", 0, (1,)), Flow("a", 1, (2, 3), coded_by=(3,)), Flow("b", 2, (4,))]
    problem = problem_of(
        [[1.0, 90.0], [900.0, 5.0], [2.0, 90.0]], [*flows, Flow("c", 3, (4,))], quantizable=(3,)
    )
    latency = simulate(pipeline_of(problem, Placement((0, 0, 1, 0, 0), quantized=1))).latency_ms
    assert latency == 1 + 1 + 5 + 5 + 10
    assert makespan_bound(problem) == 1 + 5 + 5 + 10
