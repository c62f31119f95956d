"""Grouping layers into components; each row names its edge case."""

from __future__ import annotations

import itertools
import random

import pytest

from tritier.planner import Group, PlannedLayer, crossing_tensors, group_layers, plan_groups


def grouped(layers: str, servers: str) -> list[str]:
    """Groups as texts like `0:A+B`; layers are like `A B<A C<A,B`, their servers like `010`."""
    predecessors = {}
    for item in layers.split():
        name, _, needs = item.partition("<")
        predecessors[name] = needs.split(",") if needs else []
    server_of = dict(zip(predecessors, servers, strict=True))
    groups = group_layers(list(predecessors), predecessors, server_of)
    return [f"{group.server}:{'+'.join(group.layers)}" for group in groups]


@pytest.mark.parametrize(
    ("layers", "servers", "expected"),
    [
        pytest.param("A B<A C<B", "000", ["0:A+B+C"], id="one server is one component"),
        pytest.param("A", "0", ["0:A"], id="one layer"),
        pytest.param("A B C", "000", ["0:A+B+C"], id="layers that share nothing are merged too"),
        pytest.param("A B<A C<B", "010", ["0:A", "1:B", "0:C"], id="there and back can't merge"),
        pytest.param(
            "A C B<A,C", "001", ["0:A+C", "1:B"], id="A on 0, B on 1, C on 0 feeding B: A, C merge"
        ),
        pytest.param(
            "A C<A B<C D<A,B", "0010", ["0:A+C", "1:B", "0:D"], id="D also reads A: still a cycle"
        ),
        pytest.param(
            "A B<A C<A D<B,C", "0110", ["0:A", "1:B+C", "0:D"], id="diamond: its sides merge"
        ),
        pytest.param(
            "A B<A C<A D<B,C",
            "0120",
            ["0:A", "1:B", "2:C", "0:D"],
            id="diamond over three servers",
        ),
        pytest.param(
            "A B<A C<B D E<D F<E",
            "010010",
            ["0:A+D", "1:B+E", "0:C+F"],
            id="parallel branches of equal rhythm merge",
        ),
        pytest.param(
            "A B<A C<B D E<D F<E",
            "010101",
            ["0:A", "1:B+D", "0:C+E", "1:F"],
            id="parallel branches of opposite rhythm merge one step apart",
        ),
        pytest.param(
            "A B<A C D<C,B",
            "0110",
            ["0:A", "1:B+C", "0:D"],
            id="a layer without inputs joins a later one, in the order of the model",
        ),
        pytest.param(
            "A B<A C<A D<B E<D,C",
            "01020",
            ["0:A+C", "1:B", "2:D", "0:E"],
            id="a level that does not depend on the detour stays with the first group",
        ),
        pytest.param(
            "K P G<P D<K E<D",
            "12132",
            ["2:P", "1:K+G", "3:D", "2:E"],
            id="a merge bars a later one: once K waits for P, E waits for P through K and D",
        ),
        pytest.param(
            "A B<A C D<C E<B,D",
            "01100",
            ["0:A", "1:B+C", "0:D+E"],
            id="levels apart: D waits for C only, E for both, still one group",
        ),
    ],
)
def test_grouping(layers: str, servers: str, expected: list[str]) -> None:
    assert grouped(layers, servers) == expected


def test_a_long_chain_over_six_servers_ends() -> None:
    order = [f"l{index}" for index in range(1852)]
    predecessors = {name: [f"l{index - 1}"] if index else [] for index, name in enumerate(order)}
    server_of = {name: "abcdef"[index * 6 // 1852] for index, name in enumerate(order)}
    groups = group_layers(order, predecessors, server_of)
    assert [group.server for group in groups] == list("abcdef")
    assert [layer for group in groups for layer in group.layers] == order


def test_a_long_chain_that_changes_server_at_every_layer_ends() -> None:
    order = [f"l{index}" for index in range(1852)]
    predecessors = {name: [f"l{index - 1}"] if index else [] for index, name in enumerate(order)}
    generator = random.Random(0)
    server_of = {name: generator.choice("abcdef") for name in order}
    groups = group_layers(order, predecessors, server_of)
    changes = sum(server_of[u] != server_of[v] for u, v in itertools.pairwise(order))
    assert len(groups) == changes + 1  # of a chain nothing can be merged


# -- tensors at the borders -----------------------------------------------------------------------

LAYERS = [
    PlannedLayer("split", ["x"], ["left", "right"]),
    PlannedLayer("neg", ["left"], ["n"]),
    PlannedLayer("add", ["n", "right", "x"], ["sum"]),
    PlannedLayer("out", ["sum", "n"], ["y"]),
]


def test_borders_are_what_others_need_in_the_model_s_order() -> None:
    groups = [Group("a", ("split",)), Group("b", ("neg", "add")), Group("a", ("out",))]
    assert crossing_tensors(LAYERS, groups, ["y", "left"]) == [
        (["x"], ["left", "right"]),
        (["left", "right", "x"], ["n", "sum"]),
        (["sum", "n"], ["y"]),
    ]


def test_inner_tensors_are_no_border_unless_they_are_outputs() -> None:
    groups = [Group("a", ("split", "neg", "add", "out"))]
    assert crossing_tensors(LAYERS, groups, ["y"]) == [(["x"], ["y"])]
    assert crossing_tensors(LAYERS, groups, ["n", "y"]) == [(["x"], ["n", "y"])]


def test_groups_of_layers_follow_their_tensors() -> None:
    server_of = {"split": "a", "neg": "b", "add": "b", "out": "a"}
    assert [group.layers for group in plan_groups(LAYERS, server_of)] == [
        ("split",),
        ("neg", "add"),
        ("out",),
    ]
