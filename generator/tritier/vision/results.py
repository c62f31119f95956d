"""What a YOLO model found, in pixels of the original picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import supervision as sv


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects in a picture, the surest first.

    boxes: (n, 4) float32, x1, y1, x2, y2 in pixels; confidence: (n,) float32 from 0 to 1;
    class_id: (n,) int64; masks: (n, height, width) bool, of the picture's size, or None if the
    model makes none.
    """

    boxes: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def to_supervision(self) -> sv.Detections:
        """The same as `supervision.Detections`, for its trackers, zones and annotators."""
        return sv.Detections(
            xyxy=self.boxes, confidence=self.confidence, class_id=self.class_id, mask=self.masks
        )


@dataclass(frozen=True, eq=False)
class Classification:
    """The likeliest classes of a whole picture, the likeliest first.

    class_id: (k,) int64; probability: (k,) float32 from 0 to 1.
    """

    class_id: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.class_id)

    def to_supervision(self) -> sv.Classifications:
        """The same as `supervision.Classifications`."""
        return sv.Classifications(class_id=self.class_id, confidence=self.probability)
