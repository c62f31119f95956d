"""An app that asks a YOLO model on a Triton server what is in a picture, and draws the answer.

    python detect.py photo.jpg --model yolo11n --url localhost:8001 -o found.jpg

It knows nothing of how the model was split: it talks to the one model that the plan is named
after, as it would to the whole one. Needs `pip install 'tritier[vision]'`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tritier.errors import InputError, TritierError
from tritier.vision import (
    Classification,
    Detections,
    Picture,
    center_crop,
    decode_classify,
    decode_detect,
    decode_segment,
    draw_classification,
    draw_detections,
    prepare,
    to_tensor,
)
from tritier.vision.draw import class_name


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Find objects with a YOLO model on Triton.")
    parser.add_argument("picture", type=Path, help="a file that OpenCV can read")
    parser.add_argument("--model", required=True, help="the model's name on the server")
    parser.add_argument("--url", default="localhost:8001", help="the server's gRPC address")
    parser.add_argument(
        "--task", choices=["auto", "detect", "segment", "classify"], default="auto",
        help="what the model is for; auto tells by the number and the shape of its outputs",
    )  # fmt: skip
    parser.add_argument("--names", type=Path, help="file with the classes' names, one a line")
    parser.add_argument("--confidence", type=float, default=0.25, help="0 to 1 (default 0.25)")
    parser.add_argument("--iou", type=float, default=0.7, help="0 to 1 (default 0.7)")
    parser.add_argument("-o", "--output", type=Path, default=Path("found.jpg"))
    return parser.parse_args()


class Model:
    """A YOLO model on a server: its name, its inputs and outputs."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self._client = triton.InferenceServerClient(url)
        metadata = self._client.get_model_metadata(name)
        if len(metadata.inputs) != 1 or len(metadata.inputs[0].shape) != 4:
            sys.exit(f"model '{name}' has no single input of (1, 3, height, width): no YOLO model")
        self._input = metadata.inputs[0]
        # Boxes have three axes, prototypes four: the boxes always come first.
        self.outputs = sorted(metadata.outputs, key=lambda output: len(output.shape))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input; 640 where the model takes any."""
        height, width = self._input.shape[2:]
        return (height if height > 0 else 640, width if width > 0 else 640)

    @property
    def task(self) -> str:
        """What the outputs say about the model's task."""
        if len(self.outputs) == 2:
            return "segment"
        return "classify" if len(self.outputs[0].shape) == 2 else "detect"

    def infer(self, tensor: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """Send one input, receive all outputs."""
        tensor = tensor.astype(triton_dtype(self._input.datatype))
        request = triton.InferInput(self._input.name, tensor.shape, self._input.datatype)
        request.set_data_from_numpy(tensor)
        answer = self._client.infer(self.name, [request])
        return [answer.as_numpy(output.name) for output in self.outputs]


def triton_dtype(name: str) -> type[np.floating[Any]]:
    """The type of the numbers that the model takes."""
    return np.float16 if name == "FP16" else np.float32


def ask(model: Model, picture: Picture, options: argparse.Namespace) -> Detections | Classification:
    """Everything between a picture and what is in it."""
    task = model.task if options.task == "auto" else options.task
    if len(model.outputs) != (2 if task == "segment" else 1):
        names = ", ".join(output.name for output in model.outputs)
        raise InputError(f"model '{model.name}' gives {names}: it is not for task '{task}'")
    if task == "classify":
        (output0,) = model.infer(to_tensor(center_crop(picture, model.size[0])))
        return decode_classify(output0)
    tensor, geometry = prepare(picture, model.size)
    limits = {"confidence": options.confidence, "iou": options.iou}
    if task == "segment":
        output0, output1 = model.infer(tensor)
        return decode_segment(output0, output1, geometry, **limits)
    (output0,) = model.infer(tensor)
    return decode_detect(output0, geometry, **limits)


def main() -> int:
    """Read, ask, draw, write."""
    options = parse_arguments()
    pixels = cv2.imread(str(options.picture))
    if pixels is None:
        sys.exit(f"{options.picture}: there is no such file, or OpenCV can't read it")
    picture = np.asarray(pixels, dtype=np.uint8)
    names = options.names.read_text("utf-8").splitlines() if options.names else None
    try:
        found = ask(Model(options.url, options.model), picture, options)
    except InferenceServerException as error:
        sys.exit(f"{options.url}, model '{options.model}': {error}")
    except TritierError as error:
        sys.exit(str(error))
    if isinstance(found, Classification):
        for number, probability in zip(found.class_id, found.probability, strict=True):
            print(f"{probability:.3f}  {class_name(number, names)}")
        drawn = draw_classification(picture, found, names)
    else:
        for number, sure, box in zip(found.class_id, found.confidence, found.boxes, strict=True):
            print(f"{sure:.3f}  {class_name(number, names)}  {np.rint(box).astype(int).tolist()}")
        print(f"{len(found)} objects")
        drawn = draw_detections(picture, found, names)
    if not cv2.imwrite(str(options.output), drawn):
        sys.exit(f"{options.output}: can't be written; is it a .jpg or .png in a folder there is?")
    print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
