"""From the outputs of YOLO models (YOLOv8, YOLO11 and others with the same head) to objects.

Models that contain their own non-maximum suppression (YOLOv10, YOLO26, exports with `nms=True`)
and those with a column of objectness (YOLOv5) have other outputs and can't be decoded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tritier.errors import InputError
from tritier.vision.letterbox import Floats, Geometry
from tritier.vision.results import Classification, Detections

Indices = npt.NDArray[np.int64]

CONFIDENCE = 0.25
IOU = 0.7
MOST = 300

_BOX = 4


@dataclass(frozen=True)
class _Candidates:
    """Boxes (n, 4) as x1, y1, x2, y2 in pixels of the input, with what belongs to each."""

    boxes: Floats
    confidence: Floats
    class_id: Indices
    coefficients: Floats

    def take(self, which: npt.NDArray[Any]) -> _Candidates:
        return _Candidates(
            self.boxes[which],
            self.confidence[which],
            self.class_id[which],
            self.coefficients[which],
        )


def decode_detect(
    output0: npt.NDArray[np.floating[Any]],
    geometry: Geometry,
    *,
    classes: int | None = None,
    confidence: float = CONFIDENCE,
    iou: float = IOU,
    most: int = MOST,
) -> Detections:
    """Objects in the output (1, 4 + classes, n) of a detection model.

    Each of the n columns holds a box as centre x, centre y, width, height in pixels of the
    network's input, then a score from 0 to 1 per class. Kept are columns whose best score is
    above `confidence`; of two boxes of one class that overlap by more than `iou` (intersection
    over union) the surer one; of those the `most` surest. `geometry` is what `prepare` returned
    with the input. Give the number of `classes` if you know it: it is then compared.

    Raises InputError for other shapes, other numbers of classes and values that are not finite.
    """
    found = _decode(output0, 0, classes, confidence, iou, most)
    return _detections(found, geometry)


def decode_segment(
    output0: npt.NDArray[np.floating[Any]],
    output1: npt.NDArray[np.floating[Any]],
    geometry: Geometry,
    *,
    classes: int | None = None,
    confidence: float = CONFIDENCE,
    iou: float = IOU,
    most: int = MOST,
) -> Detections:
    """Objects with masks in the outputs of a segmentation model.

    output0 is (1, 4 + classes + k, n): as for `decode_detect`, then k coefficients per box, k
    usually 32. output1 is (1, k, height, width): prototypes, on a coarser grid over the same
    input. A mask is where the sum of the prototypes, weighted by a box's coefficients, has a
    sigmoid above one half; it is scaled to the picture and cut to its box.

    Raises InputError as `decode_detect` does.
    """
    _check_tensor("output1", output1, 4, "(1, prototypes, height, width)")
    prototypes = output1[0].astype(np.float32)
    found = _decode(output0, len(prototypes), classes, confidence, iou, most)
    if not np.isfinite(prototypes).all():
        raise InputError("output1 holds values that are not finite: the model's weights are bad")
    plain = _detections(found, geometry)
    masks = _masks(found.coefficients, prototypes, plain.boxes, geometry)
    return Detections(plain.boxes, plain.confidence, plain.class_id, masks)


def decode_classify(output0: npt.NDArray[np.floating[Any]], top: int = 5) -> Classification:
    """The `top` likeliest classes in the output (1, classes) of a classification model.

    The values must be probabilities, which add up to 1; exported YOLO models end in a softmax.
    Raises InputError otherwise.
    """
    _check_tensor("output0", output0, 2, "(1, classes)")
    if top < 1:
        raise InputError(f"top is {top}; at least 1 class must be asked for")
    values = output0[0].astype(np.float32)
    total = float(values.sum())
    # Half precision over a thousand classes stays well within a hundredth.
    if not (abs(total - 1) < 0.01 and values.min() >= 0):
        raise InputError(
            f"output0 adds up to {total:.4g} with a smallest value of {values.min():.4g}; "
            "probabilities are at least 0 and add up to 1: apply a softmax, if these are scores "
            "before it"
        )
    order = np.argsort(-values, kind="stable")[:top]
    return Classification(order.astype(np.int64), values[order])


def _decode(
    output0: npt.NDArray[np.floating[Any]],
    coefficients: int,
    classes: int | None,
    confidence: float,
    iou: float,
    most: int,
) -> _Candidates:
    for name, value in (("confidence", confidence), ("iou", iou)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}; it must be from 0 to 1")
    if most < 1:
        raise InputError(f"most is {most}; at least 1 object must be allowed")
    _check_channels(output0, coefficients, classes)
    candidates = _candidates(output0[0], output0.shape[1] - coefficients, confidence)
    return candidates.take(_suppress(candidates, iou)[:most])


def _candidates(rows: npt.NDArray[Any], end_of_scores: int, confidence: float) -> _Candidates:
    """Columns whose best class is above the confidence. `rows` is (4 + classes + k, n)."""
    scores = rows[_BOX:end_of_scores]
    best = scores.max(axis=0)
    # A NaN is neither above nor below: let it through, to be refused.
    sure = ~(best <= confidence)
    kept = rows[:, sure].T.astype(np.float32)
    if not np.isfinite(kept).all():
        raise InputError("output0 holds values that are not finite: the model's weights are bad")
    middle, half = kept[:, :2], kept[:, 2:_BOX] / 2
    return _Candidates(
        boxes=np.concatenate([middle - half, middle + half], axis=1),
        confidence=best[sure].astype(np.float32),
        class_id=scores[:, sure].argmax(axis=0).astype(np.int64),
        coefficients=kept[:, end_of_scores:],
    )


def _suppress(candidates: _Candidates, iou: float) -> Indices:
    """Indices of the boxes that survive, the surest first."""
    boxes = candidates.boxes.astype(np.float64)
    if not len(boxes):
        return np.empty(0, dtype=np.int64)
    # OpenCV keeps classes apart by moving each to a place of its own, for which it takes it that
    # no coordinate is negative.
    boxes -= boxes.min()
    corners, sizes = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    kept = cv2.dnn.NMSBoxesBatched(
        np.concatenate([corners, sizes], axis=1).tolist(),
        candidates.confidence.tolist(),
        candidates.class_id.tolist(),
        0.0,
        iou,
    )
    return np.asarray(kept, dtype=np.int64).reshape(-1)


def _detections(found: _Candidates, geometry: Geometry) -> Detections:
    return Detections(geometry.to_image(found.boxes), found.confidence, found.class_id)


def _masks(
    coefficients: Floats, prototypes: Floats, boxes: Floats, geometry: Geometry
) -> npt.NDArray[np.bool_]:
    """Masks (n, height, width) of the picture's size; `boxes` are in pixels of the picture."""
    masks = np.zeros((len(boxes), *geometry.image), dtype=np.bool_)
    _, height, width = prototypes.shape
    # Cells of the prototypes per pixel of the input, and per pixel of the picture.
    cell_x, cell_y = width / geometry.input[1], height / geometry.input[0]
    step_x, step_y = cell_x * geometry.scale[0], cell_y * geometry.scale[1]
    flat = prototypes.reshape(len(prototypes), -1)
    for mask, weights, box in zip(masks, coefficients, boxes, strict=True):
        left, top, right, bottom = np.ceil(box).astype(int)
        if right <= left or bottom <= top:
            continue
        logits = (weights @ flat).reshape(height, width)
        # Maps the centre of a pixel of the picture to its place among the centres of the cells.
        x = step_x * (left + 0.5) + cell_x * geometry.left - 0.5
        y = step_y * (top + 0.5) + cell_y * geometry.top - 0.5
        place = np.array([[step_x, 0, x], [0, step_y, y]])
        scaled = cv2.warpAffine(
            logits,
            place,
            (int(right - left), int(bottom - top)),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        # The sigmoid is above one half exactly where its argument is above zero.
        mask[top:bottom, left:right] = scaled > 0
    return masks


def _check_channels(
    output0: npt.NDArray[np.floating[Any]], coefficients: int, classes: int | None
) -> None:
    layout = f"(1, 4 + classes{f' + {coefficients}' if coefficients else ''}, boxes)"
    _check_tensor("output0", output0, 3, layout)
    found = output0.shape[1] - _BOX - coefficients
    if found < 1:
        raise InputError(
            f"output0 has shape {output0.shape}, which leaves {found} classes; allowed is {layout} "
            "with at least 1 class: is this the output of a detect or segment model?"
        )
    if classes is not None and found != classes:
        raise InputError(
            f"output0 has shape {output0.shape}, which means {found} classes, not {classes}; "
            f"allowed is {layout}: give the right number of classes, or transpose the tensor if "
            "its last two axes are exchanged"
        )


def _check_tensor(name: str, tensor: npt.NDArray[Any], axes: int, layout: str) -> None:
    shape = tuple(tensor.shape)
    if len(shape) != axes or 0 in shape[1:]:
        raise InputError(
            f"{name} has shape {shape}; allowed is {layout}: is this the right output, of a model "
            "for this task?"
        )
    if shape[0] != 1:
        raise InputError(
            f"{name} has shape {shape}, a batch of {shape[0]}; allowed is {layout}: decode the "
            "pictures of a batch one by one, as tensor[i : i + 1], each with its own geometry"
        )
    if not np.issubdtype(tensor.dtype, np.floating):
        raise InputError(f"{name} holds {tensor.dtype}; allowed are floating-point numbers")
