"""Random models, randomly placed: the numbered rules hold for every plan and what it generates."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.configs import Configs, crossings, parameters, read_configs, unused_tensors
from tests.helpers.examples import examples
from tests.helpers.models import Planned, Split, assert_same_bits, parse, spec
from tests.helpers.random_models import inputs_for, models, placements
from tests.helpers.simulator import BadTensor, Deadlock, Simulation
from tritier.documents import Assignment, Plan
from tritier.errors import InputError
from tritier.files import sha256_bytes
from tritier.graph import LoadedModel, build_layer_graph
from tritier.planner import Group, group_layers
from tritier.repository import GenerateOptions
from tritier.repository.check import check_wiring
from tritier.workflow import generate, plan_from_assignment

SERVERS = "abcde"
OPTIONS = GenerateOptions(max_batch_size=0)
# A chain over two other servers whose tensor h1 also comes back: puts, tokens, and a second
# component on b, which takes h2 (of c) and h1 (of its own server) from the mailbox.
CROSSED = """
    g (float[2,4] x) => (float[2,4] y) {
      [b1] h1 = Relu(x)
      [c] h2 = Neg(h1)
      [b2] h3 = Add(h1, h2)
      [a] y = Sub(h1, h3)
    }
"""


def load_proto(model: onnx.ModelProto) -> LoadedModel:
    """A model without a file, that ONNX accepts."""
    onnx.checker.check_model(model)
    return LoadedModel(Path("m.onnx"), sha256_bytes(model.SerializeToString()), model)


def cut(item: Planned) -> Split:
    """Everything that is generated from a plan."""
    return Split(item.model, item.plan, *generate(item.plan, item.model, OPTIONS))


@st.composite
def planned(draw: st.DrawFn) -> Planned:
    """A random model, planned for a random placement on 2 to 5 servers."""
    model = load_proto(draw(models()))
    names = [layer.name for layer in build_layer_graph(model.proto).layers]
    servers = SERVERS[: draw(st.integers(2, 5))]
    where = draw(placements(names, servers))
    return Planned(model, plan_from_assignment(model, Assignment(layers=where), spec(servers)))


def splits() -> st.SearchStrategy[Split]:
    """The same, with everything that is generated."""
    return planned().map(cut)


@pytest.fixture
def crossed() -> Split:
    """A small split in which every way of a tensor occurs."""
    model = load_proto(parse(CROSSED))
    where = {"b*": "b", "c": "c", "a": "a"}
    plan = plan_from_assignment(model, Assignment(layers=where), spec("abc"))
    return cut(Planned(model, plan))


def mergeable_pairs(
    groups: list[Group], edges: list[tuple[str, str]]
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Pairs of groups of one server that could be one without a cycle, tried one by one."""
    of_layer = {layer: index for index, group in enumerate(groups) for layer in group.layers}
    between = {(of_layer[u], of_layer[v]) for u, v in edges}
    found = []
    for one, other in itertools.combinations(range(len(groups)), 2):
        if groups[one].server != groups[other].server:
            continue
        pairs = [(one if u == other else u, one if v == other else v) for u, v in between]
        if nx.is_directed_acyclic_graph(nx.DiGraph([(u, v) for u, v in pairs if u != v])):
            found.append((groups[one].layers, groups[other].layers))
    return found


# -- plans ----------------------------------------------------------------------------------------


@settings(max_examples=examples(100))
@given(planned())
def test_r1_every_layer_is_in_exactly_one_component(item: Planned) -> None:
    placed = [layer for component in item.plan.components for layer in component.layers]
    layers = build_layer_graph(item.model.proto).layers
    assert sorted(placed) == sorted(layer.name for layer in layers)


@settings(max_examples=examples(100))
@given(planned())
def test_r2_components_stand_in_topological_order(item: Planned) -> None:
    known = set(item.plan.inputs)
    for component in item.plan.components:
        assert set(component.inputs) <= known
        known.update(component.outputs)
    assert set(item.plan.outputs) <= known


@settings(max_examples=examples(100))
@given(planned())
def test_a_plan_survives_its_file(item: Planned) -> None:
    assert Plan.from_data(json.loads(item.plan.to_json())) == item.plan


@settings(max_examples=examples(100))
@given(planned())
def test_no_two_components_of_a_real_plan_could_be_one(item: Planned) -> None:
    groups = [Group(c.server, c.layers) for c in item.plan.components]
    edges = list(build_layer_graph(item.model.proto).to_networkx().edges)
    assert mergeable_pairs(groups, edges) == []


