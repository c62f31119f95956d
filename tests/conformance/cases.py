"""The models that onnx ships, each with inputs and the outputs that onnx expects.

The tolerance is that of onnx's own runner (`onnx/backend/test/loader`: 1e-3 relative, 1e-7
absolute; it grants densenet121 twice the relative part, which isn't needed here).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper, version_converter

from tests.helpers.models import assert_same_bits
from tritier.divider import Array, Arrays, WholeModel
from tritier.files import sha256_bytes
from tritier.graph import LayerGraph, LoadedModel, build_layer_graph, load_model

DATA = Path(onnx.backend.test.__file__).parent / "data"
LIGHT = DATA / "light"
# What ONNX Runtime has no kernels for in opset 6, it has from opset 7 on.
CONVERTED_OPSET = 7
RELATIVE, ABSOLUTE = 1e-3, 1e-7


@dataclass(frozen=True)
class Sample:
    """Inputs by name and, if onnx ships them, the outputs that belong to them."""

    inputs: Arrays
    expected: Arrays | None = None


@dataclass(frozen=True, repr=False)
class Case:
    """A model to cut. `source` is what ONNX Runtime reads: a file, or the model itself."""

    name: str
    model: LoadedModel
    source: Path | bytes
    samples: tuple[Sample, ...]
    _answers: dict[int, Arrays] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The name: a failing test shows its arguments."""
        return self.name

    @cached_property
    def graph(self) -> LayerGraph:
        """The layers to place."""
        return build_layer_graph(self.model.proto)

    @cached_property
    def layers(self) -> list[str]:
        """The names of the layers, in order."""
        return [layer.name for layer in self.graph.layers]

    def whole(self, index: int) -> Arrays:
        """What the uncut model answers to a sample; InputError if ONNX Runtime refuses it."""
        if index not in self._answers:
            whole = WholeModel(self.source, "disabled")
            self._answers.update({i: whole.run(s.inputs) for i, s in enumerate(self.samples)})
        return self._answers[index]

    def check(self, index: int, parts: Mapping[str, Array]) -> None:
        """Fail unless `parts` are the answer to a sample: the bits of the whole model, near to
        what onnx expects."""
        assert_same_bits(self.whole(index), parts)
        expected = self.samples[index].expected
        if expected is not None:
            assert_near(expected, parts)


def assert_near(expected: Mapping[str, Array], found: Mapping[str, Array]) -> None:
    """Fail unless types and shapes are equal and values within onnx's tolerance."""
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        other = found[name]
        assert (array.dtype, array.shape) == (other.dtype, other.shape), name
        numbers, wanted = other.astype(np.float64), array.astype(np.float64)
        np.testing.assert_allclose(numbers, wanted, rtol=RELATIVE, atol=ABSOLUTE, err_msg=name)


def shipped_names() -> list[str]:
    """Every model of onnx's test data, as `light/squeezenet` or `simple/test_sequence_model1`."""
    light = [f"light/{path.stem.removeprefix('light_')}" for path in LIGHT.glob("*.onnx")]
    folders = [path.parent.relative_to(DATA).as_posix() for path in DATA.rglob("model.onnx")]
    return sorted([*light, *folders])


def shipped_case(name: str) -> Case:
    """A model as onnx ships it."""
    if name.startswith("light/"):
        return _light_case(name)
    path = DATA / name / "model.onnx"
    model = load_model(path)
    folders = sorted(path.parent.glob("test_data_set_*"))
    return Case(name, model, path, tuple(_sample(model.proto, folder) for folder in folders))


def converted_case(name: str) -> Case:
    """The same model in an opset that ONNX Runtime runs, with the same samples."""
    shipped = shipped_case(name)
    proto = version_converter.convert_version(shipped.model.proto, CONVERTED_OPSET)
    return case_of(f"{name} in opset {CONVERTED_OPSET}", proto, shipped.samples)


def case_of(name: str, proto: onnx.ModelProto, samples: tuple[Sample, ...]) -> Case:
    """A case of a model that is in memory only."""
    data = proto.SerializeToString()
    onnx.checker.check_model(data)
    return Case(name, LoadedModel(Path("m.onnx"), sha256_bytes(data), proto), data, samples)


def ramp(shape: tuple[int, ...]) -> Array:
    """The input for which onnx ships the outputs of the light models."""
    count = int(np.prod(shape))
    return (np.arange(count).reshape(shape) / count).astype(np.float32)


def input_shape(proto: onnx.ModelProto, name: str) -> tuple[int, ...]:
    """Shape of an input without symbols."""
    value = next(v for v in proto.graph.input if v.name == name)
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _light_case(name: str) -> Case:
    stem = f"light_{name.removeprefix('light/')}"
    model = load_model(LIGHT / f"{stem}.onnx")
    graph = build_layer_graph(model.proto)
    (given,), (made,) = graph.inputs, graph.outputs
    inputs = {given: ramp(input_shape(model.proto, given))}
    expected = {made: _read(LIGHT / f"{stem}_output_0.pb")}
    return Case(name, model, model.path, (Sample(inputs, expected),))


def _sample(proto: onnx.ModelProto, folder: Path) -> Sample:
    graph = build_layer_graph(proto)
    arrays = [_read(folder / f"input_{index}.pb") for index in range(_count(folder, "input"))]
    expected = [_read(folder / f"output_{index}.pb") for index in range(_count(folder, "output"))]
    return Sample(
        dict(zip(graph.inputs, arrays, strict=True)),
        dict(zip(graph.outputs, expected, strict=True)),
    )


def _count(folder: Path, kind: str) -> int:
    return len(list(folder.glob(f"{kind}_*.pb")))


def _read(path: Path) -> Array:
    array: Array = numpy_helper.to_array(onnx.load_tensor(str(path)))
    return array
