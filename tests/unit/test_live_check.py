"""With which plan a router's answer is compared, where Triton can't say which has answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tritier.documents import Tolerance
from tritier.errors import CheckFailed, ServerError
from tritier.workflow import live

EXACT, NOISY, OTHER = "aaaaaaaa", "bbbbbbbb", "cccccccc"
ANSWERS = {EXACT: 1.0, NOISY: 7.0, OTHER: 9.0}


def _checked(monkeypatch: pytest.MonkeyPatch, answer: float, **said: str) -> live.LiveCheck:
    """A check of plans that answer 1, 7 and 9, with a router that asks the first two and has
    answered `answer`."""
    outputs = {"y": np.full(2, answer, np.float32)}
    monkeypatch.setattr(live, "ask", lambda *_: (outputs, said))
    monkeypatch.setattr(live, "connect", lambda _: SimpleNamespace(close=lambda: None))
    tolerance = Tolerance(optimisation="all", absolute=0.0, relative=0.0, reason="")
    check: Any = live.LiveCheck.__new__(live.LiveCheck)
    check._inputs = ({},)
    check._expected = {
        key: live._Expected(({"y": np.full(2, value, np.float32)},), tolerance, {})
        for key, value in ANSWERS.items()
    }
    check._of_router = (NOISY, EXACT)
    found: live.LiveCheck = check
    return found


@pytest.mark.parametrize("answer", [ANSWERS[NOISY], ANSWERS[EXACT]])
def test_any_plan_of_the_default_class_may_answer(
    monkeypatch: pytest.MonkeyPatch, answer: float
) -> None:
    _checked(monkeypatch, answer)("m", None, "url")


def test_no_other_plan_may(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckFailed, match=f"plan {NOISY}.* is 2 from"):
        _checked(monkeypatch, ANSWERS[OTHER])("m", None, "url")


def test_a_plan_that_is_asked_by_name_or_named_must_be_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _checked(monkeypatch, ANSWERS[OTHER])("m__c", OTHER, "url")
    with pytest.raises(CheckFailed, match=f"plan {EXACT}"):
        _checked(monkeypatch, ANSWERS[NOISY])("m__a", EXACT, "url")
    with pytest.raises(CheckFailed, match=f"plan {EXACT}"):
        _checked(monkeypatch, ANSWERS[NOISY], tritier_plan=EXACT)("m", None, "url")
    with pytest.raises(ServerError, match="deadbeef, which is not in this folder"):
        _checked(monkeypatch, ANSWERS[NOISY], tritier_plan="deadbeef")("m", None, "url")
