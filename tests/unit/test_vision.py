"""Letterbox, decoding and drawing, on tensors made by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import supervision as sv

from tritier.errors import InputError
from tritier.vision import (
    Classification,
    Detections,
    Geometry,
    Picture,
    center_crop,
    decode_classify,
    decode_detect,
    decode_segment,
    draw_classification,
    draw_detections,
    letterbox,
    prepare,
    to_tensor,
)

Floats = npt.NDArray[np.float32]
# A picture that fills its network's input: nothing is scaled or moved.
PLAIN = Geometry.fit((64, 64), (64, 64))


def picture(height: int, width: int, color: tuple[int, int, int] = (10, 20, 30)) -> Picture:
    return np.full((height, width, 3), color, dtype=np.uint8)


def output(*columns: list[float], boxes: int = 20) -> Floats:
    """(1, rows, boxes) from columns of (x, y, w, h, scores...); the other columns are zero."""
    tensor = np.zeros((1, len(columns[0]), boxes), dtype=np.float32)
    # Not at the beginning, so that indices matter.
    tensor[0, :, 5 : 5 + len(columns)] = np.array(columns, dtype=np.float32).T
    return tensor


# Letterbox


@pytest.mark.parametrize(
    ("image", "size", "content", "left", "top"),
    [
        ((480, 640), (640, 640), (480, 640), 0, 80),
        ((1080, 1920), (640, 640), (360, 640), 0, 140),
        ((1921, 1081), (640, 640), (640, 360), 140, 0),
        ((333, 500), (640, 640), (426, 640), 0, 107),
        ((100, 301), (320, 640), (213, 640), 0, 53),
        ((7, 1000), (64, 64), (1, 64), 0, 31),
        ((2000, 1), (64, 64), (64, 1), 31, 0),
        ((640, 640), (640, 640), (640, 640), 0, 0),
    ],
)
def test_letterbox_keeps_proportions_and_centres(
    image: tuple[int, int],
    size: tuple[int, int],
    content: tuple[int, int],
    left: int,
    top: int,
) -> None:
    boxed, geometry = letterbox(picture(*image), size)
    assert boxed.shape == (*size, 3)
    assert (geometry.content, geometry.left, geometry.top) == (content, left, top)
    inside = np.zeros(size, dtype=bool)
    inside[top : top + content[0], left : left + content[1]] = True
    assert (boxed[inside] == (10, 20, 30)).all()
    assert (boxed[~inside] == 114).all()


def test_boxes_come_back_from_a_letterboxed_picture() -> None:
    geometry = Geometry.fit((1080, 1920), (640, 640))
    box = np.array([[96, 54, 960, 540]], dtype=np.float32)
    moved = box / 3 + np.array([0, 140, 0, 140], dtype=np.float32)
    assert geometry.to_image(moved) == pytest.approx(box, abs=1e-3)


def test_the_scaled_picture_is_the_whole_picture() -> None:
    # 333 rows become 426.24, rounded to 426: each axis has a scale of its own.
    geometry = Geometry.fit((333, 500), (640, 640))
    box = np.array([[0, 107, 640, 107 + 426]], dtype=np.float32)
    assert geometry.to_image(box) == pytest.approx(np.array([[0, 0, 500, 333]]), abs=1e-3)


def test_boxes_are_cut_at_the_edge_of_the_picture() -> None:
    geometry = Geometry.fit((100, 200), (64, 64))
    boxes = np.array([[-9, 0, 70, 64], [0, 0, 64, 10]], dtype=np.float32)
    assert geometry.to_image(boxes).tolist() == [[0, 0, 200, 100], [0, 0, 200, 0]]


def test_tensor_is_planes_of_red_green_blue() -> None:
    tensor = to_tensor(picture(2, 3, (0, 51, 255)))
    assert tensor.shape == (1, 3, 2, 3)
    assert tensor.dtype == np.float32
    assert tensor[0, :, 1, 2] == pytest.approx([1.0, 0.2, 0.0])
    assert to_tensor(picture(2, 3, (0, 51, 255)), "rgb")[0, 0, 0, 0] == 0.0
    assert tensor.flags.c_contiguous


def test_prepare_is_letterbox_and_tensor() -> None:
    tensor, geometry = prepare(picture(10, 20, (0, 0, 255)), (32, 64))
    assert tensor.shape == (1, 3, 32, 64)
    assert (tensor == np.array([1, 0, 0]).reshape(1, 3, 1, 1)).all()
    assert geometry == Geometry((10, 20), (32, 64), (32, 64), 0, 0)
    assert geometry.scale == (3.2, 3.2)


@pytest.mark.parametrize(("height", "width"), [(40, 100), (101, 40), (8, 9), (32, 32)])
def test_crop_takes_the_middle(height: int, width: int) -> None:
    wide = picture(height, width)
    shorter = min(height, width)
    # What lies outside of the middle square, with room for the filter, must not be seen.
    border = (max(height, width) - shorter) // 2 - 3
    if border > 0 and width > height:
        wide[:, :border] = wide[:, -border:] = 255
    elif border > 0:
        wide[:border] = wide[-border:] = 255
    cropped = center_crop(wide, 32)
    assert cropped.shape == (32, 32, 3)
    assert (cropped == (10, 20, 30)).all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\).*\(height, width, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"not empty"),
        (np.zeros((4, 4, 3), np.float32), r"float32.*uint8"),
    ],
)
def test_what_is_no_picture_is_refused(bad: Any, message: str) -> None:
    for use in (lambda p: letterbox(p, (8, 8)), lambda p: center_crop(p, 8), to_tensor):
        with pytest.raises(InputError, match=message):
            use(bad)


def test_bad_sizes_and_colours_are_refused() -> None:
    with pytest.raises(InputError, match=r"size is \(0, 8\)"):
        letterbox(picture(4, 4), (0, 8))
    with pytest.raises(InputError, match="size is"):
        center_crop(picture(4, 4), 0)
    with pytest.raises(InputError, match=r"'hsv'.*'bgr'"):
        to_tensor(picture(4, 4), "hsv")  # type: ignore[arg-type]


# Detect


def test_of_two_boxes_of_a_class_the_surer_is_kept() -> None:
    found = decode_detect(
        output(
            [20, 20, 20, 20, 0.6, 0.1, 0.0],
            [21, 20, 20, 20, 0.9, 0.1, 0.0],  # overlaps the first by 19/21
            [20, 20, 20, 20, 0.1, 0.0, 0.7],  # another class in the same place
            [50, 50, 10, 8, 0.2, 0.1, 0.0],  # not sure enough
        ),
        PLAIN,
        classes=3,
    )
    assert found.class_id.tolist() == [0, 2]
    assert found.confidence == pytest.approx([0.9, 0.7])
    assert found.boxes.tolist() == [[11, 10, 31, 30], [10, 10, 30, 30]]
    assert found.masks is None


def test_thresholds_and_the_limit_are_kept() -> None:
    tensor = output([20, 20, 20, 20, 0.5], [30, 20, 20, 20, 0.75], [50, 50, 9, 9, 0.25])
    assert len(decode_detect(tensor, PLAIN)) == 2  # 0.25 is not above 0.25
    assert len(decode_detect(tensor, PLAIN, confidence=0.2)) == 3
    # The first two overlap by 10/30.
    assert decode_detect(tensor, PLAIN, iou=0.3).confidence.tolist() == [0.75]
    assert decode_detect(tensor, PLAIN, most=1).confidence.tolist() == [0.75]


def test_classes_do_not_meet_left_of_the_picture() -> None:
    # One class after another is moved by the widest coordinate: without care for coordinates
    # below zero the second box would come to lie on the first.
    tensor = output([39.5, 39.5, 49, 49, 0.9, 0], [-25.5, -25.5, 49, 49, 0, 0.8])
    assert len(decode_detect(tensor, PLAIN)) == 2


def test_boxes_are_in_pixels_of_the_picture() -> None:
    geometry = Geometry.fit((1080, 1920), (640, 640))
    found = decode_detect(output([320, 320, 64, 32, 0.9]), geometry)
    assert found.boxes == pytest.approx(np.array([[864, 492, 1056, 588]]), abs=1e-3)


def test_nothing_found_is_empty_not_an_error() -> None:
    found = decode_detect(np.zeros((1, 84, 50), np.float32), PLAIN)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert len(found.to_supervision()) == 0
    assert (draw_detections(picture(64, 64), found) == picture(64, 64)).all()


def test_half_precision_is_decoded() -> None:
    found = decode_detect(output([20, 20, 20, 20, 0.5]).astype(np.float16), PLAIN)
    assert found.boxes.tolist() == [[10, 10, 30, 30]]
    assert found.boxes.dtype == found.confidence.dtype == np.float32


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((84, 50), r"output0 has shape \(84, 50\); allowed is \(1, 4 \+ classes, boxes\)"),
        ((2, 84, 50), r"\(2, 84, 50\), a batch of 2.*one by one"),
        ((0, 84, 50), r"a batch of 0"),
        ((1, 84, 0), r"\(1, 84, 0\)"),
        ((1, 4, 50), r"\(1, 4, 50\), which leaves 0 classes"),
        ((1, 50, 84), r"\(1, 50, 84\), which means 46 classes, not 80.*transpose"),
    ],
)
def test_wrong_shapes_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_detect(np.zeros(shape, np.float32), PLAIN, classes=80)


def test_wrong_values_are_refused() -> None:
    good = output([20, 20, 20, 20, 0.5])
    with pytest.raises(InputError, match="int64"):
        decode_detect(good.astype(np.int64), PLAIN)
    for place in (0, 4):
        bad = good.copy()
        bad[0, place, 5] = np.nan
        with pytest.raises(InputError, match="not finite"):
            decode_detect(bad, PLAIN)
    for options in ({"confidence": 1.5}, {"iou": -0.1}, {"most": 0}):
        with pytest.raises(InputError, match=f"{next(iter(options))} is"):
            decode_detect(good, PLAIN, **options)


# Segment


def square_prototypes() -> Floats:
    """Two prototypes of 16 x 16: +1 in a square of 4..8 x 6..12 (x, y) and -1 outside; zero."""
    prototypes = np.full((1, 2, 16, 16), -1, dtype=np.float32)
    prototypes[0, 0, 6:12, 4:8] = 1
    prototypes[0, 1] = 0
    return prototypes


def test_mask_is_the_known_square() -> None:
    column = output([32, 32, 64, 64, 0.9, 5.0, 3.0], [10, 10, 6, 6, 0.8, -1.0, 0.0])
    found = decode_segment(column, square_prototypes(), PLAIN, classes=1)
    assert found.masks is not None
    assert found.masks.shape == (2, 64, 64)
    # A cell is 4 pixels; halfway between the centres of two cells the sign changes.
    expected = np.zeros((64, 64), dtype=bool)
    expected[24:48, 16:32] = True
    assert (found.masks[0] == expected).mean() > 0.99
    assert found.masks[0, 25:47, 17:31].all()
    assert not found.masks[0, :23].any()
    # The weight -1 turns the square's outside into the mask, which is cut to its box.
    inside = np.zeros((64, 64), dtype=bool)
    inside[7:13, 7:13] = True
    assert (found.masks[1] == inside).all()


def test_mask_follows_the_letterbox() -> None:
    # 128 x 64 becomes 64 x 32 of the input, between borders of 16 above and below.
    geometry = Geometry.fit((64, 128), (64, 64))
    found = decode_segment(output([32, 32, 64, 64, 0.9, 5.0, 0.0]), square_prototypes(), geometry)
    assert found.boxes.tolist() == [[0, 0, 128, 64]]
    assert found.masks is not None
    expected = np.zeros((64, 128), dtype=bool)
    expected[16:64, 32:64] = True  # (24 - 16) * 2 .. (48 - 16) * 2, 16 * 2 .. 32 * 2
    assert (found.masks[0] == expected).mean() > 0.98
    assert found.masks[0, 18:62, 34:62].all()


def test_box_without_area_has_an_empty_mask() -> None:
    geometry = Geometry.fit((64, 128), (64, 64))
    found = decode_segment(output([32, 5, 20, 8, 0.9, 5.0, 0.0]), square_prototypes(), geometry)
    assert found.masks is not None
    assert not found.masks.any()


def test_no_object_has_no_mask() -> None:
    found = decode_segment(np.zeros((1, 7, 9), np.float32), square_prototypes(), PLAIN)
    assert found.masks is not None
    assert found.masks.shape == (0, 64, 64)


def test_wrong_prototypes_are_refused() -> None:
    good = output([32, 32, 64, 64, 0.9, 5.0, 3.0])
    with pytest.raises(InputError, match=r"output1 has shape \(2, 16, 16\); allowed is \(1, prot"):
        decode_segment(good, square_prototypes()[0], PLAIN)
    with pytest.raises(InputError, match=r"leaves 0 classes.*\+ 3, boxes"):
        decode_segment(good, np.zeros((1, 3, 16, 16), np.float32), PLAIN)
    with pytest.raises(InputError, match="batch of 2"):
        decode_segment(good, np.zeros((2, 2, 16, 16), np.float32), PLAIN)
    with pytest.raises(InputError, match="output1 holds values that are not finite"):
        decode_segment(good, np.full((1, 2, 16, 16), np.inf, np.float32), PLAIN)


# Classify


def test_likeliest_classes_come_first() -> None:
    ranking = decode_classify(np.array([[0.1, 0.6, 0.05, 0.25]], np.float32), top=3)
    assert ranking.class_id.tolist() == [1, 3, 0]
    assert ranking.probability == pytest.approx([0.6, 0.25, 0.1])
    assert len(decode_classify(np.array([[0.5, 0.5]], np.float32))) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[2.0, 3.0]], r"adds up to 5.*softmax"),
        ([[-1.0, 2.0]], "smallest value of -1"),
        ([[np.nan, 1.0]], "adds up to nan"),
        ([0.5, 0.5], r"shape \(2,\); allowed is \(1, classes\)"),
        ([[0.5, 0.5], [0.5, 0.5]], "batch of 2"),
    ],
)
def test_what_is_no_distribution_is_refused(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_classify(np.array(values, np.float32))


def test_at_least_one_class_is_asked_for() -> None:
    with pytest.raises(InputError, match="top is 0"):
        decode_classify(np.array([[1.0]], np.float32), top=0)


# Results and pictures


def test_results_become_those_of_supervision() -> None:
    masks = np.zeros((1, 64, 64), dtype=bool)
    found = Detections(
        np.array([[1, 2, 30, 40]], np.float32), np.array([0.5], np.float32), np.array([7]), masks
    )
    converted = found.to_supervision()
    assert isinstance(converted, sv.Detections)
    assert converted.xyxy.tolist() == [[1, 2, 30, 40]]
    assert converted.class_id is not None
    assert converted.class_id.tolist() == [7]
    assert converted.mask is not None
    ranking = decode_classify(np.array([[0.25, 0.75]], np.float32)).to_supervision()
    assert ranking.class_id.tolist() == [1, 0]


def test_drawing_changes_a_copy() -> None:
    original = picture(120, 160)
    mask = np.zeros((1, 120, 160), dtype=bool)
    mask[:, 50:70, 50:70] = True
    found = Detections(
        np.array([[40, 40, 90, 90]], np.float32), np.array([0.5], np.float32), np.array([1]), mask
    )
    drawn = draw_detections(original, found, ["cat", "dog"])
    assert drawn.shape == original.shape
    assert (original == (10, 20, 30)).all()
    assert (drawn[60, 60] != original[60, 60]).any()  # the mask
    assert (drawn[90, 65] != original[90, 65]).any()  # the box
    assert (drawn[110, 150] == original[110, 150]).all()
    ranking = Classification(np.array([3, 0]), np.array([0.9, 0.1], np.float32))
    assert (draw_classification(original, ranking, ["cat"]) != original).any()
    assert (original == (10, 20, 30)).all()


def test_without_the_extra_the_error_says_what_to_install() -> None:
    # An entry of None makes the import fail as if the package were not there.
    code = (
        "import sys; sys.modules['supervision'] = None\n"
        "from tritier.errors import UsageError\n"
        "try:\n    import tritier.vision.letterbox\n"
        "except UsageError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "supervision" in done.stdout
    assert "pip install 'tritier[vision]'" in done.stdout
