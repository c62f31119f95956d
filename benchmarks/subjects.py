"""Models with pictures for ranges and for noise, by a word on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.photographs import write_photographs
from benchmarks.text_photographs import write_text_photographs
from tests.helpers.ocr import DETECTION, DIRECTION
from tritier.calibration import ImageInputs, find_images, load_preprocessing
from tritier.documents import Preprocessing
from tritier.errors import UsageError
from tritier.graph import LoadedModel, PrepareOptions, load_model, prepare_model

HELP = "ppocr (trained text detector), ppocr-cls (trained classifier), or FILE=PREPROCESSING"
# Trained models that ship in rapidocr, and the size at which they are looked at.
_SHIPPED = {
    "ppocr": (DETECTION, (1, 3, 320, 640)),
    "ppocr-cls": (DIRECTION, (1, 3, 48, 192)),
}
_OCR_PREPROCESSING = Preprocessing(color="bgr", resize="stretch", mean=(0.5,), std=(0.5,))


@dataclass(frozen=True)
class Subject:
    """A model, and pictures of disjoint sources."""

    model: LoadedModel
    calibration: ImageInputs
    noise: ImageInputs


def subject(word: str, folder: Path, calibration: int, noise: int, seed: int = 0) -> Subject:
    """Of a word (see HELP); its files go into a folder. Raises UsageError for another word."""
    file, equals, preprocessing = word.rpartition("=")
    if word in _SHIPPED:
        source, shape = _SHIPPED[word]
        path = folder / f"{word}.onnx"
        prepare_model(source, PrepareOptions(shapes={"x": shape}, opset=17)).write(path)
        model, how = load_model(path), _OCR_PREPROCESSING
        lines = word == "ppocr-cls"
        places = write_text_photographs(folder / word, calibration, noise, seed, lines)
    elif equals:
        model, how = load_model(Path(file)), load_preprocessing(preprocessing)
        places = write_photographs(folder / model.default_name, calibration, noise, seed)
    else:
        raise UsageError(f"{word}: give {HELP}, such as {word}=yolo")
    sets = (ImageInputs.of(model, find_images([place]), how) for place in places)
    return Subject(model, *sets)
