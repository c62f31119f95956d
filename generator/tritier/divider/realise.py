"""The model as a plan has it computed: with its layers quantized and its wires coded, uncut.

It is what sub-models are cut from and what they are compared with (rule R4). Constants are shared
with the model, not copied.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx

import tritier
from tritier.divider.codec_nodes import CodecNodes, check_opset, decoder, encoder
from tritier.divider.quantize import Body, LayerQuantizer, Pair, pairs_of
from tritier.divider.rename import fresh_names, rename_in_place, renamed_node
from tritier.documents import Codec, Plan, Quantization, WiredPlan, wire_up
from tritier.graph import LayerGraph, free_names, infer_tensors


@dataclass(frozen=True)
class Realised:
    """Nodes in topological order. `layers[i]` is the layer that node i is, None for what may be
    copied into any component: constant nodes, pairs of quantized layers, codecs."""

    model: onnx.ModelProto
    plan: WiredPlan
    nodes: tuple[onnx.NodeProto, ...]
    layers: tuple[str | None, ...]
    initializers: Mapping[str, onnx.TensorProto]
    names: Mapping[str, str]
    opsets: tuple[onnx.OperatorSetIdProto, ...]

    def to_proto(self) -> onnx.ModelProto:
        """The uncut model; inputs and outputs are those of the original."""
        source = self.model.graph
        result = onnx.ModelProto(
            ir_version=max(self.model.ir_version, 4),
            producer_name="tritier",
            producer_version=tritier.__version__,
        )
        result.opset_import.extend(self.opsets)
        result.functions.extend(self.model.functions)
        graph = result.graph
        graph.name = source.name
        graph.node.extend(self.nodes)
        graph.input.extend(v for v in source.input if v.name not in self.initializers)
        graph.output.extend(source.output)
        used = {name for node in self.nodes for name in free_names(node)}
        graph.initializer.extend(t for name, t in self.initializers.items() if name in used)
        graph.sparse_initializer.extend(source.sparse_initializer)
        return result


def realise(model: onnx.ModelProto, graph: LayerGraph, plan: Plan) -> Realised:
    """Quantize the plan's layers and put in the codecs of its wires.

    `names` of the result maps the tensors of the wired plan to tensors of these nodes. Raises
    InputError when a layer can't be quantized or the model is too old for codecs.
    """
    wired = wire_up(plan)
    constants = {t.name: t for t in model.graph.initializer}
    if plan.is_exact:
        kept = sorted([*graph.constant_nodes, *(layer.index for layer in graph.layers)])
        layer_at = {layer.index: layer.name for layer in graph.layers}
        return Realised(
            model,
            wired,
            tuple(model.graph.node[index] for index in kept),
            tuple(layer_at.get(index) for index in kept),
            constants,
            {tensor.id: tensor.name for tensor in plan.tensors},
            tuple(model.opset_import),
        )
    return _Realiser(model, graph, plan, wired, constants).build()


def quantized_tensors(model: onnx.ModelProto, graph: LayerGraph, plan: Plan) -> dict[str, str]:
    """Tensors that the plan's quantized layers read or make in 8 bits -> their type there.

    Raises InputError when a layer can't be quantized.
    """
    constants = {t.name: t for t in model.graph.initializer}
    realiser = _Realiser(model, graph, plan, wire_up(plan), constants)
    return {name: pair.dtype for name, pair in realiser.quantize().items()}


class _Realiser:
    def __init__(
        self,
        model: onnx.ModelProto,
        graph: LayerGraph,
        plan: Plan,
        wired: WiredPlan,
        constants: dict[str, onnx.TensorProto],
    ) -> None:
        self._model = model
        self._graph = graph
        self._plan = plan
        self._wired = wired
        self._opsets = tuple(model.opset_import)
        self._body = Body(self._named_nodes(constants), constants)
        self._originals = {node.name for node in self._body.nodes}
        self._tensor = {tensor.id: tensor for tensor in plan.tensors}
        self._pairs: dict[str, Pair] = {}
        self._server_of = {x: c.server for c in plan.components for x in c.layers}

    def build(self) -> Realised:
        self._pairs = self.quantize()
        self._taken = {n for node in self._body.nodes for n in (*free_names(node), *node.output)}
        self._taken |= {*self._body.initializers, *(node.name for node in self._body.nodes)}
        self._names = {t.id: self._seen_name(t.id) for t in self._plan.tensors}
        self._code_wires()
        nodes = tuple(_in_order(self._body.nodes, self._body.initializers))
        layers = set(self._graph.by_name)
        return Realised(
            self._model,
            self._wired,
            nodes,
            tuple(node.name if node.name in layers else None for node in nodes),
            self._body.initializers,
            self._names,
            self._opsets,
        )

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

    def quantize(self) -> dict[str, Pair]:
        """Quantize the plan's layers, those whose servers have the same settings in one pass; the
        pairs that stand behind tensors then."""
        groups: dict[Quantization, list[str]] = {}
        for server in self._plan.servers:
            layers = [x for x in self._plan.quantized_layers if self._server_of[x] == server.name]
            if layers:
                groups.setdefault(server.quantization or Quantization(), []).extend(layers)
        if not groups:
            return {}
        chosen = [self._graph.by_name[name] for name in self._plan.quantized_layers]
        names = dict.fromkeys(t for layer in chosen for t in (*layer.inputs, *layer.outputs))
        quantizer = LayerQuantizer(
            infer_tensors(self._model, names),
            self._plan.ranges or {},
            self._graph.inputs,
            self._graph.outputs,
            self._opsets,
            self._originals,
        )
        for settings, layers in groups.items():
            self._body = quantizer.quantize(self._body, layers, settings)
        pairs = pairs_of(self._body, self._originals)
        outputs = [name for name in self._graph.outputs if name in pairs]
        return pairs | {name: self._as_output(name, pairs) for name in outputs}

    def _as_output(self, name: str, pairs: Mapping[str, Pair]) -> Pair:
        """A model output is what comes out of its pair; what is made before gets another name."""
        pair = pairs[name]
        taken = {n for node in self._body.nodes for n in (*free_names(node), *node.output)}
        before = fresh_names([f"{name}/made"], taken)[f"{name}/made"]
        for node in self._body.nodes:
            rename_in_place(node, {name: before, pair.after: name}, {})
        return dataclasses.replace(pair, after=name)

    def _seen_name(self, tensor: str) -> str:
        """The name under which others read a tensor as it is."""
        name = self._tensor[tensor].name
        pair = self._pairs.get(name)
        return pair.after if pair and tensor not in self._plan.inputs else name

    # -- codecs ---------------------------------------------------------------------------------

    def _code_wires(self) -> None:
        wires = [wire for wire in self._plan.wires if wire.codec != "as_is"]
        if not wires:
            return
        check_opset(self._opsets, [wire.codec for wire in wires])
        decoded = {source: new for new, source in self._wired.decoded.items()}
        coded: dict[tuple[str, Codec], str] = {}
        for new, (tensor, codec) in self._wired.coded.items():
            pair = self._pairs.get(self._tensor[tensor].name)
            if pair and pair.dtype == codec:
                self._names[new] = coded[tensor, codec] = pair.quantized
        for tensor in decoded:
            self._make_room(tensor, coded)
        for new, (tensor, codec) in self._wired.coded.items():
            if (tensor, codec) not in coded:
                self._names[new] = coded[tensor, codec] = self._encode(tensor, codec)
        for wire in wires:
            new_output = decoded.get(wire.tensor) if wire.target == self._plan.entry.name else None
            if new_output:
                self._names[new_output] = self._tensor[wire.tensor].name
            pair = self._pairs.get(self._tensor[wire.tensor].name)
            if pair and coded[wire.tensor, wire.codec] == pair.quantized:
                continue  # the pair's own DequantizeLinear decodes
            source = coded[wire.tensor, wire.codec]
            self._decode(wire.tensor, wire.codec, wire.target, source, new_output)

    def _make_room(self, tensor: str, coded: Mapping[tuple[str, Codec], str]) -> None:
        """A model output that is decoded at the end takes the name: what is made gets another."""
        name = self._tensor[tensor].name
        entry = self._plan.entry.name
        wire = next(w for w in self._plan.wires if (w.tensor, w.target) == (tensor, entry))
        if (tensor, wire.codec) in coded:
            return  # it ends in the DequantizeLinear of a pair, which has the name
        other = self._free(f"{name}/made")
        for node in self._body.nodes:
            rename_in_place(node, {name: other}, {})
        self._names[tensor] = other

    def _source_name(self, tensor: str) -> str:
        """What is coded: the value that those without a codec read."""
        pair = self._pairs.get(self._tensor[tensor].name)
        return pair.after if pair and tensor in self._plan.inputs else self._names[tensor]

    def _encode(self, tensor: str, codec: Codec) -> str:
        info = self._tensor[tensor]
        coded = self._free(f"{info.name}/{codec}")
        limits = (self._plan.ranges or {}).get(info.name)
        self._add(encoder(self._source_name(tensor), coded, codec, info.dtype, limits))
        return coded

    def _decode(
        self, tensor: str, codec: Codec, target: str, coded: str, new_output: str | None
    ) -> None:
        info = self._tensor[tensor]
        limits = (self._plan.ranges or {}).get(info.name)
        prefix = self._free(f"{info.name}/{codec}/{target}")
        name = info.name if new_output else prefix
        seen = self._source_name(tensor)
        for node in self._body.nodes:
            if self._server_of.get(node.name) == target:
                _rename_inputs(node, seen, name)
        self._add(decoder(coded, name, codec, info.dtype, limits, prefix))

    def _add(self, made: CodecNodes) -> None:
        self._body.nodes.extend(made.nodes)
        self._body.initializers |= {t.name: t for t in made.constants}

    def _free(self, name: str) -> str:
        """The name, or one like it: no other is the same or begins with it and a slash."""
        while any(f"{taken}/".startswith(f"{name}/") for taken in self._taken):
            name += "_"
        self._taken.add(name)
        return name


def _rename_inputs(node: onnx.NodeProto, old: str, new: str) -> None:
    """Let a node read another tensor, in its sub-graphs too; what it makes keeps its name."""
    made = list(node.output)
    rename_in_place(node, {old: new}, {})
    node.output[:] = made


def _in_order(
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
