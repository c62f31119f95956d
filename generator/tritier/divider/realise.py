"""The model as a plan has it computed: with its layers quantized and its wires coded, uncut.

It is what sub-models are cut from and what they are compared with (rule R4). Constants are shared
with the model, not copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from tritier.divider.codec_nodes import CodecNodes, check_opset, decoder, encoder
from tritier.divider.quantize import Body, Pair
from tritier.divider.quantized import ModelQuantizer, in_order, uncut_model
from tritier.divider.rename import rename_in_place
from tritier.documents import Codec, Plan, Quantization, WiredPlan, wire_up
from tritier.graph import LayerGraph, free_names


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
        return uncut_model(self.model, self.nodes, self.initializers, self.opsets)


def realise(model: onnx.ModelProto, graph: LayerGraph, plan: Plan) -> Realised:
    """Quantize the plan's layers and put in the codecs of its wires.

    `names` of the result maps the tensors of the wired plan to tensors of these nodes. Raises
    InputError when a layer can't be quantized or the model is too old for codecs.
    """
    wired = wire_up(plan)
    if plan.is_exact:
        constants = {t.name: t for t in model.graph.initializer}
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
    return _Realiser(model, graph, plan, wired).build()


def quantized_tensors(model: onnx.ModelProto, graph: LayerGraph, plan: Plan) -> dict[str, str]:
    """Tensors that the plan's quantized layers read or make in 8 bits -> their type there.

    Raises InputError when a layer can't be quantized.
    """
    realiser = _Realiser(model, graph, plan, wire_up(plan))
    return {name: pair.dtype for name, pair in realiser.quantize().items()}


class _Realiser:
    def __init__(
        self,
        model: onnx.ModelProto,
        graph: LayerGraph,
        plan: Plan,
        wired: WiredPlan,
    ) -> None:
        self._model = model
        self._graph = graph
        self._plan = plan
        self._wired = wired
        self._opsets = tuple(model.opset_import)
        self._body = Body([], {})
        self._tensor = {tensor.id: tensor for tensor in plan.tensors}
        self._pairs: dict[str, Pair] = {}
        self._server_of = {x: c.server for c in plan.components for x in c.layers}

    def build(self) -> Realised:
        self._pairs = self.quantize()
        self._taken = {n for node in self._body.nodes for n in (*free_names(node), *node.output)}
        self._taken |= {*self._body.initializers, *(node.name for node in self._body.nodes)}
        self._names = {t.id: self._seen_name(t.id) for t in self._plan.tensors}
        self._code_wires()
        nodes = tuple(in_order(self._body.nodes, self._body.initializers))
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

    def quantize(self) -> dict[str, Pair]:
        """Quantize the plan's layers, those whose servers have the same settings in one pass; the
        pairs that stand behind tensors then."""
        groups: dict[Quantization, list[str]] = {}
        for server in self._plan.servers:
            layers = [x for x in self._plan.quantized_layers if self._server_of[x] == server.name]
            if layers:
                groups.setdefault(server.quantization or Quantization(), []).extend(layers)
        quantizer = ModelQuantizer(self._model, self._graph, self._plan.ranges or {})
        found = quantizer.quantize(groups)
        self._body = found.body
        return dict(found.pairs)

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
