"""Real trained models that ship in a package, rapidocr: text detection, recognition, direction."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rapidocr
import skimage.data
from PIL import Image, ImageDraw, ImageFont

from tritier.divider import Array

MODELS = Path(rapidocr.__file__).parent / "models"
DETECTION = MODELS / "PP-OCRv6_det_small.onnx"
RECOGNITION = MODELS / "PP-OCRv6_rec_small.onnx"
DIRECTION = MODELS / "ch_ppocr_mobile_v2.0_cls_mobile.onnx"
Run = Callable[[Array], Array]
Boxes = npt.NDArray[np.float32]


@cache
def engine() -> Any:
    """The whole recogniser, with ONNX Runtime sessions of its own."""
    logging.disable(logging.INFO)  # it reports each model file in colours
    try:
        made = rapidocr.RapidOCR()
        made(page())  # it loads its models when they are needed
        return made
    finally:
        logging.disable(logging.NOTSET)


def page() -> Array:
    """A photograph of a printed page, (191, 384, 3) uint8 BGR."""
    photographs: Any = skimage.data
    return np.stack([photographs.page()] * 3, axis=-1)


def calibration_pages() -> list[Array]:
    """Other pictures with and without text, for ranges: none of them is `page`."""
    drawn = Image.new("L", (384, 192), 235)
    pen = ImageDraw.Draw(drawn)
    for row in range(6):
        text = "The quick brown fox jumps over 13 lazy dogs."[row : row + 30]
        pen.text((12, 8 + 30 * row), text, fill=20 + 10 * row, font=ImageFont.load_default(20))
    photographs: Any = skimage.data  # which has no types
    grey = [np.array(drawn), photographs.text(), photographs.camera()[:256, :512]]
    return [np.stack([image] * 3, axis=-1) for image in grey]


def detection_input(image: Array, shortest_side: int = 736) -> Array:
    """What the detector is fed for an image: enlarged, and each side a multiple of 32."""
    steps = engine().text_det.get_preprocess()
    steps.limit_side_len = shortest_side
    made: Array = steps(image)
    return made


def boxes_of(answer: Array, image: Array) -> Boxes:
    """Text boxes (n, 4, 2) in pixels of an answer of the detector, sorted."""
    detector = engine().text_det
    boxes, _ = detector.postprocess_op(answer, image.shape[:2])
    found: Boxes = detector.sorted_boxes(np.array(boxes))
    return found


def read(image: Array, **runs: Run) -> tuple[Boxes, tuple[str, ...]]:
    """Boxes and texts of an image. `text_det`, `text_rec` and `text_cls` run models in place of the
    recogniser's own sessions."""
    whole = engine()
    own = {name: getattr(whole, name).session for name in runs}
    try:
        for name, run in runs.items():
            getattr(whole, name).session = run
        result = whole(image)
    finally:
        for name, session in own.items():
            getattr(whole, name).session = session
    return result.boxes, tuple(result.txts)
