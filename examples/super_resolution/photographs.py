"""The photographs of the super-resolution example, and how they become pictures to enlarge.

This is the one place where the split into training, validation and held-out photographs is
written down; the training, the evaluation and the demo all read it from here. Every photograph
ships inside the wheel of scikit-image or scikit-learn, so nothing is ever downloaded.

Pictures are numpy arrays of uint8: ``(height, width)`` for one channel, ``(height, width, 3)``
for RGB, values 0..255. Only what enters or leaves the network is float32 in [0, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image
from sklearn.datasets import load_sample_image

UPSCALE = 3
"""Enlargement of the network along each axis."""

Picture = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Photograph:
    """One photograph: where it comes from and under which terms.

    ``package`` is the wheel which carries it. ``name`` is the function of ``skimage.data``, or
    the file of scikit-learn without ``.jpg``.
    """

    name: str
    package: str
    title: str
    licence: str


def _skimage(name: str, title: str, licence: str) -> Photograph:
    return Photograph(name, "scikit-image", title, licence)


def _sklearn(name: str, title: str, licence: str) -> Photograph:
    return Photograph(name, "scikit-learn", title, licence)


# The licences are those stated in the docstrings of skimage.data and in the README.txt of
# sklearn/datasets/images. Photographs for which the packages state none (moon, page, the
# motorcycle) are left out on purpose.
TRAINING: tuple[Photograph, ...] = (
    _sklearn("flower", "Dahlia", "CC BY 2.0"),
    _skimage("camera", "Photographer with a camera", "CC0"),
    _skimage("brick", "Brick wall", "CC0"),
    _skimage("grass", "Grass", "CC0"),
    _skimage("gravel", "Gravel", "CC0"),
    _skimage("retina", "Human retina", "CC0"),
    _skimage("hubble_deep_field", "Hubble eXtreme Deep Field", "public domain (NASA)"),
    _skimage("immunohistochemistry", "Stained tissue", "no known copyright restrictions"),
)
"""The only photographs from which weights are learned."""

VALIDATION: tuple[Photograph, ...] = (
    _skimage("rocket", "Falcon 9 before its launch", "public domain (SpaceX)"),
    _skimage("coins", "Greek coins from Pompeii", "no known copyright restrictions"),
)
"""Watched while training and when settings were chosen; no gradient comes from them."""

HELD_OUT: tuple[Photograph, ...] = (
    _sklearn("china", "Pagoda at the Summer Palace", "CC BY 2.0"),
    _skimage("astronaut", "Eileen Collins", "public domain (NASA)"),
    _skimage("chelsea", "Chelsea the cat", "CC0"),
    _skimage("coffee", "Cup of coffee", "CC0"),
)
"""Used by the evaluation and the demo only."""

DEMO: Photograph = HELD_OUT[1]
"""The photograph of the demo: in colour, 512x512. Reduced by 3 it is 170x170, which fits into
one tile of 224x224 with the context the network needs; see ``tiling``."""


def load_rgb(photograph: Photograph) -> Picture:
    """Return a photograph as RGB ``(height, width, 3)``; a grey one gets three equal channels."""
    if photograph.package == "scikit-learn":
        pixels = load_sample_image(f"{photograph.name}.jpg")
    else:
        load: Callable[[], Picture] = getattr(skimage.data, photograph.name)
        pixels = load()
    return np.asarray(Image.fromarray(pixels).convert("RGB"))


def crop_to_multiple(picture: Picture, factor: int = UPSCALE) -> Picture:
    """Drop at most ``factor - 1`` rows and columns at the bottom and the right.

    Without it the reduced picture would not lie exactly on the grid of the original.
    """
    height, width = picture.shape[:2]
    return picture[: height - height % factor, : width - width % factor]


def resize(picture: Picture, height: int, width: int) -> Picture:
    """Resize with Pillow's bicubic filter, which averages (antialiases) when it reduces."""
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def reduce(picture: Picture, factor: int = UPSCALE) -> Picture:
    """Return the low-resolution version ``(height / factor, width / factor[, 3])``."""
    height, width = picture.shape[:2]
    if height % factor or width % factor:
        raise ValueError(f"{height}x{width} is not a multiple of {factor}: crop_to_multiple first")
    return resize(picture, height // factor, width // factor)


def enlarge_bicubic(picture: Picture, factor: int = UPSCALE) -> Picture:
    """Return the picture enlarged by plain bicubic interpolation: the baseline to beat."""
    height, width = picture.shape[:2]
    return resize(picture, height * factor, width * factor)


def luminance(rgb: Picture) -> Picture:
    """Return Y of full-range YCbCr (ITU-R BT.601), ``(height, width)``."""
    return np.asarray(Image.fromarray(rgb).convert("YCbCr"))[:, :, 0]


def recolour(rgb_low: Picture, luminance_high: Picture) -> Picture:
    """Give an enlarged luminance the colours of the small picture, enlarged bicubically.

    The eye resolves colour far less finely than brightness, so only the luminance needs the
    network. ``rgb_low`` is ``(h, w, 3)``, ``luminance_high`` is ``(3h, 3w)``; returns RGB
    ``(3h, 3w, 3)``.
    """
    height, width = luminance_high.shape
    enlarged = Image.fromarray(resize(rgb_low, height, width)).convert("YCbCr")
    _, blue, red = enlarged.split()
    merged = Image.merge("YCbCr", (Image.fromarray(luminance_high), blue, red))
    return np.asarray(merged.convert("RGB"))


def to_unit(picture: Picture) -> Plane:
    """Return uint8 0..255 as float32 in [0, 1], the range of the network."""
    plane: Plane = picture.astype(np.float32) / np.float32(255)
    return plane


def to_uint8(plane: Plane) -> Picture:
    """Return float32 in [0, 1] as uint8 0..255, rounded; values outside are clipped."""
    picture: Picture = np.rint(np.clip(plane, 0.0, 1.0) * 255).astype(np.uint8)
    return picture
