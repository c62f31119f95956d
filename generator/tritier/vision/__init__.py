"""What an app does around a YOLO model that a Triton server runs: picture in, objects out.

Everything here works on numpy arrays and knows nothing of servers:

    tensor, geometry = prepare(picture, (640, 640))
    ...  # send `tensor`, receive `output0`
    found = decode_detect(output0, geometry, classes=80)
    cv2.imwrite("found.jpg", draw_detections(picture, found))

Needs the extra `vision`; without it the import raises UsageError, which says how to install it.
"""

from __future__ import annotations

from tritier.errors import UsageError

try:
    from tritier.vision.draw import draw_classification, draw_detections
    from tritier.vision.letterbox import (
        Geometry,
        Picture,
        center_crop,
        letterbox,
        prepare,
        to_tensor,
    )
    from tritier.vision.results import Classification, Detections
    from tritier.vision.yolo import decode_classify, decode_detect, decode_segment
except ImportError as error:
    raise UsageError(
        "tritier.vision needs OpenCV and supervision, which can't be imported "
        f"({error}): pip install 'tritier[vision]'"
    ) from error

__all__ = [
    "Classification",
    "Detections",
    "Geometry",
    "Picture",
    "center_crop",
    "decode_classify",
    "decode_detect",
    "decode_segment",
    "draw_classification",
    "draw_detections",
    "letterbox",
    "prepare",
    "to_tensor",
]
