"""The layouts of layers and of components, on random graphs and plans."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.plans import make_plan
from tritier.documents import Plan
from tritier.report.component_flows import INPUTS, OUTPUTS, plan_flows
from tritier.report.component_graph import component_graph
from tritier.report.component_layout import ComponentLayout
from tritier.report.layer_layout import Edge, Layout, Spacing, layered_layout
from tritier.report.scene import Line, Text
from tritier.report.text_size import fitted, text_width

SPACE = Spacing()


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[Edge]]:
    """A directed acyclic graph whose nodes stand in any order; edges may be there twice."""
    count = draw(st.integers(0, 24))
    names = draw(st.permutations(range(count)))
    pairs = st.tuples(st.integers(0, max(count - 1, 0)), st.integers(0, max(count - 1, 0)))
    drawn = draw(st.lists(pairs, max_size=3 * count)) if count else []
    return count, [(names[min(a, b)], names[max(a, b)]) for a, b in drawn if a != b]


def boxes(layout: Layout) -> list[tuple[float, float, float, float]]:
    return [(x, y, x + SPACE.box_width, y + SPACE.box_height) for x, y in layout.corners]


@settings(max_examples=examples(20))
@given(graphs())
def test_boxes_do_not_overlap_and_lie_inside(graph: tuple[int, list[Edge]]) -> None:
    layout = layered_layout(*graph, SPACE)
    found = boxes(layout)
    for index, a in enumerate(found):
        assert a[0] >= 0
        assert a[1] >= 0
        assert a[2] <= layout.width
        assert a[3] <= layout.height
        for b in found[index + 1 :]:
            apart = (b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])
            assert max(apart) >= SPACE.column_gap - 1


@settings(max_examples=examples(20))
@given(graphs())
def test_edges_go_down_from_box_to_box(graph: tuple[int, list[Edge]]) -> None:
    layout = layered_layout(*graph, SPACE)
    found = boxes(layout)
    for (source, target), path in zip(graph[1], layout.paths, strict=True):
        assert layout.ranks[source] < layout.ranks[target]
        assert all(a[1] < b[1] for a, b in pairwise(path))
        assert path[0] == ((found[source][0] + found[source][2]) / 2, found[source][3])
        assert path[-1] == ((found[target][0] + found[target][2]) / 2, found[target][1])
        assert all(0 <= x <= layout.width for x, _ in path)


@settings(max_examples=examples(20))
@given(graphs())
def test_edges_cross_no_box(graph: tuple[int, list[Edge]]) -> None:
    layout = layered_layout(*graph, SPACE)
    found = boxes(layout)
    for path in layout.paths:
        for (x, y), (to_x, to_y) in pairwise(path):
            for left, top, right, bottom in found:
                beside = max(x, to_x) <= left or min(x, to_x) >= right
                assert beside or to_y <= top or y >= bottom


@settings(max_examples=examples(20))
@given(graphs())
def test_the_same_graph_gives_the_same_layout(graph: tuple[int, list[Edge]]) -> None:
    assert layered_layout(*graph) == layered_layout(*graph)


def test_a_chain_is_straight() -> None:
    layout = layered_layout(5, [(i, i + 1) for i in range(4)])
    assert len({x for x, _ in layout.corners}) == 1


def test_crossings_that_can_be_avoided_are() -> None:
    # Two chains whose nodes are numbered crosswise.
    layout = layered_layout(6, [(0, 3), (1, 2), (3, 4), (2, 5)])
    left = [layout.corners[i][0] < layout.corners[j][0] for i, j in ((0, 1), (3, 2), (4, 5))]
    assert len(set(left)) == 1


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="cycle"):
        layered_layout(2, [(0, 1), (1, 0)])


@settings(max_examples=examples(50))
@given(st.text(max_size=60), st.floats(0, 300), st.floats(6, 20))
def test_fitted_text_fits(text: str, width: float, size: float) -> None:
    found = fitted(text, width, size)
    assert found == "" or text_width(found, size) <= width
    if text_width(text, size) <= width:
        assert found == text


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Up to eight components on three servers, each of which makes two tensors of those before."""
    lines, made, read = [], ["t0"], set()
    for index in range(draw(st.integers(1, 8))):
        reads = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
        makes = [f"t{2 * index + 1}", f"t{2 * index + 2}"]
        lines.append(f"{draw(st.sampled_from('abc'))}: {' '.join(reads)} -> {' '.join(makes)}")
        made += makes
        read.update(reads)
    outputs = [tensor for tensor in made[1:] if tensor not in read]
    if "t0" not in read:
        lines[0] = lines[0].replace(": ", ": t0 ")
    return make_plan(lines, outputs=" ".join(outputs))


def rectangle(text: Text) -> tuple[float, float, float, float]:
    width = text_width(text.text, text.size, bold=text.bold)
    left = text.x - {"start": 0.0, "middle": width / 2, "end": width}[text.anchor]
    return left, text.y - text.size, left + width, text.y + 2


@settings(max_examples=examples(20))
@given(plans())
def test_wires_cross_no_component_and_go_down(plan: Plan) -> None:
    flows = plan_flows(plan, None, {})
    layout = ComponentLayout(plan, flows)
    stops = [INPUTS, OUTPUTS, *(part.id for part in plan.components)]
    placed = [layout.box(stop) for stop in stops]
    for index in range(len(flows)):
        for line in layout.lines(index):
            assert all(a[1] <= b[1] for a, b in pairwise(line))
            for (x, y), (to_x, to_y) in pairwise(line):
                for left, top, width, height in placed:
                    beside = max(x, to_x) <= left or min(x, to_x) >= left + width
                    assert beside or max(y, to_y) <= top or min(y, to_y) >= top + height


@settings(max_examples=examples(20))
@given(plans())
def test_texts_of_components_and_wires_do_not_overlap(plan: Plan) -> None:
    scene = component_graph(plan).scene
    texts = [shape for group in scene.groups for shape in group.shapes if isinstance(shape, Text)]
    found = [rectangle(text) for text in texts]
    for index, a in enumerate(found):
        assert a[0] >= 0
        assert a[2] <= scene.width
        for b in found[index + 1 :]:
            assert max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3]) >= 0


@settings(max_examples=examples(20))
@given(plans())
def test_no_two_wires_run_along_each_other(plan: Plan) -> None:
    scene = component_graph(plan).scene
    pieces: list[tuple[int, float, float, float]] = []  # group, x, from y, to y of upright pieces
    for index, group in enumerate(scene.groups):
        for line in group.shapes:
            if isinstance(line, Line):
                pieces += [(index, x, y, to_y) for (x, y), (to_x, to_y) in pairwise(line.points)
                           if x == to_x]  # fmt: skip
    for place, (group_a, x, top, bottom) in enumerate(pieces):
        for group_b, other_x, other_top, other_bottom in pieces[place + 1 :]:
            if group_a != group_b and abs(x - other_x) < 4:
                assert bottom <= other_top or other_bottom <= top
