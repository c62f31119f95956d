"""Photographs with lines of text drawn on them: what a text detector and a recogniser look for.

    python -m benchmarks.text_photographs FOLDER [--lines]

writes FOLDER/calibration and FOLDER/noise, of photographs from disjoint sources, see
`benchmarks.photographs`. With --lines each picture is one line of text, every second one upside
down, for a classifier of directions. The same seed gives the same files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.photographs import write_photographs

SIZE = (640, 320)
LINE_SIZE = (192, 48)
_WORDS = (
    "edge", "device", "cloud", "server", "model", "layer", "tensor", "noise", "limit", "latency",
    "energy", "bridge", "river", "market", "Station", "Harbour", "LIBRARY", "Museum", "2024",
    "17:45", "No.8", "open", "closed", "exit", "north", "south", "tickets", "coffee",
)  # fmt: skip


def write_text_photographs(
    folder: Path, calibration: int = 100, noise: int = 20, seed: int = 0, lines: bool = False
) -> tuple[Path, Path]:
    """Folders of pictures (320 x 640 pixels, lines 48 x 192, PNG) for ranges and for noise."""
    folders = write_photographs(folder, calibration, noise, seed, force=True)
    draw = np.random.default_rng(seed)
    for part in folders:
        for number, path in enumerate(sorted(part.glob("*.png"))):
            picture = Image.open(path).convert("RGB")
            if lines:
                picture = _line(picture.resize(LINE_SIZE), draw, upside_down=number % 2 == 1)
            else:
                picture = picture.resize(SIZE)
                _write_lines(picture, draw)
            picture.save(path)
    return folders


def _write_lines(picture: Image.Image, draw: np.random.Generator) -> None:
    pen = ImageDraw.Draw(picture)
    top = int(draw.integers(4, 40))
    while top < SIZE[1] - 30:
        size = int(draw.integers(14, 40))
        words = " ".join(draw.choice(_WORDS, int(draw.integers(1, 6))))
        place = (int(draw.integers(2, 240)), top)
        font = ImageFont.load_default(size)
        dark = bool(draw.random() < 0.5)
        if draw.random() < 0.6:  # on a label, else on the photograph itself
            pen.rectangle(pen.textbbox(place, words, font=font), fill=(235,) * 3 if dark else 20)
        pen.text(place, words, font=font, fill=(15, 20, 30) if dark else (240, 240, 225))
        top += int(size * draw.uniform(1.3, 2.5))


def _line(picture: Image.Image, draw: np.random.Generator, upside_down: bool) -> Image.Image:
    words = " ".join(draw.choice(_WORDS, 2))
    font = ImageFont.load_default(int(draw.integers(20, 30)))
    pen = ImageDraw.Draw(picture)
    left, top = int(draw.integers(2, 12)), int(draw.integers(4, 14))
    dark = bool(draw.random() < 0.5)
    pen.rectangle((0, 0, *LINE_SIZE), fill=(225,) * 3 if dark else (40, 45, 60))
    pen.text((left, top), words, font=font, fill=(15, 20, 30) if dark else (240, 240, 225))
    return picture.rotate(180) if upside_down else picture


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write photographs with text on them.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lines", action="store_true")
    options = parser.parse_args()
    print(*write_text_photographs(options.folder, lines=options.lines))
