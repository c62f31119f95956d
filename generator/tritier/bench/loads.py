"""Which loads are measured: ranges, windows and the search under a limit. Nothing here measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from tritier.errors import UsageError

# A window of fewer rounds than this says little about a concurrency.
_ROUNDS = 5
# A window of requests that come in time lasts at least this long.
_SECONDS = 2.0
_GROWTH = 2
_MAX_LOADS = 1000


def parse_loads(text: str, option: str, whole: bool) -> tuple[float, ...]:
    """`1:16`, `1:16:5` (first, last, step; both ends are measured), `1,2,8`, or a mix, ascending
    and each once. With `whole` only whole numbers are allowed.

    Raises UsageError.
    """
    found: set[float] = set()
    for part in text.split(","):
        try:
            found |= set(_part(part.strip(), whole))
        except ValueError as error:
            kind = "whole numbers from 1" if whole else "numbers above 0"
            raise UsageError(
                f"{option} {text}: '{part}' {error}; allowed are FIRST:LAST, FIRST:LAST:STEP and "
                f"lists A,B,C of {kind}"
            ) from None
    return tuple(sorted(found))


def _part(text: str, whole: bool) -> Sequence[float]:
    fields = text.split(":")
    if len(fields) > 3:
        raise ValueError("has too many parts")
    numbers = [_number(field, whole) for field in fields]
    if len(numbers) == 1:
        return numbers
    first, last, step = (*numbers, 1.0)[:3]
    if last < first:
        raise ValueError("ends before it starts")
    count = int((last - first) / step + 1e-9)
    if count > _MAX_LOADS:
        raise ValueError(f"has over {_MAX_LOADS} loads")
    # The last is measured too where the steps don't meet it: a range says where one wants to get.
    return [*(round(first + index * step, 9) for index in range(count + 1)), last]


def _number(text: str, whole: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is no number") from None
    if not 0 < value < float("inf") or (whole and value != int(value)):
        raise ValueError("is out of range")
    return value


def first_window(requests: int, offered: float, closed: bool) -> int:
    """Least requests of a window at a load: what was asked for, but some rounds of all that are in
    flight (closed), or some seconds of what comes in time."""
    return max(requests, round(offered * (_ROUNDS if closed else _SECONDS)))


def most_window(requests: int, most: int, window: int) -> int:
    """Up to which least requests of a window grow: `most`, but four times the first window where
    the load has made that larger than the `requests` that were asked for, perhaps over `most`."""
    return max(most, window * (_GROWTH**2 if window > requests else 1))


def next_window(window: int, most: int) -> int | None:
    """Least requests of the windows with which an unstable load is tried again; None to give up."""
    return None if window >= most else min(window * _GROWTH, most)


def spread_percent(values: Sequence[float]) -> float:
    """How far the values of windows are apart: largest over smallest, less one."""
    low, high = min(values), max(values)
    return (high / low - 1) * 100 if low > 0 else float("inf") if high > 0 else 0.0


def grid(loads: Sequence[float]) -> tuple[float, ...]:
    """What a search may try: the loads themselves, ascending."""
    return tuple(sorted(set(loads)))


def smallest_step(loads: Sequence[float]) -> float:
    """The smallest distance of two loads; the load itself if there is one."""
    ordered = grid(loads)
    return min((b - a for a, b in pairwise(ordered)), default=ordered[0])


def highest_that_keeps(count: int, keeps: Callable[[int], bool]) -> int | None:
    """The highest index below `count` that keeps a limit which lower ones keep too; None if the
    first breaks it. Both ends are tried, then halves: at most 2 + log2(count) tries."""
    if not keeps(0):
        return None
    if count == 1:
        return 0
    if keeps(count - 1):
        return count - 1
    good, bad = 0, count - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if keeps(middle):
            good = middle
        else:
            bad = middle
    return good
