"""What a mailbox keeps: everything is bounded, and nothing is left behind."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from tests.helpers.shared_models import load_flat

slots_module: Any = load_flat("slots", "models/mailbox")
Refused = slots_module.Refused
TAKES = {"a": 1, "b": 2}


class Box:
    """A mailbox's slots, and what those who waited got."""

    def __init__(self, **limits: Any) -> None:
        self.given: list[tuple[Any, dict[str, Any]]] = []
        self.failed: list[tuple[Any, str]] = []
        chosen = {"ttl_s": 10.0, "max_bytes": 1000, **limits}
        self.slots = slots_module.Slots(
            TAKES,
            slots_module.Limits(**chosen),
            lambda waiting, arrays: self.given.append((waiting.item, arrays)),
            lambda waiting, reason: self.failed.append((waiting.item, reason)),
        )

    def put(self, key: bytes, now: float = 0.0, **arrays: Any) -> None:
        self.slots.put(key, arrays, now)

    def take(self, key: bytes, *names: str, now: float = 0.0, item: Any = None) -> None:
        self.slots.take(key, list(names), now + 5, now, item)


def floats(count: int) -> Any:
    return np.arange(count, dtype=np.float32)


def test_a_tensor_is_kept_until_all_have_taken_it() -> None:
    box = Box()
    box.put(b"k", b=floats(10))
    assert box.slots.bytes == 40
    box.take(b"k", "b", item=1)
    assert box.slots.bytes == 40
    box.take(b"k", "b", item=2)
    assert (box.slots.bytes, [item for item, _ in box.given]) == (0, [1, 2])


def test_one_take_too_many_waits_in_vain_and_harms_nobody() -> None:
    box = Box()
    for item in (1, 2):
        box.take(b"k", "a", item=item)
    box.put(b"k", a=floats(3))
    assert [item for item, _ in box.given] == [1]
    (late,) = box.slots.overdue(5.0)
    assert (late.item, box.slots.missing(late), box.slots.bytes) == (2, ["a"], 0)


def test_who_waits_gets_the_bytes_without_a_copy() -> None:
    box, array = Box(max_bytes=0), floats(100)
    box.take(b"k", "a", item=1)
    box.put(b"k", a=array)
    assert box.given[0][1]["a"] is array
    assert (box.slots.bytes, box.slots.waiting) == (0, 0)


def test_texts_count_by_their_length() -> None:
    texts = np.array([b"x" * 600, b""], np.object_)
    box = Box()
    box.put(b"k", b=texts)
    assert box.slots.bytes == 616
    with pytest.raises(Refused, match="full: 616 of 1000 bytes are taken, 616 more were put"):
        box.put(b"m", b=texts)
    box.take(b"k", "b")
    box.take(b"k", "b")
    assert box.slots.bytes == 0


def test_what_does_not_fit_leaves_nothing_behind() -> None:
    box = Box()
    with pytest.raises(Refused) as refused:
        box.put(b"k", a=floats(300))
    assert refused.value.is_full
    assert (box.slots.bytes, box.slots.keys) == (0, 0)


def test_no_more_wait_than_are_allowed() -> None:
    box = Box(max_waiting=2)
    box.take(b"1", "a")
    box.take(b"2", "a")
    with pytest.raises(Refused, match="2 wait here and no more are allowed") as refused:
        box.take(b"3", "a")
    assert refused.value.is_full


def test_no_more_keys_than_are_allowed() -> None:
    box = Box(max_keys=2)
    box.put(b"1", a=floats(1))
    box.put(b"2", a=floats(1))
    with pytest.raises(Refused, match="2 keys are known"):
        box.put(b"3", a=floats(1))
    box.put(b"1", b=floats(1))


def test_poisoned_keys_are_bounded_and_so_are_their_texts() -> None:
    box = Box(max_poisoned=3)
    for key in range(10):
        box.slots.poison(bytes([key]), "x" * 100_000, 0.0)
    assert box.slots.keys == 3
    box.put(bytes([9]), a=floats(5))  # taken, and thrown away
    with pytest.raises(Refused, match="a tensor will not come: xxx") as refused:
        box.take(bytes([9]), "a")
    assert len(str(refused.value)) < 2100
    box.slots.expire(11.0)
    assert (box.slots.keys, box.slots.bytes) == (0, 0)


def test_poison_ends_the_waits_and_frees_the_tensors() -> None:
    box = Box()
    box.put(b"k", a=floats(10))
    box.take(b"k", "a", "b", item=7)
    box.slots.poison(b"k", "gone", 0.0)
    assert box.failed == [(7, "a tensor will not come: gone")]
    assert (box.slots.bytes, box.slots.waiting) == (0, 0)


def test_one_who_goes_leaves_no_key_behind() -> None:
    box = Box()
    box.take(b"k", "a")
    (waiting,) = box.slots.overdue(5.0)
    assert box.slots.missing(waiting) == ["a"]
    box.slots.remove(waiting)
    assert (box.slots.keys, box.slots.waiting) == (0, 0)


def test_those_who_wait_are_asked_in_turn() -> None:
    box = Box()
    for key in range(5):
        box.take(bytes([key]), "a", item=key)
    asked = [waiting.item for _ in range(5) for waiting in box.slots.next_to_ask(2)]
    assert sorted(asked) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(box.slots.next_to_ask(10)) == 5


def test_nothing_is_left_after_10000_random_requests() -> None:
    draw, box = random.Random(7), Box(max_waiting=50, max_keys=100, max_poisoned=100)
    refused = 0
    for step in range(10_000):
        now, key = step / 100, bytes([draw.randrange(120)])
        try:
            match draw.randrange(5):
                case 0:
                    box.put(key, now, a=floats(draw.randrange(40)))
                case 1:
                    box.put(key, now, b=np.array([b"x" * draw.randrange(90)], np.object_))
                case 2:
                    box.take(key, *draw.choice([("a",), ("b",), ("a", "b")]), now=now, item=step)
                case 3:
                    box.slots.poison(key, "drawn", now)
                case 4:
                    for waiting in box.slots.next_to_ask(1):
                        box.slots.remove(waiting)
        except Refused:
            refused += 1
        for waiting in box.slots.overdue(now):
            box.slots.remove(waiting)
        box.slots.expire(now)
        assert 0 <= box.slots.bytes <= 1000
        assert box.slots.waiting <= 50
        assert box.slots.keys <= 200
    assert refused > 100, "the bounds were never reached"
    assert len(box.given) > 100
    for waiting in box.slots.overdue(1e9):
        box.slots.remove(waiting)
    box.slots.expire(1e9)
    assert (box.slots.bytes, box.slots.waiting, box.slots.keys) == (0, 0, 0)
