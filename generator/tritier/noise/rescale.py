"""Statistics rescaling of random weights: for benchmarks only.

A model that was exported with random weights carries no signal. Its outputs hardly depend on its
inputs, and quantized layers move them by some 1e-9, of which nothing can be learned. Here each
layer's output channels get a mean and a spread over a few inputs, in the model's order, as batch
normalisation would do that has just seen them. What the model finds in a picture still means
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

import tritier
from tritier.calibration import Arrays
from tritier.divider import WholeModel
from tritier.divider.rename import fresh_names
from tritier.errors import InputError
from tritier.graph import LoadedModel, build_layer_graph, fits_one_file, free_names
from tritier.noise.random_layers import Array, RandomLayer, find_random_layers
from tritier.noise.signal import SignalMeter

WEIGHTS_KEY = "tritier.weights"
"""Under which the metadata of a model say that its weights were rescaled."""

Floats = npt.NDArray[np.float64]

# Fewer values of a channel, as behind global pooling, don't tell its spread: dividing by it could
# make a huge number of a small one. Then all channels are divided by their common spread.
_FEW_VALUES = 64
_STILL = 1e-6  # a spread below this share of the values is rounding


@dataclass(frozen=True)
class Targets:
    """Mean and spread (standard deviation) of layers' output channels.

    Each channel's own spread is drawn from a log-normal distribution around `spread` whose
    logarithm has the standard deviation `spread_varies`, its mean from a normal one around `mean`
    with `mean_varies`. Layers that an activation follows have targets of their own: around a mean
    of 0 activations bend so much that a deep random network makes noise larger than the signal.
    """

    mean: float = 0.0
    spread: float = 1.0
    activated_mean: float = 1.5
    activated_spread: float = 0.5
    mean_varies: float = 0.25
    spread_varies: float = 0.25


@dataclass(frozen=True)
class Step:
    """A layer that was rescaled, but for `still` of its channels, which no input moves."""

    layer: str
    number: int
    of: int
    channels: int
    still: int


def rescale_statistics(
    model: LoadedModel,
    inputs: Sequence[Arrays],
    seed: int,
    targets: Targets = Targets(),
    report: Callable[[Step], None] = lambda _: None,
) -> onnx.ModelProto:
    """A copy of the model whose layers have the targets' statistics over the inputs.

    Graph, names, types and shapes stay; layers that shared a constant get one each, and those
    without a bias get one. The seed draws each channel's mean and spread. The inputs stay in
    memory, with the tensors that some layer still needs.

    Raises InputError for fewer than 2 inputs, for batch normalisation, when there is nothing to
    rescale, and when ONNX Runtime refuses the model or values are not finite.
    """
    if len(inputs) < 2:
        raise InputError(f"rescaling needs at least 2 inputs that differ, there is {len(inputs)}")
    if not fits_one_file(model.proto):
        raise InputError("the model is above 2 GiB, which a model without data beside it can't be")
    graph = build_layer_graph(model.proto)
    layers, _ = find_random_layers(model.proto, graph)
    kept = sorted([*graph.constant_nodes, *(layer.index for layer in graph.layers)])
    result = onnx.ModelProto()
    result.CopyFrom(model.proto)
    constants = _Constants(result.graph)
    runner = _Runner(result, constants, kept, inputs)
    generator = np.random.default_rng(seed)
    for number, layer in enumerate(layers, 1):
        values = runner.run_to(layer.index, layer.output)
        change = _change_of(layer, values, constants, targets, generator)
        constants.put(layer.index, 1, change.weights)
        if layer.bias is not None and change.bias is not None:
            constants.put(*layer.bias, change.bias)
        runner.replace(layer.output, [change.apply(array) for array in values])
        report(Step(layer.name, number, len(layers), layer.channels, change.still))
    constants.drop_unread()
    _name_it(result, f"random, statistics rescaled on {len(inputs)} inputs, seed {seed}")
    return result


def output_variation(model: onnx.ModelProto, inputs: Sequence[Arrays]) -> dict[str, float | None]:
    """How much of each output's spread hangs on the input: the standard deviation of an element
    over the inputs, root mean square over elements, by the standard deviation of all values.

    Where the shape hangs on the input, elements are compared in the corner that all have in common.
    None for outputs without such a corner, or that hold no floats. Raises InputError when ONNX
    Runtime refuses the model or the inputs.
    """
    whole = WholeModel(model.SerializeToString(), "basic")
    meter = SignalMeter()
    for arrays in inputs:
        found = whole.run(arrays)
        meter.add({name: array for name, array in found.items() if array.dtype.kind == "f"})
    signals = meter.signals()
    return {name: signals[name].variation if name in signals else None for name in whole.outputs}


@dataclass(frozen=True)
class _Change:
    """New constants of a layer, and what becomes of the tensor that it made: times a factor plus a
    shift."""

    weights: Array
    bias: Array | None
    factors: Floats
    shifts: Floats
    axis: int
    still: int

    def apply(self, array: Array) -> Array:
        shape = [1] * array.ndim
        shape[self.axis] = -1
        # In the tensor's own type, which spares a copy of double size.
        kind = array.dtype
        result = np.multiply(array, self.factors.reshape(shape).astype(kind))
        result += self.shifts.reshape(shape).astype(kind)
        return result


def _change_of(
    layer: RandomLayer,
    values: Sequence[Array],
    constants: _Constants,
    targets: Targets,
    generator: np.random.Generator,
) -> _Change:
    means, spreads, count = _statistics(values, layer.axis, layer.name)
    still = spreads <= _STILL * np.maximum(np.abs(means), spreads.max())
    divisors = spreads
    if count < _FEW_VALUES:
        divisors = np.full_like(spreads, np.sqrt(np.mean(np.square(spreads))))
    active = layer.is_activated
    center = targets.activated_mean if active else targets.mean
    width = targets.activated_spread if active else targets.spread
    wanted_spreads = width * np.exp(generator.normal(0, targets.spread_varies, layer.channels))
    wanted_means = generator.normal(center, targets.mean_varies, layer.channels)
    factors = np.where(still, 1.0, wanted_spreads / np.where(still, 1.0, divisors))
    old = constants.floats(layer.index, 1)
    weights = _per_channel(factors, old.ndim, layer) * old.reshape(_grouped(old.shape, layer))
    shifts = np.where(still, 0.0, wanted_means - factors * means)
    bias = None
    if layer.bias is not None:
        times = constants.attribute(layer.index, "beta", 1.0)
        before = np.broadcast_to(constants.floats(*layer.bias).ravel(), layer.channels)
        if layer.op_type == "MatMul":
            bias = np.where(still, before, shifts)
        else:  # the bias is in the values already
            bias = (factors * times * before + shifts) / times
    if bias is None or layer.op_type == "MatMul":
        shifts = np.zeros_like(shifts)
    return _Change(weights.reshape(old.shape), bias, factors, shifts, layer.axis, int(still.sum()))


def _grouped(shape: Sequence[int], layer: RandomLayer) -> list[int]:
    """A group's weights hold its own channels along the second dimension of a ConvTranspose: the
    shape with the groups as a first dimension."""
    return [layer.groups, shape[0] // layer.groups, *shape[1:]]


def _per_channel(factors: Floats, dimensions: int, layer: RandomLayer) -> Floats:
    """Factors in a shape to multiply grouped weights with."""
    shape = [layer.groups, *([1] * dimensions)]
    shape[1 + layer.weight_axis] = layer.channels // layer.groups
    return factors.reshape(shape)


def _statistics(values: Sequence[Array], axis: int, name: str) -> tuple[Floats, Floats, int]:
    """Mean and standard deviation of each channel over all arrays, and how many values it has."""
    if not all(array.size for array in values):
        raise InputError(f"layer '{name}' makes no values from these inputs: give larger ones")
    counts, means, squares = [], [], []
    for array in values:
        if not np.isfinite(array).all():
            raise InputError(
                f"layer '{name}' makes values that are not finite: leave the input out, or repair "
                "the model"
            )
        others = tuple(i for i in range(array.ndim) if i != axis % array.ndim)
        counts.append(array.size // array.shape[axis])
        means.append(array.mean(axis=others, dtype=np.float64))
        squares.append(array.var(axis=others, dtype=np.float64))
    total = sum(counts)
    shares = np.array(counts, np.float64)[:, None] / total
    mean = (shares * np.array(means)).sum(axis=0)
    variance = (shares * (np.array(squares) + np.square(np.array(means) - mean))).sum(axis=0)
    return mean, np.sqrt(variance), total


class _Constants:
    """The constants of a graph, of which layers get their own copies."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._readers = Counter(name for node in graph.node for name in node.input)
        self._readers.update(
            n for node in graph.node for n in free_names(node) if n not in node.input
        )
        self._readers.update(value.name for value in graph.output)
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._before = [name for name in self.tensors if self._readers[name]]
        self._taken = {t.name for t in graph.initializer} | {v.name for v in graph.input}
        self._taken |= {name for node in graph.node for name in (*free_names(node), *node.output)}

    def floats(self, node: int, place: int) -> Floats:
        """An input of a node, in double precision; 0 if it has none there."""
        names = self._graph.node[node].input
        if place >= len(names) or not names[place]:
            return np.zeros(1)
        return numpy_helper.to_array(self.tensors[names[place]]).astype(np.float64)

    def attribute(self, node: int, name: str, default: float) -> float:
        """A number among the attributes of a node."""
        found = (a.f for a in self._graph.node[node].attribute if a.name == name)
        return next(found, default)

    def put(self, node: int, place: int, values: Array) -> None:
        """Give a node a constant of its own, of the type and, if it fits, the shape of the old."""
        names = self._graph.node[node].input
        names.extend([""] * (place + 1 - len(names)))
        old = self.tensors.get(names[place])
        kind = old if old is not None else self.tensors[names[1]]
        name = old.name if old is not None else f"{self._graph.node[node].output[0]}_bias"
        array = values.astype(numpy_helper.to_array(kind).dtype)
        if not np.isfinite(array).all():
            raise InputError(f"constant '{name}' would not be finite as {array.dtype}")
        if old is not None:
            if array.size == np.prod(old.dims):
                array = array.reshape(tuple(old.dims))
                if self._readers[name] == 1:
                    old.CopyFrom(numpy_helper.from_array(array, name))
                    return
            self._readers[name] -= 1
        names[place] = fresh_names([name], self._taken)[name]
        tensor = self._graph.initializer.add()
        tensor.CopyFrom(numpy_helper.from_array(array, names[place]))
        self.tensors[tensor.name] = tensor
        self._readers[tensor.name] = 1

    def drop_unread(self) -> None:
        """Remove those that all readers have replaced by their own."""
        gone = {name for name in self._before if not self._readers[name]}
        for items in (self._graph.initializer, self._graph.input):
            for index in reversed(range(len(items))):
                if items[index].name in gone:
                    del items[index]


