"""Generated repositories to check for portability, and changes of them that must be found."""

from __future__ import annotations

from pathlib import Path

from tests.golden.cases import generated
from tritier.files import write_file


def written(name: str, folder: Path) -> Path:
    """The whole tree of a golden case, Python models included, in `folder`."""
    for path, data in generated(name).items():
        write_file(folder / path, data)
    return folder


def replaced(folder: Path, config: str, old: str, new: str) -> None:
    """Change one text of a config; it must be there."""
    file = folder / config / "config.pbtxt"
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{old!r} is not in {file}"
    file.write_text(text.replace(old, new), encoding="utf-8")
