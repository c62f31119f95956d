"""How many users there are at what time of a load test."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.load import LoadShape
from tritier.errors import UsageError

MAX_USERS = 100_000
# A ramp is walked in at most so many levels: each needs time to be measured.
_RAMP_LEVELS = 20
# A spike lasts this share of the time, in its middle.
_SPIKE_SHARE = 0.2
# What is left out at the start of a level, while users come or go.
_SETTLE_SHARE = 0.1
_SETTLE_LONGEST_S = 1.0
_RANGE = re.compile(r"(\d+):(\d+)(?::(\d+))?")
_USERS_HELP = "allowed is a number, LOW:HIGH, LOW:HIGH:STEP or a list like 1,3,5"


class Level(Document):
    """So many users from one time to another, counted from the start of the test."""

    start_s: float = Field(ge=0)
    end_s: float = Field(gt=0)
    users: int = Field(ge=1)

    @property
    def settled_s(self) -> float:
        """When the level counts from."""
        return self.start_s + min(_SETTLE_LONGEST_S, _SETTLE_SHARE * (self.end_s - self.start_s))


def parse_users(text: str) -> tuple[int, ...]:
    """Numbers of users that `--users` names; LOW:HIGH without a step doubles from one to the next,
    and HIGH is always the last.

    Raises UsageError.
    """
    cleaned = text.replace(" ", "")
    if match := _RANGE.fullmatch(cleaned):
        low, high, step = int(match[1]), int(match[2]), int(match[3]) if match[3] else None
        found = _doubled(low, high) if step is None else _stepped(low, high, step)
    elif all(part.isdecimal() for part in cleaned.split(",")):
        found = tuple(int(part) for part in cleaned.split(","))
    else:
        found = ()
    if not found or min(found) < 1 or max(found) > MAX_USERS:
        raise UsageError(f"--users {text}: {_USERS_HELP}, each from 1 to {MAX_USERS}")
    return found


def _doubled(low: int, high: int) -> tuple[int, ...]:
    if low < 1 or low > high:
        return ()
    powers = itertools.takewhile(lambda n: n < high, (low * 2**k for k in itertools.count()))
    return (*powers, high)


def _stepped(low: int, high: int, step: int) -> tuple[int, ...]:
    return (*range(low, min(high, MAX_USERS), step), high) if step and low <= high else ()


def levels_of(shape: LoadShape, users: Sequence[int], duration_s: float) -> tuple[Level, ...]:
    """The levels of a shape, one after the other without gaps, over the whole time.

    constant: the only number. steps: each number for the same time. spike: the first number, the
    last one for a fifth of the time in the middle, the first again. ramp: from the first to the
    last number evenly. Raises UsageError for numbers that the shape can't use.
    """
    counts, shares = _parts(shape, tuple(users))
    ends = [duration_s * share for share in itertools.accumulate(shares)]
    ends[-1] = duration_s
    starts = [0.0, *ends[:-1]]
    return tuple(
        Level(start_s=start, end_s=end, users=count)
        for start, end, count in zip(starts, ends, counts, strict=True)
    )


def _parts(shape: LoadShape, users: tuple[int, ...]) -> tuple[tuple[int, ...], list[float]]:
    """Numbers of users, and the share of the time that each has."""
    low, high = users[0], users[-1]
    if shape == "constant":
        if len(users) != 1:
            raise UsageError("--shape constant has one number of users: give --users N")
        return users, [1.0]
    if len(users) < 2 or (shape != "steps" and low == high):
        raise UsageError(f"--shape {shape} needs different numbers of users: give --users LOW:HIGH")
    if shape == "steps":
        return users, [1 / len(users)] * len(users)
    if shape == "spike":
        calm = (1 - _SPIKE_SHARE) / 2
        return (low, high, low), [calm, _SPIKE_SHARE, calm]
    count = min(abs(high - low) + 1, _RAMP_LEVELS)
    ramp = tuple(low + round((high - low) * k / (count - 1)) for k in range(count))
    return ramp, [1 / count] * count


def level_at(levels: Sequence[Level], time_s: float) -> Level | None:
    """The level of that time; None after the last."""
    return next((level for level in levels if time_s < level.end_s), None)


def cut(levels: Sequence[Level], end_s: float) -> tuple[Level, ...]:
    """The levels of a test that ended at that time, perhaps before its own."""
    return tuple(
        level.model_copy(update={"end_s": min(level.end_s, end_s)})
        for level in levels
        if level.start_s < end_s
    )