class _Runner:
    """Runs a model from one layer to the next, and forgets a tensor after its last reader."""

    def __init__(
        self,
        model: onnx.ModelProto,
        constants: _Constants,
        kept: Sequence[int],
        inputs: Sequence[Arrays],
    ) -> None:
        self._model = model
        self._constants = constants
        self._left = list(kept)
        self._live: list[Arrays] = [dict(arrays) for arrays in inputs]
        self._last_reader: dict[str, int] = {}
        for index in kept:
            self._last_reader |= dict.fromkeys(free_names(model.graph.node[index]), index)

    def run_to(self, index: int, output: str) -> list[Array]:
        """Run all up to this node; what it makes, for each input."""
        indices = [i for i in self._left if i <= index]
        self._left = self._left[len(indices) :]
        piece = self._piece(indices, index, output)
        whole = WholeModel(piece.SerializeToString(), "basic")
        names = [value.name for value in piece.graph.input]
        for live in self._live:
            made = whole.run({name: live[name] for name in names})
            for name in [n for n in live if self._last_reader.get(n, -1) <= index]:
                del live[name]
            live.update(made)
        return [live[output] for live in self._live]

    def replace(self, name: str, arrays: Sequence[Array]) -> None:
        """Another value of a tensor that was run, for each input."""
        for live, array in zip(self._live, arrays, strict=True):
            live[name] = array

    def _piece(self, indices: Sequence[int], index: int, output: str) -> onnx.ModelProto:
        """A model of some nodes; the inputs are what is live and the outputs what is read later."""
        nodes = [self._model.graph.node[i] for i in indices]
        read = dict.fromkeys(name for node in nodes for name in free_names(node))
        piece = onnx.ModelProto(ir_version=max(self._model.ir_version, 4))
        piece.opset_import.extend(self._model.opset_import)
        piece.functions.extend(self._model.functions)
        piece.graph.name = "piece"
        piece.graph.node.extend(nodes)
        piece.graph.input.extend(self._declared(name) for name in read if name in self._live[0])
        piece.graph.output.extend(
            onnx.ValueInfoProto(name=name)
            for node in nodes
            for name in node.output
            if name == output or self._last_reader.get(name, -1) > index
        )
        piece.graph.initializer.extend(
            self._constants.tensors[name] for name in read if name in self._constants.tensors
        )
        piece.graph.sparse_initializer.extend(
            item for item in self._model.graph.sparse_initializer if item.values.name in read
        )
        return piece

    def _declared(self, name: str) -> onnx.ValueInfoProto:
        array = self._live[0][name]
        if not isinstance(array, np.ndarray):
            raise InputError(f"tensor '{name}' is a sequence or a map, which can't be rescaled")
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        return onnx.helper.make_tensor_value_info(name, kind, None)


def _name_it(model: onnx.ModelProto, text: str) -> None:
    """Say in the model what its weights are."""
    model.producer_name = "tritier"
    model.producer_version = tritier.__version__
    model.doc_string = f"Weights: {text}. For benchmarks only: what it computes means nothing."
    for entry in _entries(model):
        entry.value = text


def _entries(model: onnx.ModelProto) -> Iterator[onnx.StringStringEntryProto]:
    found = [entry for entry in model.metadata_props if entry.key == WEIGHTS_KEY]
    yield from found or [model.metadata_props.add(key=WEIGHTS_KEY)]
