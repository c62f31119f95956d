"""Cut a quantized model into pieces by which choices of layers can influence them.

Two subsets that agree in the choices that can influence a piece have the same piece with the same
inputs: it is run once for both.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto, helper

from tritier.divider import QuantizedBody, in_order
from tritier.graph import ELEMENT_TYPES, LayerGraph, TensorInfo, free_names

# A layer of these types is computed by itself; others can be fused into the layer before them.
_HEAVY = {"Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool", "Resize", "Concat"}
# ONNX Runtime moves DequantizeLinear behind these, and QuantizeLinear before them.
_MOVING = {"MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Flatten"}
# It folds these into the layer before them, when all that they read besides is constant,
_FOLDED = {"BatchNormalization", "Mul", "Add", "Relu", "Clip", "Identity", "Dropout"}
# and these into the layer behind them.
_LEADING = {"Pad", "Identity", "Dropout"}
# End the names of what is quantized once more, and of what that gives.
_CROSSING, _QUANTIZED = "//crossing", "//quantized"
_TWIN = "//twin"  # ends the name of what is dequantized for readers that are in other pieces


@dataclass(frozen=True)
class Piece:
    """A part of a model: `key` is a hash of all that it computes, but not of its inputs."""

    key: bytes
    nodes: tuple[onnx.NodeProto, ...] = field(repr=False)
    inputs: Mapping[str, str]  # name in the piece -> name in the model
    outputs: tuple[str, ...]
    constants: tuple[onnx.TensorProto, ...] = field(repr=False)
    twins: tuple[str, ...]  # outputs that nobody wants, float32


class Influence:
    """Which layers' choices can influence what each layer computes and what its readers see, as
    bit masks: bit i stands for layer i of `layers`. `fused` are tensors that ONNX Runtime does not
    make in the float model, as it computes their makers and readers as one.

    What ONNX Runtime fuses of several readers only when something before them is quantized is not
    known here: the self-check of a profile would find it.
    """

    def __init__(
        self, graph: LayerGraph, layers: Sequence[str], fused: Collection[str] = ()
    ) -> None:
        bit = {name: 1 << index for index, name in enumerate(layers)}
        touches: dict[str, int] = defaultdict(int)
        for layer in graph.layers:
            for name in (*layer.inputs, *layer.outputs):
                touches[name] |= bit.get(layer.name, 0)
        self.on_tensor: dict[str, int] = {name: touches[name] for name in graph.inputs}
        self.on_layer = {layer.name: bit.get(layer.name, 0) for layer in graph.layers}
        joined = _joined(graph, fused)
        before: dict[str, int] = {}
        while before != self.on_layer:
            before = dict(self.on_layer)
            for layer in graph.layers:
                for name in layer.inputs:
                    self.on_layer[layer.name] |= self.on_tensor[name]
                for name in layer.outputs:
                    self.on_tensor[name] = self.on_layer[layer.name] | touches[name]
            for layer in reversed(graph.layers):
                for reader in joined[layer.name]:
                    self.on_layer[layer.name] |= self.on_layer[reader]


def _joined(graph: LayerGraph, fused: Collection[str]) -> dict[str, list[str]]:
    """Layer -> readers that must be in its piece, as ONNX Runtime may compute the two as one while
    the tensor between them is not quantized."""
    found: dict[str, list[str]] = defaultdict(list)
    for layer in graph.layers:
        for name in layer.outputs:
            readers = graph.consumers.get(name, ())
            alone = len(readers) == 1 and len(readers[0].inputs) == 1
            if name in fused or (alone and readers[0].op_type not in _HEAVY):
                found[layer.name] += [reader.name for reader in readers]
    return found


class Partition:
    """The pieces of one choice of quantized layers.

    Constants, and nodes that depend on constants only, are copied into each piece that reads them.
    So are DequantizeLinear nodes: what crosses from piece to piece is quantized.

    With `kernels`, ONNX Runtime must find in a piece all that makes it replace a layer by an int8
    kernel: a QuantizeLinear stays with a layer that may be replaced, and readers in another piece
    have the pair once more, which changes nothing, as the values are on its steps already. Where
    the tensor has several readers, it has two of them in each piece.
    """

    def __init__(
        self, quantized: QuantizedBody, graph: LayerGraph, influence: Influence, kernels: bool
    ) -> None:
        self._constants = quantized.body.initializers
        self._influence = influence
        self._outputs = graph.outputs
        self._kernels = kernels
        self._base = {before: name for name, before in quantized.made.items()}
        self._nodes = list(in_order(quantized.body.nodes, self._constants))
        self._added = {n.name for n in self._nodes if n.name not in quantized.originals}
        self._maker = {name: node for node in self._nodes for name in node.output if name}
        self._readers = Counter(name for node in self._nodes for name in free_names(node))
        self._readers.update(graph.outputs)
        self._alive = set(graph.inputs)  # tensors that depend on an input of the model
        self._group_of: dict[str, int] = {}  # name of a node -> its group; the others are copied

    def pieces(self, keys: ConstantKeys) -> list[Piece]:
        """In topological order: a group, which is a bit mask, only grows along an edge."""
        members: dict[int, list[onnx.NodeProto]] = defaultdict(list)
        for node in self._nodes:
            if any(name in self._alive for name in free_names(node)):
                self._alive |= set(node.output)
                group = self._group(node)
                if group is not None:
                    self._group_of[node.name] = group
                    members[group].append(node)
        order = sorted(members, key=lambda group: (group.bit_count(), group))
        parts = {group: self._with_copies(members[group]) for group in order}
        if self._kernels:
            parts = {group: self._with_pairs(nodes) for group, nodes in parts.items()}
        wanted = set(self._outputs)
        for nodes in parts.values():
            made = {name for node in nodes for name in node.output}
            wanted |= {self._source(n) for node in nodes for n in free_names(node) if n not in made}
        found = []
        for group, nodes in parts.items():
            outputs = [name for node in members[group] for name in node.output if name in wanted]
            found.append(self._piece(nodes, outputs, keys))
        return found

    def _group(self, node: onnx.NodeProto) -> int | None:
        """None for a node that is copied."""
        if node.name not in self._added:
            return self._influence.on_layer[node.name]
        source = node.input[0]
        maker = self._maker.get(source)
        if node.op_type == "DequantizeLinear":
            if self._kernels and maker is not None:
                return self._group_of[maker.name]
            if node.output[0] not in self._outputs:
                return None
        if (
            self._kernels
            and node.op_type == "QuantizeLinear"
            and maker is not None
            and maker.name not in self._added
            and self._is_fusible(maker)
        ):
            return self._influence.on_layer[maker.name]
        while maker is not None and maker.name in self._added:  # of the pair itself, or before it
            source = maker.input[0]
            maker = self._maker.get(source)
        return self._influence.on_tensor[self._base.get(source, source)]

    def _is_fusible(self, layer: onnx.NodeProto) -> bool:
        """Whether ONNX Runtime may compute with integers what a layer makes, if that is quantized:
        all activations that it reads come out of pairs, or it is folded into such a layer. Weights
        that don't are quantized by ONNX Runtime itself."""
        read = [name for name in free_names(layer) if name in self._alive]
        if all(self._pair_before(name, _MOVING | _LEADING) for name in read):
            return True
        maker = self._maker.get(read[0])
        if maker is None or len(read) > 1 or layer.op_type not in _MOVING | _FOLDED:
            return False
        return self._is_fusible(maker)

    def _pair_before(self, name: str, passed: Collection[str]) -> list[onnx.NodeProto]:
        """The pair that a tensor comes out of, as it is or through layers of the types `passed`."""
        maker = self._maker.get(name)
        if maker is not None and maker.name in self._added:
            return [self._maker[maker.input[0]], maker]
        if maker is None or maker.op_type not in passed:
            return []
        return self._pair_before(maker.input[0], passed)

    def _with_copies(self, nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """The nodes and, before each, those of its copied makers that are not yet there."""
        found: dict[str, onnx.NodeProto] = {}

        def add(node: onnx.NodeProto) -> None:
            waiting = [node]
            while waiting:
                current = waiting[-1]
                makers = [self._maker[n] for n in free_names(current) if n in self._maker]
                missing = [
                    m for m in makers if m.name not in self._group_of and m.name not in found
                ]
                if missing:
                    waiting += missing
                else:
                    found.setdefault(waiting.pop().name, current)

        for node in nodes:
            add(node)
        return list(found.values())

    def _with_pairs(self, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """The nodes and, before them, the pairs that are in other pieces."""
        made = {name for node in nodes for name in node.output}
        read = dict.fromkeys(n for node in nodes for n in free_names(node) if n not in made)
        found = []
        for name in read:
            pair = self._pair_before(name, _MOVING) if name in self._alive else []
            if not pair:
                continue
            opening, closing = onnx.NodeProto(), onnx.NodeProto()
            opening.CopyFrom(pair[0])
            closing.CopyFrom(pair[1])
            opening.input[0] = name + _CROSSING
            opening.output[0] = closing.input[0] = name + _QUANTIZED
            closing.output[0] = name
            opening.name, closing.name = opening.output[0], name + _CROSSING
            found += [opening, closing]
        return [*found, *nodes]

    def _twins(
        self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]
    ) -> list[onnx.NodeProto]:
        """A second reader of what is quantized in a piece, where the whole model has several and
        the piece only one: what ONNX Runtime makes of a pair hangs on that."""
        here = Counter(name for node in nodes for name in free_names(node))
        here.update(outputs)
        found = []
        for node in nodes:
            name = node.output[0]
            if node.op_type != "DequantizeLinear" or name not in self._alive:
                continue
            if here[name] < 2 <= self._readers[name]:
                found.append(onnx.NodeProto())
                found[-1].CopyFrom(node)
                found[-1].name = found[-1].output[0] = name + _TWIN
        return found

    def _source(self, name: str) -> str:
        """The tensor of the model that an input of a piece is."""
        return name if name in self._alive else name.removesuffix(_CROSSING)

    def _piece(
        self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], keys: ConstantKeys
    ) -> Piece:
        nodes = [*nodes, *self._twins(nodes, outputs)] if self._kernels else nodes
        made = dict.fromkeys(name for node in nodes for name in node.output)
        read = dict.fromkeys(name for node in nodes for name in free_names(node))
        inputs = {
            name: self._source(name)
            for name in read
            if name not in made and self._source(name) in self._alive
        }
        constants = tuple(self._constants[name] for name in read if name in self._constants)
        twins = [name for name in made if name.endswith(_TWIN)]
        digest = hashlib.sha256(repr((list(inputs), outputs, twins)).encode())
        for node in nodes:
            digest.update(node.SerializeToString(deterministic=True))
        for tensor in constants:
            digest.update(keys.of(tensor))
        return Piece(digest.digest(), tuple(nodes), inputs, tuple(outputs), constants, tuple(twins))


