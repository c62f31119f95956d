"""Quantize layers with ONNX Runtime's static quantizer, by ranges that were calibrated before.

The quantizer puts a pair QuantizeLinear, DequantizeLinear behind every activation that a quantized
layer reads or makes; from then on all who read that tensor, quantized or not, read what comes out
of the pair. Weights become int8 or uint8 with a DequantizeLinear, biases int32.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from tritier.divider.qdq import HIDDEN, READER, MarkedNames, run_quantizer, shown_again
from tritier.divider.rename import fresh_names
from tritier.documents import Quantization, Range
from tritier.errors import InputError
from tritier.graph import DTYPES, ELEMENT_TYPES, TensorInfo, free_names

# Before this version per-channel scales don't exist, and the quantizer refuses.
FIRST_OPSET = 13
_INFERRED = ("onnx.infer", "onnxruntime.quant")  # spares the quantizer a round through a file


@dataclass(frozen=True)
class Pair:
    """The last pair behind a tensor: what QuantizeLinear and DequantizeLinear make, and the type
    between the two."""

    quantized: str
    after: str
    dtype: str


@dataclass
class Body:
    """Nodes, whose names are unique, and the constants that they read."""

    nodes: list[onnx.NodeProto]
    initializers: dict[str, onnx.TensorProto]


@dataclass(frozen=True)
class LayerQuantizer:
    """Holds what is the same for all layers of a model: types of the tensors that they read and
    make, ranges, the model's inputs and outputs, its opsets, and the names of its own nodes."""

    infos: Mapping[str, TensorInfo]
    ranges: Mapping[str, Range]
    inputs: Sequence[str]
    outputs: Collection[str]
    opsets: Sequence[onnx.OperatorSetIdProto]
    originals: Collection[str]

    def quantize(self, body: Body, layers: Collection[str], settings: Quantization) -> Body:
        """The body with these layers quantized, layers of earlier calls among its nodes.

        The model's outputs lose their names to what stands before the pairs: see `pairs_of`. Raises
        InputError when a range is missing, the opset is too old, or ONNX Runtime refuses or leaves
        a layer as it is.
        """
        self._check_types(body, layers)
        body = _with_own_constants(body, layers)
        behind = {pair.after: name for name, pair in pairs_of(body, self.originals).items()}
        infos = {
            **self.infos,
            **{new: dataclasses.replace(self.infos[old], name=new) for new, old in behind.items()},
        }
        ranges = {**self.ranges, **{n: self.ranges[o] for n, o in behind.items()}}
        self._check_ranges(body, layers, infos, ranges)
        seen = {*self.outputs, *(new for new, old in behind.items() if old in self.outputs)}
        names = MarkedNames(body.nodes, body.initializers, layers)
        model = self._model(body, layers, infos, seen)
        names.mark(model)
        quantized = run_quantizer(
            model,
            layers,
            settings,
            {
                names.marked.get(name, name): limits
                for name, limits in ranges.items()
                if name in infos and infos[name].dtype == "float32"
            },
        )
        names.unmark(quantized)
        before = {node.name: node for node in body.nodes}
        nodes = shown_again(quantized.graph.node, before)
        _check_layers(nodes, layers, before)
        # A bias keeps its name when it is dequantized.
        made = {name for node in nodes for name in node.output}
        constants = {name: t for name, t in body.initializers.items() if name not in made}
        return Body(nodes, constants | {t.name: t for t in quantized.graph.initializer})

    def _check_types(self, body: Body, layers: Collection[str]) -> None:
        opset = next((o.version for o in self.opsets if o.domain in ("", "ai.onnx")), 0)
        if opset < FIRST_OPSET:
            raise InputError(
                f"the model has opset {opset}, quantized layers need {FIRST_OPSET} or more: "
                "convert it with `tritier prepare --opset 17`"
            )
        for node in body.nodes:
            if node.name in layers and any(
                name in self.infos and self.infos[name].dtype == "float16"
                for name in (*node.input, *node.output)
            ):
                raise InputError(
                    f"layer '{node.name}' ({node.op_type}) computes with float16; only layers that "
                    "compute with float32 can be quantized: leave it out"
                )

    def _check_ranges(
        self,
        body: Body,
        layers: Collection[str],
        infos: Mapping[str, TensorInfo],
        ranges: Mapping[str, Range],
    ) -> None:
        chosen = [node for node in body.nodes if node.name in layers]
        names = dict.fromkeys(n for node in chosen for n in (*node.input, *node.output))
        missing = [
            name
            for name in names
            if name in infos and infos[name].dtype.startswith("float") and name not in ranges
        ]
        if missing:
            shown = ", ".join(f"'{name}'" for name in missing[:3])
            raise InputError(
                f"{len(missing)} tensors of quantized layers have no range, among them {shown}: "
                "calibrate them with `tritier ranges` and pass the file with --ranges"
            )

    def _model(
        self,
        body: Body,
        layers: Collection[str],
        infos: Mapping[str, TensorInfo],
        seen: Collection[str],
    ) -> onnx.ModelProto:
        """All nodes, but of the constants only those of the chosen layers, and no outputs: the
        quantizer would rename them, and in a second call not as in the first.

        Pairs that stand there already look like something else: the quantizer puts none behind a
        DequantizeLinear, and waits for ever for the scale of a tensor that is to have the one of
        its layer's input. What outputs and sub-graphs read (`seen`) has one reader more: else it
        gets the range of a Relu that seems to be its only reader.
        """
        chosen = [node for node in body.nodes if node.name in layers]
        needed = dict.fromkeys(name for node in chosen for name in free_names(node))
        captured = {n for node in body.nodes for n in free_names(node) if n not in node.input}
        graph = helper.make_graph(
            body.nodes,
            "quantized",
            [_value(name, infos) for name in self.inputs],
            [],
            value_info=[_value(name, infos) for name in infos if name not in self.inputs],
        )
        for node in graph.node:
            if node.op_type == "Gemm":
                kept = [a for a in node.attribute if a.name != "beta"]
                del node.attribute[:]
                node.attribute.extend(kept)
            elif node.op_type == "DequantizeLinear" and node.output[0] in infos:
                node.op_type = HIDDEN
            elif node.op_type == "DequantizeLinear" and node.output[0] in needed:
                needed |= dict.fromkeys(node.input)  # of a weight that is quantized already
        graph.initializer.extend(body.initializers[n] for n in needed if n in body.initializers)
        for name in sorted({*seen, *captured} & set(infos)):
            graph.node.append(helper.make_node(READER, [name], []))
        model = helper.make_model(graph, opset_imports=self.opsets)
        helper.set_model_props(model, dict([_INFERRED]))
        return model


