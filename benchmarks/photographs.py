"""Two sets of pictures for calibration and for measuring noise, from photographs at hand.

    python -m benchmarks.photographs FOLDER

writes FOLDER/calibration and FOLDER/noise: crops of photographs that ship inside the wheels of
scikit-image and scikit-learn, so nothing is downloaded. No photograph is in both sets: noise that
is measured on what ranges were calibrated on looks smaller than it is. The same arguments give the
same pixels.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tritier.errors import InputError, TritierError
from tritier.files import replaced_dir

Picture = npt.NDArray[np.uint8]


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported: that takes a second."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ImportError(f"the photographs are in {name}, which is not installed", name=name)
    return Path(spec.origin).parent


_SKIMAGE = _package("skimage") / "data"
_SKLEARN = _package("sklearn") / "datasets" / "images"
CALIBRATION = (
    _SKIMAGE / "brick.png",
    _SKIMAGE / "chelsea.png",
    _SKLEARN / "china.jpg",
    _SKIMAGE / "coins.png",
    _SKIMAGE / "grass.png",
    _SKIMAGE / "gravel.png",
    _SKIMAGE / "hubble_deep_field.jpg",
    _SKIMAGE / "ihc.png",
    _SKIMAGE / "retina.jpg",
    _SKIMAGE / "rocket.jpg",
)
NOISE = (
    _SKIMAGE / "astronaut.png",
    _SKIMAGE / "camera.png",
    _SKIMAGE / "coffee.png",
    _SKLEARN / "flower.jpg",
)
_SMALLEST_CROP = 0.5
_BRIGHTNESS = (0.7, 1.2)


def write_photographs(
    folder: Path, calibration: int = 100, noise: int = 20, seed: int = 0, force: bool = False
) -> tuple[Path, Path]:
    """Write so many pictures into `calibration` and `noise` of a folder; returns the two folders.

    Raises InputError when one of them holds files, unless `force`, or a package lacks a photograph.
    """
    sets = ((folder / "calibration", CALIBRATION, calibration), (folder / "noise", NOISE, noise))
    for number, (place, sources, count) in enumerate(sets):
        pictures = [_read(path) for path in sources[:count]]
        # A generator for each set: how many there are of the other changes nothing.
        generator = np.random.default_rng((seed, number))
        with replaced_dir(place, force) as fresh:
            for index in range(count):
                which = index % len(sources)
                crop = Image.fromarray(_variant(pictures[which], generator))
                # Lossless: pixels do not hang on the version of an encoder.
                crop.save(fresh / f"{index:03d}_{sources[which].stem}.png", compress_level=1)
    return sets[0][0], sets[1][0]


def _read(path: Path) -> Picture:
    if not path.is_file():
        raise InputError("no such file in the package: install '.[dev]' again", str(path))
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _variant(picture: Picture, generator: np.random.Generator) -> Picture:
    """A random part of a picture, perhaps mirrored, darker or brighter."""
    share = generator.uniform(_SMALLEST_CROP, 1)
    height, width = (max(1, int(size * share)) for size in picture.shape[:2])
    top = generator.integers(0, picture.shape[0] - height + 1)
    left = generator.integers(0, picture.shape[1] - width + 1)
    crop = picture[top : top + height, left : left + width]
    if generator.random() < 0.5:
        crop = crop[:, ::-1]
    return np.clip(crop * generator.uniform(*_BRIGHTNESS), 0, 255).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both sets; exit code 0, or 3 when that is not possible."""
    parser = argparse.ArgumentParser(description="Write pictures for calibration and noise.")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--calibration", type=int, default=100, help="pictures (default 100)")
    parser.add_argument("--noise", type=int, default=20, help="pictures (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the crops (default 0)")
    parser.add_argument("--force", action="store_true", help="replace both sets")
    chosen = parser.parse_args(arguments)
    try:
        folders = write_photographs(
            chosen.folder, chosen.calibration, chosen.noise, chosen.seed, chosen.force
        )
    except TritierError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for folder in folders:
        print(f"{folder}: {len(list(folder.iterdir()))} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
