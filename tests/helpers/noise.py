"""A small model that lives, inputs for it as files, and what learning its noise needs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.models import load
from tritier.calibration import FileInputs, calibrate
from tritier.workflow import NoiseRequest

SIZE = 6


def numbers(name: str, shape: tuple[int, ...], seed: int, scale: float = 0.5) -> str:
    """An initializer with drawn values, as text."""
    drawn = np.random.default_rng(seed).normal(0, scale, math.prod(shape))
    values = ", ".join(f"{value:.3f}" for value in drawn)
    return f"float[{','.join(map(str, shape))}] {name} = {{{values}}}"


WEIGHTS = ", ".join(numbers(f"w{i}", (3, 3, 1, 1), i) for i in range(1, 5))
# Of four Convs, one beside a shortcut.
NETWORK = f"""
    g (float[N,3,H,W] x) => (float[N,3,H,W] y) <{WEIGHTS}> {{
      [c1] a = Conv(x, w1) [r1] b = Relu(a) [c2] c = Conv(b, w2) [r2] d = Relu(c)
      [c3] e = Conv(d, w3) [add] f = Add(e, b) [c4] y = Conv(f, w4)
    }}
"""
CONVS = ("c1", "c2", "c3", "c4")
THREE = ("c1", "c2", "c4")
PAIR = ("c1", "c4")


def arrays(number: int, size: int = SIZE) -> dict[str, Any]:
    """Input number so and so of the network."""
    draw = np.random.default_rng(100 + number)
    return {"x": draw.normal(size=(1, 3, size, size)).astype(np.float32)}


def write_inputs(folder: Path, count: int, first: int = 0, size: int = SIZE) -> list[Path]:
    """Files x0.npz, x1.npz, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"x{first + i}.npz" for i in range(count)]
    for number, path in enumerate(paths, first):
        np.savez(path, **arrays(number, size))
    return paths


def request_for(
    folder: Path,
    text: str = NETWORK,
    layers: tuple[str, ...] = PAIR,
    count: int = 2,
    **changes: Any,
) -> NoiseRequest:
    """For a model as text: calibrated on two inputs, noise on `count` others."""
    model = load(folder, text)
    others = FileInputs.of(model, write_inputs(folder / "calibration", 2, first=50))
    inputs = FileInputs.of(model, write_inputs(folder / "inputs", count))
    ranges = calibrate(model, others)
    request = NoiseRequest(model, layers, inputs, ranges, folder / "store")
    return dataclasses.replace(request, **changes)
