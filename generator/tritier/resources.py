"""Finds the project's data folders, in a checkout as in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_data"
_CHECKOUT = _PACKAGE.parent.parent


def _root() -> Path:
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def templates_dir() -> Path:
    """`model_repository_templates/`: the Jinja2 templates of config.pbtxt files."""
    return _root() / "model_repository_templates"


def triton_dir() -> Path:
    """`triton/`: the models and the backend that run inside Triton."""
    return _root() / "triton"


def example_dir(name: str) -> Path:
    """`examples/<name>/`."""
    return _root() / "examples" / name


def loadtests_dir() -> Path:
    """`loadtests/`: the locustfiles."""
    return _root() / "loadtests"
