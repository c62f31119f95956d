"""The generated data plane, run by an interpreter of its configs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.configs import read_configs, unused_tensors
from tests.helpers.models import Split, assert_same_bits, split
from tests.helpers.simulator import Simulation
from tritier.divider import Array
from tritier.repository import GenerateOptions

X = np.array([[1, -2, 3.5, -0.0]], np.float32)


def answers_alike(item: Split, **inputs: Array) -> None:
    """Fail unless the data plane answers as the whole model does, and forgets all tensors."""
    whole = item.run_whole(inputs)
    servers = Simulation(item.files)
    as_sent = {name: np.atleast_1d(array) for name, array in inputs.items()}
    answer = servers.infer("a", "m", as_sent)
    assert_same_bits({name: np.atleast_1d(array) for name, array in whole.items()}, answer)
    assert servers.left_over() == []
    assert unused_tensors(servers.configs) == []


# The plan has puts from the entry and from b, and an ordering after each.
NAMED = """
    g (float[1,4] IN, float[1,4] OTHER) => (float[1,4] OUT) {
      [b1] h = Relu(IN)
      [c] k = Neg(h)
      [b2] l = Add(IN, k)
      [a] OUT = Add(l, OTHER)
    }
"""


@pytest.mark.parametrize(
    ("name", "other", "out"),
    [
        pytest.param("x", "z", "y", id="plain"),
        pytest.param("t1", "t2", "t3", id="like inner tensors"),
        pytest.param("t4", "t0", "t0_", id="swapped with inner tensors"),
        pytest.param("key", "key_", "poison", id="like the key"),
        pytest.param("sent_c0", "sent_in_b", "sent_in", id="like tokens of order"),
        pytest.param("ack_b", "sent", "ack", id="like acknowledgements"),
        pytest.param("images/ä:0", 'a "b"', "c\nd", id="with odd characters"),
    ],
)
def test_an_app_s_names_never_collide(tmp_path: Path, name: str, other: str, out: str) -> None:
    text = NAMED.replace("IN", "in_").replace("OTHER", "other_").replace("OUT", "out_")
    item = split(tmp_path, text, {"b*": "b", "c": "c", "a": "a"})
    assert any("__put_b" in path for path in item.files)
    model = item.model.proto
    renames = {"in_": name, "other_": other, "out_": out}
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, tensor in enumerate(names):
                names[index] = renames.get(tensor, tensor)
    for value in (*model.graph.input, *model.graph.output):
        value.name = renames[value.name]
    item = split(tmp_path, model, {"b*": "b", "c": "c", "a": "a"})
    entry = read_configs(item.files)["a", "m"]
    assert [tensor.name for tensor in entry.input] == [name, other]
    answers_alike(item, **{name: X, other: X + 1})


def test_scalars_travel_as_one_element(tmp_path: Path) -> None:
    text = """
        g (float x, float[1,4] z) => (float y, float[1,4] w) {
          [b1] h = Neg(x)
          [c] k = Abs(h)
          [b2] l = Mul(z, k)
          [a1] y = Add(k, h)
          [a2] w = Add(l, h)
        }
    """
    item = split(tmp_path, text, {"b*": "b", "c": "c", "a*": "a"})
    answers_alike(item, x=np.array(3, np.float32), z=X)


def test_shapes_that_depend_on_the_request_pass(tmp_path: Path) -> None:
    text = """
        g (float[N,M] x) => (float[K,L] y) <int64[1] zero = {0}, int64[1] minus = {-1}> {
          [b1] s = Shape(x)
          [c1] m = Gather(s, minus)
          [b2] t = Concat<axis = 0>(m, minus)
          [c2] y = Reshape(x, t)
        }
    """
    item = split(tmp_path, text, {"b*": "b", "c*": "c"}, options=GenerateOptions())
    for shape in ((1, 1), (3, 4), (2, 7)):
        answers_alike(item, x=np.random.default_rng(0).random(shape).astype(np.float32))


def test_components_that_share_nothing_run_beside_each_other(tmp_path: Path) -> None:
    text = """
        g (float[1,4] x, float[1,4] z) => (float[1,4] y, float[1,4] w) {
          [b] y = Neg(x) [c] w = Abs(z)
        }
    """
    item = split(tmp_path, text, {"b": "b", "c": "c"})
    assert "key" not in {name.rsplit("__", 1)[-1] for _, name in read_configs(item.files)}
    answers_alike(item, x=X, z=X)


def test_models_stand_before_the_ensembles_that_use_them(tmp_path: Path) -> None:
    item = split(tmp_path, NAMED, {"b*": "b", "c": "c", "a": "a"})
    configs = read_configs(item.files)
    seen: set[tuple[str, str]] = set()
    for model in item.manifest.models:
        config = configs[model.server, model.name]
        for step in config.ensemble_scheduling.step:
            assert (model.server, step.model_name) in seen
        seen.add((model.server, model.name))
    assert seen == set(configs)
