"""The photograph of the demo, as the requests that an app sends and the picture that comes back.

The functions that cut and join pictures are those of the example that ships with the project.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from tritier.demo.picture import Picture
from tritier.demo.requirements import INSTALL
from tritier.divider import Array
from tritier.errors import UsageError
from tritier.resources import example_dir

EXAMPLE = example_dir("super_resolution")


class Photograph:
    """A held-out photograph and what the example's modules make of it."""

    def __init__(self) -> None:
        self._photographs, self._tiling, self._evaluate = _example_modules()
        original = self._photographs.load_rgb(self._photographs.DEMO)
        self.title: str = self._photographs.DEMO.title
        self.original = self._photographs.crop_to_multiple(original)
        self.low = self._photographs.reduce(self.original)

    def tiles(self) -> Array:
        """The luminance of the small picture as requests, float32 `(tiles, 1, 224, 224)`."""
        low = self._photographs.luminance(self.low)
        tiles: Array
        tiles, self._grid = self._tiling.split(self._photographs.to_unit(low))
        return tiles

    def joined(self, answers: Array) -> Picture:
        """Luminance `(h, w)` of the answers, float32 `(tiles, 1, 672, 672)`."""
        joined = self._tiling.join(answers, self._grid)
        luminance: Picture = self._photographs.to_uint8(joined)
        return luminance

    def bicubic(self) -> Picture:
        """The baseline: the small luminance enlarged by bicubic interpolation, `(h, w)`."""
        low = self._photographs.luminance(self.low)
        luminance: Picture = self._photographs.enlarge_bicubic(low)
        return luminance

    def coloured(self, luminance: Picture) -> Picture:
        """A luminance with the colours of the small picture, RGB `(h, w, 3)`."""
        picture: Picture = self._photographs.recolour(self.low, luminance)
        return picture

    def psnr_db(self, luminance: Picture) -> float:
        """Peak signal-to-noise ratio against the original's luminance, in dB."""
        original = self._photographs.luminance(self.original)
        return float(self._evaluate.score(luminance, original).psnr)


def _example_modules() -> tuple[Any, Any, Any]:
    """The example's modules import each other by their plain names, as scripts in one folder do."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        names = ("photographs", "tiling", "evaluate")
        first, second, third = (importlib.import_module(name) for name in names)
        return first, second, third
    except ImportError as error:
        raise UsageError(f"the demo needs {error.name}: {INSTALL}") from None
    finally:
        sys.path.remove(str(EXAMPLE))
