"""Inputs of a model as options of a command give them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tritier.calibration import (
    FileInputs,
    ImageInputs,
    Inputs,
    choose,
    find_images,
    input_files,
    load_preprocessing,
)
from tritier.cli.output import say
from tritier.documents import Ranges
from tritier.errors import InputError, UsageError
from tritier.graph import LoadedModel


def find_inputs(
    model: LoadedModel,
    images: list[Path] | None,
    preprocessing: str | None,
    data: list[Path] | None,
    limit: int | None,
    seed: int,
) -> tuple[Inputs, str]:
    """The inputs, and in words where they come from."""
    if bool(images) == bool(data):
        raise UsageError("give either --images with --preprocessing, or --data")
    if data and preprocessing:
        raise UsageError("--preprocessing is for --images; --data is taken as it is")
    if images and not preprocessing:
        raise UsageError("--images needs --preprocessing: a preset or a file")
    all_files = find_images(images) if images else list(data or ())
    files = choose(all_files, limit, seed)
    chosen = f" of {len(all_files)}, seed {seed}" if len(files) < len(all_files) else ""
    if images:
        how = load_preprocessing(str(preprocessing))
        text = f"{len(files)} images{chosen}, preprocessing {Path(str(preprocessing)).name}"
        return ImageInputs.of(model, files, how), text
    return FileInputs.of(model, files), f"{len(files)} input files{chosen}"


def sizes_of_first(inputs: Inputs) -> dict[str, int]:
    """Symbolic sizes of the model's inputs, as `--dim` names them."""
    tensors = [inputs.tensor] if isinstance(inputs, ImageInputs) else inputs.tensors
    first = next(iter(inputs))
    return {
        f"{tensor.name}[{axis}]" if want == "?" else str(want): size
        for tensor in tensors
        for axis, (want, size) in enumerate(
            zip(tensor.shape, first[tensor.name].shape, strict=True)
        )
        if isinstance(want, str)
    }


def divided(
    files: Inputs, count: int, calibration: int, seed: int, ranges: Ranges | None, least: int = 2
) -> tuple[Inputs, Inputs]:
    """Inputs to measure noise on, and others to calibrate on. Files of the same content count
    once; those on which given ranges were calibrated are left out. Without ranges, at most half of
    all are for noise. Raises InputError if too few are left."""
    left = _different(files, ranges)
    if ranges is None:
        count = min(count, len(left) // 2)
    if min(count, len(left)) < least:
        raise InputError(
            f"{len(left)} inputs are too few: noise is measured on at least {least}"
            + ("" if ranges else f", and ranges are calibrated on at least {least} others")
            + "; give more with --images or --data"
        )
    noise = choose(left, count, seed)
    rest = choose([path for path in left if path not in noise], calibration, seed)
    return (
        dataclasses.replace(files, paths=tuple(noise)),
        dataclasses.replace(files, paths=tuple(rest)),
    )


def _different(files: Inputs, ranges: Ranges | None) -> list[Path]:
    found: dict[str, Path] = {}
    for path, item in zip(files.paths, input_files(files), strict=True):
        found.setdefault(item.sha256, path)
    if copies := len(files) - len(found):
        say(f"{copies} inputs are copies of others and left out")
    calibrated = {item.sha256 for item in ranges.inputs} if ranges else set()
    if ranges and not calibrated:
        say(
            "the ranges don't say which inputs they come from: noise is too small if these are "
            "among them. Calibrate again with `tritier ranges`"
        )
    left = [path for digest, path in found.items() if digest not in calibrated]
    if not left:
        raise InputError(
            f"the ranges were calibrated on all {len(found)} inputs: noise would look smaller than "
            "it is. Give others with --images or --data, or leave --ranges out"
        )
    if shared := len(found) - len(left):
        say(f"{shared} inputs, on which the ranges were calibrated, are left out")
    return left
