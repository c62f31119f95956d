"""Metrics of noise: the built-in ones on arrays of a few numbers, and functions of the user."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritier.calibration import Arrays
from tritier.errors import InputError
from tritier.noise import METRICS, built_in, load_metric

FLOAT = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
MOVED = np.array([[3.0, 1.0], [0.0, 1.0]], np.float32)
ZERO = np.zeros((2, 2), np.float32)
FUNCTIONS = """
import numpy as np

def lost(before, after, number):
    return float(np.abs(before["y"] - after["y"]).sum()) + number

def small(before, after, number):
    return np.float32(0.5)

def parts(before, after, number):
    return {"hits": (np.int64(2), 3), "all": np.array([4.0])}

parts.combine = lambda scores: np.float32(sum(s["hits"][0] + s["all"][0] for s in scores))
parts.power = 1

def nothing(before, after, number):
    pass

def several(before, after, number):
    return [1.0, 2.0]

def thing(before, after, number):
    return object()

thing.combine = len

def fails(before, after, number):
    raise KeyError(f"label {number}")

def result(before, after, number):
    return number

def combine(scores):
    if scores == ["raise"]:
        raise ZeroDivisionError("by zero")
    return scores[0]

result.combine = combine

def cubic(before, after, number):
    return 1.0

cubic.power = 3

def words(before, after, number):
    return 1.0

