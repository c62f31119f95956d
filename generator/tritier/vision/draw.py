"""Results drawn into a copy of the picture. Colours are one per class; channels are BGR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import supervision as sv

from tritier.vision.letterbox import Picture, check_picture
from tritier.vision.results import Classification, Detections


def draw_detections(
    picture: Picture, found: Detections, names: Sequence[str] | None = None
) -> Picture:
    """A copy of a picture (height, width, 3), BGR, with masks, boxes and labels.

    `names` are those of the classes, in their order; a class without one is shown by its number.
    """
    check_picture(picture)
    scene = picture.copy()
    if not len(found):
        return scene
    wide = (picture.shape[1], picture.shape[0])
    thickness = sv.calculate_optimal_line_thickness(wide)
    detections = found.to_supervision()
    if found.masks is not None:
        scene = sv.MaskAnnotator().annotate(scene, detections)
    scene = sv.BoxAnnotator(thickness=thickness).annotate(scene, detections)
    labels = [
        f"{class_name(int(number), names)} {sure:.2f}"
        for number, sure in zip(found.class_id, found.confidence, strict=True)
    ]
    text = sv.LabelAnnotator(
        text_scale=sv.calculate_optimal_text_scale(wide), text_thickness=thickness
    )
    return np.asarray(text.annotate(scene, detections, labels=labels), dtype=np.uint8)


def draw_classification(
    picture: Picture, ranking: Classification, names: Sequence[str] | None = None
) -> Picture:
    """A copy of a picture (height, width, 3), BGR, with the ranking in its upper left corner."""
    check_picture(picture)
    scene = picture.copy()
    scale = sv.calculate_optimal_text_scale((picture.shape[1], picture.shape[0]))
    line = max(12, round(40 * scale))
    for row, (number, probability) in enumerate(
        zip(ranking.class_id, ranking.probability, strict=True)
    ):
        text = f"{probability:.2f} {class_name(int(number), names)}"
        # supervision places a text by its middle; eleven is the width of a letter at scale 0.6.
        middle = sv.Point(line // 2 + round(len(text) * scale * 9), line * (row + 1))
        scene = sv.draw_text(
            scene,
            text,
            middle,
            text_color=sv.Color.WHITE,
            text_scale=scale,
            background_color=sv.Color.BLACK,
        )
    return np.asarray(scene, dtype=np.uint8)


def class_name(number: int, names: Sequence[str] | None) -> str:
    """A class's name, or `class 7` if it has none."""
    return names[number] if names and number < len(names) else f"class {number}"
