"""`triton/shared/wire.py`, which is no module of a package: Triton loads it by its path."""

from __future__ import annotations

import importlib.util
from typing import Any

from tritier.resources import triton_dir


def load_wire() -> Any:
    """The module."""
    path = triton_dir() / "shared" / "wire.py"
    spec = importlib.util.spec_from_file_location("tritier_test_wire", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
