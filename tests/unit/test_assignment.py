"""From an assignment with patterns to one server per layer."""

from __future__ import annotations

import pytest

from tritier.documents import Assignment
from tritier.errors import InputError
from tritier.planner import resolve_assignment

LAYERS = ["stem/conv", "stem/relu", "head/conv", "head/[0]", "head/*"]
SERVERS = ["cam", "edge", "cloud"]


def resolve(layers: dict[str, str], default: str | None = None) -> dict[str, str]:
    """Servers of the layers above; there is one constant node, `weights`."""
    assignment = Assignment(layers=layers, default=default)
    return resolve_assignment(assignment, LAYERS, SERVERS, ["weights"])


@pytest.mark.parametrize(
    ("layers", "default", "expected"),
    [
        pytest.param({}, "cam", ["cam"] * 5, id="default for all"),
        pytest.param({"*": "edge"}, "cam", ["edge"] * 5, id="a pattern goes before the default"),
        pytest.param(
            {"stem/*": "edge", "*": "cloud"},
            None,
            ["edge", "edge", "cloud", "cloud", "cloud"],
            id="an earlier pattern goes before a later one",
        ),
        pytest.param(
            {"*": "cloud", "stem/*": "edge"},
            None,
            ["cloud"] * 5,
            id="... and a later one never gets what an earlier one took",
        ),
        pytest.param(
            {"*": "cloud", "stem/relu": "edge"},
            None,
            ["cloud", "edge", "cloud", "cloud", "cloud"],
            id="an exact name goes before every pattern, wherever it stands",
        ),
        pytest.param(
            {"head/*": "edge", "head/[0]": "cloud"},
            "cam",
            ["cam", "cam", "cam", "cloud", "edge"],
            id="a layer's own name with * or [ is that layer alone",
        ),
        pytest.param(
            {"*/con?": "edge"},
            "cam",
            ["edge", "cam", "edge", "cam", "cam"],
            id="a question mark is one letter",
        ),
        pytest.param(
            {"[sh]*/[cr]*": "edge"},
            "cam",
            ["edge", "edge", "edge", "cam", "cam"],
            id="brackets are a choice of letters",
        ),
        pytest.param({"weights": "edge"}, "cam", ["cam"] * 5, id="a constant may be named"),
        pytest.param({"weig*": "edge"}, "cam", ["cam"] * 5, id="... and matched"),
    ],
)
def test_resolution(layers: dict[str, str], default: str | None, expected: list[str]) -> None:
    assert resolve(layers, default) == dict(zip(LAYERS, expected, strict=True))


@pytest.mark.parametrize(
    ("layers", "default", "fault"),
    [
        (
            {"stem/cnov": "edge"},
            "cam",
            "layers: unknown layer 'stem/cnov' (did you mean 'stem/conv'?); the model has 5 "
            "layers, from 'stem/conv' to 'head/*'",
        ),
        (
            {"STEM/CONV": "edge"},
            "cam",
            "layers: unknown layer 'STEM/CONV'; the model has 5 layers, from 'stem/conv' to "
            "'head/*'",
        ),
        ({"neck/*": "edge"}, "cam", "layers: the pattern 'neck/*' matches no layer"),
        (
            {"*": "egde"},
            None,
            "layers['*']: unknown server 'egde' (did you mean 'edge'?); known are cam, edge, cloud",
        ),
        ({"*": "edge"}, "", "default: unknown server ''; known are cam, edge, cloud"),
        (
            {"stem/conv": "edge", "head/*": "edge"},
            None,
            "no server for 'stem/relu', 'head/conv', 'head/[0]': name them or give a `default` "
            "server",
        ),
    ],
)
def test_a_fault_is_told(layers: dict[str, str], default: str | None, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(layers, default)
    assert caught.value.faults == (fault,)


def test_all_faults_are_told_together() -> None:
    with pytest.raises(InputError) as caught:
        resolve({"neck/*": "mars", "head/conf": "edge"})
    assert len(caught.value.faults) == 4  # the server, the pattern, the layer, what is left over


def test_only_the_first_of_many_layers_left_over_are_named() -> None:
    layers = [f"l{index}" for index in range(8)]
    with pytest.raises(InputError, match="'l0', 'l1', 'l2', 'l3', 'l4' and 3 more: name them"):
        resolve_assignment(Assignment(), layers, SERVERS)
