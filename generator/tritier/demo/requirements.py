"""Packages of the extras that the demo needs, looked for before it begins."""

from __future__ import annotations

import importlib.util

from tritier.deployment.embedded import require_embedded
from tritier.errors import UsageError

INSTALL = "pip install 'tritier[embedded,demo]'"
# Module -> the package that has it.
_NEEDED = {"pytriton": "nvidia-pytriton", "skimage": "scikit-image"}


def require_packages() -> None:
    """Raise UsageError, with the command that installs what is missing; ServerError where the
    embedded server is there but can't work."""
    missing = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(f"the demo needs {' and '.join(missing)}: {INSTALL}")
    require_embedded()
