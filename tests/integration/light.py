"""Architectures that ship with onnx, with weights that make their outputs tell something.

The weights of `onnx/backend/test/data/light` are all equal, so that every input gives the same
output and a wrong split would go unnoticed. Here they are drawn at random, from a fixed seed. The
models classify nothing; they only show whether two ways to run them agree.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"


def write_light_model(name: str, folder: Path, seed: int = 0) -> Path:
    """Write `light_<name>.onnx` with drawn weights into `folder`."""
    model = onnx.load(str(LIGHT / f"light_{name}.onnx"))
    generator = np.random.default_rng(seed)
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        shape = values.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
        if shape is None or len(shape) < 2:
            kept.append(node)
            continue
        fan_in = int(np.prod(shape[1:]))
        weights = generator.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.ir_version = max(model.ir_version, 4)  # initializers need not be inputs from 4 on
    path = folder / f"{name}.onnx"
    onnx.save(model, str(path))
    return path
