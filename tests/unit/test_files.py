"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tritier.errors import InputError
from tritier.files import sha256_bytes, sha256_file, write_document_file, write_file


def test_folders_are_made_and_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_file(path, "größe")
    assert path.read_bytes() == "größe".encode()
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_was_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_file(path, b"a long text")
    write_file(path, b"short")
    assert path.read_bytes() == b"short"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("function", ["chmod", "replace"])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    write_file(path, b"old")

    def fails(*_: object, **__: object) -> None:
        raise error("no space")

    monkeypatch.setattr(os, function, fails)
    with pytest.raises(error, match="no space"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_document_is_not_replaced_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_document_file(path, "1", force=False)
    with pytest.raises(InputError, match=r"plan\.json exists: choose another name or pass --force"):
        write_document_file(path, "2", force=False)
    assert path.read_text() == "1"
    write_document_file(path, "2", force=True)
    assert path.read_text() == "2"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_file_hashes_as_its_bytes_do(tmp_path: Path, size: int) -> None:
    data = b"x" * size
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == sha256_bytes(data)
