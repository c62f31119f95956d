"""Which layers ONNX Runtime's kernels stand for.

A profile has a time per kernel, that is per node of the graph as ONNX Runtime has optimised it:
layers fused into one, layers in another memory layout, conversions between layouts. A kernel is
traced to the layers whose work it does by the tensors that it makes, then by its name, then by what
lies between its neighbours. What can't be traced is told, never dropped.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

# What optimisers append to the name of the node or tensor that they start from.
_SUFFIX = re.compile(r"(_nchwc|_nhwc|_token_\d+|/\w+Fusion/?|_fused|_quant|/)$")
# What they put before the type of the layer that a kernel mainly does.
_PREFIX = re.compile(r"^(Fused|QLinear|Q|Nhwc|DynamicQuantize)")
_SAME_WORK = {"MatMul": ("MatMul", "Gemm"), "Gemm": ("Gemm", "MatMul"), "Upsample": ("Resize",)}
# Kernels that change the layout or place of a tensor and do the work of no layer: those that a
# reader needs, and those that a maker needs.
_FOR_READER = frozenset({"ReorderInput", "MemcpyFromHost", "MemcpyToHost"})
_FOR_MAKER = frozenset({"ReorderOutput"})


@dataclass(frozen=True)
class ModelNode:
    """A node of the model that was profiled, and the layer whose time its time is: itself or, for a
    node that was put in (a QuantizeLinear, a codec), the layer that it serves."""

    name: str
    op_type: str
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class Attribution:
    """Times in the unit of the kernels'. `groups` are layers whose work one kernel does, the main
    one, which has its time, first."""

    layers: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    unmapped: dict[str, float] = field(default_factory=dict)
    groups: list[tuple[str, ...]] = field(default_factory=list)
    # Tensor of the model -> kernel that makes it, perhaps under another name.
    makers: dict[str, str] = field(default_factory=dict)


def attribute(
    nodes: Sequence[ModelNode], optimised: onnx.GraphProto, times: Mapping[str, float]
) -> Attribution:
    """Give the time of each kernel (by the name of its node in `optimised`) to a layer."""
    return KernelTracer(nodes, optimised).attribute(times)


class KernelTracer:
    """Which layers the kernels of one optimised graph stand for, whatever their times are."""

    def __init__(self, nodes: Sequence[ModelNode], optimised: onnx.GraphProto) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._maker = {tensor: node for node in nodes for tensor in node.outputs if tensor}
        self._order = {node.name: index for index, node in enumerate(nodes)}
        self._kernels = list(optimised.node)
        # Their time is in that of the If or Loop around them.
        self._in_bodies = {node.name for kernel in self._kernels for node in _body_nodes(kernel)}
        self._kernel_of = {name: k for k in self._kernels for name in k.output if name}
        self._users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for kernel in self._kernels:
            for name in kernel.input:
                self._users[name].append(kernel)
        # Kernel -> the nodes of the model that it does the work of, the main one first.
        self.covered: dict[str, list[ModelNode]] = {}
        self._claimed: set[str] = set()
        self._trace()

    def attribute(self, times: Mapping[str, float]) -> Attribution:
        """Sums per layer."""
        result = Attribution()
        known = {kernel.name for kernel in self._kernels} | self._in_bodies
        result.unmapped |= {name: time for name, time in times.items() if name not in known}
        for kernel in self._kernels:
            covered = self.covered.get(kernel.name) or self._served(kernel)
            time = times.get(kernel.name, 0.0)
            if covered:
                result.layers[covered[0].layer] += time
            elif time:
                result.unmapped[kernel.name] = time
            own = self.covered.get(kernel.name, ())
            result.makers |= {tensor: kernel.name for node in own for tensor in node.outputs}
            layers = tuple(dict.fromkeys(node.layer for node in own))
            if len(layers) > 1:
                result.groups.append(layers)
        return result

    def _trace(self) -> None:
        working = [k for k in self._kernels if k.op_type not in _FOR_READER | _FOR_MAKER]
        ends = {k.name: self._by_tensor(k) or self._by_name(k) for k in working}
        self._claimed = {node.name for found in ends.values() for node in found}
        named = [k for k in working if ends[k.name]]
        grown = []
        for kernel in named:
            if main := self._main(kernel, ends[kernel.name]):
                self._cover(kernel, self._paths(main, ends[kernel.name]))
            else:
                grown.append(kernel)
        for kernel in grown:  # of several layers, none of which has its type
            self._cover(kernel, self._grown(ends[kernel.name]))
        for kernel in working:
            if not ends[kernel.name] and (found := self._between(kernel)):
                self._cover(kernel, self._grown(found))

    def _cover(self, kernel: onnx.NodeProto, nodes: list[ModelNode]) -> None:
        self.covered[kernel.name] = nodes
        self._claimed |= {node.name for node in nodes}

    def _by_tensor(self, kernel: onnx.NodeProto) -> list[ModelNode]:
        made = [self._maker[name] for name in kernel.output if name in self._maker]
        return list({node.name: node for node in made}.values())

    def _by_name(self, kernel: onnx.NodeProto) -> list[ModelNode]:
        name = kernel.name
        while name:
            if node := self._nodes.get(name) or self._maker.get(name):
                return [node]
            shorter = _SUFFIX.sub("", name)
            if shorter == name:
                return []
            name = shorter
        return []

    def _main(self, kernel: onnx.NodeProto, ends: Sequence[ModelNode]) -> ModelNode | None:
        """The nearest node before the ends that no other kernel claims and that has its type."""
        base = _PREFIX.sub("", kernel.op_type)
        types = _SAME_WORK.get(base, (base,))
        for node in ends:
            if node.op_type in (kernel.op_type, *types):
                return node
        return next((node for node in self._grown(ends) if node.op_type in types), None)

    def _grown(self, ends: Iterable[ModelNode]) -> list[ModelNode]:
        """The ends, and unclaimed nodes before them that are reached through such only, the
        nearest first."""
        found = {node.name: node for node in ends}
        waiting = list(found.values())
        for node in waiting:
            for maker in self._makers(node):
                if maker.name not in self._claimed and maker.name not in found:
                    found[maker.name] = maker
                    waiting.append(maker)
        return list(found.values())

    def _paths(self, main: ModelNode, ends: Sequence[ModelNode]) -> list[ModelNode]:
        """The main node and what lies between it and the ends."""
        grown = sorted(self._grown(ends), key=lambda node: self._order[node.name])
        inside = {main.name: main}
        for node in grown:
            if node.name in inside or any(m.name in inside for m in self._makers(node)):
                inside[node.name] = node
        return [*inside.values(), *(node for node in ends if node.name not in inside)]

    def _makers(self, node: ModelNode) -> Iterator[ModelNode]:
        for name in node.inputs:
            if maker := self._maker.get(name):
                yield maker

    def _between(self, kernel: onnx.NodeProto) -> list[ModelNode]:
        """For a kernel that nothing names: unclaimed nodes right before what its readers do."""
        for after in self._neighbours(kernel.output, forward=True):
            for node in after:
                for maker in self._makers(node):
                    if maker.name not in self._claimed:
                        return [maker]
        return []

    def _served(self, kernel: onnx.NodeProto) -> list[ModelNode]:
        """For a kernel that does the work of no layer: what those around it do, the side that
        needs it first."""
        sides = [(kernel.output, True), (kernel.input, False)]
        for tensors, forward in sides[::-1] if kernel.op_type in _FOR_MAKER else sides:
            if found := next(self._neighbours(tensors, forward), None):
                return found
        return []

    def _neighbours(self, tensors: Iterable[str], forward: bool) -> Iterator[list[ModelNode]]:
        """What the nearest kernels on one side do that do anything."""
        waiting, seen = list(tensors), set()
        for name in waiting:
            if name in seen:
                continue
            seen.add(name)
            maker = self._kernel_of.get(name)
            for kernel in self._users[name] if forward else [maker] if maker is not None else []:
                if covered := self.covered.get(kernel.name):
                    yield covered
                else:
                    waiting += kernel.output if forward else kernel.input


def _body_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the sub-graphs of a node, at any depth."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield inner
                yield from _body_nodes(inner)
