"""From image files to model inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tritier.calibration import PRESETS, load_preprocessing, preprocess, read_image
from tritier.calibration.images import image_input
from tritier.documents import Preprocessing
from tritier.errors import InputError
from tritier.graph import TensorInfo

RED, BLUE = (255, 0, 0), (0, 0, 255)
PLAIN = {"scale": 1.0}
SQUARE = ("N", 3, 4, 4)


def pixels(height: int, width: int) -> Any:
    """A picture whose pixels all differ."""
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def settings(**fields: Any) -> Preprocessing:
    """A preprocessing file's content."""
    return Preprocessing.from_data({**PLAIN, **fields})


def test_what_stands_in_a_file_is_what_people_see(tmp_path: Path) -> None:
    picture = Image.new("RGB", (2, 1), RED)
    picture.putpixel((1, 0), BLUE)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").tolist() == [[[*RED]], [[*BLUE]]]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (1, 1), 7), (7, 7, 7)),
        (Image.new("1", (1, 1), 1), (255, 255, 255)),
        (Image.new("I;16", (1, 1), 0x1234), (0x12, 0x12, 0x12)),
        (Image.new("RGBA", (1, 1), (0, 0, 255, 0)), (255, 255, 255)),
        (Image.new("RGBA", (1, 1), (1, 2, 3, 255)), (1, 2, 3)),
        (Image.new("LA", (1, 1), (0, 255)), (0, 0, 0)),
        (Image.new("RGB", (1, 1), BLUE).convert("P", palette=Image.Palette.WEB), BLUE),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_every_kind_of_pixel_becomes_rgb(
    tmp_path: Path, image: Image.Image, expected: tuple[int, ...]
) -> None:
    image.save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found.dtype == np.uint8
    assert found.tolist() == [[list(expected)]]


def test_a_palette_with_transparency_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=b"\x00\xff")
    assert read_image(tmp_path / "a.png").tolist() == [[[255, 255, 255], [*BLUE]]]


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    cut = tmp_path / "cut.png"
    Image.effect_noise((50, 50), 9).save(cut)
    cut.write_bytes(cut.read_bytes()[:200])
    floats = tmp_path / "floats.tiff"
    Image.new("F", (2, 2)).save(floats)
    for path in (text, cut, floats, tmp_path / "none.png"):
        with pytest.raises(InputError, match=f"{path.name}: can't be read as an image: .+"):
            read_image(path)


def test_colour_scale_and_layout() -> None:
    image = pixels(4, 4)
    fields = {"scale": 0.5, "mean": [1.0, 2.0, 3.0], "std": [1.0, 2.0, 4.0]}
    rgb = preprocess(image, settings(**fields), SQUARE)
    assert rgb.dtype == np.float32
    assert rgb.flags.c_contiguous
    expected = (image * 0.5 - [1, 2, 3]) / [1, 2, 4]
    assert np.array_equal(rgb, expected.transpose(2, 0, 1)[None])
    last = preprocess(image, settings(**fields, layout="nhwc"), (1, 4, 4, 3))
    assert np.array_equal(last, expected[None])
    bgr = preprocess(image, settings(**fields, color="bgr"), SQUARE)
    expected = (image[:, :, ::-1] * 0.5 - [1, 2, 3]) / [1, 2, 4]  # in the order of the model
    assert np.array_equal(bgr, expected.transpose(2, 0, 1)[None])
    grey = preprocess(image[:, :, :1].repeat(3, 2), settings(color="gray"), (1, 1, 4, 4))
    assert np.array_equal(grey[0, 0], image[:, :, 0])


def test_the_type_of_the_input_is_kept_and_bytes_are_pixels() -> None:
    image = pixels(4, 4)
    half = preprocess(image, settings(scale=1 / 255), SQUARE, "float16")
    assert half.dtype == np.float16
    assert half.max() == np.float16(47 / 255)
    as_bytes = preprocess(image, settings(mean=[9.0]), SQUARE, "uint8")
    assert as_bytes.dtype == np.uint8
    assert np.array_equal(as_bytes, image.transpose(2, 0, 1)[None])
    with pytest.raises(InputError, match="input is int64; images can fill one of float16"):
        preprocess(image, settings(), SQUARE, "int64")


