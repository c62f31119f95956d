"""`triton/models/router/*.py`, which are no modules of a package: Triton puts them into one folder
with those of `triton/shared`."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

from tritier.resources import triton_dir

_BACKEND = "triton_python_backend_utils"


def load_router(backend: Any = None) -> SimpleNamespace:
    """The router's modules by name; model.py only with what it shall know as Triton's Python API,
    for what no Triton can be made to do."""
    folders = [triton_dir() / "models" / "router", triton_dir() / "shared"]
    names = [path.stem for folder in folders for path in folder.glob("*.py")]
    # Other tests load modules of the same names from other folders.
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path[:0] = [str(folder) for folder in folders]
    if backend is not None:
        sys.modules[_BACKEND] = backend
        names.append(_BACKEND)
    try:
        wanted = [path.stem for path in folders[0].glob("*.py") if backend or path.stem != "model"]
        return SimpleNamespace(**{name: importlib.import_module(name) for name in wanted})
    finally:
        del sys.path[: len(folders)]
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(kept)
