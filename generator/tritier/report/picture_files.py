"""Pictures by matplotlib: names are shown as they are, and the same figures give the same bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tritier.report.scene_svg import drawable

__all__ = ["drawable", "plain_texts", "saved"]

# Names of elements in SVG files that hang on nothing random.
_SVG_SALT = "tritier"


@contextmanager
def plain_texts(**settings: Any) -> Iterator[None]:
    """Names of models and machines may have dollars, which are no formulas, and characters that the
    font does not have, which become boxes. `settings`: more of matplotlib's."""
    import matplotlib  # only here: it takes long to import

    own: dict[Any, Any] = {"svg.hashsalt": _SVG_SALT, "text.parse_math": False, **settings}
    with matplotlib.rc_context(own), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*missing from font.*")
        yield


def saved(figure: Any, kind: str, dpi: int) -> bytes:
    """The content of a PNG or SVG file, without a date."""
    content = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(content, format=kind, dpi=dpi, metadata=metadata)
    return content.getvalue()
