"""Cut a model into the sub-models of a plan.

A sub-model holds the layers of a component, in the model's order, and the initializers and constant
nodes that they use, nothing else. Its inputs and outputs have the safe names of the plan (`t12`); a
scalar among them has the shape [1].
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import helper

import tritier
from tritier.divider.rename import fresh_names, names_of_bodies, renamed_node
from tritier.divider.scalars import wrap_scalars
from tritier.documents import Component, Plan, PlanTensor
from tritier.errors import InputError
from tritier.graph import ELEMENT_TYPES, LayerGraph, free_names


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
    if plan.quantized_layers:
        faults.append(
            f"the plan quantizes {len(plan.quantized_layers)} layers; this version generates "
            "float32 sub-models only: leave quantized_layers empty"
        )
    if faults:
        raise InputError(sorted(faults))


def cut_model(model: onnx.ModelProto, graph: LayerGraph, plan: Plan) -> list[SubModel]:
    """The sub-models in the order of the plan's components."""
    cutter = _Cutter(model, graph, plan)
    return [SubModel(component.id, cutter.cut(component)) for component in plan.components]


class _Cutter:
    """Holds what is the same for all components of a model."""

    def __init__(self, model: onnx.ModelProto, graph: LayerGraph, plan: Plan) -> None:
        self._model = model
        self._graph = graph
        self._plan = plan
        self._initializers = {t.name: t for t in model.graph.initializer}
        self._sparse = {t.values.name: t for t in model.graph.sparse_initializer}
        self._constant_of = {
            name: index for index in graph.constant_nodes for name in model.graph.node[index].output
        }

    def cut(self, component: Component) -> bytes:
        nodes = self._nodes(component)
        rename, of_bodies = self._renaming(component, nodes)
        names = {name for node in nodes for name in free_names(node)}
        used = [
            (table, name)
            for table in (self._initializers, self._sparse)
            for name in table
            if name in names
        ]
        graph = helper.make_graph(
            [renamed_node(node, rename, of_bodies) for node in nodes],
            f"{self._plan.model.name}_{component.id}",
            [_value(self._plan.tensor(tensor)) for tensor in component.inputs],
            [_value(self._plan.tensor(tensor)) for tensor in component.outputs],
        )
        for table, name in used:
            if table is self._initializers:
                copy = graph.initializer.add()
                copy.CopyFrom(self._initializers[name])
                copy.name = rename.get(name, name)
            else:
                sparse = graph.sparse_initializer.add()
                sparse.CopyFrom(self._sparse[name])
                sparse.values.name = rename.get(name, name)
        return self._finish(component, graph)

    def _nodes(self, component: Component) -> list[onnx.NodeProto]:
        """The component's layers and the constant nodes that they need, in the model's order."""
        indices = {self._graph.by_name[layer].index for layer in component.layers}
        waiting = list(indices)
        while waiting:
            for name in free_names(self._model.graph.node[waiting.pop()]):
                index = self._constant_of.get(name)
                if index is not None and index not in indices:
                    indices.add(index)
                    waiting.append(index)
        return [self._model.graph.node[index] for index in sorted(indices)]

    def _renaming(
        self, component: Component, nodes: list[onnx.NodeProto]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Model name -> sub-model name, in the graph and for what sub-graphs define themselves.

        Only border tensors change, and what is in their way.
        """
        tensors = [self._plan.tensor(t) for t in (*component.inputs, *component.outputs)]
        rename = {tensor.name: tensor.id for tensor in tensors}
        ids = set(rename.values())
        inside = {name for node in nodes for name in (*free_names(node), *node.output) if name}
        defined = {name for node in nodes for name in names_of_bodies(node)}
        taken = inside | ids | defined
        rename |= fresh_names(sorted((inside & ids) - set(rename)), taken)
        return rename, fresh_names(sorted(defined & ids), taken)

    def _finish(self, component: Component, graph: onnx.GraphProto) -> bytes:
        sub = helper.make_model(
            graph,
            producer_name="tritier",
            producer_version=tritier.__version__,
            opset_imports=self._model.opset_import,
            # Before IR version 4 an initializer had to be an input as well; here none is.
            ir_version=max(self._model.ir_version, 4),
            functions=self._model.functions,
        )
        wrap_scalars(sub)
        data = sub.SerializeToString(deterministic=True)
        try:
            onnx.checker.check_model(data if len(data) < onnx.checker.MAXIMUM_PROTOBUF else sub)
        except onnx.checker.ValidationError as error:
            raise InputError(
                f"component {component.id} can't be cut out: {str(error).splitlines()[0]}"
            ) from None
        return data


def _value(tensor: PlanTensor) -> onnx.ValueInfoProto:
    # '?' is a size that nobody knows; as a symbol it would claim that two unknown sizes agree.
    shape = [None if dim == "?" else dim for dim in tensor.shape]
    return helper.make_tensor_value_info(tensor.id, ELEMENT_TYPES[tensor.dtype], shape)