@st.composite
def layer_graphs(draw: st.DrawFn) -> tuple[list[str], dict[str, list[str]], dict[str, str]]:
    """(order, predecessors, server of each) of up to 14 layers, denser than real models are."""
    count = draw(st.integers(1, 14))
    order = [f"l{index}" for index in range(count)]
    predecessors = {
        name: draw(st.lists(st.sampled_from(order[:index]), unique=True, max_size=4))
        if index
        else []
        for index, name in enumerate(order)
    }
    return order, predecessors, draw(placements(order, SERVERS[: draw(st.integers(1, 3))]))


def check_groups(
    order: list[str], predecessors: dict[str, list[str]], server_of: dict[str, str]
) -> None:
    """Fail unless the groups keep R1 and R2 and no two of them could be one."""
    groups = group_layers(order, predecessors, server_of)
    assert sorted(layer for group in groups for layer in group.layers) == sorted(order)
    of_layer = {layer: index for index, group in enumerate(groups) for layer in group.layers}
    assert all(of_layer[u] <= of_layer[v] for v in order for u in predecessors[v])
    assert all(server_of[layer] == group.server for group in groups for layer in group.layers)
    assert mergeable_pairs(groups, [(u, v) for v in order for u in predecessors[v]]) == []


@settings(max_examples=examples(100))
@given(layer_graphs())
def test_groups_are_acyclic_and_as_few_as_merging_gives(
    item: tuple[list[str], dict[str, list[str]], dict[str, str]],
) -> None:
    check_groups(*item)


@pytest.mark.parametrize("seed", range(4))
def test_groups_of_graphs_drawn_evenly(seed: int) -> None:
    """Hypothesis prefers small and regular graphs; cycles through four components are neither."""
    generator = random.Random(seed)
    for _ in range(100):
        order = [f"l{index}" for index in range(generator.randint(5, 12))]
        share = generator.choice([0.1, 0.2, 0.3])
        predecessors = {
            name: [other for other in order[:index] if generator.random() < share]
            for index, name in enumerate(order)
        }
        servers = SERVERS[: generator.randint(2, 4)]
        check_groups(order, predecessors, {name: generator.choice(servers) for name in order})


def test_the_brute_force_finds_a_pair_that_could_be_one() -> None:
    apart = [Group("a", ("l0",)), Group("b", ("l1",)), Group("a", ("l2",))]
    assert mergeable_pairs(apart, [("l0", "l1")]) == [(("l0",), ("l2",))]
    assert mergeable_pairs(apart, [("l0", "l1"), ("l1", "l2")]) == []


# -- what is generated ----------------------------------------------------------------------------


@settings(max_examples=examples(40))
@given(splits())
def test_r3_each_tensor_crosses_each_link_once(item: Split) -> None:
    configs = read_configs(item.files)
    needed = {(w.tensor, w.source, w.target): 1 for w in item.plan.wires}
    assert crossings(configs) == needed
    assert unused_tensors(configs) == []


@settings(max_examples=examples(60))
@given(splits(), st.integers(0, 2**16))
def test_r4_chained_components_give_the_same_bits(item: Split, seed: int) -> None:
    inputs = inputs_for(item.model.proto, seed)
    assert_same_bits(item.run_whole(inputs), item.run_chain(inputs))


@settings(max_examples=examples(40))
@given(splits(), st.integers(0, 2**16))
def test_the_data_plane_gives_the_same_bits(item: Split, seed: int) -> None:
    inputs = inputs_for(item.model.proto, seed)
    whole = item.run_whole(inputs)
    servers = Simulation(item.files)
    assert_same_bits(whole, servers.infer("a", "m", inputs))
    assert servers.crossed == {(w.tensor, w.source, w.target): 1 for w in item.plan.wires}
    assert servers.left_over() == []


@settings(max_examples=examples(40))
@given(splits(), st.integers(0, 2**8))
def test_apps_may_ask_for_some_outputs(item: Split, mask: int) -> None:
    inputs = inputs_for(item.model.proto, 1)
    whole = item.run_whole(inputs)
    wanted = [name for index, name in enumerate(whole) if mask >> index & 1] or sorted(whole)[:1]
    servers = Simulation(item.files)
    answer = servers.infer("a", "m", inputs, wanted)
    assert_same_bits({name: whole[name] for name in wanted}, answer)
    assert set(servers.crossed) <= {(w.tensor, w.source, w.target) for w in item.plan.wires}
    assert set(servers.crossed.values()) <= {1}


