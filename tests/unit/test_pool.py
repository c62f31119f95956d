"""The model pool: content by hash, keys that point at it, and what may be thrown away."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritier.errors import InputError
from tritier.files import sha256_bytes
from tritier.pool import Pool, store

DAY_S = 86_400.0


class Clock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The pool's clock."""
    clock = Clock()
    monkeypatch.setattr(store, "_now", clock)
    return clock


@pytest.fixture
def pool(tmp_path: Path, clock: Clock) -> Pool:  # noqa: ARG001 - it sets the time
    """An empty pool."""
    return Pool(tmp_path / "pool")


def objects(folder: Path) -> list[Path]:
    """All stored contents."""
    return sorted(path for path in (folder / "pool" / "objects").rglob("*") if path.is_file())


def refs(folder: Path) -> list[Path]:
    """All stored keys."""
    return sorted((folder / "pool" / "refs").rglob("*.json"))


def test_what_was_put_is_got(pool: Pool, tmp_path: Path) -> None:
    assert pool.get("model", "k") is None
    assert pool.put("model", "k", "yolo", b"bytes") == sha256_bytes(b"bytes")
    assert pool.get("model", "k") == b"bytes"
    assert pool.get("plan", "k") is None  # of another kind
    assert [path.name for path in objects(tmp_path)] == [sha256_bytes(b"bytes")]


@pytest.mark.parametrize("key", ["../../etc/passwd", "a/b/c0/0.1.0", "", "é" * 300, "nul\x00"])
def test_a_key_may_hold_anything(pool: Pool, tmp_path: Path, key: str) -> None:
    pool.put("sub-model", key, "x", b"1")
    assert pool.get("sub-model", key) == b"1"
    assert [path.parent.parent for path in refs(tmp_path)] == [tmp_path / "pool" / "refs"]


def test_a_key_that_is_put_again_has_the_new_content(pool: Pool) -> None:
    pool.put("plan", "k", "x", b"old")
    pool.put("plan", "k", "x", b"new")
    assert pool.get("plan", "k") == b"new"
    assert len(pool.entries()) == 1


def test_one_content_under_two_keys_is_stored_once(pool: Pool, tmp_path: Path) -> None:
    pool.put("model", "k1", "x", b"same")
    pool.put("model", "k2", "y", b"same")
    assert len(objects(tmp_path)) == 1
    assert len(refs(tmp_path)) == 2


@pytest.mark.parametrize("damage", [b"", b"Bytes", b"bytes and more"])
def test_a_damaged_object_counts_as_missing_and_is_made_good(
    pool: Pool, tmp_path: Path, damage: bytes
) -> None:
    pool.put("model", "k", "x", b"bytes")
    (path,) = objects(tmp_path)
    path.write_bytes(damage)
    assert pool.get("model", "k") is None
    pool.put("model", "k", "x", b"bytes")
    assert pool.get("model", "k") == b"bytes"


def test_a_removed_object_counts_as_missing(pool: Pool, tmp_path: Path) -> None:
    pool.put("model", "k", "x", b"bytes")
    objects(tmp_path)[0].unlink()
    assert pool.get("model", "k") is None


def test_a_damaged_key_is_told(pool: Pool, tmp_path: Path) -> None:
    pool.put("model", "k", "x", b"bytes")
    (path,) = refs(tmp_path)
    path.write_text(path.read_text()[:-10])
    with pytest.raises(InputError, match=str(path)):
        pool.get("model", "k")


def test_entries_stand_by_kind_and_name(pool: Pool) -> None:
    pool.put("plan", "p", "a", b"1")
    pool.put("model", "m2", "b", b"2")
    pool.put("model", "m1", "a", b"3")
    pool.put("sub-model", "s", "a", b"4")
    assert [(e.kind, e.name) for e in pool.entries()] == [
        ("model", "a"),
        ("model", "b"),
        ("sub-model", "a"),
        ("plan", "a"),
    ]


# -- throwing away --------------------------------------------------------------------------------


def test_only_what_was_not_used_for_long_goes(pool: Pool, clock: Clock, tmp_path: Path) -> None:
    pool.put("model", "old", "old", b"old")
    clock.now += 5 * DAY_S
    pool.put("model", "new", "new", b"newer")
    garbage = pool.collect(unused_days=3)
    assert ([e.key for e in garbage.entries], garbage.objects, garbage.bytes) == (["old"], 1, 3)
    assert pool.get("model", "old") is None
    assert pool.get("model", "new") == b"newer"
    assert len(objects(tmp_path)) == len(refs(tmp_path)) == 1


def test_use_keeps_an_entry(pool: Pool, clock: Clock) -> None:
    pool.put("model", "k", "x", b"1")
    clock.now += 5 * DAY_S
    assert pool.get("model", "k") == b"1"
    assert pool.collect(unused_days=3).entries == ()
    assert pool.get("model", "k") == b"1"


def test_an_object_that_another_key_needs_stays(pool: Pool, clock: Clock) -> None:
    pool.put("model", "old", "x", b"shared")
    clock.now += 5 * DAY_S
    pool.put("model", "new", "x", b"shared")
    garbage = pool.collect(unused_days=3)
    assert ([e.key for e in garbage.entries], garbage.objects) == (["old"], 0)
    assert pool.get("model", "old") is None
    assert pool.get("model", "new") == b"shared"


def test_objects_without_a_key_and_torn_writes_go(pool: Pool, tmp_path: Path) -> None:
    pool.put("plan", "k", "x", b"first")
    pool.put("plan", "k", "x", b"second")
    torn = objects(tmp_path)[0].parent / ".abc.tmp"
    torn.write_bytes(b"1234")
    garbage = pool.collect(unused_days=365)
    assert (garbage.entries, garbage.objects, garbage.bytes) == ((), 2, len(b"first") + 4)
    assert [path.read_bytes() for path in objects(tmp_path)] == [b"second"]


def test_a_dry_run_removes_nothing(pool: Pool, clock: Clock, tmp_path: Path) -> None:
    pool.put("model", "k", "x", b"12345")
    clock.now += DAY_S
    before = (objects(tmp_path), refs(tmp_path))
    garbage = pool.collect(unused_days=0, dry_run=True)
    assert ([e.key for e in garbage.entries], garbage.objects, garbage.bytes) == (["k"], 1, 5)
    assert (objects(tmp_path), refs(tmp_path)) == before
    assert pool.collect(unused_days=0) == garbage
    assert (objects(tmp_path), refs(tmp_path)) == ([], [])


def test_an_empty_pool_has_nothing_to_throw_away(pool: Pool) -> None:
    assert pool.entries() == []
    assert pool.collect(unused_days=0).objects == 0


def test_negative_days_are_refused(pool: Pool) -> None:
    with pytest.raises(InputError, match="unused days is -1; allowed are numbers from 0"):
        pool.collect(unused_days=-1)