words.combine = "mean"
value = 3
"""


def score(name: str, before: Any, after: Any) -> float:
    """What a built-in metric gives for one input."""
    metric = built_in(name)
    scores = metric.of_input({"y": np.array(before)}, {"y": np.array(after)}, 0)
    assert scores.keys() == {"y"}
    return metric.combine([scores["y"]])


def user(folder: Path, name: str, text: str = FUNCTIONS) -> str:
    path = folder / "own.py"
    path.write_text(text, encoding="utf-8")
    return f"{path}:{name}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean_abs", (3 + 1) / 4),
        ("max_abs", 3.0),
        ("snr", math.sqrt((9 + 1) / 25)),
        ("cosine", 1 - (9 + 4) / math.sqrt(25 * (9 + 1 + 1))),
    ],
)
def test_built_in_metrics_by_hand(name: str, expected: float) -> None:
    assert score(name, FLOAT, MOVED) == pytest.approx(expected, rel=1e-6)
    assert score(name, FLOAT, FLOAT) == 0.0
    assert score(name, ZERO, ZERO) == 0.0
    assert score(name, np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)) == 0.0


def test_a_signal_of_zeros() -> None:
    """No share of it can be told; all of its direction is lost."""
    assert score("snr", ZERO, MOVED) == math.inf
    assert score("cosine", ZERO, MOVED) == 1.0
    assert score("cosine", MOVED, -MOVED) == pytest.approx(2.0)
    assert score("mean_abs", ZERO, MOVED) == pytest.approx(5 / 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float64])
def test_types_of_outputs(dtype: type[np.generic]) -> None:
    """The difference of unsigned integers does not wrap around."""
    before, after = np.array([1, 200], dtype), np.array([2, 100], dtype)
    assert score("mean_abs", before, after) == 50.5
    assert score("max_abs", before, after) == 100.0
    assert score("snr", before, after) == pytest.approx(math.sqrt(10001 / 40001))


def test_truth_values() -> None:
    assert score("mean_abs", [True, False], [False, False]) == 0.5
    assert score("max_abs", [True, False], [True, False]) == 0.0


def test_mean_over_inputs_and_power() -> None:
    assert {name: built_in(name).power for name in METRICS} == {
        "mean_abs": 2, "max_abs": 2, "snr": 2, "cosine": 1,
    }  # fmt: skip
    assert built_in("snr").combine([1.0, 2.0, 6.0]) == 3.0
    assert len({built_in(name).identity for name in METRICS}) == 4


def test_outputs_that_can_t_be_compared() -> None:
    with pytest.raises(
        InputError, match=r"'y' has the shape \[2\] .* \[3\] without: .*--model-out"
    ):
        score("mean_abs", [1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(InputError, match=r"'y' holds object, no numbers: .*--model-output"):
        score("mean_abs", np.array(["a"], object), np.array(["b"], object))


def test_unknown_metric() -> None:
    with pytest.raises(InputError, match=r"'cosin'.*did you mean 'cosine'.*FILE\.py:NAME"):
        load_metric("cosin")
    assert load_metric("max_abs").name == "max_abs"


# Functions of the user.


def test_function_that_returns_a_number(tmp_path: Path) -> None:
    metric = load_metric(user(tmp_path, "lost"))
    before: Arrays = {"y": FLOAT}
    scores = [metric.of_input(before, {"y": MOVED}, number)["lost"] for number in (0, 3)]
    assert scores == [4.0, 7.0]
    assert metric.combine(scores) == 5.5
    assert (metric.power, metric.by_output) == (2, False)
    small = load_metric(user(tmp_path, "small")).of_input(before, before, 0)["small"]
    assert (small, type(small)) == (0.5, float)


def test_function_with_combine_and_power(tmp_path: Path) -> None:
    """Scores are the same whether they come from the function or from where they were stored."""
    metric = load_metric(user(tmp_path, "parts"))
    found = metric.of_input({}, {}, 0)
    assert found == {"parts": {"hits": [2, 3], "all": [4.0]}}
    assert json.loads(json.dumps(found)) == found
    noise = metric.combine([found["parts"], found["parts"]])
    assert (noise, type(noise), metric.power) == (12.0, float, 1)


def test_a_changed_file_is_another_metric(tmp_path: Path) -> None:
    first = load_metric(user(tmp_path, "lost")).identity
    assert load_metric(user(tmp_path, "small")).identity != first
    assert load_metric(user(tmp_path, "lost")).identity == first
    assert load_metric(user(tmp_path, "lost", FUNCTIONS + "\n# more")).identity != first


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fails", r"own\.py:fails fails on input 7: KeyError: 'label 7'"),
        ("nothing", "returns nothing: without a function `combine` it returns a number"),
        ("several", "returns a value of type list: without a function `combine`"),
        ("thing", "returns what can't be stored .*object.*: numbers, texts, lists and mappings"),
    ],
)
def test_what_a_function_does_wrong(tmp_path: Path, name: str, text: str) -> None:
    metric = load_metric(user(tmp_path, name))
    with pytest.raises(InputError, match=text):
        metric.of_input({"y": FLOAT}, {"y": MOVED}, 7)


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        (["raise"], "`combine` fails: ZeroDivisionError: by zero"),
        ([math.nan], "gives nan for all inputs: a finite number is needed"),
        ([math.inf], "gives inf for all inputs"),
        ([-1], "gives -1 for all inputs: .* 0 if nothing changed"),
        ([None], "gives nothing for all inputs: a number is needed"),
        (["x"], "gives a value of type str for all inputs"),
    ],
)
def test_what_combine_does_wrong(tmp_path: Path, scores: list[Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        load_metric(user(tmp_path, "result")).combine(scores)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cubic", "cubic.power is 3; allowed are 1 and 2"),
        ("words", "words.combine is 'mean': a function is needed"),
        ("value", "own.py: has no function 'value'"),
        ("missing", "own.py: has no function 'missing'"),
    ],
)
def test_functions_that_can_t_be_used(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        load_metric(user(tmp_path, name))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("1 / 0", "can't be run: ZeroDivisionError: division by zero"),
        ("def (", "can't be run: SyntaxError"),
        ("import sys; sys.exit(3)", "can't be run: SystemExit: 3"),
    ],
)
def test_files_that_can_t_be_run(tmp_path: Path, code: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        load_metric(user(tmp_path, "lost", code))


def test_no_file(tmp_path: Path) -> None:
    for place in (tmp_path / "none.py", tmp_path):
        with pytest.raises(InputError, match=r"is no Python file: give a metric as FILE\.py:NAME"):
            load_metric(f"{place}:lost")


def test_a_file_may_define_dataclasses(tmp_path: Path) -> None:
    """They look their module up by its name."""
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Item:\n    x: int\ndef f(a, b, n):\n    return Item(n).x\n"
    )
    assert load_metric(user(tmp_path, "f", code)).of_input({}, {}, 4) == {"f": 4.0}