def flat(height: int, width: int) -> Any:
    """A picture of one grey, and so are its pictures of other sizes."""
    return np.full((height, width, 3), 200, np.uint8)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [((4, 8), (2, 6), (0, 8)), ((8, 4), (0, 8), (2, 6)), ((8, 7), (0, 8), (0, 7))],
)
def test_letterbox_fills_borders(
    size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    found = preprocess(flat(*size), settings(resize="letterbox", fill=5), (1, 3, 8, 8))
    expected = np.full((1, 3, 8, 8), 5.0)
    expected[:, :, slice(*rows), slice(*columns)] = 200
    assert np.array_equal(found, expected)


def test_crop_stretch_line_and_none() -> None:
    wide = np.concatenate([flat(4, 2) // 2, flat(4, 4), flat(4, 2) // 2], axis=1)
    cropped = preprocess(wide, settings(resize="crop"), SQUARE)
    assert cropped.shape == (1, 3, 4, 4)
    assert cropped.min() == cropped.max() == 200
    assert preprocess(wide, settings(), SQUARE).min() < 120  # stretched: the sides are in it
    line = settings(resize="line", size=[2, 3], fill=9)
    short = preprocess(flat(4, 4), line, ("N", 3, 2, "W"))
    assert short[0, 0].tolist() == [[200, 200, 9]] * 2
    assert preprocess(flat(4, 40), line, ("N", 3, 2, "W")).shape == (1, 3, 2, 20)
    image = pixels(5, 7)
    cut = preprocess(image, settings(resize="none", multiple=2), ("N", 3, "H", "W"))
    assert np.array_equal(cut[0], image[:4, :6].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("fields", "shape", "problem"),
    [
        ({"size": [2, 3]}, SQUARE, r"images of 2 x 3 .* is 4 x 4"),
        ({}, ("N", 3, "H", 4), "symbolic shape .*'H'.*: give `size`"),
        ({"resize": "none"}, SQUARE, r"images of 5 x 7 .* is 4 x 4"),
        ({"resize": "none", "multiple": 6}, ("N", 3, "H", "W"), "is 5 x 7 .* multiple 6"),
        ({"color": "gray"}, SQUARE, "gray has 1 channels, .* has 3"),
        ({"layout": "nhwc"}, SQUARE, "rgb has 3 channels, .* has 4 .*nhwc"),
        ({}, (2, 3, 4, 4), "batch is 2"),
        ({}, (3, 4, 4), "images need 4 dimensions, NCHW"),
    ],
)
def test_contradictions_name_both_sides(
    fields: dict[str, Any], shape: tuple[int | str, ...], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        preprocess(pixels(5, 7), settings(**fields), shape)


def test_images_go_to_the_only_input() -> None:
    image = TensorInfo("image", "float32", SQUARE)
    other = TensorInfo("scale", "float32", (1,))
    assert image_input([image], settings()) == image
    assert image_input([image], settings(input="image")) == image
    with pytest.raises(InputError, match=r"no input 'imag' \(did you mean 'image'\?\)"):
        image_input([image], settings(input="imag"))
    with pytest.raises(InputError, match="inputs image, scale: images fill only one"):
        image_input([image, other], settings(input="image"))


def test_a_preset_or_a_file(tmp_path: Path) -> None:
    assert load_preprocessing("yolo") is PRESETS["yolo"]
    path = tmp_path / "own.yaml"
    path.write_text("color: bgr\nresize: none\nmultiple: 32\nmean: [0.5]\nstd: [0.5]\n")
    own = load_preprocessing(str(path))
    assert (own.mean, own.scale, own.size) == ((0.5,), 1 / 255, None)
    with pytest.raises(InputError, match=r"'yolov' is no preset and no file \(did you mean 'yolo'"):
        load_preprocessing("yolov")


def test_all_faults_of_a_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("colour: rgb\nmean: [1, 2]\nresize: none\nsize: [0, 4]\nstd: [0]\n")
    with pytest.raises(InputError) as caught:
        load_preprocessing(str(path))
    faults = "\n".join(caught.value.faults)
    for part in ("colour: unknown key", "mean: has 2 values", "std[0]: 0", "from 1", "resize none"):
        assert part in faults
    with pytest.raises(InputError, match="multiple: does nothing without resize none"):
        settings(multiple=2)


def test_presets_are_those_of_the_models() -> None:
    white, black = flat(64, 64) // 200 * 255, flat(64, 64) * 0
    text = preprocess(white, PRESETS["ppocr-det"], ("N", 3, "H", "W"))
    assert (text.min(), text.max()) == (1, 1)
    assert preprocess(black, PRESETS["ppocr-rec"], ("N", 3, 48, "W")).shape == (1, 3, 48, 320)
    dark = preprocess(black, PRESETS["imagenet"], (1, 3, 224, 224))
    assert dark[0, :, 0, 0] == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    boxed = preprocess(white[:32], PRESETS["yolo"], (1, 3, 64, 64))
    assert boxed[0, 0, :, 0] == pytest.approx([114 / 255] * 16 + [1] * 32 + [114 / 255] * 16)
