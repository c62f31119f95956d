"""Modules of `triton/`, which are in no package: Triton loads them flat, and so do the tests."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from tritier.resources import triton_dir


@contextmanager
def flat_imports(*folders: str) -> Iterator[None]:
    """While this lasts, modules in these folders of `triton/` import each other by name.

    Afterwards they are forgotten again, so that no other test gets them.
    """
    paths = [str(triton_dir() / folder) for folder in folders]
    known = set(sys.modules)
    sys.path[:0] = paths
    try:
        yield
    finally:
        for path in paths:
            sys.path.remove(path)
        for name in set(sys.modules) - known:
            file = getattr(sys.modules[name], "__file__", None)
            if file and str(Path(file).parent) in paths:
                del sys.modules[name]


def load_flat(name: str, *folders: str) -> ModuleType:
    """The module `name` out of these folders, with its own copies of what it imports."""
    with flat_imports(*folders):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        return importlib.import_module(name)
