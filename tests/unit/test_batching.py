"""Whether requests may be batched: only where a trial shows that a batch equals single runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.configs import read_configs
from tests.helpers.models import MEAN_SHIFT, Split, assert_same_bits, split
from tests.helpers.simulator import Simulation
from tritier.repository import GenerateOptions

CHAIN = "g (float[N,4] x) => (float[N,4] y) { [a] h = Relu(x) [b] y = Neg(h) }"


def cut(folder: Path, text: str, options: GenerateOptions | None = None) -> Split:
    """Layers that start with a on the entry, with b on b."""
    return split(folder, text, {"a*": "a", "b*": "b"}, options=options)


def test_what_keeps_its_rows_apart_is_batched(tmp_path: Path) -> None:
    batching = cut(tmp_path, CHAIN).batching
    assert batching.max_batch_size == 16
    assert batching.reason == "a batch of 3 equals single runs bit for bit"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            "g (float[1,4] x) => (float[1,4] y) { [a] h = Relu(x) [b] y = Neg(h) }",
            "input 'x' has the fixed leading size 1",
            id="a fixed size of 1",
        ),
        pytest.param(
            "g (float[?,4] x) => (float[?,4] y) { [a] h = Relu(x) [b] y = Neg(h) }",
            "input 'x' has an unknown leading size",
            id="an unknown size",
        ),
        pytest.param(
            "g (float x) => (float y) { [a] h = Relu(x) [b] y = Neg(h) }",
            "input 'x' is a scalar",
            id="a scalar",
        ),
        pytest.param(
            "g (float[N] x) => (float[N] y) { [a] h = Relu(x) [b] y = Neg(h) }",
            "'x' has no dimension besides the batch",
            id="nothing beside the batch",
        ),
        pytest.param(
            "g (float[N,4] x, float[M,4] z) => (float[N,4] y) { [a] h = Relu(z) "
            "[b1] k = ReduceSum<keepdims = 1>(h) [b2] y = Add(x, k) }",
            "the leading size of 'z' is 'M', not 'N'",
            id="two symbols",
        ),
        pytest.param(
            "g (float[N,4] x) => (float[4,N] y) { [a] h = Relu(x) "
            "[b] y = Transpose<perm = [1, 0]>(h) }",
            "the leading size of 'y' is 4, not 'N'",
            id="the batch moves",
        ),
        pytest.param(
            "g (float[N,4] x) => (float[N,4] y) { [a] s = ReduceSum<keepdims = 0>(x) "
            "[b] y = Mul(x, s) }",
            "the leading size of 's' is missing, not 'N'",
            id="a scalar crosses",
        ),
        pytest.param(
            "g (float[N,H] x) => (float[N,H] y) { [a] h = Relu(x) [b] y = Neg(h) }",
            "a batch can't be tried: input 'x' has the symbolic size 'H': give it a number with "
            "--dim H=N",
            id="another symbol that nobody gives a number",
        ),
    ],
)
def test_shapes_that_do_not_fit_a_batch(tmp_path: Path, text: str, reason: str) -> None:
    batching = cut(tmp_path, text).batching
    assert batching.max_batch_size == 0
    assert batching.reason == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            MEAN_SHIFT.replace("[relu]", "[a]").replace("[mean]", "[b1]").replace("[sub]", "[b2]"),
            "a batch of 3 differs from single runs in 'y'",
            id="the mean over the batch is subtracted: all shapes fit",
        ),
        pytest.param(
            "g (float[N,4] x) => (float[N,4] y) { [a] h = Relu(x) [b] y = Softmax<axis = 0>(h) }",
            "a batch of 3 differs from single runs in 'y'",
            id="a softmax over the batch",
        ),
        # The shape hides behind two Negs, which shape inference does not look through.
        pytest.param(
            "g (float[N,4] x) => (float[N,4] y) <int64[2] s = {-1, -4}> "
            "{ k = Neg(s) [a] h = Relu(x) [b] y = Reshape(h, k) }",
            "a batch of 3 or one of its parts fails: ONNX Runtime can't run component c1: ",
            id="a Reshape to batch 1",
        ),
        pytest.param(
            "g (float[N,4] x) => (float[N,4] y) <int64[2] s = {-3, -4}> "
            "{ k = Neg(s) [a] h = Relu(x) [b] y = Reshape(h, k) }",
            "a batch of 3 or one of its parts fails: ONNX Runtime can't run component c1: ",
            id="a Reshape to just the batch of the trial",
        ),
    ],
)
def test_models_that_mix_or_fix_the_batch(tmp_path: Path, text: str, reason: str) -> None:
    batching = cut(tmp_path, text).batching
    assert batching.max_batch_size == 0
    assert batching.reason.startswith(reason)
    assert "\n" not in batching.reason


def test_a_plain_reshape_to_batch_1_is_seen_by_its_shape(tmp_path: Path) -> None:
    text = (
        "g (float[N,4] x) => (float[M,4] y) <int64[2] s = {1, 4}> "
        "{ [a] h = Relu(x) [b] y = Reshape(h, s) }"
    )
    assert cut(tmp_path, text).batching.reason == "the leading size of 'y' is 1, not 'N'"


def test_other_sizes_can_be_given(tmp_path: Path) -> None:
    text = "g (float[N,H] x) => (float[N,H] y) { [a] h = Relu(x) [b] y = Neg(h) }"
    options = GenerateOptions(max_batch_size=4, dims={"H": 5})
    assert cut(tmp_path, text, options).batching.max_batch_size == 4


def test_batching_can_be_switched_off(tmp_path: Path) -> None:
    batching = cut(tmp_path, CHAIN, GenerateOptions(max_batch_size=0)).batching
    assert (batching.max_batch_size, batching.reason) == (0, "batching was switched off")


def test_configs_follow_the_decision(tmp_path: Path) -> None:
    for size in (0, 8):
        configs = read_configs(cut(tmp_path, CHAIN, GenerateOptions(max_batch_size=size)).files)
        for (_, name), config in configs.items():
            batched = config.backend != "python"
            assert config.max_batch_size == (size if batched else 0), name
            dims = [list(tensor.dims) for tensor in (*config.input, *config.output)]
            assert all(d == ([4] if batched and size else [-1, 4]) for d in dims), name
            component = config.backend == "onnxruntime"
            assert config.HasField("dynamic_batching") == (component and size > 0)


def test_batched_requests_pass_the_data_plane(tmp_path: Path) -> None:
    text = """
        g (float[N,4] x) => (float[N,4] y) {
          [a] h = Relu(x) [b] k = Neg(h) [c] l = Abs(k) [d] y = Add(l, h)
        }
    """
    item = split(tmp_path, text, {"a": "b", "b": "c", "c": "b", "d": "a"})
    assert item.batching.max_batch_size == 16
    inputs = {"x": np.arange(-12, 12, dtype=np.float32).reshape(6, 4)}
    whole = item.run_whole(inputs)
    assert_same_bits(whole, Simulation(item.files).infer("a", "m", inputs))