def _check_layers(
    nodes: Iterable[onnx.NodeProto], layers: Collection[str], before: Collection[str]
) -> None:
    """Raise InputError for layers that are gone, or of which nothing is quantized."""
    nodes = list(nodes)
    new = [node for node in nodes if node.name not in before]
    made = {name for node in new for name in node.output}
    read = {name for node in new for name in node.input}
    left = {node.name: node for node in nodes}
    faults = [
        f"ONNX Runtime's quantizer removes layer '{layer}': leave it out"
        for layer in layers
        if layer not in left
    ]
    faults += [
        f"layer '{layer}' ({left[layer].op_type}) can't be quantized: ONNX Runtime's quantizer "
        "finds no float32 tensor in it; leave it out"
        for layer in layers
        if layer in left
        and made.isdisjoint(free_names(left[layer]))
        and read.isdisjoint(left[layer].output)
    ]
    if faults:
        raise InputError(faults)


def pairs_of(body: Body, originals: Collection[str]) -> dict[str, Pair]:
    """Tensor that the quantizer put a pair behind -> the last pair that stands there.

    `originals` are the names of the model's own nodes, whose pairs don't count.
    """
    added = [node for node in body.nodes if node.name not in originals]
    opened = {node.output[0]: node for node in added if node.op_type == "QuantizeLinear"}
    first: dict[str, Pair] = {}  # directly behind a tensor
    for node in added:
        if node.op_type == "DequantizeLinear" and node.input[0] in opened:
            opening = opened[node.input[0]]
            dtype = DTYPES[body.initializers[opening.input[2]].data_type]
            first[opening.input[0]] = Pair(node.input[0], node.output[0], dtype)
    later = {pair.after for pair in first.values()}
    found = {name: pair for name, pair in first.items() if name not in later}
    for name in found:
        while found[name].after in first:
            found[name] = first[found[name].after]
    return found


def _with_own_constants(body: Body, layers: Collection[str]) -> Body:
    """Constants that a chosen layer shares with another node become its own: the quantizer changes
    a constant for everyone, and a bias gets the scales of one layer."""
    uses = Counter(name for node in body.nodes for name in free_names(node))
    taken = set(body.initializers) | {n for node in body.nodes for n in (*node.input, *node.output)}
    constants = dict(body.initializers)
    nodes = []
    for node in body.nodes:
        nodes.append(node)
        shared = [n for n in node.input if n in body.initializers and uses[n] > 1]
        if node.name not in layers or not shared:
            continue
        nodes[-1] = copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for name in shared:
            wanted = f"{name}/{node.name}"
            own = fresh_names([wanted], taken)[wanted]
            constants[own] = onnx.TensorProto()
            constants[own].CopyFrom(body.initializers[name])
            constants[own].name = own
            copy.input[list(copy.input).index(name)] = own
    return Body(nodes, constants)


def _value(name: str, infos: Mapping[str, TensorInfo]) -> onnx.ValueInfoProto:
    info = infos.get(name)
    if info is None:
        return onnx.ValueInfoProto(name=name)
    shape = [None if dim == "?" else dim for dim in info.shape]
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[info.dtype], shape)
