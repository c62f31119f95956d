"""Right and wrong answers, and whose they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.loads import job, questions
from tritier.bench.locust_answers import Judge
from tritier.bench.locust_job import (
    FOLDER_VARIABLE,
    JOB_NAME,
    Allowed,
    Questions,
    inputs_sha256,
    named_folder,
    read_job,
    write_job,
)
from tritier.divider import Arrays, Comparison
from tritier.errors import InputError

PLANS = ("aaaaaaaa", "bbbbbbbb")


def _answer(value: float) -> Arrays:
    return {"y": np.full(3, value, np.float32)}


def test_an_answer_within_the_tolerance_is_right() -> None:
    asked = questions(PLANS[0])
    assert Judge(job(), asked).difference(PLANS[0], 1, _answer(1.0)) == ""
    assert Judge(job(), asked).difference(PLANS[0], 1, _answer(1.009)) == ""
    fault = Judge(job(), asked).difference(PLANS[0], 1, _answer(1.02))
    assert "output 'y' is 0.02 from" in fault
    assert "rule R4" in fault


def test_slack_is_added_for_noise() -> None:
    plans = {PLANS[0]: Allowed(absolute=0.01, relative=0.0, slack={"y": 0.02})}
    asked = questions(PLANS[0])
    noisy = job().model_copy(update={"plans": plans})
    assert Judge(noisy, asked).difference(PLANS[0], 1, _answer(1.025)) == ""
    assert Judge(job(), asked).difference(PLANS[0], 1, _answer(1.025))


@pytest.mark.parametrize(
    "found",
    [
        {"y": np.ones(4, np.float32)},
        {"y": np.ones(3, np.float64)},
        {"z": np.ones(3, np.float32)},
        {"y": np.ones(3, np.float32), "z": np.ones(3, np.float32)},
        {},
        {"y": np.array([1, 1, np.nan], np.float32)},
    ],
)
def test_other_outputs_shapes_and_types_are_wrong(found: Arrays) -> None:
    assert Judge(job(), questions(PLANS[0])).difference(PLANS[0], 1, found)


def test_a_named_plan_must_answer_as_itself() -> None:
    both, asked = job(PLANS), questions(*PLANS)
    assert Judge(both, asked).judge("", PLANS[1], 0, _answer(1.0)) == (PLANS[1], "")
    plan, fault = Judge(both, asked).judge("", PLANS[0], 0, _answer(1.0))
    assert plan == PLANS[0]
    assert fault


def test_if_nobody_says_which_plan_it_was_any_of_its_class_will_do() -> None:
    asked = questions(*PLANS)
    open_job = job(PLANS, {"low": PLANS, "high": PLANS[:1]})
    assert Judge(open_job, asked).judge("low", "", 0, _answer(0.0)) == ("", "")
    assert Judge(open_job, asked).judge("low", "", 0, _answer(1.0)) == ("", "")
    assert Judge(open_job, asked).judge("high", "", 0, _answer(0.0)) == (PLANS[0], "")
    # The answer of a plan that this class may not have.
    assert Judge(open_job, asked).judge("high", "", 0, _answer(1.0))[1]
    assert "none of its class" in Judge(open_job, asked).judge("high", PLANS[1], 0, _answer(1.0))[1]
    assert (
        "not in the folder" in Judge(open_job, asked).judge("low", "cccccccc", 0, _answer(0.0))[1]
    )


def test_a_folder_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both, asked = job(PLANS), questions(*PLANS)
    write_job(tmp_path / "run", both, asked)
    found, again = read_job(tmp_path / "run")
    assert found == both
    assert inputs_sha256(again.inputs) == inputs_sha256(asked.inputs)
    for plan in PLANS:
        for one, other in zip(asked.answers[plan], again.answers[plan], strict=True):
            np.testing.assert_array_equal(one["y"], other["y"])
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "run"))
    assert named_folder() == tmp_path / "run"
    (tmp_path / "run" / JOB_NAME).unlink()
    with pytest.raises(InputError, match="--prepare"):
        named_folder()


def test_names_of_tensors_may_be_anything(tmp_path: Path) -> None:
    odd = job().model_copy(update={"input_names": ("../a b",), "output_names": ("y/:0",)})
    scalar = Questions(
        [{"../a b": np.float32(k).reshape(())} for k in range(2)],
        {PLANS[0]: [{"y/:0": np.float32(k).reshape(())} for k in range(2)]},
    )
    write_job(tmp_path / "run", odd, scalar)
    _, again = read_job(tmp_path / "run")
    assert again.answers[PLANS[0]][1]["y/:0"].shape == (1,)  # as Triton answers it


def test_texts_can_t_be_compared(tmp_path: Path) -> None:
    texts = Questions([{"x": np.array(["a"], object)}] * 2, questions(PLANS[0]).answers)
    with pytest.raises(InputError, match="texts"):
        write_job(tmp_path / "run", job(), texts)
    assert not (tmp_path / "run").exists()


def test_the_hash_of_inputs_tells_them_apart() -> None:
    one: list[Arrays] = [{"x": np.zeros(4, np.float32)}]
    others: list[list[Arrays]] = [
        [{"x": np.zeros((2, 2), np.float32)}],
        [{"z": np.zeros(4, np.float32)}],
        [{"x": np.zeros(4, np.int32)}],
        [{"x": np.ones(4, np.float32)}],
        one * 2,
    ]
    assert len({inputs_sha256(item) for item in (one, *others)}) == 6


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_the_quick_comparison_says_what_the_full_one_says(dtype: type[np.generic]) -> None:
    """At the edge of what is allowed, with infinities and NaN, many times."""
    draw = np.random.default_rng(0)
    plans = {PLANS[0]: Allowed(absolute=1e-3, relative=1e-3, slack={"y": 1e-3})}
    outcomes = set()
    for _ in range(300):
        right = draw.normal(0, 10, 8).astype(dtype)
        right[draw.random(8) < 0.1] = draw.choice([np.inf, -np.inf, np.nan, 0.0])
        allowed = 2e-3 + 1e-3 * np.abs(np.nan_to_num(right.astype(float)))
        off = draw.choice([0.0, 0.5, 1 - 1e-7, 1 + 1e-7, 1.5]) * draw.choice([-1, 1], 8)
        found = (right.astype(float) + off * allowed).astype(dtype)
        found[draw.random(8) < 0.03] = np.nan
        asked = Questions([{"x": right}], {PLANS[0]: [{"y": right}]})
        judge = Judge(job().model_copy(update={"plans": plans}), asked)
        quick = judge._is_clearly_right(PLANS[0], 0, {"y": found})
        fault = judge.difference(PLANS[0], 0, {"y": found})
        full = Comparison(1e-3, 1e-3)
        full.add({"y": right}, {"y": found})
        is_right = full.differences()[0].excess <= 1e-3
        assert (fault == "") == is_right
        assert is_right or not quick
        outcomes.add((is_right, quick))
    assert outcomes >= {(True, False), (False, False)}
    assert dtype == np.float16 or (True, True) in outcomes
