"""Cut a model into the sub-models of a plan.

A sub-model holds the layers of a component, in the model's order, and the initializers, constant
nodes and nodes of codecs that they use, nothing else. Its inputs and outputs have the safe names of
the plan (`t12`); a scalar among them has the shape [1].
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import helper

import tritier
from tritier.divider.realise import Realised
from tritier.divider.rename import fresh_names, names_of_bodies, renamed_node
from tritier.divider.scalars import wrap_scalars
from tritier.documents import Plan, PlanTensor, WiredComponent
from tritier.errors import InputError
from tritier.graph import (
    ELEMENT_TYPES,
    LayerGraph,
    constant_bytes,
    fits_one_file,
    free_names,
    without_weights,
)


@dataclass(frozen=True)
class SubModel:
    """A component's ONNX model, serialized; the same plan gives the same bytes."""

    component: str
    data: bytes


def check_against_model(plan: Plan, model_sha256: str, graph: LayerGraph) -> None:
    """Raise InputError unless the plan is for this model, with the same inputs and outputs, and
    places each of its layers (R1)."""
    if plan.model.sha256 != model_sha256:
        raise InputError(
            f"the plan is for a model with sha256 {plan.model.sha256[:12]}..., this one has "
            f"{model_sha256[:12]}...: pass the model that was planned, or plan again"
        )
    planned = {layer for component in plan.components for layer in component.layers}
    known = set(graph.by_name)
    faults = [f"the plan places layer '{x}', which the model has not" for x in planned - known]
    faults += [f"the plan leaves out layer '{x}' (rule R1)" for x in known - planned]
    for key, ids, names in (
        ("inputs", plan.inputs, graph.inputs),
        ("outputs", plan.outputs, graph.outputs),
    ):
        stated = [plan.tensor(tensor).name for tensor in ids]
        if sorted(stated) != sorted(names):
            faults.append(
                f"the plan's {key} are {', '.join(stated)}, the model's {', '.join(names)}"
            )
    if faults:
        raise InputError(sorted(faults))


def cut_model(realised: Realised) -> list[SubModel]:
    """The sub-models in the order of the wired plan's components."""
    cutter = _Cutter(realised)
    return [SubModel(c.id, cutter.cut(c)) for c in realised.plan.components]


class _Cutter:
    """Holds what is the same for all components of a model."""

    def __init__(self, realised: Realised) -> None:
        self._realised = realised
        self._plan = realised.plan
        self._tensors = {tensor.id: tensor for tensor in realised.plan.tensors}
        self._sparse = {t.values.name: t for t in realised.model.graph.sparse_initializer}
        self._maker = {
            name: index for index, node in enumerate(realised.nodes) for name in node.output if name
        }

    def cut(self, component: WiredComponent) -> bytes:
        nodes = self._nodes(component)
        rename, of_bodies = self._renaming(component, nodes)
        names = {name for node in nodes for name in free_names(node)}
        graph = helper.make_graph(
            [renamed_node(node, rename, of_bodies) for node in nodes],
            f"{self._plan.model.name}_{component.id}",
            [_value(self._tensors[tensor]) for tensor in component.inputs],
            [_value(self._tensors[tensor]) for tensor in component.outputs],
        )
        sub = self._model_of(graph)
        # Into the model itself: making a model of a graph copies all that is in it.
        for name, tensor in self._realised.initializers.items():
            if name in names:
                copy = sub.graph.initializer.add()
                copy.CopyFrom(tensor)
                copy.name = rename.get(name, name)
        for name, sparse in self._sparse.items():
            if name in names:
                copied = sub.graph.sparse_initializer.add()
                copied.CopyFrom(sparse)
                copied.values.name = rename.get(name, name)
        return _finish(component, sub)

    def _nodes(self, component: WiredComponent) -> list[onnx.NodeProto]:
        """What makes the component's outputs of its inputs: its layers and, copied wherever they
        are needed, constant nodes and the nodes of quantization and codecs."""
        realised = self._realised
        inputs = {realised.names[tensor] for tensor in component.inputs}
        waiting = [realised.names[tensor] for tensor in component.outputs]
        indices: set[int] = set()
        while waiting:
            name = waiting.pop()
            index = None if name in inputs else self._maker.get(name)
            if index is not None and index not in indices:
                indices.add(index)
                waiting += free_names(realised.nodes[index])
        found = {realised.layers[index] for index in indices} - {None}
        if found != set(component.layers):
            odd = sorted(map(str, found.symmetric_difference(component.layers)))
            raise InputError(
                f"component {component.id} of the plan does not hold together: its inputs "
                f"and outputs do not enclose its layers, see layer '{odd[0]}'"
            )
        return [realised.nodes[index] for index in sorted(indices)]

    def _renaming(
        self, component: WiredComponent, nodes: list[onnx.NodeProto]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Model name -> sub-model name, in the graph and for what sub-graphs define themselves.

        Only border tensors change, and what is in their way.
        """
        rename = {self._realised.names[t]: t for t in (*component.inputs, *component.outputs)}
        ids = set(rename.values())
        inside = {name for node in nodes for name in (*free_names(node), *node.output) if name}
        defined = {name for node in nodes for name in names_of_bodies(node)}
        taken = inside | ids | defined
        rename |= fresh_names(sorted((inside & ids) - set(rename)), taken)
        return rename, fresh_names(sorted(defined & ids), taken)

    def _model_of(self, graph: onnx.GraphProto) -> onnx.ModelProto:
        model = self._realised.model
        return helper.make_model(
            graph,
            producer_name="tritier",
            producer_version=tritier.__version__,
            opset_imports=self._realised.opsets,
            # Before IR version 4 an initializer had to be an input as well; here none is.
            ir_version=max(model.ir_version, 4),
            functions=model.functions,
        )


def _finish(component: WiredComponent, sub: onnx.ModelProto) -> bytes:
    wrap_scalars(sub)
    if not fits_one_file(sub):
        raise InputError(
            f"component {component.id} on server '{component.server}' would have "
            f"{constant_bytes(sub):,} bytes of constants; one file holds "
            f"{onnx.checker.MAXIMUM_PROTOBUF:,} bytes: spread its layers over more servers"
        )
    try:
        onnx.checker.check_model(without_weights(sub).SerializeToString())
    except onnx.checker.ValidationError as error:
        raise InputError(
            f"component {component.id} can't be cut out: {str(error).splitlines()[0]}"
        ) from None
    return sub.SerializeToString(deterministic=True)


def _value(tensor: PlanTensor) -> onnx.ValueInfoProto:
    # '?' is a size that nobody knows; as a symbol it would claim that two unknown sizes agree.
    shape = [None if dim == "?" else dim for dim in tensor.shape]
    return helper.make_tensor_value_info(tensor.id, ELEMENT_TYPES[tensor.dtype], shape)
