"""How many users there are when."""

from __future__ import annotations

import pytest

from tritier.bench.locust_shapes import (
    Level,
    cut,
    level_at,
    levels_of,
    parse_users,
)
from tritier.errors import UsageError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("4", (4,)),
        ("1:16", (1, 2, 4, 8, 16)),
        ("1:12", (1, 2, 4, 8, 12)),
        ("3:3", (3,)),
        ("1:9:2", (1, 3, 5, 7, 9)),
        ("1:10:2", (1, 3, 5, 7, 9, 10)),
        ("1, 8, 3", (1, 8, 3)),
    ],
)
def test_numbers_of_users(text: str, found: tuple[int, ...]) -> None:
    assert parse_users(text) == found


@pytest.mark.parametrize(
    "text", ["", "0", "0:4", "4:1", "1:4:0", "-1", "1.5", "a", "1:2:3:4", "1,,2", "200000", "²"]
)
def test_bad_numbers_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--users"):
        parse_users(text)


def _told(levels: tuple[Level, ...]) -> list[tuple[float, float, int]]:
    return [(level.start_s, level.end_s, level.users) for level in levels]


def test_steps_share_the_time() -> None:
    assert _told(levels_of("steps", (1, 2, 4), 30)) == [(0, 10, 1), (10, 20, 2), (20, 30, 4)]


def test_a_spike_is_a_fifth_in_the_middle() -> None:
    levels = levels_of("spike", (1, 9), 10)
    assert [level.users for level in levels] == [1, 9, 1]
    assert levels[1].start_s == pytest.approx(4)
    assert levels[1].end_s == pytest.approx(6)


def test_a_ramp_takes_every_number_if_they_are_few() -> None:
    assert [level.users for level in levels_of("ramp", (1, 4), 8)] == [1, 2, 3, 4]
    assert [level.users for level in levels_of("ramp", (4, 1), 8)] == [4, 3, 2, 1]
    many = [level.users for level in levels_of("ramp", (1, 1000), 60)]
    assert (len(many), many[0], many[-1]) == (20, 1, 1000)


@pytest.mark.parametrize(
    ("shape", "users"),
    [("constant", (1, 2)), ("steps", (3,)), ("spike", (2, 2)), ("ramp", (5,)), ("ramp", (5, 5))],
)
def test_numbers_that_a_shape_can_t_use(shape: str, users: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=f"--shape {shape}"):
        levels_of(shape, users, 10)  # type: ignore[arg-type]


def test_the_start_of_a_level_settles() -> None:
    assert Level(start_s=10, end_s=15, users=1).settled_s == 10.5
    assert Level(start_s=10, end_s=100, users=1).settled_s == 11


def test_a_test_that_ended_early_has_fewer_levels() -> None:
    levels = levels_of("steps", (1, 2, 3), 30)
    assert _told(cut(levels, 15)) == [(0, 10, 1), (10, 15, 2)]
    assert cut(levels, 30) == levels
    assert cut(levels, 0) == ()


def test_the_level_of_a_time() -> None:
    levels = levels_of("steps", (1, 2), 10)
    assert [getattr(level_at(levels, t), "users", None) for t in (0, 4.9, 5, 9.9, 10)] == [
        1, 1, 2, 2, None,
    ]  # fmt: skip
