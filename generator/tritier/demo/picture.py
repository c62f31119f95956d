"""The picture at the end of the demo: the photograph enlarged in two ways, beside the original."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Picture = npt.NDArray[np.uint8]

_MARGIN = 12
_CAPTION = 34
_DETAIL_ZOOM = 3
_BACKGROUND = (250, 250, 250)
_INK = (20, 20, 20)
_FRAME = (220, 30, 30)


@dataclass(frozen=True)
class Panel:
    """A picture, RGB `(height, width, 3)`, and what is written over it."""

    caption: str
    pixels: Picture


def detail_box(original: Picture, width: int, height: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part of a picture with the most fine structure."""
    grey = original.astype(np.float32).mean(axis=2)
    edges = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    total = np.pad(edges.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width]
        + total[:-height, :-width]
    )  # fmt: skip
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(left), int(top), int(left) + width, int(top) + height


def write_picture(panels: list[Panel], path: Path) -> None:
    """Panels side by side, below each the same detail, enlarged; all panels have one size."""
    height, width = panels[0].pixels.shape[:2]
    box = detail_box(panels[-1].pixels, width // _DETAIL_ZOOM, height // _DETAIL_ZOOM)
    columns = len(panels)
    canvas = Image.new(
        "RGB",
        (
            columns * (width + _MARGIN) + _MARGIN,
            _CAPTION + 2 * (height + _MARGIN) + _MARGIN,
        ),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=18)
    for index, panel in enumerate(panels):
        left = _MARGIN + index * (width + _MARGIN)
        picture = Image.fromarray(panel.pixels)
        detail = picture.crop(box).resize((width, height), Image.Resampling.NEAREST)
        ImageDraw.Draw(picture).rectangle(box, outline=_FRAME, width=2)
        draw.text((left, _MARGIN // 2 + 2), panel.caption, fill=_INK, font=font)
        canvas.paste(picture, (left, _CAPTION))
        canvas.paste(detail, (left, _CAPTION + height + _MARGIN))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)
