"""What `tritier demo` says where packages of its extras are missing, before it does anything."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tritier.cli import main

Hide = Callable[..., None]


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Hide:
    """Lets modules look as if they were not installed."""
    find = importlib.util.find_spec

    def hidden(*modules: str) -> None:
        def find_spec(name: str, *rest: Any) -> Any:
            return None if name in modules else find(name, *rest)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)

    return hidden


def run_demo(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Exit code and messages of the command; it must leave nothing."""
    words = ["--workspace", str(folder / "w"), "demo", "--output", str(folder / "out")]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert list(folder.iterdir()) == []
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        (("pytriton",), "nvidia-pytriton"),
        (("skimage",), "scikit-image"),
        (("pytriton", "skimage"), "nvidia-pytriton and scikit-image"),
    ],
)
def test_missing_packages_are_named_with_the_command(
    hide: Hide,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    modules: tuple[str, ...],
    named: str,
) -> None:
    hide(*modules)
    code, message = run_demo(tmp_path, capsys)
    assert code == 2
    assert f"the demo needs {named}: pip install 'tritier[embedded,demo]'" in message


def test_a_numpy_that_the_server_cannot_use_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.3.0")
    code, message = run_demo(tmp_path, capsys)
    assert code == 4
    assert "numpy 2.3.0" in message
    assert "pip install 'tritier[embedded]'" in message
