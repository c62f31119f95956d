"""From an image file to the input of a model."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from tritier.documents import Preprocessing
from tritier.errors import InputError, did_you_mean
from tritier.graph import TensorInfo

Array = npt.NDArray[np.generic]
Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]

_HALF = (0.5, 0.5, 0.5)
# What the authors of these models do; PP-OCR as in the package rapidocr.
PRESETS = {
    "yolo": Preprocessing(resize="letterbox"),
    "imagenet": Preprocessing(resize="crop", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "ppocr-det": Preprocessing(color="bgr", resize="none", multiple=32, mean=_HALF, std=_HALF),
    "ppocr-rec": Preprocessing(
        color="bgr", resize="line", size=(48, 320), fill=128, mean=_HALF, std=_HALF
    ),
}
# What damaged files raise, besides errors of the operating system.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError)
_FLOATS = ("float16", "float32", "float64")


def load_preprocessing(name_or_path: str) -> Preprocessing:
    """A preset by its name, else the file (YAML or JSON) of that path.

    Raises InputError with all faults of the file, or when there is neither.
    """
    if name_or_path in PRESETS:
        return PRESETS[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        raise InputError(
            f"'{name_or_path}' is no preset and no file{did_you_mean(name_or_path, PRESETS)}; "
            f"presets are {', '.join(PRESETS)}"
        )
    return Preprocessing.load(path)


def read_image(path: Path) -> Pixels:
    """The image as people see it: uint8 RGB (height, width, 3).

    Turned as its EXIF data say; 16-bit grey becomes 8-bit; what is transparent lies on white; of an
    animation the first frame. Raises InputError naming the file when it can't be decoded.
    """
    try:
        with warnings.catch_warnings():
            # A large photograph is no attack: only Pillow's hard limit counts.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return np.asarray(_rgb(ImageOps.exif_transpose(image)))
    except (*_DECODE_ERRORS, Image.DecompressionBombError) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"can't be read as an image: {text}", str(path)) from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floats, whose range nothing tells: save it with 8 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, seen).convert("RGB")
    return image.convert("RGB")


def image_input(inputs: Iterable[TensorInfo], preprocessing: Preprocessing) -> TensorInfo:
    """The input of a model to which its images go.

    Raises InputError when it is not there, is one of several (only its own images are known), or
    can't hold images as the preprocessing makes them.
    """
    by_name = {tensor.name: tensor for tensor in inputs}
    names = ", ".join(by_name)
    name = preprocessing.input
    if name is not None and name not in by_name:
        raise InputError(
            f"input: the model has no input '{name}'{did_you_mean(name, by_name)}; it has {names}"
        )
    if len(by_name) != 1:
        raise InputError(f"the model has the inputs {names}: images fill only one, so give --data")
    tensor = next(iter(by_name.values()))
    _target_size(preprocessing, tensor.shape)
    _check_dtype(tensor.dtype)
    return tensor


def preprocess(
    image: Pixels,
    preprocessing: Preprocessing,
    shape: tuple[int | str, ...],
    dtype: str = "float32",
) -> Array:
    """The image, uint8 RGB (height, width, 3), as a batch of 1 for an input of this type and shape.

    Sizes are the preprocessing's or, if it has none, the input's. A uint8 input gets the pixels as
    they are. Raises InputError when image, preprocessing and input contradict each other.
    """
    _check_dtype(dtype)
    target = _target_size(preprocessing, shape)
    resized = _resized(_coloured(image, preprocessing), preprocessing, target)
    _check_fits(resized.shape[:2], _input_size(preprocessing, shape))
    values: Array = resized
    if dtype != "uint8":
        scaled = resized.astype(np.float64) * preprocessing.scale
        normal = (scaled - np.array(preprocessing.mean)) / np.array(preprocessing.std)
        values = normal.astype(dtype)
    if preprocessing.layout == "nchw":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[np.newaxis])


def _check_dtype(dtype: str) -> None:
    if dtype not in (*_FLOATS, "uint8"):
        raise InputError(
            f"the model's input is {dtype}; images can fill one of {', '.join(_FLOATS)} or uint8: "
            "give --data"
        )


def _coloured(image: Pixels, preprocessing: Preprocessing) -> Pixels:
    if preprocessing.color == "bgr":
        return image[:, :, ::-1]
    if preprocessing.color == "gray":
        return np.asarray(Image.fromarray(image).convert("L"))[:, :, np.newaxis]
    return image


def _input_size(
    preprocessing: Preprocessing, shape: tuple[int | str, ...]
) -> tuple[int | str, int | str]:
    """Height and width of the model's input; what else its shape says is checked."""
    if len(shape) != 4:
        raise InputError(
            f"the model's input has the shape {list(shape)}; images need 4 dimensions, "
            f"{preprocessing.layout.upper()}: give --data"
        )
    batch, first, second, third = shape
    is_nchw = preprocessing.layout == "nchw"
    channels, size = (first, (second, third)) if is_nchw else (third, (first, second))
    if isinstance(batch, int) and batch != 1:
        raise InputError(f"the model's batch is {batch}, and images go one at a time: give --data")
    if isinstance(channels, int) and channels != preprocessing.channels:
        raise InputError(
            f"color {preprocessing.color} has {preprocessing.channels} channels, the model's input "
            f"has {channels} in {list(shape)} with layout {preprocessing.layout}"
        )
    return size


