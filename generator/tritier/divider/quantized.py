"""A model with layers quantized, by itself: no plan, no servers."""

from __future__ import annotations

import dataclasses
import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

import tritier
from tritier.divider.quantize import Body, LayerQuantizer, Pair, pairs_of
from tritier.divider.rename import fresh_names, rename_in_place, renamed_node
from tritier.documents import Quantization, Range
from tritier.graph import LayerGraph, TensorInfo, free_names, infer_tensors


@dataclass(frozen=True)
class QuantizedBody:
    """Nodes and constants of a model with layers quantized, and the pairs that stand behind its
    tensors. `originals` are the names of the model's own nodes; `made` maps a model output that has
    a pair to the name of what stands before the pair."""

    body: Body
    pairs: Mapping[str, Pair]
    originals: frozenset[str]
    made: Mapping[str, str]


class ModelQuantizer:
    """Quantizes layers of one model, for one choice of layers after the other."""

    def __init__(
        self, model: onnx.ModelProto, graph: LayerGraph, ranges: Mapping[str, Range]
    ) -> None:
        self._model = model
        self._graph = graph
        self._ranges = ranges
        self._infos: dict[str, TensorInfo] = {}

    def quantize(self, groups: Mapping[Quantization, Sequence[str]]) -> QuantizedBody:
        """The layers of each group quantized by its settings, in one pass each; node order is not
        topological then.

        Raises InputError when a range is missing, the opset is too old, or ONNX Runtime refuses or
        leaves a layer as it is.
        """
        constants = {t.name: t for t in self._model.graph.initializer}
        body = Body(self._named_nodes(constants), constants)
        originals = frozenset(node.name for node in body.nodes)
        quantizer = LayerQuantizer(
            self._infos_of(x for layers in groups.values() for x in layers),
            self._ranges,
            self._graph.inputs,
            self._graph.outputs,
            tuple(self._model.opset_import),
            originals,
        )
        for settings, layers in groups.items():
            body = quantizer.quantize(body, layers, settings)
        pairs = pairs_of(body, originals)
        outputs = [name for name in self._graph.outputs if name in pairs]
        made = {}
        for name in outputs:
            made[name], pairs[name] = _as_output(body, name, pairs)
        return QuantizedBody(body, pairs, originals, made)

    def _infos_of(self, layers: Iterable[str]) -> dict[str, TensorInfo]:
        """Of the tensors of these layers and no others: the quantizer narrows ranges by what it
        knows of neighbours."""
        chosen = [self._graph.by_name[name] for name in layers]
        names = dict.fromkeys(t for layer in chosen for t in (*layer.inputs, *layer.outputs))
        missing = [name for name in names if name not in self._infos]
        if missing:
            self._infos |= infer_tensors(self._model, missing)
        return {name: self._infos[name] for name in names}

    def _named_nodes(self, constants: dict[str, onnx.TensorProto]) -> list[onnx.NodeProto]:
        """Copies of the nodes that count, each layer under its own unique name. Constants that are
        nodes go to the others."""
        layer_at = {layer.index: layer.name for layer in self._graph.layers}
        taken = set(self._graph.by_name)
        nodes = []
        for index in sorted([*self._graph.constant_nodes, *layer_at]):
            node = renamed_node(self._model.graph.node[index], {}, {})
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            if node.op_type == "Constant" and value is not None:
                value.name = node.output[0]  # as an initializer it can be quantized
                constants[value.name] = value
                continue
            if index in layer_at:
                node.name = layer_at[index]
            else:
                node.name = fresh_names([f"constant_{index}"], taken)[f"constant_{index}"]
            nodes.append(node)
        return nodes


def _as_output(body: Body, name: str, pairs: Mapping[str, Pair]) -> tuple[str, Pair]:
    """A model output is what comes out of its pair; what is made before gets another name."""
    pair = pairs[name]
    taken = {n for node in body.nodes for n in (*free_names(node), *node.output)}
    before = fresh_names([f"{name}/made"], taken)[f"{name}/made"]
    for node in body.nodes:
        rename_in_place(node, {name: before, pair.after: name}, {})
    return before, dataclasses.replace(pair, after=name)


def uncut_model(
    source: onnx.ModelProto,
    nodes: Iterable[onnx.NodeProto],
    initializers: Mapping[str, onnx.TensorProto],
    opsets: Iterable[onnx.OperatorSetIdProto],
) -> onnx.ModelProto:
    """A model with the inputs, outputs and functions of another and with these nodes, which stand
    in topological order, and the constants that they read."""
    nodes = list(nodes)
    result = onnx.ModelProto(
        ir_version=max(source.ir_version, 4),
        producer_name="tritier",
        producer_version=tritier.__version__,
    )
    result.opset_import.extend(opsets)
    result.functions.extend(source.functions)
    graph = result.graph
    graph.name = source.graph.name
    graph.node.extend(nodes)
    graph.input.extend(v for v in source.graph.input if v.name not in initializers)
    graph.output.extend(source.graph.output)
    used = {name for node in nodes for name in free_names(node)}
    graph.initializer.extend(t for name, t in initializers.items() if name in used)
    graph.sparse_initializer.extend(source.graph.sparse_initializer)
    return result


def in_order(
    nodes: Iterable[onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> Iterator[onnx.NodeProto]:
    """Nodes in topological order, else in the given one."""
    nodes = list(nodes)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waits = []
    readers: dict[int, list[int]] = defaultdict(list)
    for index, node in enumerate(nodes):
        makers = {maker[n] for n in free_names(node) if n in maker and n not in constants}
        waits.append(len(makers))
        for before in makers:
            readers[before].append(index)
    ready = [index for index, count in enumerate(waits) if count == 0]
    heapq.heapify(ready)
    while ready:
        index = heapq.heappop(ready)
        yield nodes[index]
        for reader in readers[index]:
            waits[reader] -= 1
            if waits[reader] == 0:
                heapq.heappush(ready, reader)