@settings(max_examples=examples(30))
@given(splits(), st.integers(0, 2**8))
def test_the_wiring_check_finds_a_step_that_is_cut_off(item: Split, number: int) -> None:
    configs = read_configs(item.files)
    check_wiring(configs)
    ensembles = [config for config in configs.values() if config.platform == "ensemble"]
    steps = [step for ensemble in ensembles for step in ensemble.ensemble_scheduling.step]
    step = steps[number % len(steps)]
    step.input_map[next(iter(step.input_map))] = "made by nobody"
    with pytest.raises(InputError, match="wait for tensors that nothing makes"):
        check_wiring(configs)


# -- what these tests can notice ------------------------------------------------------------------


def test_other_bits_are_noticed(crossed: Split) -> None:
    inputs = inputs_for(crossed.model.proto, 0)
    whole, parts = crossed.run_whole(inputs), crossed.run_chain(inputs)
    assert_same_bits(whole, parts)
    with pytest.raises(AssertionError):
        assert_same_bits(whole, {"y": np.nextafter(parts["y"], np.float32(9))})
    zero = {"y": np.zeros(1, np.float32)}
    with pytest.raises(AssertionError):
        assert_same_bits(zero, {"y": -zero["y"]})


def test_another_component_is_noticed(crossed: Split) -> None:
    sub = crossed.sub_model("c1")
    sub.graph.node[0].op_type = "Abs"
    crossed.sub_models["c1"] = sub.SerializeToString()
    inputs = inputs_for(crossed.model.proto, 0)
    with pytest.raises(AssertionError):
        assert_same_bits(crossed.run_whole(inputs), crossed.run_chain(inputs))


def test_a_tensor_that_is_sent_twice_is_noticed(crossed: Split) -> None:
    configs = read_configs(crossed.files)
    needed = {(w.tensor, w.source, w.target): 1 for w in crossed.plan.wires}
    assert crossings(configs) == needed
    put = next(key for key in configs if key[1].endswith("__put_c"))
    configs[put[0], put[1] + "_again"] = configs[put]
    assert crossings(configs) == {**needed, ("t1", "b", "c"): 2}


def _drop_put(configs: Configs) -> None:
    """The stage of c0 keeps t1 to itself."""
    stage = next(c for (_, name), c in configs.items() if name.endswith("c0__stage"))
    steps = stage.ensemble_scheduling.step
    kept = [step for step in steps if not step.model_name.endswith("__put_c")]
    del steps[:]
    steps.extend(kept)
    acks = [tensor for tensor in stage.output if tensor.name != "ack_c"]
    del stage.output[:]
    stage.output.extend(acks)


def _swap_inputs(configs: Configs) -> None:
    """The entry's last component takes one tensor for another."""
    step = configs["a", "m"].ensemble_scheduling.step[-1]
    one, other = sorted(step.input_map)
    step.input_map[one], step.input_map[other] = step.input_map[other], step.input_map[one]


def _widen(configs: Configs) -> None:
    """A proxy declares another shape than its component has."""
    call = next(c for (_, name), c in configs.items() if name.endswith("c0__call"))
    call.output[0].dims[-1] = 5


def _take_once_more(configs: Configs) -> None:
    """A mailbox expects one taker more than there are."""
    mailbox = next(c for (_, name), c in configs.items() if name.endswith("__mailbox"))
    takes = json.loads(parameters(mailbox)["takes"])
    takes = {name: count + 1 for name, count in takes.items()}
    mailbox.parameters["takes"].string_value = json.dumps(takes)


@pytest.mark.parametrize(
    ("damage", "notices"),
    [
        (_drop_put, Deadlock),
        (_swap_inputs, AssertionError),
        (_widen, BadTensor),
        (_take_once_more, AssertionError),
    ],
)
def test_a_broken_data_plane_is_noticed(
    crossed: Split, damage: Callable[[Configs], None], notices: type[Exception]
) -> None:
    inputs = inputs_for(crossed.model.proto, 0)
    whole = crossed.run_whole(inputs)
    configs = read_configs(crossed.files)
    damage(configs)
    servers = Simulation(crossed.files, configs)
    with pytest.raises(notices):  # noqa: PT012 - any of the three may notice it
        assert_same_bits(whole, servers.infer("a", "m", inputs))
        assert servers.left_over() == []
