"""The light models with all weights drawn at random.

The weights that onnx ships with them are all equal, so that a wrong split would go unnoticed.
`tests.integration.light` draws the matrices and filters; that leaves the outputs of densenet121 and
inception_v2 independent of the input, so here every vector is drawn as well. Layers and wiring stay
as they are; only the widest of the fully connected layers (4096) become 256, for size: vgg19 has
70 MB instead of 550 MB. In their full width the nets are cut with the weights that onnx ships.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx
from onnx import numpy_helper

from tests.conformance.cases import LIGHT, Case, Sample, case_of, input_shape
from tritier.divider import Array
from tritier.graph import build_layer_graph

ARCHITECTURES = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet",
    "squeezenet", "vgg19", "zfnet512",
)  # fmt: skip
_WIDE, _NARROW = 4096, 256
_SCALE = ("BatchNormalization", 1)
# How the vectors of a layer are drawn: (type, position among its inputs) -> (low, high).
_VECTORS = {
    _SCALE: (0.7, 1.3),
    ("BatchNormalization", 2): (-0.2, 0.2),
    ("BatchNormalization", 3): (-0.2, 0.2),
    ("BatchNormalization", 4): (0.7, 1.3),
    ("Conv", 2): (-0.2, 0.2),
    ("Gemm", 2): (-0.2, 0.2),
    ("Mul", 1): (0.7, 1.2),
    ("Add", 1): (-0.2, 0.2),
}


@lru_cache(maxsize=2)
def drawn_case(architecture: str, seed: int = 0) -> Case:
    """A light model with drawn weights, and two inputs."""
    model = onnx.load(str(LIGHT / f"light_{architecture}.onnx"))
    generator = np.random.default_rng(seed)
    _draw_weights(model, generator)
    (given,) = build_layer_graph(model).inputs
    shape = input_shape(model, given)
    samples = tuple(
        Sample({given: generator.standard_normal(shape, dtype=np.float32)}) for _ in range(2)
    )
    return case_of(f"drawn/{architecture}", model, samples)


def _draw_weights(model: onnx.ModelProto, generator: np.random.Generator) -> None:
    graph = model.graph
    use = _uses(graph)
    # Every residual sum would double the size of activations, until softmax gives only 0 and 1.
    damping = 0.5 if any(node.op_type == "Sum" for node in graph.node) else 1.0
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    drawn, kept = {}, []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shape = tuple(int(n) for n in values[node.input[0]])
            drawn[node.output[0]] = _draw(shape, use[node.output[0]], damping, generator)
        else:
            kept.append(node)
    for name, value in values.items():
        if name not in use:
            continue
        if value.dtype == np.float32:
            drawn[name] = _draw(value.shape, use[name], damping, generator)
        elif use[name][0] != "ConstantOfShape":
            drawn[name] = value
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in drawn.items())
    inputs = [v for v in graph.input if v.name not in values]
    del graph.input[:]
    graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)  # initializers need not be inputs from 4 on


def _uses(graph: onnx.GraphProto) -> dict[str, tuple[str, int]]:
    """Tensor -> what reads it last, and as which of its inputs; Unsqueeze is looked through."""
    use: dict[str, tuple[str, int]] = {}
    for node in reversed(graph.node):
        for index, name in enumerate(node.input):
            seen = node.op_type == "Unsqueeze" and node.output[0] in use
            use.setdefault(name, use[node.output[0]] if seen else (node.op_type, index))
    return use


def _draw(
    shape: tuple[int, ...], use: tuple[str, int], damping: float, generator: np.random.Generator
) -> Array:
    shape = tuple(_NARROW if size == _WIDE else size for size in shape)
    if len(shape) > 1:
        spread = np.float32((2 / np.prod(shape[1:])) ** 0.5)  # keeps the size of activations
        return generator.standard_normal(shape, dtype=np.float32) * spread
    vector = generator.uniform(*_VECTORS[use], shape)
    if use == _SCALE:
        vector *= damping
    return vector.astype(np.float32)