class ConstantKeys:
    """Hashes of constants; those of the model itself, which stay as they are, are hashed once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._tensors = list(model.graph.initializer)  # an id tells an object while that lives
        self._own = {id(t): f"model {t.name}".encode() for t in self._tensors}

    def of(self, tensor: onnx.TensorProto) -> bytes:
        """Of the name and the content."""
        own = self._own.get(id(tensor))
        return own or hashlib.sha256(tensor.SerializeToString(deterministic=True)).digest()


def piece_model(
    source: onnx.ModelProto, piece: Piece, infos: Mapping[str, TensorInfo]
) -> onnx.ModelProto:
    """A piece as a model of its own; `infos` has its inputs and outputs, by
    their names in the model."""

    def value(name: str, tensor: str) -> onnx.ValueInfoProto:
        info = infos[tensor]
        shape = [None if dim == "?" else dim for dim in info.shape]
        return helper.make_tensor_value_info(name, ELEMENT_TYPES[info.dtype], shape)

    graph = helper.make_graph(
        list(piece.nodes),
        "piece",
        [value(name, tensor) for name, tensor in piece.inputs.items()],
        [
            *(value(name, name) for name in piece.outputs),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in piece.twins),
        ],
        list(piece.constants),
    )
    read = {name for node in piece.nodes for name in free_names(node)}
    graph.sparse_initializer.extend(
        x for x in source.graph.sparse_initializer if x.values.name in read
    )
    model = helper.make_model(graph, opset_imports=source.opset_import)
    model.ir_version = max(source.ir_version, 4)
    model.functions.extend(source.functions)
    return model
