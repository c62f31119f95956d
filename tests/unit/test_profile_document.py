"""The model profile as a document, and what is computed from it alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.models import DIAMOND, load
from tritier.documents import ModelProfile, TensorProfile, activation_peak_bytes
from tritier.errors import InputError
from tritier.graph import profile_model


def profiled(folder: Path, text: str, **options: Any) -> ModelProfile:
    """Profile of a small model."""
    return profile_model(load(folder, text), **options)


# -- the peak of activations ----------------------------------------------------------------------


def flow(*tensors: tuple[str, int | None, str, str]) -> ModelProfile:
    """A profile of layers a, b, c, d from rows (name, bytes, source, consumers); R: receiver."""
    names = {"R": "receiver"}
    rows = [
        TensorProfile(
            name=name,
            bytes=size,
            source=source,
            consumers=tuple(names.get(letter, letter) for letter in consumers),
        ).model_dump()
        for name, size, source, consumers in tensors
    ]
    layer = {"op_type": "Any", "weight_bytes": 0}
    return ModelProfile.from_data(
        {
            "model": {"name": "m", "sha256": "0" * 64},
            "layers": [{"name": name, **layer} for name in "abcd"],
            "tensors": rows,
            "totals": {
                "known_flops": 0, "weight_bytes": 0, "layers": 4, "constant_nodes": 0,
                "dropped_nodes": 0,
            },
        }
    )  # fmt: skip


CHAIN = (
    ("x", 1, "generator", "a"), ("t", 10, "a", "b"), ("u", 100, "b", "c"), ("v", 1000, "c", "d"),
    ("y", 5, "d", "R"),
)  # fmt: skip
SKIP = (
    ("x", 1, "generator", "a"), ("t", 10, "a", "bd"), ("u", 100, "b", "c"), ("v", 1000, "c", "d"),
    ("y", 5, "d", "R"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("tensors", "layers", "expected"),
    [
        pytest.param(CHAIN, "abcd", 1100, id="a chain needs input and output of one layer"),
        pytest.param(CHAIN, "dcba", 1100, id="the order of the set does not matter"),
        pytest.param(CHAIN, "ab", 110, id="x is gone when u is made"),
        pytest.param(CHAIN, "a", 11, id="one layer: its input and its output"),
        pytest.param(CHAIN, "d", 1005, id="its input is another's output"),
        pytest.param(CHAIN, "", 0, id="nothing runs"),
        pytest.param(CHAIN, "ac", 1110, id="t waits for its reader outside, u for its turn"),
        pytest.param(SKIP, "abcd", 1110, id="t lives over the branch"),
        pytest.param(SKIP, "abc", 1110, id="t is needed outside, so it lives to the end"),
        pytest.param(SKIP, "bc", 1100, id="an input lives to its last use in the set only"),
        pytest.param(SKIP, "cd", 1110, id="an input lives from the start"),
        pytest.param(
            [("x", 1, "generator", "ad"), ("t", 10, "a", "bR"), ("u", 100, "b", "cd"),
             ("v", 1000, "c", "d"), ("y", 5, "d", "R")],
            "abcd", 1 + 10 + 100 + 1000 + 5, id="an output that is also read lives to the end",
        ),
        pytest.param(
            [("x", 1, "generator", "a"), ("lost", 500, "a", ""), ("t", 10, "a", "b"),
             ("u", 100, "b", "cd"), ("v", 20, "c", "d"), ("y", 5, "d", "R")],
            "abcd", 511, id="what nobody reads lives while it is made",
        ),
        pytest.param(
            [("x", 1, "generator", "a"), ("t", None, "a", "b"), ("u", 100, "b", "c"),
             ("v", 1000, "c", "d"), ("y", 5, "d", "R")],
            "abc", None, id="an unknown size gives no number",
        ),
        pytest.param(
            [("x", 1, "generator", "a"), ("t", None, "a", "b"), ("u", 100, "b", "c"),
             ("v", 1000, "c", "d"), ("y", 5, "d", "R")],
            "cd", 1100, id="an unknown size elsewhere does not matter",
        ),
    ],
)  # fmt: skip
def test_peak(
    tensors: list[tuple[str, int | None, str, str]], layers: str, expected: int | None
) -> None:
    assert activation_peak_bytes(flow(*tensors), list(layers)) == expected


def alive_at(profile: ModelProfile, layers: list[str], now: int) -> set[str]:
    """Names of the tensors that a step of a run must hold, by the definition, one by one."""
    found = set()
    for tensor in profile.tensors:
        inside = tensor.source in layers
        uses = [layers.index(name) for name in tensor.consumers if name in layers]
        made = layers.index(tensor.source) if inside else -1
        leaves = inside and any(name not in layers for name in tensor.consumers)
        needed_later = any(use >= now for use in uses) or leaves
        if made == now or (made < now and (inside or uses) and needed_later):
            found.add(tensor.name)
    return found


@given(st.data())
def test_the_peak_is_that_of_a_run_step_by_step(data: st.DataObject) -> None:
    ends = ["generator", "a", "b", "c", "d"]
    rows = []
    for index in range(data.draw(st.integers(1, 7))):
        source = data.draw(st.sampled_from(ends))
        later = "abcdR"[ends.index(source) :]
        readers = data.draw(st.sets(st.sampled_from(later)))
        size = data.draw(st.integers(0, 9))
        rows.append((f"t{index}", size, source, "".join(sorted(readers, key="abcdR".index))))
    profile = flow(*rows)
    layers = sorted(data.draw(st.sets(st.sampled_from("abcd"))))
    sizes = {tensor.name: tensor.bytes or 0 for tensor in profile.tensors}
    held = [sum(sizes[t] for t in alive_at(profile, layers, now)) for now in range(len(layers))]
    assert activation_peak_bytes(profile, layers) == max(held, default=0)


def test_an_unknown_layer_has_no_peak() -> None:
    with pytest.raises(InputError, match="'e' is no layer of the profile"):
        activation_peak_bytes(flow(*CHAIN), ["a", "e"])


# -- the document ---------------------------------------------------------------------------------


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    text = "g (float[N,H] x) => (float[N,H] y) { [relu] y = Relu(x) }"
    for dims in ({}, {"H": 3}):
        profile = profiled(tmp_path, text, dims=dims)
        (tmp_path / "profile.json").write_text(profile.to_json())
        assert ModelProfile.load(tmp_path / "profile.json") == profile


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda d: d["layers"][1].update(name="relu"), "layers: 'relu' stands 2 times"),
        (lambda d: d["tensors"][1].update(name="x"), "tensors: 'x' stands 2 times"),
        (lambda d: d["layers"][0].update(name="receiver"), "'receiver' is the name of an end"),
        (lambda d: d["tensors"][1].update(source="z"), "the source of 'h' is no layer"),
        (lambda d: d["tensors"][1].update(consumers=["z"]), "the consumer 'z' of 'h' is no layer"),
        (lambda d: d["shared_weights"][0].update(layers=["mul", "z"]), "'z' of 'w' is no layer"),
        (lambda d: d["tensors"][1].update(consumers=["mul", "neg"]), "must stand in the order"),
        (lambda d: d["tensors"][1].update(source="sub"), "must stand in the order"),
        (lambda d: d["totals"].update(flops=21), "totals.flops: 21 does not agree"),
        (lambda d: d["layers"][0].pop("flops"), "totals.flops: 20 does not agree"),
        (lambda d: d["totals"].update(known_flops=19), "totals.known_flops: 19 does not agree"),
        (lambda d: d["totals"].update(weight_bytes=32), "totals.weight_bytes: 32 does not agree"),
        (lambda d: d["totals"].update(layers=4), "totals.layers: 4 does not agree"),
        (lambda d: d["layers"][0].update(flops=-1), "layers[0].flops: -1"),
        (lambda d: d["layers"][0].update(flop=1), "unknown key (did you mean 'flops'?)"),
    ],
)
def test_a_wrong_profile_is_refused(tmp_path: Path, change: Any, fault: str) -> None:
    data = json.loads(profiled(tmp_path, DIAMOND).to_json())
    assert ModelProfile.from_data(data)
    change(data)
    with pytest.raises(InputError) as caught:
        ModelProfile.from_data(data)
    assert fault in str(caught.value)
