"""Commands that put things right, ready for a shell."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def shown_path(path: Path) -> str:
    """Relative to the current folder if it lies in it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def own_python() -> str:
    """The interpreter that runs this."""
    return shown_path(Path(sys.executable))


def pip_install(python: str, *arguments: str) -> str:
    """Install by the pip of that interpreter."""
    return shlex.join([python, "-m", "pip", "install", *arguments])