def _target_size(preprocessing: Preprocessing, shape: tuple[int | str, ...]) -> Size | None:
    """Height and width that images get; None if they keep theirs."""
    size = _input_size(preprocessing, shape)
    if preprocessing.resize == "none":
        return None
    if preprocessing.size is not None:
        _check_fits(preprocessing.size, size)
        return preprocessing.size
    height, width = size
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    raise InputError(
        f"the model's input has the symbolic shape {list(shape)}: give `size` in the "
        "preprocessing, or resize none"
    )


def _check_fits(size: tuple[int, ...], wanted: tuple[int | str, ...]) -> None:
    if any(isinstance(want, int) and n != want for n, want in zip(size, wanted, strict=True)):
        raise InputError(
            f"the preprocessing gives images of {_text(size)} (height x width), the model's input "
            f"is {_text(wanted)}: change `size` or `resize`"
        )


def _text(size: tuple[int | str, ...]) -> str:
    return " x ".join(str(n) for n in size)


def _resized(image: Pixels, preprocessing: Preprocessing, target: Size | None) -> Pixels:
    """The image (height, width, channels) in the target size, None being its own."""
    height, width = image.shape[:2]
    if target is None:
        unit = preprocessing.multiple
        if height < unit or width < unit:
            raise InputError(
                f"the image is {_text((height, width))} (height x width), less than the multiple "
                f"{unit}: leave it out"
            )
        return image[: height // unit * unit, : width // unit * unit]
    high, wide = target
    match preprocessing.resize:
        case "letterbox":
            factor = min(high / height, wide / width)
            inner = _scaled(image, factor)
            # Half of an odd rest is rounded as the loaders of YOLO do.
            top = round((high - inner.shape[0]) / 2 - 0.1)
            left = round((wide - inner.shape[1]) / 2 - 0.1)
            return _framed(inner, target, (top, left), preprocessing.fill)
        case "line":
            full = max(wide, high * width // height)
            inner = _stretched(image, (high, min(full, -(-high * width // height))))
            return _framed(inner, (high, full), (0, 0), preprocessing.fill)
        case "crop":
            inner = _scaled(image, max(high / height, wide / width))
            top, left = (inner.shape[0] - high) // 2, (inner.shape[1] - wide) // 2
            return inner[top : top + high, left : left + wide]
    return _stretched(image, target)


def _scaled(image: Pixels, factor: float) -> Pixels:
    height, width = image.shape[:2]
    return _stretched(image, (max(1, round(height * factor)), max(1, round(width * factor))))


def _stretched(image: Pixels, size: Size) -> Pixels:
    """Bilinear; what gets smaller is averaged, so that nothing flickers."""
    if image.shape[:2] == size:
        return image
    flat = image[:, :, 0] if image.shape[2] == 1 else image
    picture = Image.fromarray(np.ascontiguousarray(flat))
    result = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))
    return result.reshape(*size, image.shape[2])


def _framed(image: Pixels, size: Size, corner: Size, fill: int) -> Pixels:
    """The image with its upper left at `corner` of a picture filled with grey."""
    result = np.full((*size, image.shape[2]), fill, np.uint8)
    (top, left), (height, width) = corner, image.shape[:2]
    result[top : top + height, left : left + width] = image
    return result
