"""From a picture to the input of a network, and the way back for boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from tritier.errors import InputError

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Size = tuple[int, int]

FILL = 114


@dataclass(frozen=True)
class Geometry:
    """Where a letterboxed picture lies in the input of a network.

    `image` is the size of the picture, `input` that of the network's input and `content` that of
    the scaled picture in it, without the borders; each (height, width) in pixels. `left` and `top`
    are the widths of two of the borders.
    """

    image: Size
    input: Size
    content: Size
    left: int
    top: int

    @classmethod
    def fit(cls, image: Size, size: Size) -> Geometry:
        """The largest picture of the same proportions that fits, in the middle of the input."""
        scale = min(size[0] / image[0], size[1] / image[1])
        # A very long picture would lose its short side.
        height, width = max(1, round(image[0] * scale)), max(1, round(image[1] * scale))
        # An odd pixel of border goes to the right and to the bottom.
        left, top = (size[1] - width) // 2, (size[0] - height) // 2
        return cls(image, size, (height, width), left, top)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the input per pixel of the picture, along x and along y.

        The two differ a little, as the content has whole pixels. A point x of the picture lies at
        `x * scale[0] + left` of the input, a point y at `y * scale[1] + top`.
        """
        return self.content[1] / self.image[1], self.content[0] / self.image[0]

    def to_image(self, boxes: Floats) -> Floats:
        """Boxes (n, 4) of x1, y1, x2, y2 in pixels of the input -> pixels of the picture.

        What lies in the borders or outside is cut off, so a box can come out with no area.
        """
        height, width = self.image
        origin = np.array([self.left, self.top] * 2, dtype=np.float32)
        scale = np.array(self.scale * 2, dtype=np.float32)
        limits = np.array([width, height] * 2, dtype=np.float32)
        return np.clip((boxes - origin) / scale, 0, limits).astype(np.float32)


def letterbox(picture: Picture, size: Size, fill: int = FILL) -> tuple[Picture, Geometry]:
    """Scale a picture (height, width, 3) to fit `size` (height, width) and fill the borders.

    The proportions are kept; smaller pictures are enlarged. Raises InputError for anything that
    is no such picture of 8-bit pixels.
    """
    check_picture(picture)
    _check_size(size)
    geometry = Geometry.fit((picture.shape[0], picture.shape[1]), size)
    height, width = geometry.content
    if (height, width) != geometry.image:
        scaled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        picture = np.asarray(scaled, dtype=np.uint8)
    boxed = np.full((*size, 3), fill, dtype=np.uint8)
    boxed[geometry.top : geometry.top + height, geometry.left : geometry.left + width] = picture
    return boxed, geometry


def center_crop(picture: Picture, size: int) -> Picture:
    """The middle square of a picture, `size` pixels wide, as classification models are fed.

    The shorter side is scaled to `size` with a filter that averages when it reduces (Pillow's
    bilinear one; OpenCV's skips pixels), then the longer side is cut on both ends.
    """
    check_picture(picture)
    _check_size((size, size))
    height, width = picture.shape[:2]
    shorter = min(height, width)
    new_height, new_width = size * height // shorter, size * width // shorter
    resized = picture
    if (new_height, new_width) != (height, width):
        resized = np.asarray(
            Image.fromarray(picture).resize((new_width, new_height), Image.Resampling.BILINEAR)
        )
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    return resized[top : top + size, left : left + size].copy()


def to_tensor(picture: Picture, color: Literal["bgr", "rgb"] = "bgr") -> Floats:
    """(height, width, 3) of 0..255 -> (1, 3, height, width) of 0..1, channels red, green, blue.

    `color` is the order of the picture's channels: "bgr" as OpenCV reads them, or "rgb".
    """
    check_picture(picture)
    if color not in ("bgr", "rgb"):
        raise InputError(f"color is '{color}'; allowed are 'bgr' (OpenCV) and 'rgb' (Pillow)")
    rgb = picture[..., ::-1] if color == "bgr" else picture
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)
    planes /= np.float32(255)
    return planes


def prepare(
    picture: Picture, size: Size, color: Literal["bgr", "rgb"] = "bgr"
) -> tuple[Floats, Geometry]:
    """Letterbox and `to_tensor` in one step: the input of a detect or segment model."""
    boxed, geometry = letterbox(picture, size)
    return to_tensor(boxed, color), geometry


def check_picture(picture: Picture) -> None:
    """Raise InputError unless it is (height, width, 3) of 8-bit pixels, at least one."""
    shape = tuple(picture.shape)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise InputError(
            f"the picture has shape {shape}; it must be (height, width, 3) and not empty: convert "
            "grey pictures and such with transparency, for example with cv2.cvtColor"
        )
    if picture.dtype != np.uint8:
        raise InputError(
            f"the picture's pixels are {picture.dtype}; they must be uint8, from 0 to 255"
        )


def _check_size(size: Size) -> None:
    if min(size) < 1:
        raise InputError(f"the size is {size}; height and width must be at least 1 pixel")
