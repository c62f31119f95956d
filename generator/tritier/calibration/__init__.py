"""Calibration ranges: photographs or arrays through a model, once, for any choice of wires and
quantized layers."""

from tritier.calibration.calibrate import Method, calibratable, calibrate, choose_tensors
from tritier.calibration.images import PRESETS, load_preprocessing, preprocess, read_image
from tritier.calibration.inputs import (
    Arrays,
    FileInputs,
    ImageInputs,
    Inputs,
    choose,
    find_images,
    input_files,
    read_arrays,
)

__all__ = [
    "PRESETS",
    "Arrays",
    "FileInputs",
    "ImageInputs",
    "Inputs",
    "Method",
    "calibratable",
    "calibrate",
    "choose",
    "choose_tensors",
    "find_images",
    "input_files",
    "load_preprocessing",
    "preprocess",
    "read_arrays",
    "read_image",
]
