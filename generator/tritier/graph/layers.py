"""The layer graph: which ONNX nodes there are to place, and what flows between them.

A *layer* is a node that a model input reaches and that reaches a model output. A node that depends
on no model input is a *constant* node: it is copied, like an initializer, into every sub-model
that uses it, and it is never placed. A node that no output depends on is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import onnx

from tritier.errors import InputError
from tritier.graph.tensors import TensorInfo, infer_tensors

# Two runs of these give different tensors, so copies of them would not agree.
_RANDOM_OPS = {
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
    "Bernoulli",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One ONNX node that is to be placed. `inputs` are the tensors that depend on model inputs;
    constants and initializers are not among them."""

    name: str
    op_type: str
    index: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class LayerGraph:
    """Layers in the model's order (which is topological) with the model's inputs and outputs."""

    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constant_nodes: tuple[int, ...]
    dropped_nodes: tuple[int, ...]

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """Layer name -> layer."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def source(self) -> dict[str, Layer]:
        """Tensor -> the layer that makes it; model inputs are not in it."""
        return {tensor: layer for layer in self.layers for tensor in layer.outputs}

    @cached_property
    def consumers(self) -> dict[str, tuple[Layer, ...]]:
        """Tensor -> the layers that read it, in order."""
        found: dict[str, list[Layer]] = {}
        for layer in self.layers:
            for tensor in layer.inputs:
                found.setdefault(tensor, []).append(layer)
        return {tensor: tuple(layers) for tensor, layers in found.items()}

    def to_networkx(self) -> nx.DiGraph[str]:
        """DiGraph of layer names; edges carry `tensors`, the names that flow along them."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(layer.name for layer in self.layers)
        for layer in self.layers:
            for tensor in layer.inputs:
                if tensor not in self.source:
                    continue
                edge = (self.source[tensor].name, layer.name)
                if not graph.has_edge(*edge):
                    graph.add_edge(*edge, tensors=[])
                graph.edges[edge]["tensors"].append(tensor)
        return graph


def build_layer_graph(model: onnx.ModelProto) -> LayerGraph:
    """Find the layers of a checked model.

    Raises InputError when the model has no input, an input that nothing reads, an output that
    depends on no input, or a node that draws random numbers.
    """
    graph = model.graph
    initializers = {t.name for t in graph.initializer} | {
        s.values.name for s in graph.sparse_initializer
    }
    inputs = tuple(v.name for v in graph.input if v.name not in initializers)
    outputs = tuple(v.name for v in graph.output)
    needs = [free_names(node) for node in graph.node]
    dynamic = _dynamic_tensors(graph, needs, set(inputs))
    alive = _needed_nodes(graph, needs, outputs)
    layers, constants = [], []
    names = node_names(graph)
    for index in sorted(alive):
        node = graph.node[index]
        read = tuple(dict.fromkeys(name for name in needs[index] if name in dynamic))
        made = tuple(name for name in node.output if name)
        if read:
            layers.append(Layer(names[index], node.op_type, index, read, made))
        else:
            constants.append(index)
    dropped = tuple(i for i in range(len(graph.node)) if i not in alive)
    result = LayerGraph(tuple(layers), inputs, outputs, tuple(constants), dropped)
    _refuse_odd_models(model, result)
    return result


def border_tensors(
    model: onnx.ModelProto, graph: LayerGraph, crossing: Iterable[str]
) -> dict[str, TensorInfo]:
    """Type and shape of the model's inputs and outputs and of `crossing`, in this order:
    inputs, then the others in the order in which the model makes them."""
    order = {name: index for index, name in enumerate(graph.source)}
    others = sorted({*crossing, *graph.outputs} - set(graph.inputs), key=lambda n: order[n])
    return infer_tensors(model, [*graph.inputs, *others])


def free_names(node: onnx.NodeProto) -> tuple[str, ...]:
    """Tensors that a node reads, with those that its sub-graphs capture from outside."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        subgraphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for subgraph in subgraphs:
            names += _captured(subgraph)
    return tuple(dict.fromkeys(names))


def _captured(graph: onnx.GraphProto) -> list[str]:
    own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    names = []
    for node in graph.node:
        names += [name for name in free_names(node) if name not in own]
        own.update(node.output)
    return names + [v.name for v in graph.output if v.name not in own]


def _dynamic_tensors(
    graph: onnx.GraphProto, needs: list[tuple[str, ...]], inputs: set[str]
) -> set[str]:
    """Tensors that depend on a model input."""
    dynamic = set(inputs)
    for node, names in zip(graph.node, needs, strict=True):
        if any(name in dynamic for name in names):
            dynamic.update(name for name in node.output if name)
    return dynamic


def _needed_nodes(
    graph: onnx.GraphProto, needs: list[tuple[str, ...]], outputs: tuple[str, ...]
) -> set[int]:
    """Indices of the nodes on which some output depends."""
    wanted, alive = set(outputs), set()
    for index in reversed(range(len(graph.node))):
        if wanted.intersection(graph.node[index].output):
            alive.add(index)
            wanted.update(needs[index])
    return alive


def node_names(graph: onnx.GraphProto) -> list[str]:
    """A unique name for every node: its own, or one made of its type and index."""
    names: list[str] = []
    taken = {node.name for node in graph.node}
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        name = node.name
        if not name or name in seen:
            name = f"{node.name or node.op_type}_{index}"
            while name in taken or name in seen:
                name += "_"
        names.append(name)
        seen.add(name)
    return names


def _refuse_odd_models(model: onnx.ModelProto, graph: LayerGraph) -> None:
    faults = []
    if not graph.inputs:
        faults.append("the model has no input: there is nothing to split")
    faults += [
        f"input '{name}' is read by no layer: remove it from the model"
        for name in graph.inputs
        if name not in graph.consumers
    ]
    faults += [
        f"output '{name}' is an input, unchanged: remove it from the outputs of the model"
        if name in graph.inputs
        else f"output '{name}' depends on no input: remove it from the model"
        for name in graph.outputs
        if name not in graph.source
    ]
    faults += [
        f"output '{name}' stands {count} times: give it once"
        for name, count in Counter(graph.outputs).items()
        if count > 1
    ]
    for index in sorted((*graph.constant_nodes, *(layer.index for layer in graph.layers))):
        node = model.graph.node[index]
        if random := _random_op(node):
            faults.append(
                f"node '{node.name or index}' ({random}) draws random numbers: the model "
                "has no reproducible output to compare with"
            )
    if faults:
        raise InputError(faults)


def _random_op(node: onnx.NodeProto) -> str:
    """The random operator that a node is, or that its sub-graphs hold; else an empty text."""
    if node.op_type in _RANDOM_OPS and node.domain in ("", "ai.onnx"):
        return node.op_type
    bodies = [b for a in node.attribute for b in ([a.g] if a.HasField("g") else a.graphs)]
    return next(filter(None, (_random_op(inner) for body in bodies for inner in body.node)), "")
