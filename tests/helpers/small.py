"""A small model of convolutions whose cost is known: for tests of servers under load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tritier.divider import Arrays, WholeModel
from tritier.graph import LoadedModel, load_model

LAYERS = 4


def write_small(path: Path, channels: int = 8, side: int = 32, layers: int = LAYERS) -> LoadedModel:
    """A chain `conv0, relu0, conv1, ...` from `x` [1, 4, side, side] to `y`, weights drawn.

    Every float of `y` depends on every layer, so that a wrong split shows. The batch size is fixed:
    one request is one execution, and its time is the same under load.
    """
    draw = np.random.default_rng(7)
    nodes, weights, name, width = [], [], "x", 4
    for index in range(layers):
        wide = 4 if index == layers - 1 else channels
        kernel = draw.normal(0, (2 / (9 * width)) ** 0.5, (wide, width, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{index}"))
        nodes.append(
            helper.make_node(
                "Conv", [name, f"w{index}"], [f"c{index}"], f"conv{index}", pads=[1, 1, 1, 1]
            )
        )
        last = index == layers - 1
        if not last:
            nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], f"relu{index}"))
        name, width = (f"c{index}" if last else f"r{index}"), wide
    nodes[-1].output[0] = "y"
    shape = [1, 4, side, side]
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return load_model(path)


def questions(model: LoadedModel, count: int = 8, seed: int = 0) -> list[tuple[Arrays, Arrays]]:
    """Inputs of `write_small` and what the whole model, without graph optimisation, answers."""
    draw = np.random.default_rng(seed)
    whole = WholeModel(model.path, "disabled")
    shape = [d.dim_value for d in model.proto.graph.input[0].type.tensor_type.shape.dim]
    inputs: list[Arrays] = [{"x": draw.normal(size=shape).astype(np.float32)} for _ in range(count)]
    return [(arrays, whole.run(arrays)) for arrays in inputs]
